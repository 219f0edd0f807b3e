"""Element-wise arithmetic that a CPU can keep up with.

MLX computes `exp` on a CPU one element at a time, some 20 ns each, and a small transformer spends more time in the
exponentials of its activations and attention than in its matrices. `exp` below is a polynomial on [-1/2, 1/2] and a
shift of the exponent bits, accurate to 3e-7 relative, which the compiler of `mx.compile` turns into vector code: five
times faster. From it come a SwiGLU and a softmax with derivatives of their own that need no second exponential.

`install` puts them under mlx_lm's models, for this process, on a CPU only. GPUs have better kernels of their own.
"""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import Any

import mlx.core as mx

# Taylor coefficients of 2^f, highest first: (ln 2)^k / k!.
_POWERS = [math.log(2) ** k / math.factorial(k) for k in range(7, -1, -1)]
_MODELS = ("qwen2", "qwen3", "llama")


def _exp(x: mx.array) -> mx.array:
    scaled = mx.clip(x, -87.0, 88.0) * math.log2(math.e)
    whole = mx.floor(scaled + 0.5)
    part = scaled - whole  # in [-1/2, 1/2]
    power = mx.full((), _POWERS[0])
    for coefficient in _POWERS[1:]:
        power = power * part + coefficient
    return power * mx.view((whole.astype(mx.int32) + 127) << 23, mx.float32)


@mx.compile
def exp(x: mx.array) -> mx.array:
    """e^x of float32 values, elementwise; 0 below -87 up to rounding, finite above 88."""
    return _exp(x)


@mx.compile
def _gate(gate: mx.array, up: mx.array) -> mx.array:
    return gate / (1 + _exp(-gate)) * up


@mx.compile
def _gate_gradient(gate: mx.array, up: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    sigmoid = 1 / (1 + _exp(-gate))
    down = cotangent * sigmoid
    return down * up * (1 + gate * (1 - sigmoid)), down * gate


@mx.custom_function
def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up (Shazeer 2020), elementwise, any shape."""
    return _gate(gate, up)


@swiglu.vjp
def _swiglu_vjp(primals: Any, cotangent: mx.array, output: mx.array) -> tuple[mx.array, mx.array]:
    return _gate_gradient(*primals, cotangent)


@mx.compile
def _shifted(scores: mx.array, highest: mx.array) -> mx.array:
    return _exp(scores - highest)


@mx.compile
def _pull_back(probabilities: mx.array, cotangent: mx.array, inner: mx.array) -> mx.array:
    return probabilities * (cotangent - inner)


@mx.custom_function
def softmax(scores: mx.array) -> mx.array:
    """softmax over the last axis."""
    powers = _shifted(scores, scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@softmax.vjp
def _softmax_vjp(primals: Any, cotangent: mx.array, output: mx.array) -> mx.array:
    return _pull_back(output, cotangent, (output * cotangent).sum(-1, keepdims=True))


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    *,
    cache: Any,
    scale: float,
    mask: Any,
    original: Any,
    **rest: Any,
) -> mx.array:
    """Scaled dot-product attention with our softmax; (B, H, T, D) queries, (B, H_kv, S, D) keys and values.

    Whatever is not plain (quantized caches, sinks, other types) goes to mlx_lm's `original`.
    """
    plain = queries.dtype == mx.float32 and not hasattr(cache, "bits") and not any(rest.values())
    if not plain or not (mask is None or isinstance(mask, str | mx.array)):
        return original(queries, keys, values, cache=cache, scale=scale, mask=mask, **rest)
    batch, heads, length, width = queries.shape
    shared = keys.shape[1]
    grouped = (queries * scale).reshape(batch, shared, heads // shared, length, width)
    scores = grouped @ keys[:, :, None].swapaxes(-1, -2)  # (B, H_kv, H / H_kv, T, S)
    if isinstance(mask, str):
        span = keys.shape[2]
        past = mx.arange(span)[None] <= mx.arange(span - length, span)[:, None]  # (T, S)
        scores = mx.where(past, scores, -1e30)
    elif mask is not None:
        if mask.ndim == 4:
            mask = mask.reshape(mask.shape[0], -1, 1, *mask.shape[2:]) if mask.shape[1] == 1 else mask[:, :, None]
        scores = mx.where(mask, scores, -1e30) if mask.dtype == mx.bool_ else scores + mask
    return (softmax(scores) @ values[:, :, None]).reshape(batch, heads, length, width)


def install() -> None:
    """Let mlx_lm's Qwen and Llama models use `swiglu` and `attention` in this process. Calling it again is harmless."""
    for name in _MODELS:
        module: Any = importlib.import_module(f"mlx_lm.models.{name}")
        if module.swiglu is not swiglu:
            module.swiglu = swiglu
            module.scaled_dot_product_attention = partial(attention, original=module.scaled_dot_product_attention)
