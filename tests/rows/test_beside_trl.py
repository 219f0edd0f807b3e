"""Rewards and advantages beside TRL: one step of its GRPOTrainer on 200 rows, number by number.

The embedded model writes; the reward functions are one file, examples/own_tasks/rewards.py, used by both. Needs trl and
torch, which `make hf-check` installs; skipped where they are not.
"""

from __future__ import annotations

import importlib.util
import math
import sys

import pytest

from azr_mlx import config
from azr_mlx.rows.environment import Rewards
from azr_mlx.rows.group_advantages import advantages
from azr_mlx.rows.reading import Table, read
from azr_mlx.rows.reward_functions import Answer

pytestmark = pytest.mark.slow
FILE = "examples/own_tasks/rewards.py"
NAMES, WEIGHTS = ("right_number", "right_sign"), ("1", "0.3")
ROWS, GROUP = 200, 4


@pytest.mark.parametrize(
    ("algorithm", "scale"), [("grpo", "group"), ("dr_grpo", "none"), ("reinforce++-baseline", "batch")]
)
def test_rewards_and_advantages_of_200_groups_are_those_of_trl(root, tmp_path, monkeypatch, algorithm, scale):
    for package in ("trl", "torch"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(root)
    rows = read("examples/own_tasks/arithmetic.jsonl").rows[-ROWS:]
    settings = config.with_values(
        config.Config(),
        {"mode": "grpo", "reward.functions": tuple(f"{FILE}:{name}" for name in NAMES), "reward.weights": WEIGHTS},
    )
    ours = Rewards.of(settings, Table("rows", rows))
    logged = step_of_trl(
        root, tmp_path, rows, [getattr(sys.modules["azr_reward_rewards"], name) for name in NAMES], scale
    )
    by_prompt = {row.prompt: row for row in rows}
    answers = [Answer(by_prompt[p], c) for p, c in zip(logged["prompt"], logged["completion"], strict=True)]
    assert len(answers) == ROWS * GROUP
    given = ours.grade(answers, [], 0)
    for name in NAMES:
        for mine, theirs in zip(given, logged["rewards"][name], strict=True):
            assert (mine[name] is None) == math.isnan(theirs)
            assert mine[name] is None or mine[name] == pytest.approx(theirs, abs=1e-6)
    totals = [ours.total(one) for one in given]
    groups = [totals[i : i + GROUP] for i in range(0, len(totals), GROUP)]
    mine = [value for group in advantages(groups, algorithm) for value in group]
    assert mine == pytest.approx(list(logged["advantages"]), rel=1e-4, abs=1e-5)
    assert any(mine)
    assert any(one[NAMES[1]] is None for one in given)


def step_of_trl(root, folder, rows, functions, scale):
    """The prompts, completions, rewards and advantages of one step of TRL's GRPOTrainer."""
    import torch
    from datasets import Dataset
    from mlx.utils import tree_flatten
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from azr_mlx.model import device, weights

    torch.set_num_threads(1)
    nano = root / "checkpoints" / "qwen3-nano"
    tokenizer, shape = AutoTokenizer.from_pretrained(nano), AutoConfig.from_pretrained(nano)
    del shape.quantization_config  # the weights are loaded as azr_mlx unpacks them on a CPU
    network = weights.open_model(config.ModelConfig(), device.prepare())[0]
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    unpacked = {name: torch.tensor(value.tolist()) for name, value in tree_flatten(network.parameters())}
    assert not model.load_state_dict(unpacked, strict=False).unexpected_keys
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = GRPOTrainer(
        model=model,
        args=GRPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
            logging_strategy="no", per_device_train_batch_size=ROWS * GROUP, num_generations=GROUP,
            max_completion_length=6, max_steps=1, beta=0.0, scale_rewards=scale, gradient_checkpointing=False,
            reward_weights=[float(word) for word in WEIGHTS],
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": row.prompt, **row.columns} for row in rows]),
        reward_funcs=functions,
    )  # fmt: skip
    trainer.train()
    return trainer._logs
