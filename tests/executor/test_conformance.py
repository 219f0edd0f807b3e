"""The validity and verification cases of the AZR conformance set, and the released AZR seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from azr_mlx.executor import Executor, Job, Limits
from azr_mlx.executor.literals import LiteralError, check_arguments, parse_arguments, parse_value
from azr_mlx.executor.rules import check_program, forbidden_use
from azr_mlx.executor.values import equal, has_nan

KINDS = ("validate", "banned", "verify_deduction", "verify_abduction", "verify_induction")


def answer(executor: Executor, kind: str, given: Any) -> Any:
    """What we say to a case, put together from the executor's public parts."""
    limits = Limits(wall_seconds=2)
    if kind == "banned":
        return forbidden_use(given) is not None
    try:
        if kind == "validate":
            check_arguments(given["input"])
            if check_program(given["code"]) is not None:
                return {"valid": False}
            outcome = executor.submit_check(Job(given["code"], (given["input"],), limits=limits)).result()
            if not outcome.ok or outcome.value is None or has_nan(outcome.value):
                return {"valid": False}
            text = repr(outcome.value)
            return {"valid": True, "output": text} if len(text) <= 400 else {"valid": False}
        if kind == "verify_deduction":
            return equal(parse_value(given["answer"]), parse_value(given["gold_output"]))
        if kind == "verify_abduction":
            parse_arguments(given["answer"])
            outcome = executor.submit(Job(given["code"], (given["answer"],), limits=limits)).result()
            return outcome.ok and equal(outcome.value, parse_value(given["gold_output"]))
        inputs, outputs = zip(*given["hidden_pairs"], strict=True)
        outcome = executor.submit(Job(given["code"], inputs, limits=limits)).result()
        return outcome.ok and all(
            equal(value, parse_value(text)) for value, text in zip(outcome.values, outputs, strict=True)
        )
    except LiteralError:
        return {"valid": False} if kind == "validate" else False


def test_the_conformance_cases_hold(executor: Executor, shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "conformance/azr_cases.jsonl").read_text().splitlines()]
    cases = [row for row in rows if row["kind"] in KINDS]
    assert len(cases) > 30
    wrong = {row["id"]: got for row in cases if (got := answer(executor, row["kind"], row["input"])) != row["expected"]}
    assert wrong == {}


@pytest.mark.parametrize(
    ("name", "same", "truncated", "empty", "unstable", "by_chance"),
    [("7b_coder_seed_io.jsonl", 245, 7, 1, 3, 0), ("7b_coder_code_f_seed_io.jsonl", 2473, 26, 30, 26, 1)],
)
def test_the_released_seeds_give_their_recorded_outputs(
    executor: Executor, shared: Path, name: str, same: int, truncated: int, empty: int, unstable: int, by_chance: int
) -> None:
    """Every recorded output comes out again, but for three faults of the record.

    Cut to 400 characters with dots in the middle; empty, because the program failed; and, besides those two known
    ones, outputs that depend on the order of a set of texts, hence on the hash seed of a process that is long gone:
    the determinism check refuses those programs, but for one whose set of two words happens to come in the same
    order under seeds 0 and 1.
    """
    count = dict.fromkeys(("same", "truncated", "empty", "unstable", "other"), 0)
    jobs, recorded = [], []
    for line in (shared / "data/azr_seeds" / name).read_text().splitlines():
        row = json.loads(line)
        inputs = row.get("inputs") or [row["input"]]
        for text, output in zip(inputs, row.get("outputs") or [row["output"]], strict=True):
            jobs.append(Job(row["snippet"], (text,)))
            recorded.append(output)
    for job, outcome, output in zip(jobs, executor.run(jobs), recorded, strict=True):
        try:
            fits = outcome.ok and equal(outcome.value, parse_value(output))
        except LiteralError:
            fits = False
        if output == "":
            count["empty"] += 1
        elif fits:
            count["same"] += 1
        elif "..." in output and len(output) > 390:
            count["truncated"] += 1
        elif executor.submit_check(job).result().status.value == "not-deterministic":
            count["unstable"] += 1
        else:
            count["other"] += 1
    assert count == {"same": same, "truncated": truncated, "empty": empty, "unstable": unstable, "other": by_chance}
