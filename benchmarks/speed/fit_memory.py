"""The planner's counts of arrays, fitted: how much of what a block computes MLX holds at the peak, on a CPU.

    python benchmarks/speed/fit_memory.py

Random shapes of models, ranks, rows and lengths; for each the peak of one gradient with recomputed and with kept
blocks, and of one prefill. Least squares of the relative error, no count below zero. It prints what stands in
azr_mlx/planner/memory.py as RECOMPUTED, KEPT and PREFILL; benchmarks/speed/memory.py checks them on other shapes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx.model import device  # noqa: E402

device.prepare()

import mlx.core as mx  # noqa: E402
import models  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from azr_mlx import config, planner  # noqa: E402
from azr_mlx.model import limits, packing  # noqa: E402
from azr_mlx.model import loss as losses  # noqa: E402
from azr_mlx.model.held import KEPT_EXTRA, Keep  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402

NAMES = ("width", "gate", "queries", "keys", "rank", "scores")


def peak(work: Callable[[], object]) -> int:
    """Bytes above what was held before."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    work()
    return int(mx.get_peak_memory() - before)


def measure(number: int, root: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """One random case: bytes of one array of each kind, and bytes that one block was measured to hold."""
    random = np.random.default_rng(number)
    head, groups, layers = (int(random.choice(several)) for several in ((16, 32, 48), (1, 2, 4), (3, 4, 6)))
    heads = groups * int(random.choice([1, 2, 4]))
    width, gate = 32 * int(random.integers(3, 12)), 32 * int(random.integers(6, 40))
    rank = int(random.choice([4, 16, 64]))
    shape = {
        **models.SHAPES["nano"], "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": gate,
        "num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": head,
    }  # fmt: skip
    models.SHAPES[f"fit-{number}"] = shape
    folder = models.folder(f"fit-{number}", root)
    policy = Policy.load(
        config.ModelConfig(id=str(folder), style="compact"), config.LoraConfig(rank=rank),
        config.OptimConfig(), config.SamplingConfig(),
        config.LossConfig(),
    )  # fmt: skip
    length = int(random.choice([48, 96, 160, 240, 320, 512]))
    count = max(2, int(random.choice([1500, 3000])) // length)
    prompt = length * 3 // 4
    written = length - prompt
    rows = [
        packing.Example(tuple(random.integers(0, 250, prompt).tolist()), (7,) * written, np.zeros(written), 1.0)
        for _ in range(count)
    ]
    batch = packing.Batch.pad(rows)
    mx.eval(batch.tokens, policy.model.parameters())
    own, tokens = length - 1, batch.computed  # the last token of a row is a target only
    held = {}
    for name, keep in (("RECOMPUTED", Keep.INPUTS), ("KEPT", Keep.ALL)):
        whole = peak(partial(losses.gradient, policy.backbone, batch, losses.Objective(), keep=keep))
        whole -= 4 * sum(value.size for _, value in tree_flatten(policy.model.trainable_parameters()))
        held[name] = whole / (layers + KEPT_EXTRA) if keep is Keep.ALL else whole - 4 * (layers + 1) * tokens * width
    actor, cache = policy.acting(), policy.backbone.empty_cache(count)
    held["PREFILL"] = peak(lambda: mx.eval(actor.hidden(batch.tokens, cache))) - sum(layer.nbytes for layer in cache)
    numbers = np.array([width, gate, heads * head, groups * head, rank, 0.0]) * tokens
    learning, prefill = numbers.copy(), numbers.copy()
    learning[-1] = count * heads * planner.held_weights(own, own, True, limits.KEPT_LENGTH)
    prefill[-1] = count * heads * min(own, limits.QUERY_BLOCK) * own
    prefill[NAMES.index("rank")] = 0.0  # the sampler's projections have their adapters in them
    return {"RECOMPUTED": 4 * learning, "KEPT": 4 * learning, "PREFILL": 4 * prefill}, held


def fitted(arrays: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Counts >= 0, least squares of the relative error: what would be negative is left out, one at a time."""
    used = [i for i in range(arrays.shape[1]) if arrays[:, i].any()]
    scaled = arrays / held[:, None]
    while True:
        counts = np.zeros(arrays.shape[1])
        counts[used] = np.linalg.lstsq(scaled[:, used], np.ones(len(held)), rcond=None)[0]
        if np.min(counts) >= 0:
            return counts
        used.remove(int(np.argmin(counts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    args = parser.parse_args()
    measured = [measure(number, args.root) for number in range(args.cases)]
    for name in ("RECOMPUTED", "KEPT", "PREFILL"):
        arrays = np.array([arrays[name] for arrays, _ in measured])
        held = np.array([held[name] for _, held in measured])
        counts = fitted(arrays, held)
        ratio = arrays @ counts / held
        said = ", ".join(f'"{what}": {count:.1f}' for what, count in zip(NAMES, counts, strict=True))
        print(f"{name}: Arrays = {{{said}}}  # {ratio.min():.2f} to {ratio.max():.2f} of the measured", flush=True)


if __name__ == "__main__":
    main()
