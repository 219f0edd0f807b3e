"""One step of GRPO in TRL, with torch on the CPU, beside ours: the reference from outside MLX.

    python benchmarks/speed/trl_reference.py --prompts 4 --group 8 --prompt 64 --tokens 32

TRL's GRPOTrainer takes a model of transformers of the same shape, built from its configuration, with a LoRA of the
same rank on the same layers (peft), and its own way to generate. Both write the same number of tokens from the same
prompts at temperature 1, keep the activations of the forward pass, and take one optimizer step. They take turns, one
step each, and the table holds medians of processor seconds. It needs `pip install trl peft` and a build of torch for
the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx.model import device  # noqa: E402

PROFILE = device.prepare()

import models  # noqa: E402
import numpy as np  # noqa: E402

from azr_mlx import config  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.types import Kind, Prompt, Role  # noqa: E402

clock = time.process_time  # both compute on the CPU, with one thread each
Step = Callable[[], tuple[float, float]]  # seconds of (rollouts, update)


def ours(folder: Path, texts: list[str], group: int, tokens: int, rank: int) -> Step:
    policy = Policy.load(
        config.ModelConfig(id=str(folder), style="compact"), config.LoraConfig(rank=rank),
        config.OptimConfig(checkpoint_layers="false"),
        config.SamplingConfig(max_rows=len(texts) * group), config.LossConfig(),
    )  # fmt: skip
    policy.stop_tokens = frozenset()  # every row runs to its limit
    prompts = [Prompt(Role.SOLVE, Kind.DEDUCTION, text) for text in texts]
    taken = 0

    def step() -> tuple[float, float]:
        nonlocal taken
        taken += 1
        start = clock()
        rows = [row for rows in policy.sample_all(prompts, group, seed=(taken,), max_tokens=tokens) for row in rows]
        written = clock()
        policy.update(rows, [1.0 if i % 2 else -1.0 for i in range(len(rows))])
        return written - start, clock() - written

    return step


def trl(folder: Path, texts: list[str], group: int, tokens: int, rank: int, output: Path) -> Step:
    """A step of GRPOTrainer. Raises ImportError when TRL, peft or torch is not installed."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    shape = AutoConfig.from_pretrained(folder)
    del shape.quantization_config  # random weights in float32, as ours are once they are loaded on a CPU
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    settings = GRPOConfig(
        output_dir=str(output), use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
        logging_strategy="no", per_device_train_batch_size=len(texts) * group, num_generations=group,
        max_completion_length=tokens, generation_kwargs={"min_new_tokens": tokens}, temperature=1.0, top_p=1.0,
        beta=0.0, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_config(shape, dtype=torch.float32),
        args=settings,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        reward_funcs=lambda completions, **_: [1.0 if i % 2 else -1.0 for i in range(len(completions))],
        peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # what train() would set
    spent = 0.0
    generate = trainer._generate

    def timed(*args: Any, **words: Any) -> Any:
        nonlocal spent
        start = clock()
        result = generate(*args, **words)
        spent = clock() - start
        return result

    trainer._generate = timed

    def step() -> tuple[float, float]:
        trainer._step = 0  # generate anew
        start = clock()
        trainer.training_step(trainer.model, batch, None)
        assert trainer._metrics["train"]["completions/min_length"][-1] == tokens
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), settings.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return spent, clock() - start - spent

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", choices=models.SHAPES)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8, help="rollouts of each prompt")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of a completion")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    folder = models.folder(args.model, args.root)
    random = np.random.default_rng(0)
    texts = ["".join(map(chr, random.integers(97, 123, args.prompt))) for _ in range(args.prompts)]
    work = (folder, texts, args.group, args.tokens, args.rank)
    with tempfile.TemporaryDirectory() as output:
        try:
            engines = {"TRL": trl(*work, Path(output)), "azr_mlx": ours(*work)}
        except ImportError as error:
            print(f"TRL is not measured: {error.name} is not installed (pip install trl peft)")
            if args.json:
                args.json.write_text(json.dumps({"base": "TRL", "unit": "seconds", "engines": {}}))
            return
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for turn in range(args.repeat + 1):
            for name, step in engines.items():
                took = step()
                if turn:  # the first turn warms up
                    seconds[name].append(took)
    shape = f"{args.prompts} prompts x {args.group}, prompt {args.prompt}, {args.tokens} tokens"
    print(f"{PROFILE.name}, {args.model}, {shape}, rank {args.rank}; processor seconds and their ratio to TRL's")
    print(f"{'engine':10} {'rollouts':>9} {'ratio':>6} {'update':>9} {'ratio':>6} {'step':>9} {'ratio':>6}")
    medians: dict[str, dict[str, float]] = {}
    parts: dict[str, Callable[[tuple[float, float]], float]] = {
        "rollouts": lambda took: took[0], "update": lambda took: took[1], "step": sum,
    }  # fmt: skip
    for name, pairs in seconds.items():
        cells = []
        for part, of in parts.items():
            value = statistics.median(map(of, pairs))
            ratio = statistics.median(of(a) / of(b) for a, b in zip(pairs, seconds["TRL"], strict=True))
            medians[f"{name}, {part}"] = {"seconds": value, "ratio": ratio}
            cells.append(f"{value:9.3f} {ratio:6.2f}")
        print(f"{name:10} {' '.join(cells)}")
    if args.json:
        args.json.write_text(json.dumps({"base": "TRL", "unit": "seconds", "engines": medians}, indent=1))


if __name__ == "__main__":
    main()
