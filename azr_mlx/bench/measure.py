"""The measurements of `azr bench`, each a function that takes some seconds and returns plain numbers.

Rates are the best of several runs: other programs only ever make one slower.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from azr_mlx.executor import Executor, Job, Limits
from azr_mlx.types import GB, Completion, Kind, Prompt, Role, Rollout, Stop

WIDTHS = (1, 2, 4, 8, 16, 32, 33, 64, 65, 128)
PROGRAM = "def f(a):\n    return sorted(str(x) for x in range(a))"


def executor_rates(seconds: float, level: str = "standard") -> dict[str, Any]:
    """Programs a second with one worker and with all, and the layers that confined them. Before MLX is imported."""
    found: dict[str, Any] = {}
    for workers in (1, 0):
        with Executor(level, Limits(), workers=workers) as executor:
            jobs = [Job(PROGRAM, (str(n),)) for n in range(40)]
            executor.run(jobs)
            done, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds / 2:
                outcomes = executor.run(jobs)
                done += sum(outcome.ok for outcome in outcomes)
            rate = done / (time.perf_counter() - start)
            found["one_worker" if workers else "all_workers"] = round(rate, 1)
            found["workers"] = executor.workers
            found["layers"] = list(executor.layers.active)
    return found


def best(run: Callable[[], object], seconds: float, least: int = 2) -> float:
    """The shortest of several runs, in seconds; a first one warms up."""
    run()
    shortest, end, runs = float("inf"), time.perf_counter() + seconds, 0
    while runs < least or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        shortest, runs = min(shortest, time.perf_counter() - start), runs + 1
    return shortest


def product_rates(packed: bool, seconds: float) -> dict[str, float]:
    """What products reach: GB/s of 4-bit weights by one row, TFLOP/s by many; and what one small operation costs.

    On a CPU, where no run multiplies 4-bit weights, the same of float32 weights.
    """
    import mlx.core as mx

    dtype = mx.bfloat16 if packed else mx.float32
    inner, outer, rows, number = (2048, 11008, 512, 16) if packed else (640, 1920, 256, 8)
    # Each product of few rows reads weights of its own; several in one evaluation hide what starting one costs.
    weights = [(0.02 * mx.random.normal((outer, inner), key=mx.random.key(i))).astype(dtype) for i in range(number)]
    copies = [mx.quantize(weight, group_size=64, bits=4) if packed else (weight,) for weight in weights]
    few = mx.random.normal((1, inner), key=mx.random.key(100)).astype(dtype)
    many = mx.random.normal((rows, inner), key=mx.random.key(101)).astype(dtype)
    mx.eval(weights, copies, few, many)
    flops = 2 * rows * inner * outer
    bytes_ = sum(part.nbytes for copy in copies for part in copy)

    def times(x: mx.array, copy: Sequence[mx.array]) -> mx.array:
        if not packed:
            return x @ copy[0].T
        packed_, scales, biases = copy
        return mx.quantized_matmul(x, packed_, scales=scales, biases=biases, transpose=True, group_size=64, bits=4)

    small = mx.zeros((8,))

    def chain() -> mx.array:
        value = small
        for _ in range(200):
            value = value + 1
        return value

    share = seconds / 4
    return {
        "gb_per_second": bytes_ / best(lambda: mx.eval([times(few, copy) for copy in copies]), share) / GB,
        "quantized_tflops": flops / best(lambda: mx.eval(times(many, copies[0])), share) / 1e12,
        "tflops": flops / best(lambda: mx.eval(many @ weights[0].T), share) / 1e12,
        "launch_microseconds": best(lambda: mx.eval(chain()), share) / 200 * 1e6,
    }


def decode_rates(policy: Any, widths: Sequence[int], seconds: float, tokens: int = 24) -> dict[str, float]:
    """Tokens a second by the number of rows that are decoded together, each after a prompt of 64 tokens."""
    from azr_mlx.model import sampler

    model = policy.acting()

    def write(width: int, count: int) -> int:
        requests = [
            sampler.Request(tuple((7 * i + 13 * row) % 250 for i in range(64)), (row,), count) for row in range(width)
        ]
        done = sampler.generate(model, requests, seed=(0,), max_rows=width)
        return sum(len(row.tokens) for row in done)

    found = {}
    for width in widths:
        write(width, 4)  # compiles
        rates: list[float] = []
        end = time.perf_counter() + seconds / len(widths)
        while len(rates) < 2 or (time.perf_counter() < end and len(rates) < 20):
            start = time.perf_counter()
            write(width, 1)
            once = time.perf_counter() - start  # prefill and the first token
            start = time.perf_counter()
            write(width, 1 + tokens)
            rates.append(width * tokens / max(1e-9, time.perf_counter() - start - once))
        found[str(width)] = statistics.median(rates)
    return found


def prefill_rate(policy: Any, seconds: float, rows: int = 4, length: int = 512) -> float:
    """Prompt tokens a second."""
    from azr_mlx.model import sampler

    model = policy.acting()

    def write() -> None:
        requests = [
            sampler.Request(tuple((11 * i + 17 * row) % 250 for i in range(length)), (row,), 1) for row in range(rows)
        ]
        list(sampler.generate(model, requests, seed=(0,), max_rows=rows))

    return rows * length / best(write, seconds)


def update_rate(policy: Any, seconds: float, prompts: int = 2, group: int = 2, length: int = 128) -> dict[str, float]:
    """Trained tokens a second, and the peak of memory over it in bytes."""
    rollouts = []
    for p in range(prompts):
        text = tuple((5 * i + 31 * p) % 250 for i in range(length))
        for g in range(group):
            written = tuple((3 * i + 7 * g) % 250 for i in range(length))
            completion = Completion(written, (-5.0,) * length, "", Stop.LENGTH)
            rollouts.append(Rollout(Prompt(Role.SOLVE, Kind.DEDUCTION, str(p)), text, completion))
    advantages = [1.0 if i % 2 else -1.0 for i in range(len(rollouts))]
    tokens = prompts * length + len(rollouts) * length  # a prompt is read once for its group
    peak = 0

    def learn() -> None:
        nonlocal peak
        peak = max(peak, policy.update(rollouts, advantages).peak_memory)

    return {"tokens_per_second": tokens / best(learn, seconds, least=1), "peak_memory_bytes": float(peak)}


def sampler_gap(policy: Any) -> dict[str, float]:
    """How far the sampler's log-probabilities are from the trainer's, over some 150 tokens at temperature 1."""
    import numpy as np

    prompts = [Prompt(Role.SOLVE, Kind.DEDUCTION, text) for text in ("def f(a):\n    return", "x = 1", "propose")]
    together = policy.sample_all(prompts, 4, seed=(1, 2, 3), max_tokens=12)
    rollouts = [one for group in together for one in group]
    sampled = np.concatenate([np.array(one.completion.logprobs) for one in rollouts])
    gap = np.abs(sampled - np.concatenate(policy.logprobs(rollouts)))
    return {"mean": float(gap.mean()), "max": float(gap.max()), "tokens": float(len(gap))}
