"""How much the model side computes and holds at a time. Plain numbers, so that the planner reads them without MLX."""

from __future__ import annotations

from azr_mlx.types import GB

# Tokens of one forward pass of a prefill: bounds its activations.
PREFILL_TOKENS = 16384
# Rows that MLX's kernels for products with quantized weights compute together on an Apple GPU: a 33rd row costs as much
# as 32 (mlx pull request 3863 measured it: flat from 10 to 32 rows, +95 % at 33).
TILE_ROWS = 32
# The cache of mlx_lm grows by this many columns.
CACHE_STEP = 256
# Bytes of one float32 (rows, V) array in the head of the loss; about three of them are alive at a time. The weights of
# the head are read twice for each such part, so that larger ones are quicker.
HEAD_BYTES = 64 * 2**20
# Queries that attend together on a Linux CPU: smaller blocks waste fewer masked scores, larger ones are fewer
# operations.
QUERY_BLOCK = 64
# Rows up to this length hold their attention weights for the backward pass there. Computing them again costs half of
# the gradient's time, and only in longer rows are the weights the most of what a layer holds.
KEPT_LENGTH = 256


def head_rows(vocabulary: int) -> int:
    """How many completion tokens pass the head of the loss together."""
    return max(16, HEAD_BYTES // (4 * vocabulary) // 16 * 16)


def cache_limit(memory: float) -> int:
    """Bytes of freed buffers that MLX may keep on Metal, of `memory` bytes.

    Lengths differ from batch to batch, so freed buffers rarely fit again: an unlimited cache grows to many times the
    active memory (mlx-lm issues 828, 926 and 986).
    """
    return int(min(4 * GB, max(2 * GB, memory // 16)))
