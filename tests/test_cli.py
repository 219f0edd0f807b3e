"""The command line: help that is real and quick, and failures of one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import azr_mlx.run
from azr_mlx import config
from azr_mlx.cli import azr
from azr_mlx.errors import AzrError

VERBS = sorted(azr.commands)


def call(*words: str) -> Result:
    return CliRunner().invoke(azr, list(words), prog_name="azr")


def failure(code: int, *words: str) -> str:
    """The one line of a command that must fail with `code`."""
    result = call(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("azr")
    return line.removeprefix("azr: ")


class StubSession(ModuleType):
    """Stands for azr_mlx.run.session: notes what it was asked to do."""

    def __init__(self) -> None:
        super().__init__("azr_mlx.run.session")
        self.asked: list[dict[str, Any]] = []
        self.outcome: BaseException | int = 0

    def train(self, settings: config.Config, **how: Any) -> int:
        self.asked.append({"config": settings, **how})
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> StubSession:
    stub = StubSession()
    monkeypatch.setitem(sys.modules, "azr_mlx.run.session", stub)
    # `from azr_mlx.run import session` reads the package's attribute first, and a test before this one may have set it.
    monkeypatch.setattr(azr_mlx.run, "session", stub, raising=False)
    return stub


# -- help


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_examples_that_use_options_it_has(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    examples = [line for line in result.output.splitlines() if re.match(rf"\s+(\S.*\| )?azr {verb}\b", line)]
    assert examples
    known = {name for parameter in azr.commands[verb].params for name in parameter.opts}
    for line in examples:
        assert set(re.findall(r"(?<=\s)--[a-z-]+", line)) <= known


def test_the_help_of_the_program_lists_every_verb_and_is_what_no_words_give() -> None:
    result = call("--help")
    assert all(re.search(rf"^  {verb} ", result.output, re.MULTILINE) for verb in VERBS)
    assert call().output == result.output
    assert call().exit_code == 0


@pytest.mark.parametrize("command", [["-m", "azr_mlx", "--help"], ["-m", "azr_mlx", "train", "--help"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    heavy = ("mlx", "mlx_lm", "numpy", "transformers", "rich", "yaml", "datasets", "wandb", "jinja2")
    said = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert "azr_mlx.cli" in loaded
    assert not loaded & set(heavy)
    assert said.stdout.startswith("Usage: azr ")


def test_the_version_is_the_package_s() -> None:
    assert call("--version").output.startswith(f"azr {azr_mlx.__version__} (")


# -- failures


def test_a_wrong_verb_or_option_names_the_right_one_and_where_the_help_is() -> None:
    assert failure(2, "trian") == "No such command 'trian'. Did you mean 'train'? (see azr --help)"
    line = failure(2, "train", "--confg", "nano")
    assert "Did you mean '--config'? (see azr train --help)" in line
    assert failure(2, "train", "--config", "nano", "--steps", "x").startswith("train: Invalid value for '--steps'")


def test_a_typo_in_the_configuration_is_one_line_and_exit_2() -> None:
    line = failure(2, "train", "--config", "nano", "--set", "optim.learning_rate=1")
    assert "the nearest is optim.lr (a number above 0; default 2e-05)" in line
    assert "did you mean nano?" in failure(2, "train", "--config", "nanno")


def test_training_needs_to_be_told_what() -> None:
    assert "say what to train with --config; the presets are nano" in failure(2, "train")


def test_a_failure_of_the_work_is_one_line_and_exit_1(session: StubSession) -> None:
    session.outcome = AzrError("checkpoints/nano: the disk is full")
    assert failure(1, "train", "--config", "nano") == "checkpoints/nano: the disk is full"


def test_an_unforeseen_failure_is_one_line_too(session: StubSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.outcome = ValueError("two\nlines")
    assert failure(1, "train", "--config", "nano") == "ValueError: two lines (AZR_DEBUG=1 shows where)"
    monkeypatch.setenv("AZR_DEBUG", "1")
    result = call("train", "--config", "nano")
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("azr: ValueError: two lines (AZR_DEBUG=1 shows where)\n")


def test_ctrl_c_leaves_with_130(session: StubSession) -> None:
    session.outcome = KeyboardInterrupt()
    result = call("train", "--config", "nano")
    assert result.exit_code == 130
    assert result.stderr.strip() == "azr: interrupted"


def test_a_reader_that_stops_early_is_no_failure() -> None:
    command = f"{sys.executable} -m azr_mlx config nano | head -1"
    said = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout, said.stderr) == (0, "name: nano\n", "")


# -- train


def test_training_is_given_the_resolved_configuration(session: StubSession, tmp_path: Path) -> None:
    words = ["--config", "nano", "--set", "optim.lr=1e-4", "--steps", "7", "--run-dir", str(tmp_path), "--quiet"]
    assert call("train", *words).exit_code == 0
    (asked,) = session.asked
    assert asked["config"] == config.load("nano", ["optim.lr=1e-4", "steps=7"])
    assert (asked["run_dir"], asked["resume"], asked["quiet"]) == (tmp_path, None, True)


def test_the_exit_code_of_training_is_the_program_s(session: StubSession) -> None:
    session.outcome = 3
    assert call("train", "--config", "nano").exit_code == 3


def test_a_caution_is_said_before_training(session: StubSession) -> None:
    result = call("train", "--config", "nano", "--set", "sampling.top_p=0.9")
    assert result.exit_code == 0
    assert result.stderr.startswith("azr: note: sampling.top_p 0.9: a tail of up to 0.1 is never drawn")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """A repository with its presets and two runs, of which `second` was written to last."""
    monkeypatch.setenv("AZR_HOME", str(tmp_path))
    for age, name in ((2000, "first"), (1000, "second")):
        run = tmp_path / "checkpoints" / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(config.dump(config.load("nano", [f"name={name}", f"seed={age}"])))
        import os

        os.utime(run / "config.yaml", (1e9 - age, 1e9 - age))
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "auto"]])
def test_resume_without_a_configuration_takes_the_newest_run_s(
    session: StubSession, runs: Path, words: list[str]
) -> None:
    assert call("train", *words).exit_code == 0
    (asked,) = session.asked
    assert (asked["config"].name, asked["config"].seed) == ("second", 1000)
    assert (asked["run_dir"], asked["resume"]) == (runs / "second", "auto")


def test_resume_of_a_run_takes_its_configuration_with_what_is_set_on_top(session: StubSession, runs: Path) -> None:
    run = runs / "first"
    assert call("train", "--resume", str(run), "--set", "minutes=30").exit_code == 0
    (asked,) = session.asked
    assert (asked["config"].seed, asked["config"].minutes) == (2000, 30)
    assert (asked["run_dir"], asked["resume"]) == (run, str(run))


def test_resume_with_a_configuration_leaves_the_run_to_it(session: StubSession, runs: Path) -> None:
    assert call("train", "--config", "nano", "--resume", "auto").exit_code == 0
    (asked,) = session.asked
    assert (asked["config"].name, asked["run_dir"], asked["resume"]) == ("nano", None, "auto")


def test_a_bad_resume_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    assert failure(2, "train", "--resume", str(tmp_path)) == f"{tmp_path} is not a run: it has no config.yaml"
    monkeypatch.setenv("AZR_HOME", str(tmp_path))
    assert "there is no run in" in failure(2, "train", "--resume")


# -- config


def test_the_presets_are_listed_with_a_line_each() -> None:
    lines = call("config").output.splitlines()
    assert [line.split()[0] for line in lines] == list(config.presets())
    assert lines[0].split(maxsplit=1)[1].startswith("the embedded demonstration model")


def test_a_printed_configuration_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(call("config", "nano", "--set", "optim.lr=1e-4").output)
    assert config.load(tmp_path / "mine.yaml") == config.load("nano", ["optim.lr=1e-4"])


def test_the_changed_fields_alone_make_the_same_configuration() -> None:
    lines = call("config", "qwen3-4b", "--changed").output.splitlines()
    assert "model.style: chat  # default r1" in lines
    words = [line.partition("  # ")[0].replace(": ", "=", 1) for line in lines]
    assert config.load(None, words) == config.load("qwen3-4b")


# -- run


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text("def f(a, b=1):\n    print('\\x1b[31mred')\n    return [a] * b\n")
    return path


def test_a_program_s_outcome_is_told_and_escapes_stay_text(program: Path) -> None:
    result = call("run", str(program), "--input", "'x', 2")
    assert result.exit_code == 0, result.output
    assert "value    ['x', 'x']\n" in result.stdout
    assert "\\x1b[31mred" in result.stdout
    assert "\x1b" not in result.stdout


def test_an_outcome_is_one_line_of_json_and_the_exit_code_says_whether_it_was_well(program: Path) -> None:
    result = call("run", str(program), "--input", "1, -1", "--function", "g", "--json")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["status"] == "exception"


def test_a_script_reads_what_it_is_given() -> None:
    command = [sys.executable, "-m", "azr_mlx", "run", "-", "--stdin", "4 5"]
    script = "a, b = map(int, input().split()); print(a * b)"
    said = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=True)
    assert "20" in said.stdout


def test_a_limit_of_the_command_line_holds(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text("while True: pass\n")
    result = call("run", str(tmp_path / "loop.py"), "--seconds", "0.3", "--json")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (1, "timeout")


def test_a_warning_of_ours_is_one_line(program: Path) -> None:
    result = call("run", str(program), "--input", "1", "--level", "off")
    assert result.stderr == "azr: note: executor level off: model-written programs run unconfined, as you\n"


def test_a_program_that_is_not_there_is_one_line() -> None:
    assert "No such file or directory" in failure(2, "run", "/no/such/program.py")


def test_every_option_explains_itself() -> None:
    for verb, command in azr.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"azr {verb} {parameter.opts[0]}"
                assert parameter.help.endswith(".")


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "there is no prompt style"), ("turns: chat\nsolve: {deduction: {text: '{nope}'}}\n", "no field {nope}")],
)
def test_a_prompt_style_that_cannot_be_used_ends_a_run_before_it_begins(
    tmp_path: Path, words: list[str], text: str | None, told: str
) -> None:
    style, folder = tmp_path / "mine.yaml", tmp_path / "run"
    if text is not None:
        style.write_text(text)
    begin = ["train", "--config", "nano", "--set", f"model.style={style}", "--run-dir", str(folder)]
    done = CliRunner().invoke(azr, [*begin, *words])
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not folder.exists()
