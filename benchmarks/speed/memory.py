"""Memory: what `azr plan` predicts beside what MLX measured, for shapes and settings that differ in everything.

    python benchmarks/speed/memory.py [--json FILE]

Each case writes rollouts of the longest lengths, then learns from them, on a model of random weights. Predicted and
measured are peaks of all that MLX holds (mx.get_peak_memory), weights and optimizer included, while it samples and
while it learns. The planner's constants were fitted to the gradient and the decoder alone, on other shapes; two
terms of rows that share prompts were corrected on these.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx.model import device  # noqa: E402

PROFILE = device.prepare()

import models  # noqa: E402
import numpy as np  # noqa: E402

from azr_mlx import config, planner  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.types import Kind, Prompt, Role  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A model of models.SHAPES, or one of its shape with `changes`, and the work of a step."""

    model: str
    prompts: int
    group: int
    prompt: int
    tokens: int
    rank: int = 16
    keep: bool = False
    budget: int = 8192

    def __str__(self) -> str:
        kept = "kept" if self.keep else "recomputed"
        return (
            f"{self.model}, {self.prompts}x{self.group} rows of {self.prompt}+{self.tokens}, rank {self.rank}, {kept}, "
            f"{self.budget} a pass"
        )


models.SHAPES |= {
    "wide": models.SHAPES["nano"] | {"hidden_size": 384, "num_hidden_layers": 4, "intermediate_size": 1024,
                                     "num_attention_heads": 6, "head_dim": 64},
    "deep": models.SHAPES["nano"] | {"hidden_size": 128, "num_hidden_layers": 12, "intermediate_size": 384,
                                     "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32},
    "vocabulary": models.SHAPES["nano"] | {"model_type": "qwen2", "hidden_size": 128, "num_hidden_layers": 3,
                                           "intermediate_size": 512, "num_attention_heads": 4,
                                           "num_key_value_heads": 1, "vocab_size": 32_000},
}  # fmt: skip

CASES = (
    Case("nano", 8, 8, 96, 64),
    Case("nano", 8, 8, 96, 64, keep=True, budget=4096),
    Case("nano", 16, 1, 300, 60, budget=2048),
    Case("wide", 4, 8, 64, 48, rank=64),
    Case("wide", 16, 1, 160, 32, keep=True, budget=1024),
    Case("deep", 8, 4, 200, 100, budget=2048),
    Case("deep", 16, 2, 40, 40, rank=4, keep=True),
    Case("vocabulary", 4, 8, 48, 48),
    Case("vocabulary", 32, 1, 120, 20, keep=True, budget=1024),
)


def measure(case: Case, root: Path) -> dict[str, Any]:
    """Predicted and measured peaks of a case in bytes."""
    folder = models.folder(case.model, root)
    optim = config.OptimConfig(micro_batch_tokens=case.budget, checkpoint_layers="false" if case.keep else "true")
    sampling = config.SamplingConfig(max_rows=case.prompts * case.group)
    settings = config.with_values(
        config.Config(),
        {"model.id": str(folder), "model.style": "compact", "lora.rank": case.rank, "model.group_size": 32},
    )
    settings = config.Config(model=settings.model, lora=settings.lora, optim=optim, sampling=sampling)
    # On a CPU and on a GPU alike: what the planner would say of a machine of this kind.
    machine = planner.Machine("this one", PROFILE.name, PROFILE.memory, PROFILE.memory, 1, 1, "", 1)
    work = [planner.Workload("all", case.prompts, case.group, case.prompt, case.tokens)]
    planned = planner.plan_memory(settings, planner.shape_of(settings.model), machine, work)

    device.clear_cache()
    policy = Policy.load(settings.model, settings.lora, optim, sampling, config.LossConfig())
    policy.stop_tokens = frozenset()  # every row runs to its limit
    random = np.random.default_rng(0)
    # Byte-level letters: one token each, no two prompts with a common beginning worth sharing.
    texts = ["".join(map(chr, random.integers(97, 123, case.prompt))) for _ in range(case.prompts)]
    prompts = [Prompt(Role.SOLVE, Kind.DEDUCTION, text) for text in texts]
    device.reset_peak()
    groups = policy.sample_all(prompts, case.group, seed=(0,), max_tokens=case.tokens)
    sampled = device.memory().peak
    rollouts = [one for group in groups for one in group]
    update = policy.update(rollouts, [1.0 if i % 2 else -1.0 for i in range(len(rollouts))])
    fixed = planned.weights + planned.adapters + planned.merged
    return {
        "case": str(case),
        "sampling": (fixed + planned.while_sampling, sampled),
        "learning": (fixed + planned.while_learning, update.peak_memory),
        "peak": (planned.device_peak, max(sampled, update.peak_memory)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    args = parser.parse_args()
    print(f"{PROFILE.name}; MB predicted / measured and their ratio")
    print(f"{'case':<72} {'sampling':>21} {'learning':>21} {'peak':>6}")
    rows = []
    for case in CASES[: args.cases]:
        row = measure(case, args.root)
        rows.append(row)
        cells = [f"{p / 1e6:7.1f} /{m / 1e6:6.1f} {p / m:5.2f}" for p, m in (row["sampling"], row["learning"])]
        print(f"{row['case']:<72} {cells[0]:>21} {cells[1]:>21} {row['peak'][0] / row['peak'][1]:6.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"device": PROFILE.name, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
