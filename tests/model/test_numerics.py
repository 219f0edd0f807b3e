"""Wrong products are found, whichever kernel makes them, and MLX's own on this machine are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from azr_mlx.model import device, numerics


def wrong_from(rows: int, product: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """A kernel that loses its last tile when there are more rows than `rows`, as a miscompiled one did."""

    def broken(x: mx.array, *rest: Any, **words: Any) -> mx.array:
        right = product(x, *rest, **words)
        return mx.concatenate([right[:-1], mx.zeros_like(right[-1:])]) if x.shape[0] > rows else right

    return broken


def test_the_products_of_this_machine_are_right() -> None:
    found = numerics.check_products(device.prepare().packed)
    assert [one for one in found if not one.right] == []
    assert {one.rows for one in found} == {3, 9, 33, 65}
    assert {one.operation for one in found} == {"matmul", "quantized_matmul"}


@pytest.mark.parametrize("rows", [8, 32, 64])
def test_a_kernel_that_is_wrong_beyond_a_tile_is_found(rows: int) -> None:
    dense = numerics.check_products(False, matmul=wrong_from(rows, mx.matmul))
    assert {one.rows for one in dense if not one.right} == {m for m in numerics.ROWS if m > rows}
    assert {one.operation for one in dense if not one.right} == {"matmul"}
    packed = numerics.check_products(False, quantized_matmul=wrong_from(rows, mx.quantized_matmul))
    assert {one.operation for one in packed if not one.right} == {"quantized_matmul"}


def test_a_product_that_is_no_number_is_wrong() -> None:
    assert not numerics.Product("matmul", "float32", 3, float("nan")).right
