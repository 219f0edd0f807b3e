"""The tables of the ablations: intervals, also of a condition of one seed, and what became of replies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "learning"
sys.path.insert(0, str(FOLDER))
run = pytest.importorskip("run", reason="a sdist without benchmarks/")
replies, ranking = (pytest.importorskip(name) for name in ("replies", "ranking"))


def test_the_deviation_is_that_within_the_conditions() -> None:
    assert ranking.pooled([[1, 3], [10, 14], [7]]) == (pytest.approx(5**0.5), 2)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (9, 2.262), (10, 2.228), (20, 2.086), (120, 1.980)])
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert run.student(freedom) == pytest.approx(quantile, rel=3e-3)


def test_a_difference_is_marked_when_its_interval_leaves_zero_out() -> None:
    # half = 2.228 * 1 * sqrt(1/1 + 1/4) = 2.49
    assert ranking.beside([12.6], [10, 10, 10, 10], 1.0, 10) == "+2.6 ± 2.5 *"
    assert ranking.beside([12.4], [10, 10, 10, 10], 1.0, 10) == "+2.4 ± 2.5"


def test_one_seed_each_has_no_interval() -> None:
    assert ranking.beside([12.0], [10.0], *ranking.pooled([[12.0], [10.0]])) == "+2.0"


def test_the_best_condition_stands_first_and_one_seed_borrows_its_interval() -> None:
    runs = {"default": [(46.0, 50.0, 4.0, 20.0), (48.0, 52.0, 6.0, 30.0)], "rank-4": [(60.0, 51.0, 5.0, 25.0)]}
    lines = ranking.table(runs, "default", 100).splitlines()
    # the deviation is 2**0.5 with one degree of freedom: half = 12.71 * 2**0.5 * (1 + 1/2)**0.5 = 22.0
    assert lines[2].startswith("| `rank-4`")
    assert "| 60.0 | +13.0 ± 22.0 | 51.0 | +0.0 ± 22.0 |" in lines[2]
    assert lines[3].startswith("| `default`")
    assert "| 2 | 47.0 |  | 51.0 |  | 5.0 | 25.0k |" in lines[3]


def test_replies_are_counted_by_third_and_named_by_what_became_of_them(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    said = {
        0: ("propose", False, False, "no input block"),
        1: ("propose", True, True, "ok"),
        2: ("solve", True, False, "ok"),
        3: ("solve", True, True, "ok"),
        4: ("solve", False, False, "no answer block"),
        5: ("solve", True, True, "ok"),
    }
    for step, (role, valid, correct, why) in said.items():
        line = {"role": role, "kind": "deduction", "valid": valid, "correct": correct, "why": why}
        (tmp_path / "rollouts" / f"step-{step:06d}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = replies.counts(tmp_path)
    assert found["propose", "deduction"] == [{"no input block": 1, "valid": 1}, {}, {}]
    assert found["solve", "deduction"] == [{}, {"wrong": 1, "right": 1}, {"no answer block": 1, "right": 1}]
