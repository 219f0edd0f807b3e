"""What is new and what is surer: counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "learning"))
new_or_surer = pytest.importorskip("new_or_surer", reason="a sdist without benchmarks/")


def test_new_lost_and_surer_are_three_things() -> None:
    #                          new  lost  surer  less  never
    found = new_or_surer.growth([0, 3, 2, 4, 0], [[1, 0, 4, 1, 0]], 4)
    assert (found.new, found.lost, found.surer, found.tasks) == (1, 1, 1, 5)
    assert found.before == {1: 9 / 20, 2: pytest.approx((0 + 1 + 5 / 6 + 1 + 0) / 5), 4: 3 / 5}
    assert found.after[4] == 3 / 5
    assert found.changes[4][0] == 0.0


def test_runs_are_averaged_task_by_task() -> None:
    found = new_or_surer.growth([0, 0], [[4, 0], [4, 4]], 4)
    assert (found.new, found.after[1]) == (1.5, 0.75)
    # Changes of 1 and 1/2: mean 3/4, deviation 0.354, half = 1.96 * 0.354 / sqrt(2).
    assert found.changes[1] == (0.75, pytest.approx(0.49))


def test_a_change_stands_beside_what_chance_makes() -> None:
    counts = {new_or_surer.BEFORE: {"b": [0, 2]}, new_or_surer.AGAIN: {"b": [1, 1]}, "run": {"b": [4, 4]}}
    lines = new_or_surer.table(counts, 4).splitlines()
    assert lines[2].startswith("| b | 2 | before, again | 25.0 → 25.0 |")
    assert lines[3].startswith("| b | 2 | after, 1 runs | 25.0 → 100.0 |")
