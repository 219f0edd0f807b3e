"""The same mathematics in faster operations."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.utils import load_model

from azr_mlx import linux_cpu


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
        return linux_cpu.attention(*parts, 0.3, mask)

    (expected,), gradients = mx.vjp(theirs, [queries, keys, values], [cotangent])
    (given,), other = mx.vjp(ours, [queries, keys, values], [cotangent])
    np.testing.assert_allclose(given, expected, atol=1e-5)
    for one, two in zip(other, gradients, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_exponential_holds_from_the_smallest_to_the_largest_float():
    x = mx.linspace(-103, 88, 4000)
    exact = np.exp(np.array(x, dtype=np.float64))
    # A subnormal result keeps fewer digits; the exponent itself is rounded to float32, which costs |x| * 6e-8.
    np.testing.assert_allclose(np.array(linux_cpu.exp(x)), exact, rtol=1e-5, atol=1e-38)
    assert linux_cpu.exp(mx.array([-mx.inf, -1000.0])).tolist() == [0.0, 0.0]


@pytest.mark.skipif(not linux_cpu.SLOW_EXPONENTIAL, reason="only where it is used")
@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
def test_a_fitted_model_computes_what_it_did_and_keeps_its_names(models, family):
    model, _ = load_model(models[family])
    ids = mx.array([[5, 6, 7, 200, 9], [1, 2, 3, 4, 5]])
    before, names = model(ids), [name for name, _ in nn.utils.tree_flatten(model.parameters())]
    linux_cpu.fit(model)
    np.testing.assert_allclose(model(ids), before, atol=1e-4)
    assert [name for name, _ in nn.utils.tree_flatten(model.parameters())] == names
    assert type(model.layers[0].self_attn).__name__ == "Attention"
