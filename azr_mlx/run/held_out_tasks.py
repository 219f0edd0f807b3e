"""Which held-out tasks a run is measured on: those beside its model, the built-in ones, CRUXEval, or any file.

The built-in tasks (held_out_tasks.jsonl, made by benchmarks/heldout) come in four bands of difficulty. A band is
counted, not judged: operations that the program executes on its input, and nodes of its syntax tree. docs/heldout.md
has the bounds. A task without a band has band 0.

No built-in task is solved by a guess: see `guess_rates` for the guesses that are tried.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from azr_mlx import paths
from azr_mlx.config import Config
from azr_mlx.errors import AzrError
from azr_mlx.executor import Executor, Job, Outcome, values
from azr_mlx.executor.literals import LiteralError, parse_arguments, parse_value
from azr_mlx.selfplay.task_buffer import from_row
from azr_mlx.types import Case, Kind, Task

BUILT_IN = Path(__file__).with_name("held_out_tasks.jsonl")

# Values that a guess would try first; no built-in task is solved by one of them.
COMMON_VALUES = (
    "1", "0", "2", "'a'", "''", "'abc'", "[1, 2, 3]", "[]", "'hello'", "3", "10", "[1]", "True", "False", "-1", "5",
    "100", "'Hello world'", "'hello world'", "[1, 2]", "[1, 2, 3, 4, 5]", "[0]", "{}", "{'a': 1}", "{'a': 1, 'b': 2}",
    "['a', 'b', 'c']", "['a']", "[[1, 2], [3, 4]]", "(1, 2)", "[[]]", "4", "6", "7", "8", "9", "'b'", "None",
)  # fmt: skip
_TRIED = 9  # of them as an input of every abduction task
_IDENTITY = "def f(*a):\n    return a[0] if len(a) == 1 else a\n"


@dataclass(frozen=True)
class HeldOutTasks(Sequence[Task]):
    """Tasks with the band of each (1 the easiest, 0 for none), and where they are from, in words."""

    tasks: tuple[Task, ...] = ()
    bands: tuple[int, ...] = ()
    origin: str = ""

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        return self.tasks[index]

    def chosen(self, kinds: Iterable[Kind], each: int = 0) -> HeldOutTasks:
        """The first `each` tasks of each kind (0: all), kind after kind. Files give the bands by turns, so that the
        first tasks of a kind are spread over them."""
        places: list[int] = []
        for kind in kinds:
            mine = [i for i, task in enumerate(self.tasks) if task.kind is kind]
            places += mine[: each or len(mine)]
        return HeldOutTasks(
            tuple(self.tasks[i] for i in places), tuple(self.bands[i] for i in places), self.origin
        )  # fmt: skip


def tasks_for(config: Config, model_folder: Path | None) -> HeldOutTasks:
    """The held-out tasks of a run. Raises AzrError when `evaluation.probe` names what is not there."""
    wanted = config.evaluation.probe
    if wanted == "none":
        return HeldOutTasks()
    beside = model_folder / "probe.jsonl" if model_folder is not None else None
    if not wanted and beside is not None and beside.is_file():
        found = read(beside)
    elif wanted in ("", "built-in"):
        found = read(BUILT_IN, "built-in held-out tasks")
    elif wanted == "cruxeval":
        found = cruxeval()
    else:
        path = paths.resolve_existing(wanted)
        if path is None:
            raise AzrError(f"evaluation.probe: no file {wanted}; it may also be built-in, cruxeval or none")
        found = read(path)
    return found.chosen(config.played_kinds, config.evaluation.probe_tasks)


def read(path: Path, origin: str = "") -> HeldOutTasks:
    """Tasks of a JSONL file, with their bands where it has some. Raises AzrError that names the line that is wrong."""
    tasks, bands = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AzrError(f"held-out tasks: {path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            tasks.append(from_row(row))
            bands.append(int(row.get("band", 0)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AzrError(f"{path}, line {number}: not a task ({error})") from None
    return HeldOutTasks(tuple(tasks), tuple(bands), origin or paths.display_path(path))


def cruxeval() -> HeldOutTasks:
    """CRUXEval's functions by turns as a deduction and as an abduction task, where its data is at hand.

    Left out are those that copying solves, those whose output is True, False or None, and what is no plain literal.
    Raises DataMissing, one line that says how to get the data.
    """
    from azr_mlx.evaluation import benchmark, fetching

    tasks = []
    for number, row in enumerate(fetching.find_rows(benchmark.load_benchmark("cruxeval-o")).rows):
        kind = (Kind.DEDUCTION, Kind.ABDUCTION)[number % 2]
        case = Case(str(row["input"]), str(row["output"]))
        try:
            output, given = parse_value(case.output), parse_arguments(case.input)[0]
        except LiteralError:
            continue
        if not (output is None or isinstance(output, bool) or any(values.equal(one, output) for one in given)):
            tasks.append(Task(kind, str(row["code"]), (case,)))
    return HeldOutTasks(tuple(tasks), (0,) * len(tasks), "CRUXEval")


# Guesses --------------------------------------------------------------------------------------------------------------


def guess_rates(tasks: Sequence[Task], executor: Executor) -> dict[str, dict[Kind, float]]:
    """What a model that understands nothing would get: share of right answers by kind, for two ways to guess.

    copying      deduction: one of the arguments; abduction: the output; induction: a program that returns its input
    commonest    deduction: the output that most tasks have; abduction: the input, of the commonest one and some common
                 values, that is right for most tasks; induction: the first output that is shown
    """
    mine = {kind: [task for task in tasks if task.kind is kind] for kind in Kind}
    pending = {
        "copying": {
            Kind.DEDUCTION: [_settled(_copies(task)) for task in mine[Kind.DEDUCTION]],
            Kind.ABDUCTION: [_input(executor, task, task.cases[0].output) for task in mine[Kind.ABDUCTION]],
            Kind.INDUCTION: [_program(executor, task, _IDENTITY) for task in mine[Kind.INDUCTION]],
        },
        "commonest": {
            Kind.DEDUCTION: [_settled(right) for right in _commonest(mine[Kind.DEDUCTION])],
            Kind.INDUCTION: [
                _program(executor, task, f"def f(*a):\n    return {task.cases[0].output}\n")
                for task in mine[Kind.INDUCTION]
            ],
        },
    }
    inputs = Counter(task.cases[0].input for task in mine[Kind.ABDUCTION])
    tries = [text for text, _ in inputs.most_common(1)] + list(COMMON_VALUES[:_TRIED])
    tried = [[_input(executor, task, text) for task in mine[Kind.ABDUCTION]] for text in tries]
    rates = {
        name: {kind: _mean(judge() for judge in judges) for kind, judges in kinds.items() if judges}
        for name, kinds in pending.items()
    }
    if mine[Kind.ABDUCTION]:
        rates["commonest"][Kind.ABDUCTION] = max(_mean(judge() for judge in judges) for judges in tried)
    return rates


_Judge = Callable[[], bool]


def _mean(right: Iterator[bool]) -> float:
    every = list(right)
    return sum(every) / len(every)


def _settled(right: bool) -> _Judge:
    return lambda: right


def _copies(task: Task) -> bool:
    try:
        given, named = parse_arguments(task.cases[0].input)
        output = parse_value(task.cases[0].output)
    except LiteralError:
        return False
    return any(values.equal(one, output) for one in (*given, *named.values()))


def _commonest(tasks: Sequence[Task]) -> list[bool]:
    outputs = [task.cases[0].output for task in tasks]
    most = Counter(outputs).most_common(1)
    return [output == most[0][0] for output in outputs]


def _input(executor: Executor, task: Task, text: str) -> _Judge:
    try:
        parse_arguments(text)
    except LiteralError:
        return _settled(False)
    return _gives(executor.submit(Job(task.program, (text,))), task.cases)


def _program(executor: Executor, task: Task, program: str) -> _Judge:
    return _gives(executor.submit(Job(program, tuple(case.input for case in task.hidden))), task.hidden)


def _gives(future: Future[Outcome], cases: Sequence[Case]) -> _Judge:
    def judge() -> bool:
        outcome = future.result()
        return outcome.ok and all(
            values.equal(value, parse_value(case.output)) for value, case in zip(outcome.values, cases, strict=True)
        )

    return judge
