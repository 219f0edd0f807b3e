"""Makes the held-out tasks: 32 of each kind in each band, the same on every machine.

    python -m benchmarks.heldout            # writes azr_mlx/run/held_out_tasks.jsonl (a minute)
    python -m benchmarks.heldout --table    # only counts what is there

Programs written by hand come first, at most two kinds each and with other arguments; composed ones fill the rest and
serve once. What is taken:

- within the limits of a proposal, confirmed by the executor twice with two hash seeds;
- no two programs of one shape (names and constants erased), so no near-duplicates;
- deduction: the output is not the input, nor a common answer, and no other task has it;
- abduction: neither the output nor a common value is an input that gives the output;
- induction: ten inputs with six outputs or more; neither the identity nor a constant passes;
- every part of a composed program matters: without it the answer is another one.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from azr_mlx import config
from azr_mlx.executor import Executor, Job, rules
from azr_mlx.run.held_out_tasks import BUILT_IN, COMMON_VALUES
from azr_mlx.selfplay.task_buffer import read_tasks, to_row
from azr_mlx.types import Case, Kind, Task
from benchmarks.heldout import compose, programs
from benchmarks.heldout.measure import BANDS, Counted, Measure, skeleton

PER_CELL = 32  # tasks of each kind in each band
CASES = 10  # of an induction task: five are shown, five decide
KINDS_BY_HAND = 2  # how many kinds a program written by hand may serve
LONGEST = 120  # characters of an input or an output
DRAWS = 40  # calls that are looked at for each program


@dataclass(frozen=True)
class Candidate:
    """A program with calls of it: the arguments' texts, what it returns, and how hard that is."""

    origin: str
    source: str
    hint: str
    calls: tuple[tuple[str, Any, Measure], ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    task: Task
    measure: Measure
    origin: str


def by_hand() -> Iterator[tuple[str, str, str, Callable[[Random], str]]]:
    """(name, source as `f` without its docstring, docstring, arguments) of each program of programs.py."""
    text = inspect.getsource(programs)
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name in programs.PROGRAMS:
            hint = ast.get_docstring(node) or ""
            body = text.splitlines()[node.body[1].lineno - 1 : node.end_lineno]
            head = f"def f({ast.unparse(node.args)}):"
            source = "\n".join([head, *body]) + "\n"
            yield node.name, re.sub(rf"\b{node.name}\b", "f", source), hint, programs.PROGRAMS[node.name]


@cache
def counted(source: str) -> Counted:
    return Counted(source)


def value_of(source: str, arguments: str) -> Any:
    """What `f` returns; the exception's class when it raises one."""
    try:
        return counted(source)(arguments)[0]
    except Exception as error:
        return type(error)


def candidate(
    origin: str, source: str, hint: str, arguments: Callable[[Random], str], parts: tuple[str, ...] = ()
) -> Candidate | None:
    """The program with those of its calls that could make a task; None when it breaks a rule for proposals."""
    limits = config.TasksConfig()
    if rules.check_program(source, limits.max_program_chars) or not rules.reads_arguments(source):
        return None
    calls, seen = [], set()
    for draw in range(DRAWS):
        text = arguments(Random(f"{origin}/{draw}"))
        if text in seen or len(text) > LONGEST:
            continue
        try:
            output, measured = counted(source)(text)
        except Exception:
            continue
        if measured.band is None or len(repr(output)) > LONGEST:
            continue
        if isinstance(output, bool) or output is None or not output:
            continue  # too likely to be guessed
        seen.add(text)
        calls.append((text, output, measured))
    return Candidate(origin, source, hint, tuple(calls), parts) if calls else None


def matters(one: Candidate, text: str, output: Any) -> bool:
    """Whether leaving out any part of the program gives another output."""
    return all(value_of(part, text) != output for part in one.parts)


def deduction(one: Candidate, band: int, taken: set[str]) -> tuple[Task, Measure] | None:
    for text, output, measured in one.calls:
        given = eval(f"[{text}]")
        if measured.band == band and repr(output) not in taken and output not in given and matters(one, text, output):
            if repr(output) in COMMON_VALUES:
                continue
            taken.add(repr(output))
            return Task(Kind.DEDUCTION, one.source, (Case(text, repr(output)),)), measured
    return None


def abduction(one: Candidate, band: int, taken: set[str]) -> tuple[Task, Measure] | None:
    for text, output, measured in reversed(one.calls):  # other calls than deduction takes
        if measured.band == band and text not in taken and matters(one, text, output):
            if output in guessed(one.source) or value_of(one.source, repr(output)) == output:
                continue
            taken.add(text)
            return Task(Kind.ABDUCTION, one.source, (Case(text, repr(output)),)), measured
    return None


@cache
def guessed(source: str) -> list[Any]:
    """What the program returns for common values, alone and in pairs."""
    pairs = (f"{a}, {b}" for a in COMMON_VALUES[:12] for b in COMMON_VALUES[:12])
    return [value_of(source, guess) for guess in (*COMMON_VALUES, *pairs)]


def induction(one: Candidate, band: int, taken: set[str]) -> tuple[Task, Measure] | None:
    if one.origin.startswith("composed") and "apart" in one.hint:
        return None  # a recursion without a story: nobody could find it
    for first, _, measured in one.calls:
        if measured.band != band:
            continue
        cases: list[tuple[str, Any]] = []
        outputs: set[str] = set()
        for text, output, _ in sorted(one.calls, key=lambda call: call[0] != first):
            if len(cases) < CASES and (repr(output) not in outputs or len(outputs) >= 6):
                cases.append((text, output))
                outputs.add(repr(output))
        if len(cases) < CASES or len(outputs) < 6:
            return None
        hidden = cases[CASES // 2 :]
        same = all(len(eval(f"[{text}]")) == 1 and eval(text) == output for text, output in hidden)
        if same or not any(matters(one, *case) for case in hidden):
            return None
        task = Task(Kind.INDUCTION, one.source, tuple(Case(text, repr(output)) for text, output in cases), one.hint)
        return task, measured
    return None


TAKE = {Kind.DEDUCTION: deduction, Kind.ABDUCTION: abduction, Kind.INDUCTION: induction}


def choose() -> dict[tuple[Kind, int], list[Chosen]]:
    """The tasks of each kind and band."""
    cells: dict[tuple[Kind, int], list[Chosen]] = {(kind, band): [] for band in range(1, 5) for kind in TAKE}
    taken: dict[Kind, set[str]] = {kind: set() for kind in TAKE}
    shapes: set[str] = set()

    def place(one: Candidate, most: int) -> int:
        """Put the program where it fits, the emptiest cells first; returns how many tasks it became."""
        used: set[Kind] = set()
        for kind, band in sorted(cells, key=lambda cell: len(cells[cell])):
            if kind in used or len(used) == most or len(cells[kind, band]) >= PER_CELL:
                continue
            found = TAKE[kind](one, band, taken[kind])
            if found is not None:
                cells[kind, band].append(Chosen(*found, one.origin))
                used.add(kind)
        return len(used)

    for name, source, hint, arguments in by_hand():
        one = candidate(f"hand:{name}", source, hint, arguments)
        if one is None or skeleton(source) in shapes or not place(one, KINDS_BY_HAND):
            raise SystemExit(f"programs.py: {name} makes no task: it breaks a rule, or has the shape of another")
        shapes.add(skeleton(source))
    for seed in count():
        if all(len(cell) >= PER_CELL for cell in cells.values()):
            return cells
        if seed == 60_000:
            raise SystemExit(f"not enough programs: { ({str(k): len(v) for k, v in cells.items()}) }")
        made = compose.compose(Random(f"held out {seed}"))
        shape = skeleton(made.source)
        if shape not in shapes:
            one = candidate(f"composed:{seed}", made.source, made.hint, made.arguments, made.parts)
            if one is not None and place(one, 1):
                shapes.add(shape)
    raise AssertionError


def confirm(tasks: list[Task]) -> None:
    """Every case as the executor sees it: twice, with two hash seeds. Exits with the task that is not so."""
    with Executor() as executor:
        asked = [executor.submit_check(Job(task.program, tuple(case.input for case in task.cases))) for task in tasks]
        for task, pending in zip(tasks, asked, strict=True):
            outcome = pending.result()
            if not outcome.ok or [repr(value) for value in outcome.values] != [case.output for case in task.cases]:
                raise SystemExit(f"not confirmed ({outcome.status} {outcome.detail}):\n{task.program}{task.cases}")


def ordered(cells: dict[tuple[Kind, int], list[Chosen]]) -> list[Chosen]:
    """Bands by turns, so that the first tasks of a kind are spread over the bands; mixed within a band."""
    for (kind, band), cell in cells.items():
        Random(f"{kind}{band}").shuffle(cell)
    return [cells[kind, band][k] for k in range(PER_CELL) for band in range(1, 5) for kind in TAKE]


def table(rows: list[dict[str, Any]]) -> str:
    """What there is, by band."""
    lines = [
        f"{'band':>4}  {'tasks':>5}  {'by hand':>7}  {'programs':>8}  {'steps':>12}  {'nodes':>12}  {'operations':>12}"
    ]

    def middle(values: list[int]) -> str:
        values = sorted(values)
        return f"{values[0]}-{values[len(values) // 2]}-{values[-1]}"

    for band in range(1, len(BANDS) + 1):
        mine = [row for row in rows if row["band"] == band]
        spread = [middle([row[name] for row in mine]) for name in ("steps", "nodes", "operations")]
        hand = sum(row["origin"].startswith("hand") for row in mine)
        lines.append(
            f"{band:>4}  {len(mine):>5}  {hand:>7}  {len({row['program'] for row in mine}):>8}  "
            + "  ".join(f"{one:>12}" for one in spread)
        )
    kinds = Counter(row["kind"] for row in rows)
    lines.append(f"kinds: {dict(kinds)}; programs in all: {len({row['program'] for row in rows})}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", action="store_true", help="count what is there, make nothing")
    parser.add_argument("--out", type=Path, default=BUILT_IN, help="the file to write")
    arguments = parser.parse_args()
    if not arguments.table:
        chosen = ordered(choose())
        confirm([one.task for one in chosen])
        rows = [
            to_row(one.task) | {"band": one.measure.band} | asdict(one.measure) | {"origin": one.origin}
            for one in chosen
        ]
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        read_tasks(arguments.out)  # what was written can be read
    rows = [json.loads(line) for line in arguments.out.read_text(encoding="utf-8").splitlines()]
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
