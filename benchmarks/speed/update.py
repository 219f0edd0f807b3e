"""Update speed and memory: our two-stage gradient, MLX's own with all logits, and mlx-lm-lora, on the same rollouts.

    python benchmarks/speed/update.py --model nano --prompts 8 --group 8 --prompt 96 --tokens 64

Each engine computes the gradient of all rollouts by all adapters and takes an optimizer step. They take turns; the
table holds medians of seconds and of the ratio to mlx-lm-lora (or to the naive gradient when it is not installed) in
the same turn, and the peak memory above what was held before, as a multiple of one float32 array of all completion
tokens by the vocabulary.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx.model import device  # noqa: E402

PROFILE = device.prepare()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optimizers  # noqa: E402
import models  # noqa: E402
import numpy as np  # noqa: E402

from azr_mlx import config  # noqa: E402
from azr_mlx.model import packing  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.types import Completion, Kind, Prompt, Role, Rollout, Stop  # noqa: E402

try:
    from mlx_lm_lora.trainer.grpo_trainer import _grpo_value_and_grad, grpo_loss
except ImportError:
    _grpo_value_and_grad = None


def rollouts_of(prompts: int, group: int, prompt: int, tokens: int, ragged: bool) -> list[Rollout]:
    random = np.random.default_rng(0)
    rollouts = []
    for p in range(prompts):
        text = tuple(int(t) for t in random.integers(0, 250, prompt))
        for g in range(group):
            length = max(1, tokens // 4) if ragged and g % 2 else tokens
            written = tuple(int(t) for t in random.integers(0, 250, length))
            completion = Completion(written, (-5.0,) * length, "", Stop.LENGTH)
            rollouts.append(Rollout(Prompt(Role.SOLVE, Kind.DEDUCTION, str(p)), text, completion))
    return rollouts


def naive(policy: Policy, optimizer: optimizers.Optimizer, rows: list[packing.Example], chunk: int) -> None:
    """One `nn.value_and_grad` over logits of all completion positions, `chunk` rows at a time."""
    total = None
    for start in range(0, len(rows), chunk):
        batch = packing.Batch.pad(rows[start : start + chunk])

        def loss(model: nn.Module, batch: packing.Batch = batch) -> mx.array:
            logits = model(batch.tokens).astype(mx.float32)
            logits = logits.reshape(-1, logits.shape[-1])[batch.positions]
            chosen = mx.take_along_axis(logits, batch.targets[:, None], axis=-1)[:, 0]
            lp = chosen - mx.logsumexp(logits, axis=-1)
            return -(mx.exp(lp - mx.stop_gradient(lp)) * batch.advantages).sum()

        _, gradient = nn.value_and_grad(policy.model, loss)(policy.model)
        total = gradient if total is None else nn.utils.tree_map(lambda a, b: a + b, total, gradient)
        mx.eval(total)
    optimizer.update(policy.model, total)
    mx.eval(policy.model.trainable_parameters(), optimizer.state)


def mlx_lm_lora(policy: Policy, optimizer: optimizers.Optimizer, rows: list[packing.Example], prompts: int) -> None:
    """What its train_grpo does after the rewards; it scores as many rows at a time as it has prompts."""
    distinct = list(dict.fromkeys(row.prompt for row in rows))
    (_, _, metrics), gradient = _grpo_value_and_grad(
        nn.value_and_grad(policy.model, grpo_loss),
        policy.model,
        prompts,
        ref_model=None,
        batch=([list(p) for p in distinct], None, None, None, None),
        completions=[mx.array(row.completion) for row in rows],
        completion_texts=[""] * len(rows),
        batch_indices=[distinct.index(row.prompt) for row in rows],
        advantages=mx.array([row.advantage for row in rows]),
        reward_metrics={},
        beta=0.0,
        max_tokens=max(len(row.completion) for row in rows),
        grpo_loss_type="bnpo",
    )
    optimizer.update(policy.model, gradient)
    mx.eval(policy.model.trainable_parameters(), optimizer.state, metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help=f"a folder or one of {', '.join(models.SHAPES)}")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="rollouts of each prompt")
    parser.add_argument("--prompt", type=int, default=96, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--ragged", action="store_true", help="half of the completions are a quarter as long")
    parser.add_argument("--zero", type=float, default=0.0, help="share of groups whose advantages are all zero")
    parser.add_argument("--micro-batch-tokens", type=int, default=config.OptimConfig().micro_batch_tokens)
    parser.add_argument(
        "--cpu", action="store_true", help="count processor time: for a machine that others use as well"
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    args = parser.parse_args()
    clock = time.process_time if args.cpu else time.perf_counter
    folder = str(models.folder(args.model, args.root))
    policies: dict[bool, Policy] = {}
    for keep in (True, False):
        optim = config.OptimConfig(
            micro_batch_tokens=args.micro_batch_tokens, checkpoint_layers="false" if keep else "true"
        )
        policies[keep], policy = models.load_pair(
            folder, config.LoraConfig(), optim, config.SamplingConfig(), config.LossConfig()
        )
    rollouts = rollouts_of(args.prompts, args.group, args.prompt, args.tokens, args.ragged)
    live = round(args.prompts * (1 - args.zero)) * args.group
    advantages = [(1.0 if i % 2 else -1.0) if i < live else 0.0 for i in range(len(rollouts))]
    rows = [
        packing.Example(r.prompt_tokens, r.completion.tokens, np.array(r.completion.logprobs, np.float32), a)
        for r, a in zip(rollouts, advantages, strict=True)
    ]
    optimizer = optimizers.Adam(learning_rate=1e-5)
    optimizer.init(policy.model.trainable_parameters())
    engines: dict[str, Callable[[], object]] = {
        "azr_mlx, kept": lambda: policies[True].update(rollouts, advantages),
        "azr_mlx, recomputed": lambda: policies[False].update(rollouts, advantages),
        "naive, all rows": lambda: naive(policy, optimizer, rows, len(rows)),
        f"naive, {args.prompts} rows": lambda: naive(policy, optimizer, rows, args.prompts),
    }
    base = "naive, all rows"
    if _grpo_value_and_grad is not None:
        base = "mlx-lm-lora"
        engines[base] = lambda: mlx_lm_lora(policy, optimizer, rows, args.prompts)
    full = 4 * policy.backbone.vocabulary * sum(len(row.completion) for row in rows)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    peaks: dict[str, float] = {}
    for turn in range(args.repeat + 1):
        for name, engine in engines.items():
            mx.clear_cache()
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            start = clock()
            engine()
            if turn:  # the first turn warms up
                seconds[name].append(clock() - start)
            peaks[name] = (mx.get_peak_memory() - before) / full
    zero = f", {args.zero:.0%} of groups without advantage" if args.zero else ""
    shape = f"prompt {args.prompt}, {args.tokens} tokens{' or a quarter' if args.ragged else ''}{zero}"
    print(f"{PROFILE.name}, {args.model}, {args.prompts} prompts x {args.group}, {shape}")
    print(f"one float32 (tokens, V) is {full / 1e6:.0f} MB{'; processor time' if args.cpu else ''}")
    print(f"{'engine':24} {'seconds':>8} {'ratio':>7} {'peak':>7}")
    medians: dict[str, dict[str, float]] = {}
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds[base], strict=True))
        medians[name] = {"seconds": statistics.median(values), "ratio": ratio, "peak": peaks[name]}
        print(f"{name:24} {statistics.median(values):8.3f} {ratio:7.2f} {peaks[name]:6.2f}x")
    if args.json:
        args.json.write_text(json.dumps({"base": base, "unit": "seconds", "engines": medians}, indent=1))


if __name__ == "__main__":
    main()
