"""The policy-gradient loss, its gradient in two stages, and what is measured on the way.

The loss of a completion token with log-probability lp is

    -w * min(A * ratio, A * clip(ratio, 1 - low, 1 + high))  +  kl * k3  -  entropy * H,      ratio = exp(lp - old)

(PPO's clipped surrogate as in AZR section 5.2, with DAPO's separate clip edges and k3 of Schulman 2020), and its mean
is taken over all completion tokens of the batch (DAPO, AZR), not over each completion first. Rows whose advantage is
exactly 0 have no gradient when there is neither a KL nor an entropy term: they skip the backward pass but their tokens
stay in the denominator, so that the gradient is the same as if they had been computed.

Logits of all positions never exist. Stage one runs the trunk (trunk.py); the head is then applied to a few rows at a
time, and d(loss)/d(hidden) of these rows is evaluated at once, from float32 logits and in closed form:
d(loss)/d(logit_v) = c * (1[v = token] - p_v) with c = d(loss)/d(lp). Stage two walks back through the trunk.

Letters: B rows, T tokens, D width, V vocabulary, N completion tokens of a micro-batch, n of a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import mlx.core as mx

from azr_mlx.model.backbone import Backbone
from azr_mlx.model.cpu_kernels import exp
from azr_mlx.model.held import Keep
from azr_mlx.model.limits import head_rows
from azr_mlx.model.packing import Batch
from azr_mlx.model.trunk import Gradients, Walk, hidden

# The raw ratio of trainer to sampler probability is called off when it leaves this range (Update.ratio_outside).
RATIO_LOW, RATIO_HIGH = 0.8, 1.25


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


def logprobs(backbone: Backbone, batch: Batch) -> mx.array:
    """Log-probabilities (N,) of a micro-batch's completion tokens, without any gradient."""
    states = hidden(backbone, batch)
    size = head_rows(backbone.vocabulary)
    parts = []
    for start in range(0, states.shape[0], size):
        logits = backbone.logits(states[start : start + size])
        targets = batch.targets[start : start + size]
        parts.append(mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1))
        mx.eval(parts[-1])
    return mx.concatenate(parts)


def gradient(
    backbone: Backbone, batch: Batch, objective: Objective, keep: Keep = Keep.INPUTS
) -> tuple[Gradients, Sums]:
    """Gradient of the SUM of token losses by trainable parameters, and the sums measured on the way.

    The sum, not the mean: dividing after all micro-batches keeps small float16 gradients from underflowing.
    keep: what is kept of the forward pass. Trunks that are not plain keep all of it.
    """
    walk = Walk(backbone, batch, keep)
    cotangent, sums = _head(backbone, walk.hidden, batch, objective)
    return walk.back(cotangent), sums


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
