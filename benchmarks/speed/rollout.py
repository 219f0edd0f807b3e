"""Rollout speed: our sampler and mlx-lm's BatchGenerator on the same model, adapters on, at the same width.

    python benchmarks/speed/rollout.py --model nano --rows 64 --prompt 96 --tokens 64

Both write the same number of tokens from the same prompts; ours also keeps the float32 log-probability of each. The
two take turns, and the table holds medians. `--ragged` ends half of the rows after a quarter of the tokens, through a
limit of each row's own, which both engines know.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx import device  # noqa: E402

PROFILE = device.prepare()

import mlx.core as mx  # noqa: E402
import models  # noqa: E402
from mlx_lm.generate import BatchGenerator  # noqa: E402

from azr_mlx import config, sampler  # noqa: E402
from azr_mlx.policy import Policy  # noqa: E402


def prompts_of(number: int, length: int, group: int, shared: int) -> list[tuple[int, ...]]:
    """`number` rows in groups of equal prompts; the first `shared` tokens are the same in all."""
    return [
        tuple((7 * i + (0 if i < shared else 13 * (row // group))) % 250 for i in range(length))
        for row in range(number)
    ]


def ours(policy: Policy, prompts: list[tuple[int, ...]], limits: list[int], width: int) -> tuple[float, int]:
    start = time.perf_counter()
    requests = [sampler.Request(p, (i,), n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]
    rows = list(sampler.generate(policy._acting(), requests, seed=(0,), max_rows=width, stop_tokens=()))
    return time.perf_counter() - start, sum(len(row.tokens) for row in rows)


def batch_generator(policy: Policy, prompts: list[tuple[int, ...]], limits: list[int], width: int) -> tuple[float, int]:
    start = time.perf_counter()
    generator = BatchGenerator(
        policy.model,
        stop_tokens=[],
        sampler=mx.random.categorical,
        completion_batch_size=width,
        prefill_batch_size=width,
    )
    generator.insert([list(p) for p in prompts], max_tokens=limits)
    written = 0
    while responses := generator.next_generated():
        written += len(responses)
    generator.close()
    return time.perf_counter() - start, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help=f"a folder or one of {', '.join(models.SHAPES)}")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--group", type=int, default=8, help="rows that share a prompt")
    parser.add_argument("--prompt", type=int, default=96, help="tokens of a prompt")
    parser.add_argument("--shared", type=int, default=48, help="first tokens that all prompts share")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--width", type=int, default=0, help="rows decoded together, 0: all")
    parser.add_argument("--ragged", action="store_true")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    args = parser.parse_args()
    policy = Policy.load(
        config.Model(id=str(models.folder(args.model, args.root)), style="compact"), config.Lora(), config.Optim(),
        config.Sampling(), config.Loss(),
    )  # fmt: skip
    prompts = prompts_of(args.rows, args.prompt, args.group, args.shared)
    limits = [max(1, args.tokens // 4) if args.ragged and i % 2 else args.tokens for i in range(args.rows)]
    width = args.width or args.rows
    engines = {"azr_mlx": ours, "mlx-lm BatchGenerator": batch_generator}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        engine(policy, prompts[: args.group], [4] * args.group, width)
    for _ in range(args.repeat):
        for name, engine in engines.items():
            seconds, written = engine(policy, prompts, limits, width)
            assert written == sum(limits), (name, written, sum(limits))
            times[name].append(written / seconds)
    shape = f"{args.rows} rows, width {width}, prompt {args.prompt} ({args.shared} shared), {args.tokens} tokens"
    print(f"{PROFILE.name}, {args.model}, {shape}{', half end at a quarter' if args.ragged else ''}")
    base = statistics.median(times["mlx-lm BatchGenerator"])
    for name, values in times.items():
        middle = statistics.median(values)
        ratio = statistics.median(a / b for a, b in zip(values, times["mlx-lm BatchGenerator"], strict=True))
        print(f"{name:24} {middle:9.0f} tok/s   x{ratio:.2f}   (lowest {min(values):.0f}, highest {max(values):.0f})")
    assert base


if __name__ == "__main__":
    main()
