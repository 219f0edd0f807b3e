"""The CPU kernels compute what MLX computes, and so do their derivatives."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from azr_mlx import kernels


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)) * scale


def close(ours, theirs, tolerance: float = 2e-6) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=tolerance, atol=tolerance)


def test_exp_is_accurate_to_the_last_bits_over_its_range():
    x = mx.linspace(-87, 88, 100_001)
    assert mx.abs(kernels.exp(x) / mx.exp(x) - 1).max().item() < 1e-5  # the argument itself is rounded at the ends
    near = mx.linspace(-10, 10, 100_001)
    assert mx.abs(kernels.exp(near) / mx.exp(near) - 1).max().item() < 1e-6


def test_exp_neither_overflows_nor_goes_negative():
    values = kernels.exp(mx.array([-1e30, -200.0, 200.0, 1e30]))
    assert mx.all(values >= 0).item()
    assert mx.all(mx.isfinite(values)).item()


def test_swiglu_and_its_gradient():
    gate, up = draw(3, 40, scale=4.0), draw(3, 40, seed=1)

    def theirs(g, u):
        return nn.silu(g) * u

    def weighted(f):
        return lambda g, u: (f(g, u) * draw(3, 40, seed=2)).sum()

    close([kernels.swiglu(gate, up)], [theirs(gate, up)])
    close(*(mx.grad(weighted(f), argnums=(0, 1))(gate, up) for f in (kernels.swiglu, theirs)), tolerance=1e-5)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("mask", ["causal", "none", "rows"])
def test_attention_and_its_gradient(heads, mask):
    q, k, v = draw(2, heads[0], 7, 8), draw(2, heads[1], 7, 8, seed=1), draw(2, heads[1], 7, 8, seed=2)
    given = {"causal": "causal", "none": None, "rows": mx.array([[True] * 7, [False] * 2 + [True] * 5])[:, None, None]}[
        mask
    ]

    def theirs(q, k, v):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.35, mask=given)

    def ours(q, k, v):
        return kernels.attention(q, k, v, cache=None, scale=0.35, mask=given, original=None)

    def weighted(f):
        return lambda *a: (f(*a) * draw(2, heads[0], 7, 8, seed=3)).sum()

    close([ours(q, k, v)], [theirs(q, k, v)])
    close(*(mx.grad(weighted(f), argnums=(0, 1, 2))(q, k, v) for f in (ours, theirs)), tolerance=1e-5)


def test_what_is_not_plain_goes_to_mlx_lm():
    q = draw(1, 1, 2, 4).astype(mx.bfloat16)
    said = kernels.attention(q, q, q, cache=None, scale=1.0, mask=None, original=lambda *a, **k: "theirs")
    assert said == "theirs"
