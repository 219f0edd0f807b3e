"""How many rows products with the weights compute when batches hold whole tiles, counted and not timed.

    python benchmarks/speed/tiles.py                 nano, a step's attempts at several widths
    python benchmarks/speed/tiles.py --rows 192 --width 48

An Apple GPU computes a product of a few rows with quantized weights in tiles of 32 rows, so that 33 rows cost as much
as 64 (azr_mlx/model/limits.py). The same rollouts are written twice on this machine, with the sampler's usual batches
and with whole tiles; both write the same tokens. Counted is the sum over steps of the batch's width, rounded up to
tiles: what such a GPU would compute. The lengths are those of the embedded model at temperature 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from azr_mlx import config  # noqa: E402
from azr_mlx.model.limits import TILE_ROWS  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.model.sampler import Count, Decoder, Request  # noqa: E402


def counted(policy: Policy, requests: list[Request], width: int, tile: int, kv_bytes: int) -> tuple[Count, int, Any]:
    """(what the sampler counted, rows in tiles of TILE_ROWS, tokens by key) of writing all requests."""
    count = Count()
    decoder = Decoder(
        policy.model, seed=(0,), max_rows=width, tile=tile, count=count, stop_tokens=policy.stop_tokens,
        kv_bytes=kv_bytes,
    )  # fmt: skip
    decoder.add(requests)
    written: dict[tuple[int, ...], tuple[int, ...]] = {}
    tiles = steps = 0
    while decoder.busy:
        before = count.decode_rows
        written |= {row.key: row.tokens for row in decoder.step()}
        if count.decode_steps > steps:
            steps = count.decode_steps
            tiles += -(-(count.decode_rows - before) // TILE_ROWS) * TILE_ROWS
    return count, tiles, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=192, help="rollouts to write")
    parser.add_argument("--group", type=int, default=8, help="rollouts of one prompt")
    parser.add_argument("--width", type=int, nargs="+", default=[40, 48, 64, 96], help="sampling.max_rows")
    parser.add_argument("--tokens", type=int, default=112)
    given = parser.parse_args()
    settings = config.load("nano", ["optim.lr=1e-4"])
    policy = Policy.load(settings.model, settings.lora, settings.optim, settings.sampling, settings.loss, seed=0)
    texts = [f"def f(x):\n    return x + {i}\n" for i in range(-(-given.rows // given.group))]
    requests = [
        Request(tuple(policy.encode(text)), (i, j), given.tokens)
        for i, text in enumerate(texts)
        for j in range(given.group)
    ][: given.rows]
    print(f"{given.rows} rows of at most {given.tokens} tokens, tiles of {TILE_ROWS}")
    print(f"{'width':>6} {'steps':>12} {'rows computed':>16} {'in tiles':>18} {'saved':>7}")
    for width in given.width:
        usual, tiles, first = counted(policy, requests, width, 1, 0)
        whole, fewer, second = counted(policy, requests, width, TILE_ROWS, 0)
        assert first == second, "the batches changed what rows say"
        print(
            f"{width:>6} {usual.decode_steps:>5} {whole.decode_steps:>6} {usual.decode_rows:>8} {whole.decode_rows:>7} "
            f"{tiles:>9} {fewer:>8} {1 - fewer / tiles:>7.1%}"
        )


if __name__ == "__main__":
    main()
