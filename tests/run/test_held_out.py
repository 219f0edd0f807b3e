"""Held-out tasks: what is built in, which set a run takes, what guessing gets, how bands are scored and compared."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx import config
from azr_mlx.errors import AzrError
from azr_mlx.executor import Executor, Job, rules
from azr_mlx.run import held_out_tasks
from azr_mlx.run.held_out import HeldOut, HeldOutScore, HeldOutTasks, compare, compare_bands
from azr_mlx.run.held_out_tasks import BUILT_IN, guess_rates, tasks_for
from azr_mlx.run.metrics import METRICS
from azr_mlx.selfplay.task_buffer import Buffer, program_key
from azr_mlx.types import Case, Kind, Task
from benchmarks.heldout import __main__ as build
from benchmarks.heldout.measure import BANDS, Counted, TooManySteps, skeleton

ROWS = [json.loads(line) for line in BUILT_IN.read_text(encoding="utf-8").splitlines()]
TASKS = held_out_tasks.read(BUILT_IN)
KINDS = tuple(build.TAKE)  # those of AZR; others have no built-in tasks


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=2) as running:
        yield running


# What is built in -----------------------------------------------------------------------------------------------------


def test_there_are_32_tasks_of_each_kind_in_each_band() -> None:
    cells = Counter((task.kind, band) for task, band in zip(TASKS, TASKS.bands, strict=True))
    assert cells == {(kind, band): 32 for kind in KINDS for band in range(1, 5)}


def test_the_first_tasks_of_a_kind_are_spread_over_the_bands() -> None:
    for each in (4, 8, 40):
        some = TASKS.chosen(KINDS, each)
        assert Counter(zip((task.kind for task in some), some.bands, strict=True)) == {
            (kind, band): each // 4 for kind in KINDS for band in range(1, 5)
        }


def test_what_is_stored_of_a_task_is_what_counting_gives() -> None:
    for row in ROWS:
        _, measured = Counted(row["program"])(row["cases"][0]["input"])
        assert (measured.steps, measured.nodes, measured.operations) == (row["steps"], row["nodes"], row["operations"])
        assert measured.band == row["band"]


def test_the_executor_confirms_every_case(executor: Executor) -> None:
    """Twice, with two hash seeds: `submit_check` answers ok only when both runs agree."""
    pending = [executor.submit_check(Job(task.program, tuple(case.input for case in task.cases))) for task in TASKS]
    for task, future in zip(TASKS, pending, strict=True):
        outcome = future.result()
        assert outcome.ok, (task.program, outcome)
        assert [repr(value) for value in outcome.values] == [case.output for case in task.cases]


def test_every_task_could_have_been_proposed() -> None:
    """Within the limits of a proposal of every preset that has no held-out tasks of its own."""
    for name in config.presets():
        limits = config.load(name).tasks
        if config.load(name).model.id == "checkpoints/qwen3-nano":
            continue
        for task in TASKS:
            assert rules.check_program(task.program, limits.max_program_chars) is None
            assert rules.reads_arguments(task.program)
            assert all(len(case.input) <= limits.max_input_chars for case in task.cases)
            assert all(len(case.output) <= limits.max_output_chars for case in task.cases)


def test_no_program_serves_a_kind_twice_and_no_two_have_the_same_shape() -> None:
    for kind in KINDS:
        shapes = [skeleton(task.program) for task in TASKS if task.kind is kind]
        assert len(set(shapes)) == len(shapes)
    assert len({skeleton(task.program) for task in TASKS}) == len({program_key(task) for task in TASKS})


def test_at_least_sixty_programs_are_written_by_hand_and_all_of_them_serve() -> None:
    names = {row["origin"].removeprefix("hand:") for row in ROWS if row["origin"].startswith("hand:")}
    assert names == {name for name, _, _, _ in build.by_hand()}
    assert len(names) >= 60


def test_hints_tell_no_code() -> None:
    for task in TASKS:
        assert (task.kind is Kind.INDUCTION) == bool(task.message)
        assert "def f" not in task.message
        assert "return" not in task.message.lower().split()


def test_guessing_solves_nearly_nothing(executor: Executor) -> None:
    """No copy is right; the commonest answer is right for the one task that it belongs to."""
    rates = guess_rates(TASKS, executor)
    assert rates["copying"] == dict.fromkeys(KINDS, 0.0)
    assert rates["commonest"][Kind.INDUCTION] == 0
    assert max(rates["commonest"].values()) <= 1 / 128


@pytest.mark.slow
def test_the_generator_makes_the_file_that_is_there() -> None:
    chosen = build.ordered(build.choose())
    assert [one.task for one in chosen] == list(TASKS)


# The counting ---------------------------------------------------------------------------------------------------------


def test_steps_are_operations_that_were_executed() -> None:
    def steps(source: str, arguments: str) -> int:
        return Counted(source)(arguments)[1].steps

    assert steps("def f(a):\n    return a", "1") == 1  # the entry into f
    assert steps("def f(a):\n    return a + 1", "1") == 2
    assert steps("def f(a):\n    return [n * n for n in a]", "[1, 2, 3]") == 1 + 3 * 2  # an item and a product each
    assert steps("def f(a):\n    for n in a:\n        pass", "[1, 2, 3]") == 1 + 3
    assert steps("def f(a):\n    return a and f(a[1:])", "'ab'") == 3 + 2 * 2  # entries, slices and calls
    assert steps("def f(a):\n    return a if a > 5 else -a - 1", "9") == 2  # the branch not taken costs nothing


def test_an_endless_loop_ends() -> None:
    with pytest.raises(TooManySteps):
        Counted("def f(a):\n    while a:\n        a += 1")("1")


@given(st.integers(-50, 50), st.lists(st.integers(0, 9), max_size=5))
def test_counting_does_not_change_what_a_program_returns(n: int, numbers: list[int]) -> None:
    source = (
        "def f(n, numbers):\n    found = {'n': -n, 't': f'{n:03d}|{len(numbers)}'}\n    for k in numbers:\n"
        "        found[k] = found.get(k, 0) + 1\n    return found, numbers[::-1], {x % 3 for x in numbers}\n"
    )
    space: dict = {}
    exec(source, space)
    assert Counted(source)(f"{n}, {numbers}")[0] == space["f"](n, numbers)


def test_bands_hold_each_other() -> None:
    assert all(a < b for lower, higher in itertools.pairwise(BANDS) for a, b in zip(lower, higher, strict=True))


# Which set ------------------------------------------------------------------------------------------------------------


def test_a_model_with_tasks_beside_it_is_measured_on_them(root: Path) -> None:
    found = tasks_for(config.load("nano"), root / "checkpoints" / "qwen3-nano")
    assert found.origin.endswith("probe.jsonl")
    assert not any(found.bands)


@pytest.mark.parametrize("name", config.presets())
def test_every_preset_has_held_out_tasks(name: str, root: Path) -> None:
    settings = config.load(name)
    folder = root / settings.model.id
    found = tasks_for(settings, folder if folder.is_dir() else None)
    assert {task.kind for task in found} == set(map(Kind, settings.tasks.kinds))


def test_none_is_none_and_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert len(tasks_for(config.load("nano", ["evaluation.probe=none"]), None)) == 0
    with pytest.raises(AzrError, match=r"no file gone.jsonl; it may also be built-in, cruxeval or none"):
        tasks_for(config.load("nano", ["evaluation.probe=gone.jsonl"]), None)
    wrong = tmp_path / "tasks.jsonl"
    wrong.write_text(BUILT_IN.read_text().splitlines()[0] + '\n{"kind": "poetry"}\n')
    with pytest.raises(AzrError, match="line 2: not a task"):
        tasks_for(config.load("nano", [f"evaluation.probe={wrong}"]), None)


def test_cruxeval_is_used_where_it_is_at_hand(shared: Path, monkeypatch: pytest.MonkeyPatch, executor) -> None:
    from azr_mlx.evaluation import fetching

    file = next((shared / "data" / "cruxeval").glob("*.jsonl*"))
    real = fetching.find_rows
    monkeypatch.setattr(fetching, "find_rows", lambda benchmark, path=None: real(benchmark, file))
    found = tasks_for(config.load("nano", ["evaluation.probe=cruxeval"]), None)
    kinds = Counter(task.kind for task in found)
    assert min(kinds[Kind.DEDUCTION], kinds[Kind.ABDUCTION]) > 100
    assert guess_rates(found.chosen([Kind.DEDUCTION], 50), executor)["copying"][Kind.DEDUCTION] == 0


def test_the_buffer_takes_no_held_out_program_whatever_its_input() -> None:
    task = TASKS[0]
    buffer = Buffer(10, HeldOut(TASKS, None, None, config.load("nano"), None).programs())  # type: ignore[arg-type]
    assert buffer.refusal(replace(task, cases=(Case("'something else'", "'SOMETHING ELSE!'"),))) == "held out"


def test_guesses_are_judged_by_python(executor: Executor) -> None:
    """Each guess that can be right is found right on a task that is made for it."""
    tasks = [
        Task(Kind.DEDUCTION, "def f(a, b):\n    return max(a, b)", (Case("3, 9", "9"),)),
        Task(Kind.ABDUCTION, "def f(a):\n    return abs(a)", (Case("-7", "7"),)),
        Task(Kind.ABDUCTION, "def f(a):\n    return a // 100", (Case("17", "0"),)),  # not 0 alone, 1 as well
        Task(Kind.INDUCTION, "def f(a):\n    return a", tuple(Case(repr(n), repr(n)) for n in range(4))),
    ]
    rates = guess_rates(tasks, executor)
    assert rates["copying"] == {Kind.DEDUCTION: 1, Kind.ABDUCTION: 1, Kind.INDUCTION: 1}
    assert rates["commonest"] == {Kind.DEDUCTION: 1, Kind.ABDUCTION: 0.5, Kind.INDUCTION: 0}


# Scores by band -------------------------------------------------------------------------------------------------------


def score(rates: list[float], bands: list[int]) -> HeldOutScore:
    return HeldOutScore({Kind.DEDUCTION: rates}, {Kind.DEDUCTION: rates}, {Kind.DEDUCTION: bands})


def test_a_score_by_band_is_the_mean_of_its_tasks_and_has_known_names() -> None:
    row = score([1, 0, 0.5, 0.25], [1, 1, 2, 2]).row()
    assert row["heldout/band1/deduction"] == row["heldout/band1/mean"] == 0.5
    assert row["heldout/band2/mean"] == 0.375
    assert all(any(metric.matches(name) for metric in METRICS) for name in row)


def test_a_score_survives_its_state_and_an_old_state_has_no_bands() -> None:
    found = score([1, 0], [1, 2])
    assert HeldOutScore.from_state(json.loads(json.dumps(found.state()))) == found
    old = {"greedy": {"deduction": [1.0]}, "sampled": {"deduction": [0.5]}}
    assert HeldOutScore.from_state(old).state() == old
    assert HeldOutScore.from_state(old).band_numbers() == []


def test_bands_are_compared_task_by_task() -> None:
    before, after = score([0, 0.5, 0, 1], [1, 1, 2, 2]), score([0.5, 1, 0, 1], [1, 1, 2, 2])
    easy, hard = compare_bands(before, after)
    assert [line.name for line in easy] == ["deduction band 1", "mean band 1"]
    assert (easy[-1].before, easy[-1].after, easy[-1].change, easy[-1].half_width) == (0.25, 0.75, 0.5, 0.0)
    assert easy[-1].real
    assert (hard[-1].change, hard[-1].real) == (0, False)
    assert [line.name for line in compare(before, after)][1] == "mean T=1"


# Minutes --------------------------------------------------------------------------------------------------------------


class Timed(HeldOut):
    """Every task takes a second; nobody is asked."""

    now = 0.0

    def measure(self) -> HeldOutScore:
        Timed.now += len(self.tasks)
        return HeldOutScore({}, {})


def timed(*words: str) -> Timed:
    return Timed(TASKS, None, None, config.load("nano", words), None)  # type: ignore[arg-type]


def test_a_first_look_takes_the_first_tasks_and_times_them() -> None:
    began = Timed.now
    _, seconds = timed().first_look(8, lambda: Timed.now)
    assert (Timed.now - began, seconds) == (8 * len(KINDS), 1)


@pytest.mark.parametrize(
    ("minutes", "each", "words"),
    [(0, 0, ""), (100, 0, "all held-out tasks fit"), (2, 40, "40 of 128"), (0.1, 8, "that are the fewest do not fit")],
)
def test_minutes_choose_how_many_tasks(minutes: float, each: int, words: str) -> None:
    found, said = timed(f"evaluation.minutes={minutes}").affordable(1.0)
    assert found == each
    assert words in said
    assert isinstance(TASKS.chosen(KINDS, each), HeldOutTasks)


# Form -----------------------------------------------------------------------------------------------------------------


def test_answers_that_are_cut_off_or_lack_their_form_are_said_with_the_option_to_turn() -> None:
    fine = HeldOutScore({}, {}, truncated=0.1, malformed=0.3)
    [cut] = HeldOutScore({}, {}, truncated=0.8, malformed=0.9).form_advice()
    [formless] = HeldOutScore({}, {}, truncated=0.1, malformed=0.9).form_advice()
    assert fine.form_advice() == []
    assert "80 % of the answers were cut off: raise sampling.solve_tokens" in cut
    assert "90 % of the answers lack their form: see that model.style" in formless


def test_every_reason_of_a_parse_error_counts_as_a_lack_of_form() -> None:
    """A new part that a reply may lack is counted from the day it is written."""
    from azr_mlx.selfplay import parsing, solver

    folder = Path(parsing.__file__).parent
    raised = {
        found
        for path in folder.rglob("*.py")
        for found in re.findall(r"raise (?:parsing\.)?ParseError\(\s*\"([^\"]+)\"", path.read_text(encoding="utf-8"))
    }
    assert raised
    assert raised | {"bad tags", solver.MALFORMED.why} == parsing.FORM_REASONS
