"""What an update keeps follows from free memory, changes no gradient, and is counted."""

from __future__ import annotations

import mlx.core as mx
import pytest

from azr_mlx.model import device
from azr_mlx.model.flops import Dimensions
from azr_mlx.model.held import AUTO_SHARES, Keep, activation_bytes
from tests.model.conftest import prompt

PROMPTS = [prompt("a prompt of some length, " * 2 + end) for end in ("one", "another", "a third")]


@pytest.fixture(scope="module")
def rollouts(load):
    groups = load(seed=3).sample_all(PROMPTS, 3, seed=(1,), max_tokens=12)
    return [one for group in groups for one in group]


def learned(policy, rollouts):
    update = policy.update(rollouts, [(-1.0) ** i * (1 + i / 4) for i in range(len(rollouts))])
    return update, policy.state()


def test_less_memory_keeps_less_and_the_step_is_the_same(load, rollouts, monkeypatch):
    plenty = load(micro_batch_tokens=100)
    update, state = learned(plenty, rollouts)
    assert set(plenty.retention.used) == {Keep.ALL}
    assert update.work["flops/update/again"] == 0
    for keep, word in ((Keep.PROJECTIONS, "projections"), (Keep.INPUTS, "true")):
        policy = load(micro_batch_tokens=100)
        retention, choose = policy.retention, policy.retention.choose

        def little(batch, _room, _active, retention=retention, keep=keep, choose=choose):
            """As on a machine that has just enough."""
            held = activation_bytes(retention.sizes, retention.described(batch), keep) + 2 * retention.gradients
            return choose(batch, int(retention.ratio * held / AUTO_SHARES.get(keep, 1)) + 1, 0)

        monkeypatch.setattr(retention, "choose", little)
        again, other = learned(policy, rollouts)
        told, same = learned(load(micro_batch_tokens=100, checkpoint_layers=word), rollouts)
        assert set(policy.retention.used) == {keep}
        assert again.work["flops/update/again"] == told.work["flops/update/again"] > 0
        assert again.loss == told.loss == update.loss
        assert all(mx.array_equal(value, other[name]) for name, value in state.items())
        assert all(mx.array_equal(value, same[name]) for name, value in state.items())


def test_what_is_held_beyond_the_formulas_makes_later_choices_careful(load, rollouts):
    policy = load()
    learned(policy, rollouts)
    assert policy.retention.ratio >= 1
    policy.retention.ratio = 1e12
    learned(policy, rollouts)
    assert set(policy.retention.used) == {Keep.INPUTS}


def test_the_peak_of_an_update_is_that_of_all_its_micro_batches(load, rollouts):
    policy = load(micro_batch_tokens=100)
    device.reset_peak()
    update, _ = learned(policy, rollouts)
    assert update.extra["micro_batches"] > 1
    assert update.peak_memory == max(policy.retention.peak, device.memory().peak)


def test_a_step_counts_its_tokens_and_operations(load, rollouts):
    """Three prompts that begin alike, three completions each; one pass, so that nothing is computed twice."""
    policy = load(checkpoint_layers="true")
    rollouts = [one for group in policy.sample_all(PROMPTS, 3, seed=(1,), max_tokens=12) for one in group]
    update, _ = learned(policy, rollouts)
    work, lengths = update.work, [len(one.completion.tokens) for one in rollouts]
    prompts = {one.prompt_tokens for one in rollouts}
    shared = 50  # "a prompt of some length, " twice, a byte a token; all but one of it is common to the three
    assert work["tokens/prefill/asked"] == sum(len(one.prompt_tokens) for one in rollouts)
    assert work["tokens/prefill"] < sum(map(len, prompts))  # the sampler shares whole steps of 32 tokens, and pads
    assert work["tokens/decode/kept"] == work["tokens/update/completions"] == sum(lengths)
    assert work["tokens/update/prompts"] == sum(map(len, prompts))
    common = sum(map(len, prompts)) - work["tokens/update"] + sum(length - 1 for length in lengths)
    assert common == 2 * shared
    # By hand: six matrices' sizes in three blocks of width 64.
    block = 64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 128
    size = policy.retention.dimensions
    assert size == Dimensions(3 * block, 3 * 4 * (6 * 64 + 64 + 2 * 32 + 64 + 2 * 128 + 64 + 128), 288 * 64, 64, 3)
    assert work["flops/update/again"] > 2 * size.matrices * work["tokens/update"]
    assert work["flops/update"] > 3 * 2 * size.matrices * work["tokens/update"]
    assert work["flops/step"] == sum(work[f"flops/{name}"] for name in ("prefill", "decode", "update"))
