"""The blocks of a model, forward and backward, for the loss.

A plain trunk (embedding, equal blocks, a norm) is walked block by block, and what is kept of a block for the way back
is a choice between memory and time (`Keep`). Others run as they are, with everything kept.

Products with weights see the tokens of a micro-batch one after the other, each once and without padding; attention
sees the levels of its tree as padded rows (packing.py). A node's keys and values are computed once, and the gradients
of all that attend to them are summed: exact, not an approximation.

Letters: B nodes of a level, H heads, G key heads, L tokens of the longest node, C tokens of the longest context, T
tokens, D width, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from azr_mlx.model import cpu_kernels
from azr_mlx.model.adapters import Tape
from azr_mlx.model.backbone import Backbone
from azr_mlx.model.held import Keep
from azr_mlx.model.packing import Batch, Level, Tree

Gradients = dict[str, mx.array]  # flat parameter name -> gradient


# Attention of a tree ----------------------------------------------------------------------------------------------


def masks(batch: Batch) -> list[mx.array | str | None]:
    """For each level what its nodes may attend to: all of their context but its padding, and themselves causally."""
    if batch.tree is None:
        return ["causal" if batch.tokens.shape[1] > 1 else None]
    found: list[mx.array | str | None] = []
    seen = np.zeros((0, 0), dtype=bool)  # (B, C): whether a column of the context is a token
    for level in batch.tree.levels:
        rows, width = len(level.lengths), level.width
        if not found:
            found.append("causal" if width > 1 else None)
            seen = np.zeros((rows, 0), dtype=bool)
        else:
            seen = np.repeat(seen, level.children, axis=0)
            own = np.broadcast_to(np.tril(np.ones((width, width), dtype=bool)), (rows, width, width))
            context = np.broadcast_to(seen[:, None], (rows, width, seen.shape[1]))
            found.append(mx.array(np.concatenate([context, own], axis=-1)[:, None]))  # (B, 1, L, C + L)
        seen = np.concatenate([seen, np.arange(width) < level.lengths[:, None]], axis=1)
    return found


def _moves(tree: Tree) -> tuple[Callable[[mx.array], mx.array], Callable[[mx.array], mx.array]]:
    """Tokens (T, ...) to slots (S, ...) and back. Each is the other's gradient, so that nothing is added up in an order
    that a GPU might choose."""

    @mx.custom_function
    def spread(tokens: mx.array) -> mx.array:
        return tokens[tree.spread]

    @spread.vjp
    def _spread_gradient(primals: Any, cotangent: mx.array, outputs: Any) -> mx.array:
        return cotangent[tree.gather]  # nobody reads what a slot without a token holds

    @mx.custom_function
    def gather(slots: mx.array) -> mx.array:
        return slots[tree.gather]

    @gather.vjp
    def _gather_gradient(primals: Any, cotangent: mx.array, outputs: Any) -> mx.array:
        real = tree.real.reshape(-1, *[1] * (cotangent.ndim - 1))
        return mx.where(real, cotangent[tree.spread], mx.zeros((), cotangent.dtype))

    return spread, gather


def _attend(attention: Any, x: mx.array, tree: Tree, allowed: Sequence[mx.array | str | None]) -> mx.array:
    """Self-attention (1, T, D) to (1, T, D) as the plain models of mlx_lm write it, along the tree."""
    spread, gather = _moves(tree)
    parts = []
    for name, heads in (("q", attention.n_heads), ("k", attention.n_kv_heads), ("v", attention.n_kv_heads)):
        part = attention[f"{name}_proj"](x)[0].reshape(x.shape[1], heads, -1)
        if f"{name}_norm" in attention:
            part = attention[f"{name}_norm"](part)
        parts.append(_levels(spread(part), tree.levels))
    attended, context = [], None
    for i, (level, mask) in enumerate(zip(tree.levels, allowed, strict=True)):
        queries, keys, values = (part[i] for part in parts)
        offset = level.offset if level.children else 0
        queries, keys = attention.rope(queries, offset=offset), attention.rope(keys, offset=offset)
        if context is not None:
            keys, values = (
                mx.concatenate([_repeated(before, level.children), own], axis=2)
                for before, own in zip(context, (keys, values), strict=True)
            )
        out = _weigh(queries, keys, values, attention.scale, mask)  # (B, H, L, d)
        attended.append(out.transpose(0, 2, 1, 3).reshape(-1, out.shape[1] * out.shape[3]))
        context = (keys, values)
    slots = attended[0] if len(attended) == 1 else mx.concatenate(attended)
    return attention.o_proj(gather(slots)[None])


def _levels(slots: mx.array, levels: Sequence[Level]) -> list[mx.array]:
    """Slots (S, heads, d) as (B, heads, L, d) of each level."""
    sizes = np.cumsum([len(level.lengths) * level.width for level in levels])
    parts = mx.split(slots, sizes[:-1].tolist()) if len(levels) > 1 else [slots]
    return [
        part.reshape(len(level.lengths), level.width, *slots.shape[1:]).transpose(0, 2, 1, 3)
        for part, level in zip(parts, levels, strict=True)
    ]


def _repeated(nodes: mx.array, children: Sequence[int]) -> mx.array:
    # Broadcasts, whose gradient is a plain sum, and no gather, whose gradient adds in no fixed order on GPUs.
    parts = [mx.broadcast_to(nodes[i : i + 1], (number, *nodes.shape[1:])) for i, number in enumerate(children)]
    return mx.concatenate(parts, axis=0)


def _weigh(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | str | None) -> mx.array:
    if cpu_kernels.slow_exponential():
        return cpu_kernels.attention(queries, keys, values, scale, mask)
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


# Forward ----------------------------------------------------------------------------------------------------------


def _block(layer: Any, state: mx.array, batch: Batch, allowed: Sequence[mx.array | str | None]) -> mx.array:
    if batch.tree is None:
        return layer(state, allowed[0], None)
    state = state + _attend(layer.self_attn, layer.input_layernorm(state), batch.tree, allowed)
    return state + layer.mlp(layer.post_attention_layernorm(state))


def _final(backbone: Backbone, state: mx.array, batch: Batch) -> mx.array:
    """Final hidden states (N, D) at the positions that predict completion tokens."""
    rows = state.reshape(-1, state.shape[-1])[batch.positions]
    return backbone.trunk.norm(rows) if backbone.plain else rows  # the norm works on each position by itself


def hidden(backbone: Backbone, batch: Batch) -> mx.array:
    """Final hidden states (N, D) without any gradient: each block is evaluated before the next."""
    if not backbone.plain:
        return _final(backbone, backbone.hidden(batch.tokens), batch)
    state, allowed = backbone.trunk.embed_tokens(batch.tokens), masks(batch)
    for layer in backbone.layers:
        state = _block(layer, state, batch, allowed)
        mx.eval(state)
    return _final(backbone, state, batch)


class Walk:
    """A forward pass of a micro-batch, and the way back from d(loss)/d(final hidden states).

    `hidden` (N, D) is evaluated. `back` may be called once, and frees what was kept.
    """

    def __init__(self, backbone: Backbone, batch: Batch, keep: Keep) -> None:
        self.backbone, self.batch = backbone, batch
        self.keep = keep if backbone.plain else Keep.ALL
        if self.keep is Keep.ALL:
            self._forward_kept()
        else:
            self._forward()

    def back(self, cotangent: mx.array) -> Gradients:
        """Gradients of all trainable parameters from d(loss)/d(hidden) (N, D)."""
        return self._back_kept(cotangent) if self.keep is Keep.ALL else self._back(cotangent)

    # Everything kept: one graph -----------------------------------------------------------------------------------

    def _forward_kept(self) -> None:
        """d(loss)/d(hidden) is known only when the hidden states have been evaluated, but a vector-Jacobian product
        wants it when the backward graph is built. So the graph is built on a buffer; evaluating the hidden states keeps
        what the backward pass will read, and nothing else; the buffer is filled; then the gradients are evaluated."""
        backbone, batch = self.backbone, self.batch
        self._names, values = _trainable(backbone.model)
        dtype: list[Any] = []

        def trunk(*arrays: mx.array) -> mx.array:
            _put(backbone.model, self._names, arrays)
            if backbone.plain:
                state, allowed = backbone.trunk.embed_tokens(batch.tokens), masks(batch)
                with Tape().passing():
                    for layer in backbone.layers:
                        state = _block(layer, state, batch, allowed)
            else:
                state = backbone.hidden(batch.tokens)
            final = _final(backbone, state, batch)
            dtype.append(final.dtype)
            return final.astype(mx.float32)

        self._cotangent = mx.array(np.zeros((batch.positions.shape[0], backbone.width), np.float32))
        try:
            (final,), self._gradients = mx.vjp(trunk, values, [self._cotangent])
        finally:
            _put(backbone.model, self._names, values)
        mx.eval(final)
        self.hidden = final.astype(dtype[0])

    def _back_kept(self, cotangent: mx.array) -> Gradients:
        # Written through a view of MLX's own memory: an assignment would make a new array that the graph does not know.
        np.array(self._cotangent, copy=False)[...] = np.array(cotangent.astype(mx.float32))
        mx.eval(self._gradients)
        return dict(zip(self._names, self._gradients, strict=True))

    # Block by block -----------------------------------------------------------------------------------------------

    def _forward(self) -> None:
        backbone, batch = self.backbone, self.batch
        self._allowed = masks(batch)
        self._lowest = next(i for i, layer in enumerate(backbone.layers) if tree_flatten(layer.trainable_parameters()))
        self._inputs: list[mx.array] = []
        self._tapes: list[Tape] = []
        state = backbone.trunk.embed_tokens(batch.tokens)
        for i, layer in enumerate(backbone.layers):
            if i >= self._lowest:
                self._inputs.append(state)
            if i >= self._lowest and self.keep is Keep.PROJECTIONS:
                tape = Tape()
                with tape.recording():
                    state = _block(layer, state, batch, self._allowed)
                tape.forget_last(layer.mlp.down_proj)
                mx.eval(state, [output for _, output in tape.kept[:-1]])
                self._tapes.append(tape)
            else:
                state = _block(layer, state, batch, self._allowed)
                mx.eval(state)  # one block's temporaries are alive at a time
        self._last = state
        self.hidden = _final(backbone, state, batch)
        mx.eval(self.hidden)

    def _back(self, cotangent: mx.array) -> Gradients:
        backbone, batch = self.backbone, self.batch
        _, flow = mx.vjp(lambda final: _final(backbone, final, batch), [self._last], [cotangent])
        del self._last
        prefix = _layer_prefix(backbone)
        gradients: Gradients = {}
        for i in range(len(backbone.layers) - 1, self._lowest - 1, -1):
            layer, entered = backbone.layers[i], self._inputs.pop()
            tape = self._tapes.pop() if self._tapes else None
            names, values = _trainable(layer)
            # Below the lowest adapter nothing learns: there the gradient by the inputs is never computed.
            through = [entered] if i > self._lowest else []

            def block(
                *arrays: mx.array, layer: Any = layer, names: Any = names, entered: mx.array = entered, tape: Any = tape
            ) -> mx.array:
                _put(layer, names, arrays[: len(names)])
                state = arrays[len(names)] if len(arrays) > len(names) else entered
                with Tape().passing() if tape is None else tape.replaying():
                    return _block(layer, state, batch, self._allowed)

            try:
                _, results = mx.vjp(block, [*values, *through], flow)
                mx.eval(results)
            finally:
                _put(layer, names, values)
            flow = results[len(names) :]
            gradients.update((f"{prefix}.{i}.{name}", g) for name, g in zip(names, results[: len(names)], strict=True))
        return gradients


def _trainable(module: nn.Module) -> tuple[list[str], list[mx.array]]:
    flat = tree_flatten(module.trainable_parameters())
    return [name for name, _ in flat], [value for _, value in flat]


def _put(module: nn.Module, names: Sequence[str], values: Sequence[mx.array]) -> None:
    module.update(tree_unflatten(list(zip(names, values, strict=True))))


def _layer_prefix(backbone: Backbone) -> str:
    """The path of the list of blocks among the model's parameter names, for example "model.layers"."""
    for path, module in backbone.model.named_modules():
        if module is backbone.trunk:
            return f"{path}.layers"
    raise TypeError("the trunk is not a module of the model")
