"""The policy-gradient loss, its gradient in two stages, and what is measured on the way.

The loss of a completion token with log-probability lp is

    -w * min(A * ratio, A * clip(ratio, 1 - low, 1 + high))  +  kl * k3  -  entropy * H,      ratio = exp(lp - old)

(PPO's clipped surrogate as in AZR section 5.2, with DAPO's separate clip edges and k3 of Schulman 2020), and its mean
is taken over all completion tokens of the batch (DAPO, AZR), not over each completion first. Rows whose advantage is
exactly 0 have no gradient when there is neither a KL nor an entropy term: they skip the backward pass but their tokens
stay in the denominator, so that the gradient is the same as if they had been computed.

Logits of all positions never exist. Stage one runs the trunk and keeps the input of each block; the head is then
applied to a few rows at a time, and d(loss)/d(hidden) of these rows is evaluated at once, from float32 logits and in
closed form: d(loss)/d(logit_v) = c * (1[v = token] - p_v) with c = d(loss)/d(lp). Stage two walks back through the
blocks, each recomputed from its kept input: one block's activations are alive at a time, and the whole costs no more
than a backward pass through an unchecked trunk that is run twice.

Letters: B rows, T tokens, D width, V vocabulary, N completion tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.base import create_attention_mask

from azr_mlx.backbone import Backbone

# Bytes of one float32 (rows, V) array in the head; about four of them are alive at a time.
HEAD_BYTES = 32 * 2**20
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
class Row:
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
    """A right-padded micro-batch. Position i of `positions` is the flat place, in (B, T), whose hidden state predicts
    `targets[i]`; the arrays below it hold one value for each completion token, rows one after the other."""

    tokens: mx.array  # (B, T) int32
    positions: mx.array  # (N,) int32
    targets: mx.array  # (N,) int32
    advantages: mx.array  # (N,) float32
    sampler: mx.array  # (N,) float32
    old: mx.array | None  # (N,) float32
    reference: mx.array | None  # (N,) float32

    @classmethod
    def pad(cls, rows: Sequence[Row]) -> Batch:
        """Rows to arrays; the last token of a row is a target only, so T is the longest row less one."""
        length = max(len(row) for row in rows) - 1
        tokens = np.zeros((len(rows), length), dtype=np.int32)
        positions = []
        for i, row in enumerate(rows):
            tokens[i, : len(row) - 1] = (row.prompt + row.completion)[:-1]
            positions.append(np.arange(len(row.prompt) - 1, len(row) - 1) + i * length)

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
        )

    def part(self, start: int, stop: int) -> tuple[mx.array | None, ...]:
        """Targets, advantages, sampler, old and reference values of completion tokens start..stop."""
        columns = (self.targets, self.advantages, self.sampler, self.old, self.reference)
        return tuple(None if values is None else values[start:stop] for values in columns)


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
    logprobs: list[mx.array] = field(default_factory=list)

    def __add__(self, other: Sums) -> Sums:
        joined = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Sums(**{**joined, "delta_max": max(self.delta_max, other.delta_max)})


def micro_batches(rows: Sequence[Row], budget: int) -> list[list[int]]:
    """Indices of rows, sorted by length and packed so that rows * longest <= budget tokens (one row may exceed it)."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    packs: list[list[int]] = []
    for i in order:
        # Sorted upwards: the row that joins is the longest, so it sets the width of the pack.
        if packs and (len(packs[-1]) + 1) * len(rows[i]) <= budget:
            packs[-1].append(i)
        else:
            packs.append([i])
    return packs


def head_rows(vocabulary: int) -> int:
    """How many completion tokens pass the head together."""
    return max(16, HEAD_BYTES // (4 * vocabulary) // 16 * 16)


def logprobs(backbone: Backbone, batch: Batch) -> mx.array:
    """Log-probabilities (N,) of a micro-batch's completion tokens, without any gradient."""
    hidden = _completion_states(_forward(backbone, batch.tokens)[-1], backbone, batch)
    size = head_rows(backbone.vocabulary)
    parts = []
    for start in range(0, hidden.shape[0], size):
        logits = backbone.logits(hidden[start : start + size])
        targets = batch.targets[start : start + size]
        parts.append(mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1))
        mx.eval(parts[-1])
    return mx.concatenate(parts)


def gradient(backbone: Backbone, batch: Batch, objective: Objective) -> tuple[Gradients, Sums]:
    """Gradient of the SUM of token losses by trainable parameters, and the sums measured on the way.

    The sum, not the mean: dividing after all micro-batches keeps small float16 gradients from underflowing.
    """
    if backbone.plain:
        states = _forward(backbone, batch.tokens, keep=True)
        cotangent, sums = _head(backbone, _completion_states(states[-1], backbone, batch), batch, objective)
        return _backward(backbone, batch, states, cotangent), sums
    names, values = _trainable(backbone.model)

    def trunk(*arrays: mx.array) -> mx.array:
        backbone.model.update(tree_unflatten(list(zip(names, arrays, strict=True))))
        hidden = backbone.hidden(batch.tokens)
        return hidden.reshape(-1, hidden.shape[-1])[batch.positions]

    hidden = trunk(*values)
    mx.eval(hidden)
    cotangent, sums = _head(backbone, hidden, batch, objective)
    _, gradients = mx.vjp(trunk, values, [cotangent])
    mx.eval(gradients)
    backbone.model.update(tree_unflatten(list(zip(names, values, strict=True))))
    return dict(zip(names, gradients, strict=True)), sums


# Trunk ----------------------------------------------------------------------------------------------------------


def _trainable(module: nn.Module) -> tuple[list[str], list[mx.array]]:
    flat = tree_flatten(module.trainable_parameters())
    return [name for name, _ in flat], [value for _, value in flat]


def _forward(backbone: Backbone, tokens: mx.array, keep: bool = False) -> list[mx.array]:
    """Inputs of every block and the output of the last one, (B, T, D) each; only the output unless `keep`.

    Each block is evaluated before the next: one block's temporaries are alive at a time.
    """
    if not backbone.plain:
        return [backbone.hidden(tokens)]
    hidden = backbone.trunk.embed_tokens(tokens)
    mask = create_attention_mask(hidden)
    states = [hidden]
    for layer in backbone.layers:
        hidden = layer(hidden, mask, None)
        mx.eval(hidden)
        states = [*states, hidden] if keep else [hidden]
    return states


def _completion_states(last: mx.array, backbone: Backbone, batch: Batch) -> mx.array:
    """Final hidden states (N, D) at the positions that predict completion tokens."""
    rows = last.reshape(-1, last.shape[-1])[batch.positions]
    hidden = backbone.trunk.norm(rows) if backbone.plain else rows  # the norm works on each position by itself
    mx.eval(hidden)
    return hidden


def _backward(backbone: Backbone, batch: Batch, states: list[mx.array], cotangent: mx.array) -> Gradients:
    """Walk back through the blocks from d(loss)/d(final hidden) (N, D); `states` is emptied on the way."""
    last = states.pop()

    def final(hidden: mx.array) -> mx.array:
        return backbone.trunk.norm(hidden.reshape(-1, hidden.shape[-1])[batch.positions])

    _, (flow,) = mx.vjp(final, [last], [cotangent])
    del last, cotangent
    mask = create_attention_mask(flow)
    prefix = _layer_prefix(backbone)
    lowest = next(i for i, layer in enumerate(backbone.layers) if tree_flatten(layer.trainable_parameters()))
    gradients: Gradients = {}
    for i in range(len(backbone.layers) - 1, lowest - 1, -1):
        layer = backbone.layers[i]
        names, values = _trainable(layer)
        block = _block_function(layer, names, mask)
        hidden = states.pop()
        if i > lowest:
            _, results = mx.vjp(block, [*values, hidden], [flow])
            *results, flow = results
            mx.eval(results, flow)
        else:
            # Below the lowest adapter nothing learns: the gradient by its input is never computed.
            _, results = mx.vjp(lambda *arrays, h=hidden, f=block: f(*arrays, h), values, [flow])
            mx.eval(results)
        layer.update(tree_unflatten(list(zip(names, values, strict=True))))
        gradients.update((f"{prefix}.{i}.{name}", g) for name, g in zip(names, results, strict=True))
    return gradients


def _block_function(layer: nn.Module, names: list[str], mask: Any) -> Callable[..., mx.array]:
    def block(*arrays: mx.array) -> mx.array:
        *values, hidden = arrays
        layer.update(tree_unflatten(list(zip(names, values, strict=True))))
        return layer(hidden, mask, None)

    return block


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
    logits = logits - mx.max(logits, axis=-1, keepdims=True)
    weights = mx.exp(logits)
    total = weights.sum(axis=-1)  # (n,)
    log_total = mx.log(total)
    lp = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - log_total
    entropy = log_total - (weights * logits).sum(axis=-1) / total

    coefficient, loss, kl, clipped, capped = token_losses(lp, advantages, sampler, old, reference, objective)
    loss = loss - objective.entropy * entropy
    flow = weights * (-coefficient / total)[:, None]  # d(loss)/d(logits)
    if objective.entropy:
        # dH/d(logit_v) = -p_v * (log p_v + H)
        flow = flow + weights * (objective.entropy / total)[:, None] * (logits + (entropy - log_total)[:, None])
    index = mx.arange(targets.shape[0])
    flow = flow.at[index, targets].add(coefficient)
    _, (gradient_hidden,) = mx.vjp(backbone.logits, [hidden], [flow])

    delta = lp - sampler
    distance = mx.abs(delta)
    ratio = mx.exp(delta)
    outside = (ratio < RATIO_LOW) | (ratio > RATIO_HIGH)
    numbers = mx.stack([
        loss.sum(), entropy.sum(), kl.sum(), distance.sum(), distance.max(),
        outside.sum().astype(mx.float32), clipped.sum().astype(mx.float32), capped.sum().astype(mx.float32),
    ])  # fmt: skip
    mx.eval(gradient_hidden, numbers, lp)
    return gradient_hidden, Sums(int(targets.shape[0]), *numbers.tolist(), logprobs=[lp])


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
