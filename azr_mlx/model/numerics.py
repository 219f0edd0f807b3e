"""Does this build of MLX multiply right? Products of a few rows, compared with float64 on the CPU.

Kernels differ by the number of rows: one for few, tiles of 8 or 32 beyond, and matrix units where a chip has them.
Builds for M5 without these, and a compiler that made wrong ones for more than 8 rows, have been shipped (mlx issues
3586, 3821, 4525); comparing the sampler with the trainer does not show an error that both share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROWS = (3, 9, 33, 65)
INNER, OUTER = 512, 384
# Largest error over the largest exact value. bfloat16 keeps 8 bits, and reduced-precision float32 11; a kernel that
# is wrong is off by a good part of 1.
LIMITS = {"bfloat16": 2e-2, "float32": 2e-3}


@dataclass(frozen=True, slots=True)
class Product:
    """One comparison: `error` is the largest one over the largest exact value."""

    operation: str  # "matmul" or "quantized_matmul"
    dtype: str
    rows: int
    error: float

    @property
    def right(self) -> bool:
        return self.error < LIMITS[self.dtype]  # also False for what is not a number


def check_products(
    packed: bool, matmul: Callable[..., object] | None = None, quantized_matmul: Callable[..., object] | None = None
) -> list[Product]:
    """Every operation and number of rows, in the dtypes that a run computes in (`packed`: on a GPU, where weights
    stay packed and activations are bfloat16). The other arguments stand in for MLX's own products, in tests."""
    import mlx.core as mx

    matmul = matmul or mx.matmul
    quantized_matmul = quantized_matmul or mx.quantized_matmul
    random = np.random.default_rng(0)
    found = []
    for name, dtype in (("float32", mx.float32), ("bfloat16", mx.bfloat16))[: 2 if packed else 1]:
        weight = mx.array(random.standard_normal((OUTER, INNER)), dtype=mx.float32).astype(dtype)
        packed, scales, biases = mx.quantize(weight, group_size=64, bits=4)
        # The exact values of what is multiplied: rounding before the product is nobody's fault.
        exact = np.array(weight.astype(mx.float32), np.float64)
        grid = _dequantized(packed, scales, biases)
        for rows in ROWS:
            x = mx.array(random.standard_normal((rows, INNER)), dtype=mx.float32).astype(dtype)
            wide = np.array(x.astype(mx.float32), np.float64)
            given = matmul(x, weight.T)
            found.append(Product("matmul", name, rows, _error(given, wide @ exact.T)))
            given = quantized_matmul(x, packed, scales=scales, biases=biases, transpose=True, group_size=64, bits=4)
            found.append(Product("quantized_matmul", name, rows, _error(given, wide @ grid.T)))
    return found


def _dequantized(packed: object, scales: object, biases: object) -> np.ndarray:
    """4-bit weights in float64, by numpy: eight of them in each 32-bit word, the lowest bits first."""
    import mlx.core as mx

    words = np.array(packed)
    levels = (words[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15
    levels = levels.reshape(words.shape[0], -1, 64).astype(np.float64)
    wide = [np.array(one.astype(mx.float32), np.float64)[:, :, None] for one in (scales, biases)]  # type: ignore[attr-defined]
    return (levels * wide[0] + wide[1]).reshape(words.shape[0], -1)


def _error(given: object, exact: np.ndarray) -> float:
    import mlx.core as mx

    value = np.array(given.astype(mx.float32), np.float64)  # type: ignore[attr-defined]
    return float(np.abs(value - exact).max() / np.abs(exact).max())
