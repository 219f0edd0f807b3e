"""`azr run`, and the doctor's lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azr_mlx.executor import SandboxUnavailable, cli_run
from azr_mlx.executor.cli_run import run_file
from azr_mlx.terminal import printable


def test_run_prints_the_verdict_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.py"
    file.write_text("def f(a, b):\n    print('hi')\n    return [a, b]")
    assert run_file(str(file), "1, 'x'", as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == "ok"
    assert said["values"] == ["[1, 'x']"]
    assert said["stdout"] == "hi\n"
    assert {"wall_seconds", "cpu_seconds", "peak_memory_bytes", "layers", "missing_layers", "level"} <= set(said)


@pytest.mark.parametrize(
    ("body", "status", "shown"),
    [
        ("return 10**5000", "ok", [hex(10**5000)]),
        ("return [{1: 10**5000}]", "ok", [f"[{{1: {hex(10**5000)}}}]"]),
        ("return '\\ud800\\x1b[31m'", "ok", ["'\\ud800\\x1b[31m'"]),
        ("import os; os.write(3, b'\\1\\0\\0\\0o'); os._exit(0)", "bad-result", []),  # an ok without its value
    ],
)
def test_run_prints_json_whatever_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, status: str, shown: list[str]
) -> None:
    file = tmp_path / "p.py"
    file.write_text(f"def f(a):\n    {body}")
    assert run_file(str(file), "1", as_json=True) == (0 if status == "ok" else 1)
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["values"]) == (status, shown)
    assert run_file(str(file), "1") == (0 if status == "ok" else 1)
    assert "\x1b" not in capsys.readouterr().out


def test_run_prints_json_when_the_sandbox_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SandboxUnavailable("nothing here")

    monkeypatch.setattr(cli_run, "Executor", refuse)
    file = tmp_path / "p.py"
    file.write_text("def f(a): return a")
    assert run_file(str(file), "1", as_json=True, level="strict") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "sandbox-error"
    assert said.err == "azr run: nothing here\n"


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
