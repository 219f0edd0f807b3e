"""Rollout speed: our sampler, mlx-lm's BatchGenerator and mlx-lm-lora, on the same model with adapters on.

    python benchmarks/speed/rollout.py --model nano --prompts 8 --group 8 --prompt 96 --tokens 64

All write the same number of tokens from the same prompts; ours also keeps the float32 log-probability of each. They
take turns, and the table holds medians of tokens per second and of the ratio to BatchGenerator in the same turn.

--ragged ends half of the rows after a quarter of the tokens. mlx-lm-lora has one limit for all rows, so its generator
is told each row's own, at which the row leaves its batch as at an end token. With --ends rows end by themselves: that
share of the vocabulary are end tokens, about as likely as all others in a model of random weights.

--apart measures two more of ours. "not fitted": without what azr_mlx/model/cpu_kernels.py does, which others do not
have. "nor merged": with the adapters beside the weights as well, as on a GPU, where packed weights cannot take them.

mlx-lm-lora is measured when it is installed. Its batch size counts prompts and is also its width: `8x8` has all prompts
in one batch, `1x8` one prompt at a time, `64x1` every row as a prompt of its own, its widest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx.model import device  # noqa: E402

PROFILE = device.prepare()

import mlx.core as mx  # noqa: E402
import models  # noqa: E402
from mlx_lm.generate import BatchGenerator  # noqa: E402

from azr_mlx import config  # noqa: E402
from azr_mlx.model import sampler  # noqa: E402
from azr_mlx.model.backbone import Backbone  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402

try:
    from mlx_lm_lora.trainer import grpo_trainer
except ImportError:
    grpo_trainer = None

Prompt = tuple[int, ...]
Engine = Callable[[], int]  # writes all rollouts, returns how many tokens


def prompts_of(number: int, length: int, shared: int) -> list[Prompt]:
    """Distinct prompts whose first `shared` tokens are the same."""
    return [tuple((7 * i + (0 if i < shared else 13 * (p + 1))) % 250 for i in range(length)) for p in range(number)]


def ours(model: Backbone, prompts: list[Prompt], group: int, limits: list[int], width: int, stops: set[int]) -> int:
    rows = [prompt for prompt in prompts for _ in range(group)]
    requests = [sampler.Request(p, (i,), n) for i, (p, n) in enumerate(zip(rows, limits, strict=True))]
    done = sampler.generate(model, requests, seed=(0,), max_rows=width, stop_tokens=stops)
    return sum(len(row.tokens) for row in done)


def unfitted(model: Backbone, *common: Any) -> int:
    with models.unfitted():
        return ours(model, *common)


def batch_generator(
    policy: Policy, prompts: list[Prompt], group: int, limits: list[int], width: int, stops: set[int]
) -> int:
    rows = [list(prompt) for prompt in prompts for _ in range(group)]
    generator = BatchGenerator(
        policy.model,
        stop_tokens=[[token] for token in stops],
        sampler=mx.random.categorical,
        completion_batch_size=width,
        prefill_batch_size=width,
    )
    generator.insert(rows, max_tokens=limits)
    written = 0
    while responses := generator.next_generated():
        written += len(responses)
    generator.close()
    return written


def mlx_lm_lora(
    policy: Policy, prompts: list[Prompt], group: int, limits: list[int], batch: int, stops: set[int]
) -> int:
    left = iter(limits)

    class Limited(BatchGenerator):  # type: ignore[misc]
        def insert(self, rows: Any, max_tokens: Any, **words: Any) -> Any:
            return super().insert(rows, [next(left) for _ in rows], **words)

    policy.tokenizer._eos_token_ids = stops
    with mock.patch.object(grpo_trainer, "BatchGenerator", Limited):
        completions, _, _ = grpo_trainer.generate_grpo(
            policy.model, policy.tokenizer, [list(p) for p in prompts], max(limits), group, batch, "", 1.0, 1.0, 0, 0.0
        )
    return sum(completion.size for completion in completions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help=f"a folder or one of {', '.join(models.SHAPES)}")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="rows of each prompt")
    parser.add_argument("--prompt", type=int, default=96, help="tokens of a prompt")
    parser.add_argument("--shared", type=int, default=48, help="first tokens that all prompts share")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of a completion")
    parser.add_argument("--width", type=int, default=0, help="rows decoded together by ours and BatchGenerator, 0: all")
    parser.add_argument("--ragged", action="store_true", help="half of the rows end at a quarter of the tokens")
    parser.add_argument("--ends", type=float, default=0.0, help="chance that a row ends, a token")
    parser.add_argument("--apart", action="store_true", help="ours without what only a CPU lets us do, too")
    parser.add_argument(
        "--cpu", action="store_true", help="count processor time: for a machine that others use as well"
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    args = parser.parse_args()
    clock = time.process_time if args.cpu else time.perf_counter
    parts = config.LoraConfig(), config.OptimConfig(), config.SamplingConfig(), config.LossConfig()
    policy, stock = models.load_pair(str(models.folder(args.model, args.root)), *parts)
    prompts = prompts_of(args.prompts, args.prompt, args.shared)
    number = args.prompts * args.group
    limits = [max(1, args.tokens // 4) if args.ragged and i % 2 else args.tokens for i in range(number)]
    width = args.width or number
    stops: set[int] = set()
    if args.ends:
        stops = set(range(round(args.ends * policy.backbone.vocabulary)))  # random weights: tokens are about as likely
    common: tuple[Any, ...] = (prompts, args.group, limits, width, stops)
    engines: dict[str, Engine] = {
        "BatchGenerator": lambda: batch_generator(stock, *common),
        "azr_mlx": lambda: ours(policy.acting(), *common),
    }
    if args.apart:
        with models.unfitted():
            merged = stock.acting()
        engines["azr_mlx, not fitted"] = lambda: unfitted(merged, *common)
        engines["azr_mlx, nor merged"] = lambda: unfitted(stock.backbone, *common)
    if grpo_trainer is not None:
        shapes = {(batch, args.group) for batch in (1, args.prompts)} | {(number, 1)}
        for batch, group in sorted(shapes):
            asked = prompts if group > 1 else [prompt for prompt in prompts for _ in range(args.group)]
            name = f"mlx-lm-lora {batch}x{group}"
            engines[name] = partial(mlx_lm_lora, stock, asked, group, limits, batch, stops)
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        engine()
    for _ in range(args.repeat):
        for name, engine in engines.items():
            start = clock()
            written = engine()
            rates[name].append(written / (clock() - start))
    end = ", half end at a quarter" if args.ragged else f", a token ends {args.ends:.0%}" if args.ends else ""
    shape = f"prompt {args.prompt} ({args.shared} shared), {args.tokens} tokens{end}"
    shape += "; processor time" if args.cpu else ""
    print(f"{PROFILE.name}, {args.model}, {args.prompts} prompts x {args.group}, width {width}, {shape}")
    print(f"{'engine':24} {'tok/s':>8} {'ratio':>7} {'low':>8} {'high':>8}")
    medians: dict[str, dict[str, float]] = {}
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates["BatchGenerator"], strict=True))
        medians[name] = {"tokens_per_second": statistics.median(values), "ratio": ratio}
        print(f"{name:24} {statistics.median(values):8.0f} {ratio:7.2f} {min(values):8.0f} {max(values):8.0f}")
    if args.json:
        args.json.write_text(json.dumps({"base": "BatchGenerator", "unit": "tokens/s", "engines": medians}, indent=1))


if __name__ == "__main__":
    main()
