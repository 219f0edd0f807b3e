"""The dials: one dataclass tree, one source for each default.

A configuration is this tree, overlaid by a YAML file and by `--set a.b=c` words. Every field says what it
is in `help`, and what it may be in `choices`, `low` and `high` (both inclusive unless `above` is given).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def dial(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field that knows its meaning and its range."""
    metadata = {"help": help, "low": low, "high": high, "above": above, "choices": choices}
    if isinstance(default, (list, dict, set)):
        raise TypeError("dials are immutable: use a tuple")
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Model:
    id: str = dial("checkpoints/qwen3-nano", "Hugging Face repository or local folder")
    revision: str = dial("", "branch, tag or commit of the repository; empty is its default branch")
    bits: int = dial(4, "bits of the weights when full-precision weights are quantized locally", choices=(2, 3, 4, 5, 6, 8))
    group_size: int = dial(64, "weights that share one scale when quantized locally", choices=(32, 64, 128))
    mode: str = dial("affine", "quantization mode of mlx", choices=("affine", "mxfp4", "nvfp4", "mxfp8"))
    dtype: str = dial("auto", "activation type; auto is bfloat16 on a GPU and float32 on a CPU",
                      choices=("auto", "float32", "float16", "bfloat16"))
    style: str = dial("r1", "prompt style: r1 for base models, chat for instruct models, compact for nano",
                      choices=("r1", "chat", "compact"))
    thinking: bool = dial(False, "let a chat template open a think section (Qwen3)")


@dataclass(frozen=True)
class Lora:
    rank: int = dial(16, "rank of every adapter matrix", low=1, high=512)
    scale: float = dial(2.0, "factor on the adapter's output (alpha / rank)", above=0)
    layers: int = dial(-1, "how many blocks, counted from the last, get adapters; -1 is all", low=-1)
    keys: tuple[str, ...] = dial((), "linear layers of a block to adapt; empty is all of them")


@dataclass(frozen=True)
class Tasks:
    kinds: tuple[str, ...] = dial(("deduction", "abduction", "induction"), "the task kinds that are played",
                                  choices=("deduction", "abduction", "induction"))
    references: int = dial(6, "K: examples shown to a proposer", low=0)
    induction_pairs: int = dial(10, "inputs of an induction task; half are shown, half decide", low=2)
    max_program_chars: int = dial(4000, "longest program that a proposal may hold", low=1)
    max_input_chars: int = dial(1000, "longest argument text that a proposal may hold", low=1)
    max_output_chars: int = dial(400, "longest output text of a valid task", low=1)
    reject_constant: bool = dial(False, "count a program that never reads its arguments as invalid")


@dataclass(frozen=True)
class Batch:
    proposals: int = dial(8, "proposals of each kind a step", low=0)
    attempts: int = dial(8, "n: solver rollouts that measure each fresh task", low=1)
    solves: int = dial(8, "solver tasks of each kind a step, drawn from the buffer", low=0)
    solve_group: int = dial(1, "solver rollouts of each drawn task", low=1)
    fresh_share: float = dial(1.0, "largest share of drawn tasks that may come from the latest step", low=0, high=1)
    train_attempts: bool = dial(True, "train on the attempts too, with a per-problem baseline")
    train_proposer: bool = dial(True, "train on the proposals")


@dataclass(frozen=True)
class Sampling:
    temperature: float = dial(1.0, "sampling temperature of rollouts", above=0)
    top_p: float = dial(1.0, "nucleus mass of rollouts", above=0, high=1)
    propose_tokens: int = dial(1024, "longest proposal in tokens", low=1)
    solve_tokens: int = dial(1024, "longest solution in tokens", low=1)
    prompt_tokens: int = dial(3072, "longest prompt in tokens; a longer one is drawn again", low=1)
    max_rows: int = dial(64, "rows decoded together", low=1)
    kv_gb: float = dial(0.0, "memory for keys and values in GB; 0 leaves it to max_rows", low=0)


@dataclass(frozen=True)
class Reward:
    correct: float = dial(1.0, "a right solution")
    wrong: float = dial(-0.5, "a well-formed wrong solution")
    malformed: float = dial(-1.0, "a reply without the required form, or an invalid proposal")
    unlearnable: float = dial(-0.5, "a valid proposal that is solved never or always (the paper's formula: 0)")
    learnability: str = dial("one_minus", "of a solve rate r: one_minus is 1 - r, variance is 4r(1 - r)",
                             choices=("one_minus", "variance"))


@dataclass(frozen=True)
class Advantage:
    baseline: str = dial("by_task_role", "the set that centres a reward: by_task_role is TRR++, by_prompt is GRPO",
                         choices=("by_task_role", "by_prompt"))
    attempts_baseline: str = dial("by_prompt", "the same for attempts and other grouped solver rollouts",
                                  choices=("by_task_role", "by_prompt"))
    per: str = dial("token", "what counts once in a mean: token weighs a rollout by its length", choices=("token", "rollout"))
    divide_by_std: bool = dial(True, "divide by the standard deviation of the set")
    positive_only: bool = dial(False, "keep only what did better than its baseline")
    small_set: int = dial(8, "sets smaller than this use a running mean and deviation", low=0)
    decay: float = dial(0.9, "decay of the running mean and deviation", low=0, high=1)


@dataclass(frozen=True)
class Loss:
    clip_low: float = dial(0.2, "lower clip of the probability ratio", low=0, high=1)
    clip_high: float = dial(0.28, "upper clip of the probability ratio", low=0)
    importance_cap: float = dial(2.0, "cap of the truncated importance weight when logprobs are recomputed", low=1)
    recompute_old_logprobs: bool = dial(False, "take old logprobs from a forward pass of the trainer, not from the sampler")
    entropy: float = dial(0.0, "coefficient of the entropy bonus")
    kl: float = dial(0.0, "coefficient of the KL penalty to the model with adapters off", low=0)
    mask_truncated: bool = dial(True, "leave truncated solver completions out of the loss")
    updates_per_batch: int = dial(1, "optimizer steps on each batch of rollouts", low=1)


@dataclass(frozen=True)
class Optim:
    lr: float = dial(2e-5, "learning rate of AdamW", above=0)
    schedule: str = dial("constant", "learning rate after warm-up", choices=("constant", "linear", "cosine"))
    warmup_steps: int = dial(0, "steps of linear warm-up", low=0)
    beta1: float = dial(0.9, "decay of the first moment", low=0, high=1)
    beta2: float = dial(0.95, "decay of the second moment", low=0, high=1)
    weight_decay: float = dial(0.0, "decoupled weight decay", low=0)
    grad_clip: float = dial(1.0, "largest norm of the gradient; 0 is no limit", low=0)
    micro_batch_tokens: int = dial(16384, "tokens of one forward and backward pass", low=1)
    checkpoint_layers: bool = dial(False, "recompute each layer in the backward pass: less memory, more time")


@dataclass(frozen=True)
class Buffer:
    capacity: int = dial(16384, "items of each kind; the oldest that is not a seed leaves first", low=1)
    seed_size: int = dial(64, "valid seed tasks to collect before the first step", low=1)
    seed_rounds: int = dial(40, "most rounds of proposing spent on seeds", low=0)


@dataclass(frozen=True)
class ExecutorDials:
    level: str = dial("standard", "sandbox: strict refuses without an OS sandbox, off runs unconfined",
                      choices=("strict", "standard", "off"))
    wall_seconds: float = dial(5.0, "wall time of one program", above=0)
    cpu_seconds: float = dial(5.0, "processor time of one program", above=0)
    memory_mb: int = dial(512, "memory of one program", low=32)
    workers: int = dial(0, "programs that run at once; 0 is one for each core", low=0)


@dataclass(frozen=True)
class Evaluation:
    every: int = dial(0, "steps between evaluations on the probe set; 0 is only before and after", low=0)
    probe: str = dial("", "JSONL of held-out tasks; empty is the probe set that belongs to the model, if any")
    probe_tasks: int = dial(0, "tasks of each kind from the probe set; 0 is all", low=0)
    samples: int = dial(4, "samples of each task at temperature 1", low=1)
    bench: str = dial("", "benchmark to evaluate a slice of, greedily, with every evaluation")
    bench_limit: int = dial(20, "tasks of that slice", low=1)


@dataclass(frozen=True)
class Checkpoint:
    every: int = dial(10, "steps between checkpoints", low=1)
    keep: int = dial(3, "newest checkpoints that are kept; the best one is kept as well", low=1)


@dataclass(frozen=True)
class Tracking:
    rollouts: bool = dial(True, "write every rollout to rollouts/step-*.jsonl")
    wandb: bool = dial(False, "send metrics to Weights & Biases")
    wandb_project: str = dial("azr_mlx", "W&B project")
    report: bool = dial(True, "write report.html at the end")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on. `name` is the run folder's name under checkpoints/."""

    name: str = dial("run", "name of the run folder under checkpoints/")
    seed: int = dial(0, "seed of every random choice", low=0)
    steps: int = dial(200, "self-play steps", low=0)
    minutes: float = dial(0.0, "stop after this many minutes of training; 0 is no limit", low=0)
    model: Model = Model()
    lora: Lora = Lora()
    tasks: Tasks = Tasks()
    batch: Batch = Batch()
    sampling: Sampling = Sampling()
    reward: Reward = Reward()
    advantage: Advantage = Advantage()
    loss: Loss = Loss()
    optim: Optim = Optim()
    buffer: Buffer = Buffer()
    executor: ExecutorDials = ExecutorDials()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking = Tracking()
