"""A shared run is the run of one process, to the bit: a worker in a process of its own changes nothing but the time."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import play


def test_a_run_with_a_worker_is_the_run_without_one_to_the_bit(cluster, alone) -> None:
    cluster.start("mini")
    cluster.wait_for("mini")
    assert play(cluster.policy, 1) == alone
    assert cluster.did("mini") > 0
    line = next(line for line in cluster.coordinator.lines() if line.startswith("mini"))
    assert "% of the work" in line
    assert "gap" in line


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_no_bit(cluster, alone_longer, workers) -> None:
    names = [f"worker-{i}" for i in range(workers)]
    for name in names:
        cluster.start(name)
    cluster.wait_for(*names)
    assert play(cluster.policy, 3) == alone_longer
    assert all(cluster.did(name) > 0 for name in names)
