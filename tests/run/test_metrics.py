"""Metrics: every number is explained, the page is what the table says, and alarms speak when they should."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from azr_mlx import config
from azr_mlx.run import metrics
from azr_mlx.types import Role
from tests.report.runs import PLAYED, make_step


def rows_of(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
def test_every_number_that_a_run_writes_is_explained(finished: Path, name: str) -> None:
    keys = {key for row in rows_of(finished, name) for key in row} - {"step"}
    assert [key for key in keys if metrics.find(key) is None] == []


def test_every_metric_is_written_by_some_run(finished: Path) -> None:
    keys = {key for name in ("metrics.jsonl", "timings.jsonl") for row in rows_of(finished, name) for key in row}
    never = {one.name for one in metrics.METRICS + metrics.TIMINGS if not any(one.matches(key) for key in keys)}
    of_rows = {name for name in never if "rows" in name}  # tests/rows/test_runs.py has a run on rows
    asked_for = {"kl", "crowding/{kind}", "cells/filled", "mutations/tasks", "mutations/learnable"}
    assert never - of_rows == asked_for  # measured only when an option asks for it


def test_the_shape_of_a_program_is_measured_however_deep_it_is() -> None:
    assert metrics.shape("x + 1") == (7, 5)  # Module; Expr; BinOp; Name, Add, Constant; and the Name's Load
    nodes, depth = metrics.shape("def f(x):\n    return " + "+".join("x" * 1900))
    assert depth > 1900
    assert nodes > 3 * 1900


def test_a_name_finds_its_own_metric() -> None:
    assert metrics.find("solve/mean").meaning == "solve rate over the kinds"  # type: ignore[union-attr]
    assert metrics.find("solve/deduction").name == "solve/{kind}"  # type: ignore[union-attr]
    assert metrics.find("seconds/step").name == "seconds/step"  # type: ignore[union-attr]
    assert metrics.find("seconds/write").name == "seconds/{phase}"  # type: ignore[union-attr]
    assert metrics.find("solve/reduction") is None


def test_the_metrics_page_is_what_the_tables_say(root: Path) -> None:
    assert (root / "docs/metrics.md").read_text(encoding="utf-8") == metrics.document(), "make docs writes it again"


def test_a_row_depends_on_the_step_alone() -> None:
    settings = config.load("nano")
    first, second = (
        metrics.row(make_step(3, 9, random.Random(5), settings), set(), dict.fromkeys(PLAYED, 160)) for _ in range(2)
    )
    assert json.dumps(first) == json.dumps(second)


def test_duplicates_and_timeouts_are_counted() -> None:
    step = make_step(3, 9, random.Random(5), config.load("nano"))
    row = metrics.row(step, set(), dict.fromkeys(PLAYED, 160))
    for kind in PLAYED:
        mine = [one.verdict.why for one in step.proposals if one.kind is kind]
        assert row[f"repeated/{kind}"] == mine.count("duplicate") / len(mine)
    assert row["timeouts"] == sum(one.verdict.why == "timeout" for one in step.proposals)


def test_the_length_is_the_mean_tokens_of_a_role_and_kind() -> None:
    step = make_step(3, 9, random.Random(5), config.load("nano"))
    row = metrics.row(step, set(), dict.fromkeys(PLAYED, 160))
    for role, said in ((Role.PROPOSE, step.proposals), (Role.SOLVE, step.attempts + step.solutions)):
        for kind in PLAYED:
            lengths = [len(one.rollout.completion.tokens) for one in said if one.kind is kind]
            assert row[f"length/{role}/{kind}"] == pytest.approx(sum(lengths) / len(lengths))


# Alarms: each is raised by rows in which one thing is wrong, and by nothing else.

HEALTHY: dict[str, Any] = {
    "entropy": 0.5, "loss": 0.0, "grad_norm": 0.1, "trained_rows": 100, "zero_signal": 0.3, "novel/deduction": 0.9,
    "repeated/deduction": 0.05, "valid/deduction": 0.6, "delta_logp_mean": 1e-4, "ratio_outside": 0.0,
    "truncated/solve": 0.01, "truncated/propose": 0.01, "malformed/solve": 0.02, "malformed/propose": 0.05,
    "memory/active": 2e9, "dropped": 0, "timeouts": 1,
}  # fmt: skip


def story(steps: int = 30, last: int = 10, **wrong: float) -> list[dict[str, Any]]:
    """Healthy steps of which the last few have other values; None takes a number away."""
    rows = [dict(HEALTHY, step=i) for i in range(steps)]
    for row in rows[-last:]:
        row.update(wrong)
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("the update is not a finite number", {"loss": None}),
        ("entropy is collapsing", {"entropy": 0.19}),
        ("nearly all groups are flat", {"zero_signal": 0.95}),
        ("proposals repeat themselves", {"repeated/deduction": 0.4}),
        ("proposals repeat themselves", {"novel/deduction": 0.2}),
        ("hardly any proposal is valid", {"valid/deduction": 0.05}),
        ("sampler and trainer disagree", {"delta_logp_mean": 0.06}),
        ("sampler and trainer disagree", {"ratio_outside": 0.03}),
        ("completions are cut off", {"truncated/solve": 0.5, "malformed/solve": 0.5}),
        ("proposals are cut off", {"truncated/propose": 0.4, "malformed/propose": 0.4}),
        ("answers lack their form", {"malformed/solve": 0.7}),
        ("proposals lack their form", {"malformed/propose": 0.7}),
        ("the reward is constant", {"rows/reward_std": 0.0}),
        ("memory is rising", {"memory/active": 3e9}),
        ("the executor fails", {"dropped": 1}),
        ("programs run out of time", {"timeouts": 30}),
    ],
)
def test_one_wrong_thing_raises_its_alarm_and_no_other(name: str, wrong: dict[str, Any]) -> None:
    raised = metrics.alarms(story(**wrong))
    assert [line.split(": ")[0] for line in raised] == [name]
    assert len(raised[0].split(": ", 1)[1]) > 20, "an alarm says what to do"


def test_a_healthy_run_a_new_one_and_an_empty_one_are_quiet() -> None:
    assert metrics.alarms(story()) == metrics.alarms(story(1, 1)) == metrics.alarms([]) == []


def test_the_form_of_replies_is_told_from_the_first_step_on_with_its_share_and_what_to_turn() -> None:
    """A chat model that never closes its block must not waste an hour."""
    [cut] = metrics.alarms(story(1, 1, **{"truncated/solve": 0.62, "malformed/solve": 0.62}))
    assert cut.startswith("completions are cut off: 62 % of them; raise sampling.solve_tokens")
    [formless] = metrics.alarms(story(1, 1, **{"malformed/propose": 0.9}))
    assert formless.startswith("proposals lack their form: 90 % of them; see that model.style")


def test_an_alarm_ends_when_its_cause_does() -> None:
    rows = story(zero_signal=1.0)
    assert metrics.alarms(rows)
    assert metrics.alarms([*rows, *story(5, 0)]) == []


def test_every_alarm_is_tested_above_and_stands_in_the_page() -> None:
    page = metrics.document()
    assert all(one.name in page and one.todo in page for one in metrics.ALARMS)
    marks = [
        mark for mark in test_one_wrong_thing_raises_its_alarm_and_no_other.pytestmark if mark.name == "parametrize"
    ]
    assert {case[0] for case in marks[0].args[1]} == {one.name for one in metrics.ALARMS}


def test_what_was_not_measured_raises_no_alarm() -> None:
    assert metrics.alarms([{"step": i} for i in range(40)]) == []
