"""How cost grows: processor time and peak memory against rollouts, length and the size of the buffer.

    python benchmarks/speed/growth.py [--only rollouts,length,buffer] [--json FILE]

Each table ends with the exponent of a power of the size that fits best (least squares in logarithms): 1 is linear.
Rollouts: 16 + 16 tokens each, 64 decoded together; length: one row, half prompt and half completion. Both on the shape
of the embedded model, sampled and learned from. Buffer: a full ring takes as many new tasks as it holds, then what a
step asks of it. Fixed costs flatten the small end; the exponent over the larger half is printed as well.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx.model import device  # noqa: E402

PROFILE = device.prepare()

import models  # noqa: E402
import numpy as np  # noqa: E402

from azr_mlx import config  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.selfplay.task_buffer import Buffer  # noqa: E402
from azr_mlx.types import Case, Kind, Prompt, Role, Task  # noqa: E402

Row = dict[str, float]
clock = time.process_time


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The b of a * size^b, by least squares in logarithms."""
    x, y = np.log(sizes), np.log(np.maximum(values, 1e-9))
    return float(np.polyfit(x, y, 1)[0])


def learning(policy: Policy, number: int, prompt: int, tokens: int) -> Row:
    """Sample `number` rollouts and learn from them."""
    random_ = np.random.default_rng(number)
    prompts = [
        Prompt(Role.SOLVE, Kind.DEDUCTION, "".join(map(chr, random_.integers(97, 123, prompt)))) for _ in range(number)
    ]
    device.clear_cache()
    device.reset_peak()
    start = clock()
    rollouts = [one for [one] in policy.sample_all(prompts, 1, seed=(0,), max_tokens=tokens)]
    sampled, peak = clock() - start, device.memory().peak
    start = clock()
    peak_update = policy.update(rollouts, [1.0 if i % 2 else -1.0 for i in range(number)]).peak_memory
    update = clock() - start
    return {"sample s": sampled, "sample MB": peak / 1e6, "update s": update, "update MB": peak_update / 1e6}


def task(number: int, step: int) -> Task:
    program = f"def f(a):\n    b = a + {number}\n    return b * 2"
    return Task(Kind.DEDUCTION, program, (Case(str(number % 7), "0"),), "", step)


def buffer(size: int) -> Row:
    """A full ring of `size`, with seeds, takes `size` new tasks; then the draws and the snapshot of one step."""
    tasks = [task(i, -1 if i < 64 else 0) for i in range(size)]
    new = [task(size + i, 1) for i in range(size)]
    ring = Buffer(size)
    for one in tasks:
        ring.add(one)
    start = clock()
    for one in new:
        ring.add(one)
    added = clock() - start
    rng = random.Random(0)
    start = clock()
    for _ in range(24):
        ring.references(Kind.DEDUCTION, 6, rng)
        ring.program(rng)
    for _ in range(3):
        ring.draw(Kind.DEDUCTION, 8, 1, rng, 0.5)
    ring.snapshot()
    asked = clock() - start
    start = clock()
    ring.rows()
    return {"add all s": added, "a step s": asked, "save s": clock() - start}


def table(title: str, sizes: Sequence[int], measure: Callable[[int], Row]) -> dict[str, Any]:
    rows: list[Row] = []
    print(f"\n{title}")
    for size in sizes:
        row = measure(size)
        if not rows:
            print(f"{'size':>8} " + " ".join(f"{name:>10}" for name in row))
        rows.append(row)
        print(f"{size:>8} " + " ".join(f"{value:>10.4g}" for value in row.values()), flush=True)
    half = len(sizes) // 2
    fitted = {name: exponent(sizes, [row[name] for row in rows]) for name in rows[0]}
    upper = {name: exponent(sizes[half:], [row[name] for row in rows[half:]]) for name in rows[0]}
    print(f"{'exponent':>8} " + " ".join(f"{value:>10.2f}" for value in fitted.values()))
    print(f"{'large':>8} " + " ".join(f"{value:>10.2f}" for value in upper.values()))
    return {"sizes": list(sizes), "rows": rows, "exponent": fitted, "exponent_large": upper}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="rollouts,length,buffer")
    parser.add_argument("--most", type=float, default=1.0, help="share of the largest sizes, to be quick")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    args = parser.parse_args()
    wanted, found = args.only.split(","), {}

    def sizes(first: int, last: float, factor: float) -> list[int]:
        steps = round(math.log(max(args.most * last, 2 * first) / first, factor))
        return [round(first * factor**i) for i in range(steps + 1)]

    print(f"{PROFILE.name}, processor seconds")
    if {"rollouts", "length"} & set(wanted):
        folder = models.folder("nano", args.root)
        optim = config.OptimConfig(micro_batch_tokens=2048, checkpoint_layers="true")
        model = config.ModelConfig(id=str(folder), style="compact")
        policy = Policy.load(model, config.LoraConfig(), optim, config.SamplingConfig(max_rows=64), config.LossConfig())
        policy.stop_tokens = frozenset()
        learning(policy, 4, 16, 16)  # warms up
        if "rollouts" in wanted:
            found["rollouts"] = table(
                "rollouts of 16 + 16 tokens", sizes(32, 1024, 2), lambda number: learning(policy, number, 16, 16)
            )
        if "length" in wanted:
            found["length"] = table(
                "tokens of one rollout, half of them written", sizes(128, 4096, 2),
                lambda length: learning(policy, 1, length // 2, length // 2),
            )  # fmt: skip
    if "buffer" in wanted:
        found["buffer"] = table("tasks in the buffer", sizes(1000, 1e5, 10**0.5), buffer)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
