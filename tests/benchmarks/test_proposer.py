"""The table of the proposer: parts of a run, pooled shares, cells that were filled in them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "learning"))
proposer = pytest.importorskip("proposer", reason="a sdist without benchmarks/")


def rows(count: int) -> list[dict[str, object]]:
    """Step i has i tasks that are never solved, two that are sometimes, one that always is, and i + 1 new cells."""
    return [
        {
            "step": i, "solve_rates/deduction": [i, 1, 1, 1], "reward/propose/deduction": i / 10,
            "valid/deduction": 0.5, "refused/deduction": {"duplicate": 1, "syntax error": 1}, "zero_signal": 0.25,
            "cells/filled": 100 + (i + 1) * (i + 2) // 2,
        }
        for i in range(count)
    ]  # fmt: skip


def test_shares_are_pooled_over_the_steps_of_a_part() -> None:
    first, second = proposer.parts(rows(4), 2)
    # Steps 0 and 1 have 0 + 1 tasks of 3 + 4 that are never solved, steps 2 and 3 have 2 + 3 of 5 + 6.
    assert (first["never solved"], second["never solved"]) == pytest.approx((100 / 7, 500 / 11))
    assert (first["learnable"], second["learnable"]) == pytest.approx((400 / 7, 400 / 11))
    assert (first["reward"], second["reward"]) == pytest.approx((0.05, 0.25))
    # Of seven tasks and four refusals two were duplicates.
    assert first["known or repeated"] == pytest.approx(200 / 11)
    assert "held out" not in first


def test_cells_are_counted_from_the_step_before_a_part() -> None:
    # Filled after steps 0 to 3: 101, 103, 106, 110. The first part knows of no step before it.
    assert [one["new cells a step"] for one in proposer.parts(rows(4), 2)] == [1.0, 3.5]


def test_runs_of_one_condition_share_their_rows_and_short_ones_are_left_out(tmp_path: Path) -> None:
    for name, count in (("default-0", 6), ("default-1", 6), ("sharp-0", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    lines = proposer.table([*tmp_path.iterdir()], 4, 3).splitlines()
    assert len(lines) == 2 + 3
    assert lines[2].startswith("| `default` | 2 | 4 | 1 of 3 | 0.00 | 50 |")
