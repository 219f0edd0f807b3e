"""What MLX computes slowly on a Linux CPU, said in operations that it computes fast. Nothing here runs on a Mac.

MLX's kernels for x86 and ARM Linux have no vector instructions, and its exponential takes 15 ns a number where glibc's
power takes 6 (measured). A small model is then mostly exponentials: those of the gates and of the attention weights.
So `fit` gives the blocks of a model the same mathematics with `power` inside, and with fewer, larger matrix products
where query heads share a key head. Values agree with MLX's to float32 rounding.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import mlx.core as mx
import mlx.nn as nn

SLOW_EXPONENTIAL = sys.platform.startswith("linux") and mx.default_device() == mx.cpu


def exp(x: mx.array) -> mx.array:
    """e**x, by the faster of MLX's ways on this machine."""
    return mx.power(math.e, x) if SLOW_EXPONENTIAL and x.dtype == mx.float32 else mx.exp(x)


def fit(model: nn.Module) -> None:
    """Let the attention and gates of a Qwen 2, Qwen 3 or Llama model compute with `exp`. In place; weights stay."""
    if not SLOW_EXPONENTIAL or type(model).__module__.rsplit(".", 1)[-1] not in ("qwen2", "qwen3", "llama"):
        return
    for layer in model.layers:
        _become(layer.self_attn, _attend)
        _become(layer.mlp, _gate)


def _become(module: nn.Module, call: Any) -> None:
    """Give one module another __call__: a subclass of its own class, so that all else, names included, is as before."""
    kind = type(module)
    object.__setattr__(
        module, "__class__", type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
    )


def _gate(self: Any, x: mx.array) -> mx.array:
    """The gated linear unit of Shazeer 2020: down(silu(gate(x)) * up(x))."""
    gate = self.gate_proj(x)
    return self.down_proj(gate / (1 + exp(-gate)) * self.up_proj(x))


def _attend(self: Any, x: mx.array, mask: mx.array | str | None = None, cache: Any = None) -> mx.array:
    """Self-attention as the models of mlx_lm write it, (B, T, D) to (B, T, D)."""
    rows, length, _ = x.shape
    queries, keys, values = (
        project(x).reshape(rows, length, heads, -1)
        for project, heads in (
            (self.q_proj, self.n_heads),
            (self.k_proj, self.n_kv_heads),
            (self.v_proj, self.n_kv_heads),
        )
    )
    if "q_norm" in self:
        queries, keys = self.q_norm(queries), self.k_norm(keys)
    queries, keys, values = (part.transpose(0, 2, 1, 3) for part in (queries, keys, values))
    if cache is None:
        queries, keys = self.rope(queries), self.rope(keys)
    else:
        queries, keys = self.rope(queries, offset=cache.offset), self.rope(keys, offset=cache.offset)
        keys, values = cache.update_and_fetch(keys, values)
    attended = attention(queries, keys, values, self.scale, mask)
    return self.o_proj(attended.transpose(0, 2, 1, 3).reshape(rows, length, -1))


def attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | str | None
) -> mx.array:
    """Scaled dot-product attention: queries (B, H, L, d), keys and values (B, G, S, d) with H a multiple of G.

    mask: True where (B or 1, 1, L, S) may be attended to, "causal" for the last L of S positions, or None.
    """
    rows, heads, length, width = queries.shape
    groups, span = keys.shape[1:3]
    # All query heads of a key head, at all positions, are the rows of one matrix product.
    scores = (queries * scale).reshape(rows, groups, -1, width) @ keys.swapaxes(-1, -2)
    if isinstance(mask, str):
        mask = mx.arange(span - length, span)[:, None] >= mx.arange(span) if length > 1 else None
    elif mask is not None:
        mask = mask[:, :, None]  # (B, 1, 1, L, S)
    if mask is not None:
        shape = scores.shape
        scores = mx.where(mask, scores.reshape(rows, groups, -1, length, span), -mx.inf).reshape(shape)
    weights = exp(scores - mx.stop_gradient(mx.max(scores, axis=-1, keepdims=True)))
    # Divided by the sum after the product: d numbers a row instead of S.
    attended = (weights @ values) / weights.sum(axis=-1, keepdims=True)
    return attended.reshape(rows, heads, length, width)
