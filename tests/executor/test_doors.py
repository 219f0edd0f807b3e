"""`azr run`, and the doctor's lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azr_mlx.executor import LayerReport
from azr_mlx.executor.cli_run import layer_lines, printable, run_file


def test_run_prints_the_verdict_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.py"
    file.write_text("def f(a, b):\n    print('hi')\n    return [a, b]")
    assert run_file(str(file), "1, 'x'", as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == "ok"
    assert said["values"] == ["[1, 'x']"]
    assert said["stdout"] == "hi\n"
    assert {"wall_seconds", "cpu_seconds", "peak_memory_bytes", "layers", "missing_layers", "level"} <= set(said)


def test_run_for_people_names_verdict_time_memory_and_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.py"
    file.write_text("print('\\x1b[31mred\\u202e')\nraise ValueError('no')")
    assert run_file(str(file)) == 1
    said = capsys.readouterr().out
    assert "verdict  exception: ValueError: no (line 2)" in said
    assert "ms wall" in said
    assert "MB resident" in said
    assert "sandbox  level standard" in said
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_bad_use_is_one_line_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.py"
    file.write_text("def f(a): return a")
    assert run_file(str(tmp_path / "none.py")) == 2
    assert run_file(str(file), "1) or (2") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_control_and_bidirectional_characters_are_escaped() -> None:
    assert printable("a\tb\nc\x1b]0;title\x07\u202e\ud800é") == "a\tb\nc\\x1b]0;title\\x07\\u202e\\ud800é"


def test_the_doctor_says_what_is_open() -> None:
    lines = layer_lines(LayerReport("standard", ("capabilities", "seccomp"), {"landlock": "not there"}))
    assert "NOT fully confined, open to programs: files" in lines[0]
    assert any("landlock" in line and "not there" in line for line in lines)
