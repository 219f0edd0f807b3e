"""The order of the ablations: what its intervals are, and that a condition of one seed has one too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "learning"
sys.path.insert(0, str(FOLDER))
standings = pytest.importorskip("standings", reason="a sdist without benchmarks/")


def test_the_deviation_is_that_within_the_conditions() -> None:
    assert standings.pooled([[1, 3], [10, 14], [7]]) == (pytest.approx(5**0.5), 2)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (9, 2.262), (10, 2.228), (20, 2.086), (120, 1.980)])
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert standings.student(freedom) == pytest.approx(quantile, rel=3e-3)


def test_a_difference_is_marked_when_its_interval_leaves_zero_out() -> None:
    # half = 2.228 * 1 * sqrt(1/1 + 1/4) = 2.49
    assert standings.beside([12.6], [10, 10, 10, 10], 1.0, 10) == "+2.6 ± 2.5 *"
    assert standings.beside([12.4], [10, 10, 10, 10], 1.0, 10) == "+2.4 ± 2.5"


def test_one_seed_each_has_no_interval() -> None:
    assert standings.beside([12.0], [10.0], *standings.pooled([[12.0], [10.0]])) == "+2.0"


def test_the_best_condition_stands_first_and_one_seed_borrows_its_interval() -> None:
    runs = {"default": [(46.0, 50.0, 4.0, 20.0), (48.0, 52.0, 6.0, 30.0)], "rank-4": [(60.0, 51.0, 5.0, 25.0)]}
    lines = standings.table(runs, "default", 100).splitlines()
    # the deviation is 2**0.5 with one degree of freedom: half = 12.71 * 2**0.5 * (1 + 1/2)**0.5 = 22.0
    assert lines[2].startswith("| `rank-4`")
    assert "| 60.0 | +13.0 ± 22.0 | 51.0 | +0.0 ± 22.0 |" in lines[2]
    assert lines[3].startswith("| `default`")
    assert "| 2 | 47.0 |  | 51.0 |  | 5.0 | 25.0k |" in lines[3]
