"""The gradient in two stages is the gradient of the loss as it is written down."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from azr_mlx.model import limits, packing
from azr_mlx.model import loss as losses
from azr_mlx.model.held import Keep
from tests.model.conftest import prompt

FAMILIES = ["qwen3", "qwen3-untied", "qwen2", "llama"]
OBJECTIVES = {
    "reinforce": losses.Objective(),
    "clipped": losses.Objective(on_policy=False, clip_low=0.1, clip_high=0.15),
    "truncated importance": losses.Objective(on_policy=False, importance_cap=1.05),
    "entropy": losses.Objective(entropy=0.1),
    "kl": losses.Objective(kl=0.3),
    "all": losses.Objective(on_policy=False, clip_low=0.1, clip_high=0.15, entropy=0.1, kl=0.3, importance_cap=1.05),
}


def rows_of(policy, number=6):
    """Rollouts with invented logprobs near the policy's, so that ratios spread around 1 and some are clipped."""
    rng = np.random.default_rng(0)
    prompts = [prompt(text) for text in ("a", "def f(x):", "a longer prompt")]
    rollouts = [r for group in policy.sample_all(prompts, number // 3, seed=(9,), max_tokens=20) for r in group]
    rows = []
    for i, rollout in enumerate(rollouts):
        sampled = np.array(rollout.completion.logprobs, np.float32)
        near = [sampled + 0.15 * rng.normal(size=len(sampled)).astype(np.float32) for _ in range(3)]
        advantage = (-1) ** i * (1 + i / 3)
        rows.append(packing.Example(rollout.prompt_tokens, rollout.completion.tokens, near[0], advantage, *near[1:]))
    return rows


def nudge(policy):
    """Adapters that matter: a fresh lora_b is zero, and with it the gradient of lora_a."""
    values = [(n, v + 0.05 * mx.random.normal(v.shape, key=mx.random.key(i)))
              for i, (n, v) in enumerate(tree_flatten(policy.model.trainable_parameters()))]  # fmt: skip
    policy.model.load_weights(values, strict=False)
    return policy


def naive_gradient(policy, batch, objective):
    """All logits of all positions, and MLX's own differentiation of the loss as the docstring of `loss` states it."""

    def total(model):
        logits = model(batch.tokens).astype(mx.float32)
        logits = logits.reshape(-1, logits.shape[-1])[batch.positions]
        everything = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        lp = mx.take_along_axis(everything, batch.targets[:, None], axis=-1)[:, 0]
        entropy = -(mx.exp(everything) * everything).sum(-1)
        old = mx.stop_gradient(lp) if objective.on_policy else batch.old
        ratio = mx.exp(lp - old)
        clipped = mx.clip(ratio, 1 - objective.clip_low, 1 + objective.clip_high)
        weight = 1.0
        if objective.importance_cap:
            weight = mx.minimum(mx.exp(old - batch.sampler), objective.importance_cap)
        value = -weight * mx.minimum(batch.advantages * ratio, batch.advantages * clipped)
        gap = batch.reference - lp
        value = value + objective.kl * (mx.exp(gap) - gap - 1) - objective.entropy * entropy
        return value.sum()

    value, gradient = nn.value_and_grad(policy.model, total)(policy.model)
    return value.item(), dict(tree_flatten(gradient))


def assert_close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    scale = max(float(mx.abs(g).max()) for g in other.values())
    for name in one:
        assert float(mx.abs(one[name] - other[name]).max()) <= tolerance * scale, name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_stages_give_the_gradient_of_the_loss_as_written(load, name):
    policy = nudge(load())
    batch = packing.Batch.pad(rows_of(policy))
    value, expected = naive_gradient(policy, batch, OBJECTIVES[name])
    gradient, sums = losses.gradient(policy.backbone, batch, OBJECTIVES[name])
    assert_close(gradient, expected)
    assert sums.loss == pytest.approx(value, rel=1e-5, abs=1e-4)
    if name in ("clipped", "all"):
        assert 0 < sums.clipped < sums.tokens
    if name in ("truncated importance", "all"):
        assert 0 < sums.capped < sums.tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [-1, 2])
def test_every_family_and_tied_and_untied_heads(load, family, layers):
    policy = nudge(load(family, layers=layers))
    batch = packing.Batch.pad(rows_of(policy))
    _, expected = naive_gradient(policy, batch, OBJECTIVES["all"])
    gradient, _ = losses.gradient(policy.backbone, batch, OBJECTIVES["all"])
    assert_close(gradient, expected)


def test_the_trunk_of_a_hybrid_gives_the_same_gradient(load):
    policy = nudge(load())
    batch = packing.Batch.pad(rows_of(policy))
    expected, _ = losses.gradient(policy.backbone, batch, OBJECTIVES["all"])
    policy.backbone.plain = False
    gradient, _ = losses.gradient(policy.backbone, batch, OBJECTIVES["all"])
    assert_close(gradient, expected)


def family_of(policy, number=3):
    """Rows of prompts that begin alike: two kinds of long instruction, tasks of several lengths after them."""
    rng = np.random.default_rng(1)
    rows = []
    for instruction, tasks in ((40, 3), (57, 2)):
        beginning = tuple(rng.integers(0, 250, instruction).tolist())
        for task in range(tasks):
            text = beginning + tuple(rng.integers(0, 250, 5 + 9 * task).tolist())
            for j in range(number):
                written = tuple(rng.integers(0, 250, 1 + 4 * j).tolist())
                near = [-3 + rng.normal(size=len(written)).astype(np.float32) for _ in range(3)]
                rows.append(packing.Example(text, written, near[0], (-1.0) ** j * (task + 1), *near[1:]))
    return rows


@pytest.mark.parametrize("keep", list(Keep))
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_and_their_beginnings_are_computed_once_with_the_gradient_of_rows_apart(load, family, keep):
    """The tree of three levels against every row by itself: gradients, losses and log-probabilities are the same."""
    policy = nudge(load(family))
    rows = family_of(policy)
    (pack,) = packing.micro_batches(rows, 10_000, share=True)
    apart, tree = packing.Batch.pad([rows[i] for i in pack.rows]), packing.Batch.of(rows, pack)
    assert len(tree.tree.levels) == 3
    # Every token that differs once: two instructions, five tasks, and completions without their last tokens.
    assert tree.computed == 40 + 57 + (5 + 14 + 23) + (5 + 14) + 5 * (0 + 4 + 8)
    expected, before = losses.gradient(policy.backbone, apart, OBJECTIVES["all"])
    gradient, after = losses.gradient(policy.backbone, tree, OBJECTIVES["all"], keep)
    assert_close(gradient, expected)
    assert after.loss == pytest.approx(before.loss, rel=1e-5)
    np.testing.assert_allclose(
        losses.logprobs(policy.backbone, tree), losses.logprobs(policy.backbone, apart), atol=1e-4
    )


@pytest.mark.parametrize("keep", list(Keep))
def test_single_rows_share_the_beginning_of_their_prompts(load, keep):
    policy = nudge(load())
    rows = family_of(policy, number=1)
    (pack,) = packing.micro_batches(rows, 10_000, share=True)
    assert sorted(pack.prefixes) == [40, 40, 40, 57, 57]
    tree = packing.Batch.of(rows, pack)
    assert len(tree.tree.levels) == 2
    expected, _ = losses.gradient(policy.backbone, packing.Batch.pad([rows[i] for i in pack.rows]), OBJECTIVES["all"])
    gradient, _ = losses.gradient(policy.backbone, tree, OBJECTIVES["all"], keep)
    assert_close(gradient, expected)


@pytest.mark.parametrize("options", [{"layers": 2}, {"keys": ("mlp.up_proj",)}, {"keys": ("self_attn.q_proj",)}, {}])
def test_what_is_kept_of_the_forward_pass_does_not_change_the_gradient(load, options):
    policy = nudge(load(**options))
    rows = family_of(policy)
    (pack,) = packing.micro_batches(rows, 10_000, share=True)
    batch = packing.Batch.of(rows, pack)
    expected, before = losses.gradient(policy.backbone, batch, OBJECTIVES["all"], Keep.INPUTS)
    for keep in (Keep.PROJECTIONS, Keep.ALL):
        gradient, after = losses.gradient(policy.backbone, batch, OBJECTIVES["all"], keep)
        assert all(mx.array_equal(gradient[name], g) for name, g in expected.items())  # to the bit: memory may choose
        assert after == before


def test_small_chunks_of_the_head_change_nothing(load, monkeypatch):
    policy = nudge(load())
    batch = packing.Batch.pad(rows_of(policy))
    expected, before = losses.gradient(policy.backbone, batch, OBJECTIVES["all"])
    monkeypatch.setattr(limits, "HEAD_BYTES", 1)
    assert limits.head_rows(288) == 16
    gradient, after = losses.gradient(policy.backbone, batch, OBJECTIVES["all"])
    assert_close(gradient, expected)
    assert after.entropy == pytest.approx(before.entropy, rel=1e-5)
    assert after.delta_max == pytest.approx(before.delta_max, rel=1e-4)


def test_padding_and_neighbours_do_not_reach_a_row(load):
    policy = nudge(load())
    rows = rows_of(policy)
    whole, sums = losses.gradient(policy.backbone, packing.Batch.pad(rows), OBJECTIVES["all"])
    parts = [losses.gradient(policy.backbone, packing.Batch.pad([row]), OBJECTIVES["all"]) for row in rows]
    added = {name: sum(g[name] for g, _ in parts) for name in whole}
    assert_close(whole, added)
    assert sums.tokens == sum(len(row.completion) for row in rows)
    assert sums.loss == pytest.approx(sum(s.loss for _, s in parts), rel=1e-4)


def test_measures_by_hand():
    """Two tokens with raw ratios e^0.5 and e^0: one of two is outside [0.8, 1.25], mean |delta| is 0.25."""
    lp = mx.array([-1.0, -2.0])
    sampler_lp = mx.array([-1.5, -2.0])
    objective = losses.Objective(on_policy=False, clip_low=0.2, clip_high=0.28, kl=1.0)
    coefficient, loss, kl, clipped, _ = losses.token_losses(
        lp, mx.array([1.0, -1.0]), sampler_lp, sampler_lp, lp, objective
    )
    assert clipped.tolist() == [True, False]
    assert coefficient.tolist() == [0.0, 1.0]
    assert loss.tolist() == pytest.approx([-1.28, 1.0])
    assert kl.tolist() == [0.0, 0.0]


def test_micro_batches_keep_to_the_budget_and_hold_every_row_once():
    rows = [
        packing.Example((0,) * p, (0,) * k, np.zeros(k), 1.0)
        for p, k in [(5, 5), (90, 30), (3, 2), (7, 3), (40, 1), (8, 2)]
    ]
    packs = packing.micro_batches(rows, budget=50)
    assert sorted(i for pack in packs for i in pack.rows) == list(range(6))
    assert [[len(rows[i]) for i in pack.rows] for pack in packs] == [[5, 10, 10, 10], [41], [120]]


def test_rows_of_one_prompt_are_packed_beside_each_other_and_the_prompt_counts_once():
    """Prompts 0 and 1 have four rows of 3 tokens each, prompt 2 has one: 5 + 4 * 3 = 17 tokens fit into 20."""
    rows = [packing.Example((i % 2,) * 5, (7,) * 3, np.zeros(3), 1.0) for i in range(8)]
    rows.append(packing.Example((2,) * 5, (7,) * 3, np.zeros(3), 1.0))
    packs = packing.micro_batches(rows, budget=20, share=True)
    assert packs == [packing.Pack((8,)), packing.Pack((0, 2, 4, 6), True), packing.Pack((1, 3, 5, 7), True)]
    split = packing.micro_batches(rows[:8], budget=12, share=True)
    assert [pack.rows for pack in split] == [(0, 2), (4, 6), (1, 3), (5, 7)]
    both = packing.micro_batches(rows[:8], budget=34, share=True)
    assert both == [packing.Pack((0, 2, 4, 6, 1, 3, 5, 7), True)]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=24),
    st.integers(20, 400),
)
@settings(max_examples=60, deadline=None)
def test_any_rows_are_packed_once_within_the_budget_and_laid_out_whole(described, budget):
    """Prompts of three beginnings with four endings each: every row is found again in the tree of its pack."""
    rows = [
        packing.Example(
            (7,) * (40 + 3 * a) + (8 + a,) + (20 + b,) * (1 + b), tuple(range(30, 30 + k)), np.zeros(k), 1.0
        )
        for a, b, k in described
    ]
    packs = packing.micro_batches(rows, budget, share=True)
    assert sorted(i for pack in packs for i in pack.rows) == list(range(len(rows)))
    for pack in packs:
        batch = packing.Batch.of(rows, pack)
        assert batch.slots <= budget or len(pack.rows) == 1
        flat, targets = batch.tokens[0].tolist(), batch.targets.tolist()
        assert targets == [token for i in pack.rows for token in rows[i].completion]
        before = [flat[place] for place in batch.positions.tolist()]
        assert before == [token for i in pack.rows for token in (rows[i].prompt[-1], *rows[i].completion[:-1])]
        assert flat == [flat[place] for place in np.array(batch.tree.spread)[np.array(batch.tree.gather)]]


def test_logits_of_all_positions_never_exist(load, monkeypatch):
    """Peak extra memory of a gradient stays below one float32 (B, T, V) for a vocabulary that dwarfs the width."""
    policy = load("wide", rank=1)
    rollouts = policy.sample_all([prompt("one"), prompt("two")], 4, seed=(0,), max_tokens=40)
    rows = [packing.Example(r.prompt_tokens, r.completion.tokens, np.array(r.completion.logprobs, np.float32), 1.0)
            for group in rollouts for r in group]  # fmt: skip
    batch = packing.Batch.pad(rows)
    mx.eval(batch.tokens)
    monkeypatch.setattr(limits, "HEAD_BYTES", 2 * 2**20)
    full = 4 * batch.targets.shape[0] * policy.backbone.vocabulary
    start = mx.get_active_memory()
    mx.reset_peak_memory()
    losses.gradient(policy.backbone, batch, losses.Objective())
    assert mx.get_peak_memory() - start < full / 2
