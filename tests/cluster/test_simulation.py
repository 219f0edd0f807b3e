"""Steps on machines that are not there: the arithmetic that can be done by hand comes out of the real list of items."""

from __future__ import annotations

import pytest

from azr_mlx.cluster.simulation import SimulatedMachine, simulate

FAST = 1e15  # bytes a second: a network that costs nothing


def machines(*paces: float) -> list[SimulatedMachine]:
    return [SimulatedMachine(f"{i}", 80.0 * pace, 40.0 * pace) for i, pace in enumerate(paces)]


def test_one_machine_takes_what_it_takes() -> None:
    assert simulate(machines(1), [1.0] * 16, [1.0] * 8, 1e6, FAST).seconds == pytest.approx(120)


def test_two_equal_machines_take_half() -> None:
    step = simulate(machines(1, 1), [1.0] * 16, [1.0] * 8, 0.0, FAST)
    assert step.seconds == pytest.approx(60)
    assert step.idle == pytest.approx(0, abs=1e-9)
    assert step.repeated == 0


def test_a_machine_of_half_the_speed_does_a_third_of_the_work() -> None:
    step = simulate(machines(1, 2), [1.0] * 48, [1.0] * 24, 0.0, FAST)
    assert step.work[1] / sum(step.work) == pytest.approx(1 / 3, abs=0.02)
    assert step.seconds == pytest.approx(80, rel=0.03)


def test_the_network_carries_each_gradient_of_a_worker_once() -> None:
    step = simulate(machines(1, 1), [1.0] * 16, [1.0] * 8, 1e6, 1e9)
    assert step.received == pytest.approx(4e6)


@pytest.mark.parametrize("paces", [(5.0, 4.0, 3.0, 2.0), (3.0, 5.0), (20.0,), (1.0, 20.0, 20.0)])
@pytest.mark.parametrize(("writes", "sums"), [(2, 1), (2, 4), (16, 8)])
def test_slow_workers_hardly_make_a_step_longer_than_the_coordinator_alone(paces, writes, sums) -> None:
    step = simulate(machines(1, *paces), [1.0] * writes, [1.0] * sums, 0.0, FAST)
    assert step.seconds <= 120 + 80 / writes + 40 / sums  # an item that came too late was done twice, here too
