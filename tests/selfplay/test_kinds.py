"""The registry of task kinds: what every kind must keep, and that a module in the folder is all that a kind needs."""

from __future__ import annotations

import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import azr_mlx
from azr_mlx import config
from azr_mlx.selfplay import kinds
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.kinds.__main__ import document
from azr_mlx.selfplay.prompts import Style, make_style
from azr_mlx.selfplay.task_buffer import Buffer, from_row, seed_tasks, to_row
from azr_mlx.types import Case, Kind, Role, Task

STYLES = {
    name: make_style(
        name, seconds=5.0, modules=("math",),
        render=lambda text, opening, turns: "".join(f"<user>{q}<assistant>{a}" for q, a in [*turns, (text, opening)]),
    )
    for name in config.style_names()
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", Kind)
every_style = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)


def test_the_kinds_of_the_paper_come_first_and_are_the_default() -> None:
    paper = (Kind.DEDUCTION, Kind.ABDUCTION, Kind.INDUCTION)
    assert tuple(Kind)[:3] == paper
    assert config.TasksConfig().kinds == paper


def test_every_module_of_the_folder_is_a_kind_and_may_be_configured() -> None:
    names = {module.name for module in pkgutil.iter_modules(kinds.__path__) if not module.name.startswith("_")}
    assert names == set(Kind) == set(config.options()["tasks.kinds"].choices)


def test_names_are_distinct_and_fit_where_they_are_shown() -> None:
    assert all(re.fullmatch("[a-z]+", kind) for kind in Kind)  # a class name in the report
    assert all(len(one.short) <= 4 for one in KINDS.values())  # a column of the console
    assert len({one.short for one in KINDS.values()}) == len(KINDS)


def test_the_page_of_kinds_is_what_they_say() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "kinds.md"
    assert page.read_text(encoding="utf-8") == document(), "make docs writes it again"


@every_kind
@pytest.mark.parametrize("cases", [2, 6, 10])
def test_the_first_tasks_are_tasks_that_the_buffer_takes_and_a_file_keeps(kind: Kind, cases: int) -> None:
    for task in seed_tasks([kind], cases):
        assert (task.kind, task.step) == (kind, -1)
        assert Buffer(1).add(task)
        assert from_row(to_row(task)) == task


@every_kind
def test_a_number_of_cases_that_a_kind_cannot_have_is_refused(kind: Kind) -> None:
    wrong = 1 if KINDS[kind].several_cases else 2
    task = Task(kind, "def f(a):\n    return a", (Case("1", "1"),) * wrong)
    with pytest.raises(ValueError, match=f"kind {kind} has .* not {wrong}"):
        Buffer(1).add(task)
    with pytest.raises(ValueError, match=f"kind {kind} has"):
        from_row(to_row(task))


@every_kind
@every_style
def test_a_prompt_says_whose_it_is_and_ends_with_what_is_written_for_the_model(kind: Kind, style: Style) -> None:
    (task,) = seed_tasks([kind], 6)
    source = seed_tasks([Kind.DEDUCTION], 1)[0]
    if KINDS[kind].chooses_program:
        proposal = style.propose(kind, [task, task])
        assert (proposal.references, proposal.task) == ((task, task), None)
    else:
        proposal = style.propose(kind, source=source, cases=6)
        assert (proposal.references, proposal.task) == ((), source)
        assert source.program in proposal.text
    for role, prompt in ((Role.PROPOSE, proposal), (Role.SOLVE, style.solve(task))):
        assert (prompt.role, prompt.kind) == (role, kind)
        assert prompt.text.endswith(prompt.opening)


def test_what_is_hidden_finds_its_kind() -> None:
    assert [kinds.hiding(part) for part in ("output", "input", "program")] == list(config.TasksConfig().kinds)
    with pytest.raises(ValueError, match="no kind hides the weather"):
        kinds.hiding("weather")


def test_a_triplet_is_shared_by_the_kinds_that_hide_one_of_its_members() -> None:
    shared = [Kind.DEDUCTION, Kind.ABDUCTION]
    assert kinds.twins(Kind.DEDUCTION, Kind) == kinds.twins(Kind.ABDUCTION, Kind) == shared
    assert kinds.twins(Kind.DEDUCTION, [Kind.DEDUCTION, Kind.INDUCTION]) == [Kind.DEDUCTION]
    assert kinds.twins(Kind.INDUCTION, Kind) == [Kind.INDUCTION]


def test_a_module_in_the_folder_is_all_that_a_kind_needs(tmp_path: Path) -> None:
    package = Path(azr_mlx.__file__).parent
    shutil.copytree(package, tmp_path / "azr_mlx", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "azr_mlx" / "selfplay" / "kinds"
    (folder / "zebra.py").write_text(
        "from azr_mlx.selfplay.kinds.deduction import Deduction\n"
        "from azr_mlx.types import Kind\n"
        "class Zebra(Deduction):\n"
        "    kind, short = Kind('zebra'), 'zeb'\n"
        "KIND = Zebra()\n"
    )
    code = (
        "from azr_mlx import config\n"
        "from azr_mlx.run import metrics\n"
        "from azr_mlx.selfplay.kinds import KINDS\n"
        "from azr_mlx.types import Kind\n"
        "assert Kind.ZEBRA is list(Kind)[-1] and KINDS[Kind.ZEBRA].short == 'zeb'\n"
        "assert config.load(None, ['tasks.kinds=zebra']).tasks.kinds == ('zebra',)\n"
        "assert metrics.find('solve/zebra').name == 'solve/{kind}'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    (folder / "zebra.py").write_text("")
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "kinds/zebra.py must define KIND, a TaskKind whose kind is zebra" in told.stderr.splitlines()[-1]
