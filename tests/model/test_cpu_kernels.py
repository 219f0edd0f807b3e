"""The same mathematics in faster operations."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.utils import load_model

from azr_mlx.model import cpu_kernels


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


@pytest.mark.parametrize("mask", [None, "causal", "array"])
@pytest.mark.parametrize("length", [1, 7])
def test_attention_is_mlx_own_attention(mask, length):
    queries, keys, values = normal(3, 4, length, 8), normal(3, 2, 11, 8, seed=1), normal(3, 2, 11, 8, seed=2)
    if mask == "array":
        mask = mx.random.uniform(shape=(3, 1, length, 11), key=mx.random.key(3)) > 0.5
        mask = mask | (mx.arange(11) == 0)  # every row may attend to something
    cotangent = normal(3, 4, length, 8, seed=4)

    def theirs(*parts):
        return mx.fast.scaled_dot_product_attention(*parts, scale=0.3, mask=mask)

    def ours(*parts):
        return cpu_kernels.attention(*parts, 0.3, mask)

    (expected,), gradients = mx.vjp(theirs, [queries, keys, values], [cotangent])
    (given,), other = mx.vjp(ours, [queries, keys, values], [cotangent])
    np.testing.assert_allclose(given, expected, atol=1e-5)
    for one, two in zip(other, gradients, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("mask", [None, "causal", "array"])
@pytest.mark.parametrize("kept", [0, 100])
def test_blocks_of_queries_change_neither_attention_nor_its_gradient(monkeypatch, mask, kept):
    """Ten queries in blocks of four, four and two, whether their weights are kept or computed again."""
    queries, keys, values = normal(3, 4, 10, 8), normal(3, 2, 13, 8, seed=1), normal(3, 2, 13, 8, seed=2)
    if mask == "array":
        mask = mx.random.uniform(shape=(3, 1, 10, 13), key=mx.random.key(3)) > 0.5
        mask = mask | (mx.arange(13) == 0)
    cotangent = normal(3, 4, 10, 8, seed=4)

    def attend(*parts):
        return cpu_kernels.attention(*parts, 0.3, mask)

    (whole,), expected = mx.vjp(attend, [queries, keys, values], [cotangent])
    mx.eval(whole, expected)
    monkeypatch.setattr(cpu_kernels, "QUERY_BLOCK", 4)
    monkeypatch.setattr(cpu_kernels, "KEPT_LENGTH", kept)
    (given,), gradients = mx.vjp(attend, [queries, keys, values], [cotangent])
    np.testing.assert_allclose(given, whole, atol=1e-6)
    for one, two in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_scores_of_all_pairs_never_exist_for_a_long_row():
    """The gradient of 2,048 tokens by one head takes less than half of the memory of their 4 million scores."""
    parts = [normal(1, 1, 2048, 8, seed=i) for i in range(4)]
    mx.eval(parts)
    start = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(mx.vjp(lambda *three: cpu_kernels.attention(*three, 0.3, "causal"), parts[:3], parts[3:]))
    assert mx.get_peak_memory() - start < 4 * 2048**2 / 2


def test_the_gate_has_the_gradient_of_silu():
    gate, up, cotangent = (3 * normal(5, 7, seed=i) for i in range(3))
    expected = mx.vjp(lambda gate, up: nn.silu(gate) * up, [gate, up], [cotangent])
    given = mx.vjp(lambda gate, up: cpu_kernels.gated(gate, up)[0], [gate, up], [cotangent])
    for ours, theirs in zip([*given[0], *given[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_exponential_holds_from_the_smallest_to_the_largest_float():
    x = mx.linspace(-103, 88, 4000)
    exact = np.exp(np.array(x, dtype=np.float64))
    # A subnormal result keeps fewer digits; the exponent itself is rounded to float32, which costs |x| * 6e-8.
    np.testing.assert_allclose(np.array(cpu_kernels.exp(x)), exact, rtol=1e-5, atol=1e-38)
    assert cpu_kernels.exp(mx.array([-mx.inf, -1000.0])).tolist() == [0.0, 0.0]


@pytest.mark.skipif(not cpu_kernels.slow_exponential(), reason="only where it is used")
@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
def test_a_fitted_model_computes_what_it_did_and_keeps_its_names(models, family):
    model, _ = load_model(models[family])
    ids = mx.array([[5, 6, 7, 200, 9], [1, 2, 3, 4, 5]])
    before, names = model(ids), [name for name, _ in nn.utils.tree_flatten(model.parameters())]
    cpu_kernels.fit(model)
    np.testing.assert_allclose(model(ids), before, atol=1e-4)
    assert [name for name, _ in nn.utils.tree_flatten(model.parameters())] == names
    assert type(model.layers[0].self_attn).__name__ == "Attention"
