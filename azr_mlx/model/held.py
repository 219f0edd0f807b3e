"""What an update holds, in bytes, by what it keeps of the forward pass. Plain arithmetic: the planner uses it without
MLX, before a model is there, and the policy with a model's own sizes, to choose.

How many arrays of a block are alive at once was read from the graph and fitted to measured peaks on a CPU
(benchmarks/speed/fit_memory.py). What is said about a GPU is derived from the same counts and has not been measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from azr_mlx.model.limits import head_rows

# Arrays of a block that are alive at the peak, by their width: the residual stream (D), the gate (F), queries (H d),
# keys or values (G d), adapters (rank), and attention weights or scores.
Arrays = Mapping[str, float]
# First what a CPU holds, whose gradients are written out (model/cpu_kernels.py), then what it held when MLX found them
# by itself, as it still does on a GPU.
RECOMPUTED: Arrays = {"width": 11.1, "gate": 11.7, "queries": 6.9, "keys": 3.5, "rank": 0.0, "scores": 1.1}
KEPT: Arrays = {"width": 5.8, "gate": 4.6, "queries": 4.3, "keys": 2.6, "rank": 1.9, "scores": 0.6}
GPU_RECOMPUTED: Arrays = {"width": 9.9, "gate": 16.7, "queries": 1.2, "keys": 6.6, "rank": 3.3, "scores": 1.8}
GPU_KEPT: Arrays = {"width": 5.5, "gate": 6.5, "queries": 2.4, "keys": 4.0, "rank": 4.7, "scores": 1.2}
KEPT_EXTRA = 0.75  # the backward pass of a kept block holds so much more than what was kept
HEAD_ARRAYS = 3  # (rows, V) arrays in the head of the loss
# The graph of masked attention on a GPU keeps probabilities and their gradient; causal attention keeps no scores.
MASKED_SCORES = 4


class Keep(StrEnum):
    """What the forward pass keeps for the backward pass, from the least memory to the least time."""

    INPUTS = "inputs"  # of each block, which is then computed again: a second forward pass
    PROJECTIONS = "projections"  # and the outputs of the adapted projections: only what lies between is computed again
    ALL = "all"  # everything: nothing is computed again


# The choices of optim.checkpoint_layers but auto.
OPTIONS: Mapping[str, Keep] = {"true": Keep.INPUTS, "projections": Keep.PROJECTIONS, "false": Keep.ALL}
# The shares of the usable memory that auto may fill to save time: other programs are open, and keeping everything saves
# little beside keeping the projections for four times their memory.
AUTO_SHARES: Mapping[Keep, float] = {Keep.ALL: 0.25, Keep.PROJECTIONS: 0.75}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of a token in a block, and how many bytes each takes."""

    layers: int
    width: int
    gate: int
    queries: int
    keys: int
    heads: int
    rank: int
    projections: int  # outputs of a block's adapted projections, without the last one of the block
    vocabulary: int
    activation: int  # bytes of a number
    packed: bool  # weights stay packed: a GPU


@dataclass(frozen=True, slots=True)
class Pass:
    """A micro-batch as far as memory goes."""

    tokens: int
    scores: float  # attention weights of one head that are held for the gradient
    completions: int  # completion tokens
    masked: bool  # attention has a mask of its own, as where prompts are shared


def block_bytes(
    arrays: Arrays, sizes: Sizes, tokens: float, scores: float, rank: int, each: float, score_bytes: float
) -> float:
    """Bytes of a block's temporaries for `tokens` tokens and `scores` numbers of scores a head."""
    a = arrays
    numbers = a["width"] * sizes.width + a["gate"] * sizes.gate + a["queries"] * sizes.queries + a["keys"] * sizes.keys
    return tokens * (numbers * each + a["rank"] * rank * 4) + a["scores"] * scores * sizes.heads * score_bytes


def activation_bytes(sizes: Sizes, one: Pass, keep: Keep) -> int:
    """Peak bytes of the gradient of a micro-batch, beside weights and the gradients themselves."""
    recomputed, kept = (GPU_RECOMPUTED, GPU_KEPT) if sizes.packed else (RECOMPUTED, KEPT)
    arrays = kept if keep is Keep.ALL else recomputed
    # Half of a block's arrays belong to its adapters, which are float32 whatever the activations are.
    each = (sizes.activation + 4) / 2
    score_bytes = 4.0
    if sizes.packed:
        score_bytes = sizes.activation * MASKED_SCORES / arrays["scores"] if one.masked else 0
    block = block_bytes(arrays, sizes, one.tokens, one.scores, sizes.rank, each, score_bytes)
    head = HEAD_ARRAYS * 4 * min(head_rows(sizes.vocabulary), one.completions) * sizes.vocabulary
    head += 2 * 4 * one.completions * sizes.width
    if keep is Keep.ALL:
        return int(sizes.layers * block + max(KEPT_EXTRA * block, head))
    states = (sizes.layers + 1) * one.tokens * sizes.width * sizes.activation
    if keep is Keep.PROJECTIONS:
        states += sizes.layers * one.tokens * sizes.projections * sizes.activation
    return int(states + max(block, head))
