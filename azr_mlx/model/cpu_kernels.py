"""What MLX computes slowly on a Linux CPU, said in operations that it computes fast. Nothing here runs on a Mac.

MLX's kernels for x86 and ARM Linux have no vector instructions, and its exponential takes 15 ns a number where glibc's
power takes 6 (measured). A small model is then mostly exponentials: those of the gates and of the attention weights.
So `fit` gives the blocks of a model the same mathematics with `power` inside, with fewer, larger matrix products where
query heads share a key head, and with gradients written out, which read and hold less than MLX's of the same formulas.
Values agree with MLX's to float32 rounding.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from azr_mlx.model import device
from azr_mlx.model.limits import KEPT_LENGTH, QUERY_BLOCK


def slow_exponential() -> bool:
    """Whether MLX's exponential is the slow one of a Linux CPU here; a rehearsal of a GPU takes it all the same."""
    return sys.platform.startswith("linux") and device.prepare().name == "cpu"


def exp(x: mx.array) -> mx.array:
    """e**x, by the faster of MLX's ways on this machine."""
    return mx.power(math.e, x) if x.dtype == mx.float32 and slow_exponential() else mx.exp(x)


def fit(model: nn.Module) -> None:
    """Let the attention and gates of a Qwen 2, Qwen 3 or Llama model compute with `exp`. In place; weights stay."""
    if not slow_exponential() or type(model).__module__.rsplit(".", 1)[-1] not in ("qwen2", "qwen3", "llama"):
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


@mx.custom_function
def gated(gate: mx.array, up: mx.array) -> tuple[mx.array, mx.array]:
    """silu(gate) * up, and the sigmoid of gate for the gradient."""
    sigmoid = 1 / (1 + exp(-gate))
    return gate * sigmoid * up, sigmoid


@gated.vjp
def _gated_gradient(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    gate, up = primals
    sigmoid = outputs[1]
    flow = cotangents[0] * sigmoid
    return flow * up * (1 + gate * (1 - sigmoid)), flow * gate


def _gate(self: Any, x: mx.array) -> mx.array:
    """The gated linear unit of Shazeer 2020: down(silu(gate(x)) * up(x))."""
    gate, up = self.gate_proj(x), self.up_proj(x)
    if x.shape[1] == 1:  # decoding: a function with a gradient of its own costs more than it computes
        return self.down_proj(gate / (1 + exp(-gate)) * up)
    return self.down_proj(gated(gate, up)[0])


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

    Blocks of queries go one after the other, each with the keys up to its end when attention is causal: up to half of
    the scores are never computed, and of a long row the scores of one block exist at a time, not all L * S. The
    gradient is written out as in FlashAttention (Dao et al. 2022, appendix B.2).
    """
    rows, heads, length, width = queries.shape
    groups: int = keys.shape[1]
    span: int = keys.shape[2]
    if length == 1:
        return _attend_once(queries * scale, keys, values, None if isinstance(mask, str) else mask)
    causal = isinstance(mask, str)
    keep = length <= KEPT_LENGTH
    starts = range(0, length, QUERY_BLOCK)

    def cut(x: mx.array, start: int) -> mx.array:
        """A block of (B, H, L, d) as (B, G, N, d): all N query heads of a key head, at all positions of the block, are
        the rows of one matrix product."""
        return x[:, :, start : start + QUERY_BLOCK].reshape(rows, groups, -1, width)

    def join(blocks: list[mx.array]) -> mx.array:
        return mx.concatenate([block.reshape(rows, heads, -1, width) for block in blocks], axis=2)

    def seen(start: int) -> int:
        """How many keys a block reads."""
        return span - max(0, length - start - QUERY_BLOCK) if causal else span

    def scores(block: mx.array, keys: mx.array, start: int) -> mx.array:
        product = block @ keys.swapaxes(-1, -2)  # (B, G, N, S)
        if mask is None:
            return product
        stop, end = min(start + QUERY_BLOCK, length), keys.shape[2]
        if isinstance(mask, str):
            allowed = mx.arange(end - (stop - start), end)[:, None] >= mx.arange(end)
        else:
            allowed = mask[:, :, None, start:stop]
        apart = product.reshape(rows, groups, heads // groups, stop - start, end)
        return mx.where(allowed, apart, -mx.inf).reshape(product.shape)

    @mx.custom_function
    def attend(queries: mx.array, keys: mx.array, values: mx.array) -> tuple[mx.array, ...]:
        blocks: list[mx.array] = []
        totals, kept = [], []
        for start in starts:
            # One block after the other: MLX would otherwise compute the scores of all before it uses the first.
            (block,) = mx.depends([cut(queries, start)], blocks[-1:])
            product = scores(block, keys[:, :, : seen(start)], start)
            largest = mx.max(product, axis=-1, keepdims=True)
            weights = exp(product - largest)
            totals.append(weights.sum(axis=-1, keepdims=True))
            # Divided by the sum after the product: d numbers a row instead of S.
            blocks.append(weights @ values[:, :, : seen(start)] / totals[-1])
            kept.append(weights if keep else largest)
        return join(blocks), *totals, *kept

    @attend.vjp
    def gradient(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        queries, keys, values = primals
        attended, *rest = outputs
        totals, kept = rest[: len(starts)], rest[len(starts) :]
        by_queries: list[mx.array] = []
        by_keys, by_values = mx.zeros_like(keys), mx.zeros_like(values)
        for start, total, known in zip(starts, totals, kept, strict=True):
            (block,) = mx.depends([cut(queries, start)], [*by_queries[-1:], by_keys, by_values])
            own = slice(seen(start))
            weights = known if keep else exp(scores(block, keys[:, :, own], start) - known)
            flow = cut(cotangents[0], start) / total
            centre = (flow * cut(attended, start)).sum(axis=-1, keepdims=True)
            through = weights * (flow @ values[:, :, own].swapaxes(-1, -2) - centre)  # d(loss)/d(scores)
            by_queries.append(through @ keys[:, :, own])
            by_keys[:, :, own] += through.swapaxes(-1, -2) @ block
            by_values[:, :, own] += weights.swapaxes(-1, -2) @ flow
        return join(by_queries), by_keys, by_values

    return attend(queries * scale, keys, values)[0]


def _attend_once(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
    """`attention` of one scaled query a row, as in decoding: few operations count more there than their gradient."""
    rows, heads, _, width = queries.shape
    scores = queries.reshape(rows, keys.shape[1], -1, width) @ keys.swapaxes(-1, -2)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)  # (B, 1, 1, S) to all heads
    weights = exp(scores - mx.stop_gradient(mx.max(scores, axis=-1, keepdims=True)))
    return ((weights @ values) / weights.sum(axis=-1, keepdims=True)).reshape(rows, heads, 1, width)
