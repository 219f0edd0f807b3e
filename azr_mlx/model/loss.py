"""The policy-gradient loss, its gradient in two stages, and what is measured on the way.

The loss of a completion token with log-probability lp is

    -w * min(A * ratio, A * clip(ratio, 1 - low, 1 + high))  +  kl * k3  -  entropy * H,      ratio = exp(lp - old)

(PPO's clipped surrogate as in AZR section 5.2, with DAPO's separate clip edges and k3 of Schulman 2020), and its mean
is taken over all completion tokens of the batch (DAPO, AZR), not over each completion first. Rows whose advantage is
exactly 0 have no gradient when there is neither a KL nor an entropy term: they skip the backward pass but their tokens
stay in the denominator, so that the gradient is the same as if they had been computed.

Logits of all positions never exist. Stage one runs the trunk; the head is then applied to a few rows at a time, and
d(loss)/d(hidden) of these rows is evaluated at once, from float32 logits and in closed form: d(loss)/d(logit_v) =
c * (1[v = token] - p_v) with c = d(loss)/d(lp). Stage two walks back through the trunk, in one of two ways. With
`keep` the activations of stage one are kept. Without it only the input of each block is, and each block is recomputed
when the walk reaches it: one block's activations are alive at a time, at the price of a second forward pass.

A prompt that several rows share is forwarded once. In each block its keys and values are computed once and every row
of the group attends to them; the gradient flows back through them, so it is exact.

Letters: B rows, G distinct prompts, P prompt tokens, K completion tokens, T tokens, D width, V vocabulary, N
completion tokens of a micro-batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from azr_mlx.model.backbone import Backbone
from azr_mlx.model.cpu_kernels import exp
from azr_mlx.model.limits import head_rows

# The raw ratio of trainer to sampler probability is called off when it leaves this range (Update.ratio_outside).
RATIO_LOW, RATIO_HIGH = 0.8, 1.25

Gradients = dict[str, mx.array]  # flat parameter name -> gradient


@dataclass(frozen=True, slots=True)
class Objective:
    """Coefficients of the loss. `on_policy` takes the trainer's own logprobs as old ones: the ratio is 1 and only its
    gradient matters. `importance_cap` > 0 weighs each token by min(trainer / sampler probability, cap), truncated
    importance sampling (Yao et al. 2025; verl)."""

    on_policy: bool = True
    clip_low: float = 0.2
    clip_high: float = 0.28
    entropy: float = 0.0
    kl: float = 0.0
    importance_cap: float = 0.0

    @property
    def skips_zero_advantage(self) -> bool:
        return self.entropy == 0.0 and self.kl == 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """One rollout as numbers: P prompt tokens, K completion tokens and K values of each kind."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    sampler: np.ndarray  # (K,) float32 log-probabilities the sampler reported
    advantage: float
    old: np.ndarray | None = None  # (K,) float32, denominators of the ratio
    reference: np.ndarray | None = None  # (K,) float32, log-probabilities with adapters off

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True)
class Batch:
    """A right-padded micro-batch, in one of two layouts.

    Apart: `tokens` (B, T) holds prompt and completion of each row. Shared: `prompts` (G, P) holds every distinct prompt
    once, `tokens` (B, K) the completions, rows of one prompt beside each other. The last token of a row is a target
    only. `positions[i]` is the flat place whose hidden state predicts `targets[i]`, in (B, T), or in (G, P) followed by
    (B, K); the arrays below it hold one value for each completion token, rows one after the other.
    """

    tokens: mx.array  # (B, T) int32
    positions: mx.array  # (N,) int32
    targets: mx.array  # (N,) int32
    advantages: mx.array  # (N,) float32
    sampler: mx.array  # (N,) float32
    old: mx.array | None  # (N,) float32
    reference: mx.array | None  # (N,) float32
    prompts: mx.array | None = None  # (G, P) int32
    lengths: tuple[int, ...] = ()  # of the prompts, G numbers
    group: tuple[int, ...] = ()  # rows of each prompt, G numbers

    @classmethod
    def pad(cls, rows: Sequence[Example], shared: bool = False) -> Batch:
        """Rows to arrays, in their order. With `shared`, rows of equal prompts must stand beside each other."""
        prompts = None
        lengths: tuple[int, ...] = ()
        group: tuple[int, ...] = ()
        if shared:
            runs = [list(run) for _, run in itertools.groupby(rows, key=lambda row: row.prompt)]
            group = tuple(len(run) for run in runs)
            lengths = tuple(len(run[0].prompt) for run in runs)
            prompts = _right_pad([run[0].prompt for run in runs])
            tokens = _right_pad([row.completion[:-1] for row in rows])
            positions = []
            for i, (row, g) in enumerate(zip(rows, np.repeat(np.arange(len(runs)), group), strict=True)):
                # The end of the prompt predicts the first completion token, for all rows of the group.
                first = g * prompts.shape[1] + lengths[g] - 1
                rest = prompts.size + i * tokens.shape[1] + np.arange(len(row.completion) - 1)
                positions.append(np.concatenate([[first], rest]))
        else:
            tokens = _right_pad([(row.prompt + row.completion)[:-1] for row in rows])
            positions = [
                np.arange(len(row.prompt) - 1, len(row) - 1) + i * tokens.shape[1] for i, row in enumerate(rows)
            ]

        def column(values: Iterable[Any], dtype: Any = np.float32) -> mx.array:
            return mx.array(np.concatenate(list(values)).astype(dtype))

        return cls(
            tokens=mx.array(tokens),
            positions=column(positions, np.int32),
            targets=column((row.completion for row in rows), np.int32),
            advantages=column(np.full(len(row.completion), row.advantage) for row in rows),
            sampler=column(row.sampler for row in rows),
            old=None if rows[0].old is None else column(row.old for row in rows),
            reference=None if rows[0].reference is None else column(row.reference for row in rows),
            prompts=None if prompts is None else mx.array(prompts),
            lengths=lengths,
            group=group,
        )

    @property
    def computed(self) -> int:
        """Tokens that pass the trunk, padding included."""
        return int(self.tokens.size + (0 if self.prompts is None else self.prompts.size))

    def part(self, start: int, stop: int) -> tuple[mx.array | None, ...]:
        """Targets, advantages, sampler, old and reference values of completion tokens start..stop."""
        columns = (self.targets, self.advantages, self.sampler, self.old, self.reference)
        return tuple(None if values is None else values[start:stop] for values in columns)


def _right_pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
    padded = np.zeros((len(rows), max(1, *(len(row) for row in rows))), dtype=np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


@dataclass(slots=True)
class Sums:
    """Sums over completion tokens (and one maximum), float64 on the host; `a + b` joins micro-batches."""

    tokens: int = 0
    loss: float = 0.0
    entropy: float = 0.0
    kl: float = 0.0
    delta: float = 0.0  # |trainer logprob - sampler logprob|
    delta_max: float = 0.0
    outside: float = 0.0
    clipped: float = 0.0
    capped: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        joined = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Sums(**{**joined, "delta_max": max(self.delta_max, other.delta_max)})


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows, by index, of one micro-batch, and whether it computes equal prompts once."""

    rows: tuple[int, ...]
    shared: bool = False


def micro_batches(rows: Sequence[Example], budget: int, share: bool = False) -> list[Pack]:
    """Pack rows so that a micro-batch computes at most `budget` tokens, padding included (one row may exceed it).

    Rows are sorted by length, so that little is padded. With `share`, rows whose prompt another row has as well go into
    packs that compute each prompt once. The packing depends on nothing but the rows.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.prompt, []).append(i)
    packs: list[Pack] = []
    single = [i for group in groups.values() if len(group) == 1 or not share for i in group]
    members: list[int] = []
    # Sorted upwards: the row that joins is the longest, so it sets the width of the pack.
    for i in sorted(single, key=lambda i: (len(rows[i]), i)):
        if members and (len(members) + 1) * len(rows[i]) > budget:
            packs.append(Pack(tuple(members)))
            members = []
        members.append(i)
    if members:
        packs.append(Pack(tuple(members)))
    if not share:
        return packs
    several = [sorted(g, key=lambda i: (len(rows[i].completion), i)) for g in groups.values() if len(g) > 1]
    several.sort(key=lambda g: (len(rows[g[-1]].completion), len(rows[g[0]].prompt), g[0]))
    members, prompts, widest, longest = [], 0, 0, 0
    for group in several:
        for i in group:
            p, k = len(rows[i].prompt), len(rows[i].completion)
            new = not members or rows[members[-1]].prompt != rows[i].prompt
            cost = (prompts + new) * max(widest, p) + (len(members) + 1) * max(longest, k)
            if members and cost > budget:
                packs.append(Pack(tuple(members), shared=True))
                members, prompts, widest, longest, new = [], 0, 0, 0, True
            members.append(i)
            prompts, widest, longest = prompts + new, max(widest, p), max(longest, k)
    if members:
        packs.append(Pack(tuple(members), shared=True))
    return packs


def logprobs(backbone: Backbone, batch: Batch) -> mx.array:
    """Log-probabilities (N,) of a micro-batch's completion tokens, without any gradient."""
    hidden = _final(backbone, _forward(backbone, batch)[-1], batch)
    size = head_rows(backbone.vocabulary)
    parts = []
    for start in range(0, hidden.shape[0], size):
        logits = backbone.logits(hidden[start : start + size])
        targets = batch.targets[start : start + size]
        parts.append(mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1))
        mx.eval(parts[-1])
    return mx.concatenate(parts)


def gradient(backbone: Backbone, batch: Batch, objective: Objective, keep: bool = False) -> tuple[Gradients, Sums]:
    """Gradient of the SUM of token losses by trainable parameters, and the sums measured on the way.

    The sum, not the mean: dividing after all micro-batches keeps small float16 gradients from underflowing.
    keep: keep all activations of the forward pass, which saves a second one and takes several times the memory. Trunks
    that are not plain always do.
    """
    if keep or not backbone.plain:
        return _kept(backbone, batch, objective)
    states = _forward(backbone, batch, inputs=True)
    hidden = _final(backbone, states[-1], batch)
    mx.eval(hidden)
    cotangent, sums = _head(backbone, hidden, batch, objective)
    return _backward(backbone, batch, states, cotangent), sums


# Trunk ----------------------------------------------------------------------------------------------------------

State = tuple[mx.array, ...]  # (B, T, D) for rows apart; (G, P, D) and (B, K, D) for shared prompts


class _Prompts:
    """In place of a cache: hands a block's keys and values of the prompts, (G, heads, P, d), on to their rows."""

    offset = 0

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys, self.values = keys, values
        return keys, values


class _Completions:
    """In place of a cache: each row attends to its prompt's keys and values, then to its own."""

    def __init__(self, prompts: _Prompts, batch: Batch) -> None:
        self.prompts = prompts
        self.group = batch.group
        self.offset = mx.array(np.repeat(batch.lengths, batch.group).astype(np.int32))  # (B,) rotary position

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        assert self.prompts.keys is not None
        assert self.prompts.values is not None
        return self._join(self.prompts.keys, keys), self._join(self.prompts.values, values)

    def _join(self, prompts: mx.array, rows: mx.array) -> mx.array:
        # Broadcasts, whose gradient is a plain sum, and no gather, whose gradient adds in no fixed order on GPUs.
        repeated = [
            mx.broadcast_to(prompts[g : g + 1], (number, *prompts.shape[1:])) for g, number in enumerate(self.group)
        ]
        return mx.concatenate([mx.concatenate(repeated, axis=0), rows.astype(prompts.dtype)], axis=2)


def _mask(batch: Batch) -> mx.array | str | None:
    """What rows may attend to: all before them; of a shared prompt, all but its padding."""
    length = batch.tokens.shape[1]
    if batch.prompts is None:
        return "causal" if length > 1 else None
    lengths = np.repeat(batch.lengths, batch.group)
    prompt = np.arange(batch.prompts.shape[1])[None, None, :] < lengths[:, None, None]  # (B, 1, P)
    own = np.tril(np.ones((length, length), dtype=bool))
    rows = len(lengths)
    parts = [np.broadcast_to(prompt, (rows, length, prompt.shape[-1])), np.broadcast_to(own, (rows, length, length))]
    return mx.array(np.concatenate(parts, axis=-1)[:, None])  # (B, 1, K, P + K)


def _embed(backbone: Backbone, batch: Batch) -> State:
    inputs = (batch.tokens,) if batch.prompts is None else (batch.prompts, batch.tokens)
    return tuple(backbone.trunk.embed_tokens(tokens) for tokens in inputs)


def _block(layer: nn.Module, states: State, batch: Batch, mask: mx.array | str | None) -> State:
    if batch.prompts is None:
        return (layer(states[0], mask, None),)
    prompts = _Prompts()
    first = layer(states[0], "causal" if states[0].shape[1] > 1 else None, prompts)
    return first, layer(states[1], mask, _Completions(prompts, batch))


def _final(backbone: Backbone, states: State, batch: Batch) -> mx.array:
    """Final hidden states (N, D) at the positions that predict completion tokens."""
    flat = [state.reshape(-1, state.shape[-1]) for state in states]
    rows = (flat[0] if len(flat) == 1 else mx.concatenate(flat))[batch.positions]
    return backbone.trunk.norm(rows) if backbone.plain else rows  # the norm works on each position by itself


def _forward(backbone: Backbone, batch: Batch, inputs: bool = False) -> list[State]:
    """The state after the last block, preceded by the inputs of all blocks if asked for.

    Each block is evaluated before the next: one block's temporaries are alive at a time.
    """
    if not backbone.plain:
        return [(backbone.hidden(batch.tokens),)]
    states, mask = [_embed(backbone, batch)], _mask(batch)
    for layer in backbone.layers:
        after = _block(layer, states[-1], batch, mask)
        mx.eval(after)
        states = [*states, after] if inputs else [after]
    return states


def _trainable(module: nn.Module) -> tuple[list[str], list[mx.array]]:
    flat = tree_flatten(module.trainable_parameters())
    return [name for name, _ in flat], [value for _, value in flat]


def _put(module: nn.Module, names: Sequence[str], values: Sequence[mx.array]) -> None:
    module.update(tree_unflatten(list(zip(names, values, strict=True))))


def _kept(backbone: Backbone, batch: Batch, objective: Objective) -> tuple[Gradients, Sums]:
    """The gradient with one forward pass whose activations are kept.

    d(loss)/d(hidden) is known only when the hidden states have been evaluated, but a vector-Jacobian product wants it
    when the backward graph is built. So the graph is built on a buffer; evaluating the hidden states keeps what the
    backward pass will read, and nothing else; the buffer is filled; then the gradients are evaluated.
    """
    names, values = _trainable(backbone.model)
    dtype: list[Any] = []

    def trunk(*arrays: mx.array) -> mx.array:
        _put(backbone.model, names, arrays)
        if backbone.plain:
            states, mask = _embed(backbone, batch), _mask(batch)
            for layer in backbone.layers:
                states = _block(layer, states, batch, mask)
        else:
            states = (backbone.hidden(batch.tokens),)
        hidden = _final(backbone, states, batch)
        dtype.append(hidden.dtype)
        return hidden.astype(mx.float32)

    cotangent = mx.array(np.zeros((batch.positions.shape[0], backbone.width), np.float32))
    try:
        (hidden,), gradients = mx.vjp(trunk, values, [cotangent])
    finally:
        _put(backbone.model, names, values)
    mx.eval(hidden)
    flow, sums = _head(backbone, hidden.astype(dtype[0]), batch, objective)
    # Written through a view of MLX's own memory: an assignment would make a new array that the graph does not know.
    np.array(cotangent, copy=False)[...] = np.array(flow.astype(mx.float32))
    mx.eval(gradients)
    return dict(zip(names, gradients, strict=True)), sums


def _backward(backbone: Backbone, batch: Batch, states: list[State], cotangent: mx.array) -> Gradients:
    """Walk back through the blocks from d(loss)/d(final hidden) (N, D); `states` is emptied on the way."""
    last, mask = states.pop(), _mask(batch)
    _, flow = mx.vjp(lambda *final: _final(backbone, final, batch), list(last), [cotangent])
    del last, cotangent
    prefix = _layer_prefix(backbone)
    lowest = next(i for i, layer in enumerate(backbone.layers) if tree_flatten(layer.trainable_parameters()))
    gradients: Gradients = {}
    for i in range(len(backbone.layers) - 1, lowest - 1, -1):
        layer, inputs = backbone.layers[i], states.pop()
        names, values = _trainable(layer)
        # Below the lowest adapter nothing learns: there the gradient by the inputs is never computed.
        through = list(inputs) if i > lowest else []

        def block(*arrays: mx.array, layer: Any = layer, names: Any = names, inputs: State = inputs) -> State:
            _put(layer, names, arrays[: len(names)])
            return _block(layer, arrays[len(names) :] or inputs, batch, mask)

        try:
            _, results = mx.vjp(block, [*values, *through], flow)
            mx.eval(results)
        finally:
            _put(layer, names, values)
        flow = results[len(names) :]
        gradients.update((f"{prefix}.{i}.{name}", g) for name, g in zip(names, results[: len(names)], strict=True))
    return gradients


def _layer_prefix(backbone: Backbone) -> str:
    """The path of the list of blocks among the model's parameter names, for example "model.layers"."""
    for path, module in backbone.model.named_modules():
        if module is backbone.trunk:
            return f"{path}.layers"
    raise TypeError("the trunk is not a module of the model")


# Head -----------------------------------------------------------------------------------------------------------


def _head(backbone: Backbone, hidden: mx.array, batch: Batch, objective: Objective) -> tuple[mx.array, Sums]:
    """d(sum of losses)/d(hidden) (N, D) for final hidden states (N, D), a few rows at a time."""
    size = head_rows(backbone.vocabulary)
    parts, sums = [], Sums()
    for start in range(0, hidden.shape[0], size):
        stop = min(start + size, hidden.shape[0])
        part, more = _head_rows(backbone, hidden[start:stop], batch.part(start, stop), objective)
        parts.append(part)
        sums = sums + more
    return mx.concatenate(parts), sums


def _head_rows(
    backbone: Backbone, hidden: mx.array, columns: tuple[mx.array | None, ...], objective: Objective
) -> tuple[mx.array, Sums]:
    targets, advantages, sampler, old, reference = columns
    assert targets is not None
    assert advantages is not None
    assert sampler is not None
    logits = backbone.logits(hidden)  # (n, V) float32
    largest = mx.max(logits, axis=-1, keepdims=True)
    weights = exp(logits - largest)
    total = weights.sum(axis=-1)  # (n,)
    log_total = mx.log(total) + largest[:, 0]
    lp = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - log_total
    # The mean of the logits as a product of matrices: an array of the products would be a fourth of its size.
    entropy = log_total - (weights[:, None] @ logits[:, :, None])[:, 0, 0] / total

    coefficient, loss, kl, clipped, capped = token_losses(lp, advantages, sampler, old, reference, objective)
    loss = loss - objective.entropy * entropy
    flow = weights * (-coefficient / total)[:, None]  # d(loss)/d(logits)
    if objective.entropy:
        # dH/d(logit_v) = -p_v * (log p_v + H)
        flow = flow + weights * (objective.entropy / total)[:, None] * (logits + (entropy - log_total)[:, None])
    index = mx.arange(targets.shape[0])
    flow = flow.at[index, targets].add(coefficient)
    _, (gradient_hidden,) = mx.vjp(backbone.logits, [hidden], [flow])
    del logits, weights, flow  # a name would keep (n, V) numbers alive through the evaluation below

    delta = lp - sampler
    distance = mx.abs(delta)
    ratio = mx.exp(delta)
    outside = (ratio < RATIO_LOW) | (ratio > RATIO_HIGH)
    numbers = mx.stack([
        loss.sum(), entropy.sum(), kl.sum(), distance.sum(), distance.max(),
        outside.sum().astype(mx.float32), clipped.sum().astype(mx.float32), capped.sum().astype(mx.float32),
    ])  # fmt: skip
    mx.eval(gradient_hidden, numbers)
    return gradient_hidden, Sums(int(targets.shape[0]), *numbers.tolist())


def token_losses(
    lp: mx.array,
    advantages: mx.array,
    sampler: mx.array,
    old: mx.array | None,
    reference: mx.array | None,
    objective: Objective,
) -> tuple[mx.array, ...]:
    """For each token (n,): d(loss)/d(lp), the loss without its entropy term, k3, whether clipped, whether capped."""
    denominator = lp if objective.on_policy or old is None else old
    ratio = mx.exp(lp - denominator)
    clipped = ((advantages > 0) & (ratio > 1 + objective.clip_high)) | (
        (advantages < 0) & (ratio < 1 - objective.clip_low)
    )
    bounded = mx.clip(ratio, 1 - objective.clip_low, 1 + objective.clip_high)
    surrogate = mx.minimum(advantages * ratio, advantages * bounded)
    weight = mx.ones_like(lp)
    capped = mx.zeros_like(clipped)
    if objective.importance_cap:
        raw = mx.exp(denominator - sampler)
        capped = raw > objective.importance_cap
        weight = mx.minimum(raw, objective.importance_cap)
    coefficient = mx.where(clipped, 0.0, -weight * advantages * ratio)
    loss = -weight * surrogate
    kl = mx.zeros_like(lp)
    if reference is not None:
        gap = reference - lp
        kl = mx.exp(gap) - gap - 1
        loss = loss + objective.kl * kl
        coefficient = coefficient + objective.kl * (1 - mx.exp(gap))
    return coefficient, loss, kl, clipped, capped
