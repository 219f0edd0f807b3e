"""A step's work is cut into items whose results do not depend on who computes them, nor on when."""

from __future__ import annotations

import random

import mlx.core as mx
import numpy as np
import pytest

from azr_mlx.model import work
from azr_mlx.model.held import Keep
from azr_mlx.model.loss import Objective
from azr_mlx.model.packing import Example
from azr_mlx.types import GB
from tests.model.conftest import prompt

PROMPTS = [prompt(text) for text in ("a", "def f(x):", "a much longer prompt, which goes on", "def g(y):")]


class Elsewhere:
    """Computes items with another policy of the same weights, in an order of its own, before they are asked for."""

    def __init__(self, policy) -> None:
        self.policy = policy
        self.items = []
        self.waiting = []
        self.results = {}

    def submit(self, item):
        number = len(self.items)
        self.items.append(item)
        self.waiting.append(number)

        def wait():
            random.Random(number).shuffle(self.waiting)
            while self.waiting:
                following = self.waiting.pop()
                self.results[following] = self.items[following].compute(self.policy)
            return self.results.pop(number)

        return wait


def written(policy, more=True):
    session = policy.generate(seed=(7,), stop=("\n\n",))
    session.submit(PROMPTS[:3], [5, 1, 3], max_tokens=12)
    rows = []
    for number, sample, rollout in session:
        rows.append((number, sample, rollout.completion))
        if more and len(rows) == 4:
            session.submit(PROMPTS[3:], 2, max_tokens=9)
    return rows


def test_who_computes_the_items_changes_no_bit_of_what_is_written(load):
    here, coordinator, worker = (load(item_rows=4) for _ in range(3))
    coordinator.computer = Elsewhere(worker)
    rows = written(here)
    assert len(rows) == 11
    assert rows == written(coordinator)
    assert [len(item.requests) for item in coordinator.computer.items] == [4, 2, 3, 2]


def test_items_hold_whole_groups_of_a_prompt_where_they_fit(load):
    policy = load(item_rows=4)
    policy.computer = Elsewhere(policy)
    session = policy.generate(seed=(0,))
    session.submit(PROMPTS, [3, 2, 2, 1], max_tokens=2)
    assert len(list(session)) == 8
    assert [[r.key for r in item.requests] for item in policy.computer.items] == [
        [(0, 0), (0, 1), (0, 2)], [(1, 0), (1, 1), (2, 0), (2, 1)], [(3, 0)],
    ]  # fmt: skip


def test_an_item_carries_the_limits_that_decide_which_rows_share_a_forward_pass(load):
    policy = load(item_rows=2, max_rows=3, kv_gb=0.5, tile_rows=2)
    policy.computer = Elsewhere(policy)
    written(policy, more=False)
    settings = {(item.max_rows, item.kv_bytes, item.tile, item.stop) for item in policy.computer.items}
    assert settings == {(3, int(0.5 * GB), 2, ("\n\n",))}


@pytest.mark.parametrize("items", [0, 1, 2, 50])
def test_who_computes_the_gradients_changes_no_bit_of_the_step(load, items):
    here, coordinator, worker = (load(micro_batch_tokens=90, gradient_items=items) for _ in range(3))
    coordinator.computer = Elsewhere(worker)
    rollouts = [r for group in here.sample_all(PROMPTS, 3, seed=(1,), max_tokens=20) for r in group]
    advantages = [(-1.0) ** i * (1 + i / 5) for i in range(len(rollouts))]
    one, other = here.update(rollouts, advantages), coordinator.update(rollouts, advantages)
    assert (one.loss, one.grad_norm, one.delta_logp_mean) == (other.loss, other.grad_norm, other.delta_logp_mean)
    state, theirs = here.state(), coordinator.state()
    assert all(mx.array_equal(state[name], theirs[name]) for name in state)
    number = len(coordinator.computer.items)
    assert number == (one.extra["micro_batches"] if items in (0, 50) else items)


def test_gradient_items_are_consecutive_and_about_equal():
    rows = [Example((1,), (i,), np.zeros(1, np.float32), 1.0) for i in range(11)]
    batches = [work.MicroBatch((row,)) for row in rows]
    items = work.gradient_items(batches, Objective(), keep=Keep.ALL, items=4)
    assert [one for item in items for one in item.micro_batches] == batches
    assert {len(item.micro_batches) for item in items} == {2, 3}
    assert work.gradient_items([], Objective(), keep=Keep.ALL, items=4) == []
