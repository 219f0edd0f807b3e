"""The options: one dataclass tree, one source for each default.

A configuration is this tree, overlaid by a YAML file and by `--set a.b=c` words. Every field says what it
is in `help`, and what it may be in `choices`, `low` and `high` (both inclusive), `above` and `below` (exclusive).

The type of an option decides how its text is read, never the look of the text: `1e-5` is a number where a number
belongs, and `off` is a word where a word belongs, whatever YAML 1.1 makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, get_type_hints

from azr_mlx.config.option import Option, option
from azr_mlx.types import Kind


@dataclass(frozen=True)
class ModelConfig:
    id: str = option("checkpoints/qwen3-nano", "Hugging Face repository or local folder")
    revision: str = option("", "branch, tag or commit of the repository; empty is its default branch")
    bits: int = option(
        4, "bits of the weights when full-precision weights are quantized locally", choices=(2, 3, 4, 5, 6, 8)
    )
    group_size: int = option(64, "weights that share one scale when quantized locally", choices=(16, 32, 64, 128))
    mode: str = option("affine", "quantization mode of mlx", choices=("affine", "mxfp4", "nvfp4", "mxfp8"))
    dtype: str = option(
        "auto",
        "activation type; auto is bfloat16 on a GPU and float32 on a CPU",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    style: str = option(
        "r1",
        "prompt style: r1 for base models, chat for instruct models, text-direct and chat-direct for small ones, "
        "compact for nano, or a YAML file of your own",
        explained="a [prompt style](prompts.md)",
    )
    thinking: bool = option(False, "let a chat template open a think section (Qwen3)")


@dataclass(frozen=True)
class LoraConfig:
    rank: int = option(16, "rank of every adapter matrix", low=1, high=512)
    scale: float = option(2.0, "factor on the adapter's output (alpha / rank)", above=0)
    layers: int = option(-1, "how many blocks, counted from the last, get adapters; -1 is all", low=-1)
    keys: tuple[str, ...] = option((), "linear layers of a block to adapt; empty is all of them")


@dataclass(frozen=True)
class DataConfig:
    path: str = option(
        "", "rows of your own: a JSONL, JSON, CSV or Parquet file, or a datasets name (owner/name or owner/name:config)"
    )
    prompt: str = option("prompt", "the column that holds the prompt, text or messages")
    split: str = option("train", "split of a datasets name")
    held_out: float = option(0.1, "share of the prompts that is held out", low=0, below=1)
    held_out_most: int = option(200, "most prompts that are held out", low=0)


@dataclass(frozen=True)
class RowsConfig:
    prompts: int = option(8, "rows a step", low=1)
    group: int = option(8, "answers to each row", low=1)
    algorithm: str = option(
        "grpo",
        "advantages and loss of the answers to a row",
        choices=("grpo", "dr_grpo", "dapo", "gspo", "reinforce++", "reinforce++-baseline"),
    )


@dataclass(frozen=True)
class MixConfig:
    selfplay: float = option(0.5, "in mode mix: share of its batch that self-play takes a step", above=0, high=1)
    rows: float = option(0.5, "in mode mix: share of their batch that the rows take a step", above=0, high=1)


@dataclass(frozen=True)
class TasksConfig:
    kinds: tuple[str, ...] = option(
        ("deduction", "abduction", "induction"),
        "the task kinds that are played",
        choices=tuple(kind.value for kind in Kind),
        explained="some of the [task kinds](kinds.md)",
    )
    references: int = option(6, "K: examples shown to a proposer", low=0)
    induction_pairs: int = option(
        10, "inputs of a task with several cases; of an induction half are shown, half decide", low=2
    )
    max_program_chars: int = option(4000, "longest program that a proposal may hold", low=1)
    max_input_chars: int = option(1000, "longest argument text that a proposal may hold", low=1)
    max_output_chars: int = option(400, "longest output text of a valid task", low=1)
    draw: str = option(
        "uniform",
        "how examples shown to a proposer, and programs lent to it, are drawn: as batch.draw",
        choices=("uniform", "learnable", "frontier"),
    )
    reject_constant: bool = option(False, "count a program that never reads its arguments as invalid")
    reject_identity: bool = option(False, "count a task that a copy of what it shows solves as invalid")


@dataclass(frozen=True)
class BatchConfig:
    proposals: int = option(8, "proposals of each kind a step", low=0)
    propose_group: int = option(1, "proposals written from one prompt; batch.proposals is a multiple of it", low=1)
    attempts: int = option(8, "n: solver rollouts that measure each fresh task", low=1)
    solves: int = option(8, "solver tasks of each kind a step, drawn from the buffer", low=0)
    solve_group: int = option(1, "solver rollouts of each drawn task", low=1)
    draw: str = option(
        "uniform",
        "older tasks are drawn uniformly, or by their latest solve rate r: learnable with weights r(1 - r), frontier "
        "with r(1 - r)^2, which has its peak at r = 1/3",
        choices=("uniform", "learnable", "frontier"),
    )
    mutations: int = option(
        0,
        "programs of memory that are edited for each kind a step, those first whose solve rate is near 1/3; what is a "
        "task then is solved like a drawn one",
        low=0,
    )
    fresh_share: float = option(1.0, "largest share of drawn tasks that may come from the latest step", low=0, high=1)
    train_attempts: bool = option(True, "train on the attempts too, with a per-problem baseline")
    train_proposer: bool = option(True, "train on the proposals")


@dataclass(frozen=True)
class SamplingConfig:
    temperature: float = option(1.0, "sampling temperature of rollouts", above=0)
    top_p: float = option(1.0, "nucleus mass of rollouts", above=0, high=1)
    propose_tokens: int = option(1024, "longest proposal in tokens", low=1)
    solve_tokens: int = option(1024, "longest solution in tokens", low=1)
    prompt_tokens: int = option(3072, "longest prompt in tokens; a longer one is drawn again", low=1)
    max_rows: int = option(64, "rows decoded together", low=1)
    tile_rows: int = option(
        0,
        "rows that cost together what one costs: batches hold whole multiples; 0 is 32 on an Apple GPU, else 1",
        low=0,
    )
    item_rows: int = option(
        0, "rows that are decoded by themselves, whoever decodes them; 0 is all rows in one changing batch", low=0
    )
    kv_gb: float = option(0.0, "memory for keys and values in GB; 0 leaves it to max_rows", low=0)
    overlap: bool = option(True, "attempt a fresh task while others are proposed; else when all are judged")


@dataclass(frozen=True)
class RewardConfig:
    functions: tuple[str, ...] = option(
        (),
        "what answers to your own rows earn: file.py:function, or python_tests, python_output, exact, literal_equal, "
        "format (docs/own-tasks.md)",
    )
    weights: tuple[str, ...] = option((), "a factor for each of the functions; empty is 1 for all")
    seconds: float = option(60.0, "wall time of one call of a function of your own", above=0)
    format: str = option(
        "think_answer", "what the function format asks for", choices=("think_answer", "answer", "python", "boxed")
    )
    correct: float = option(1.0, "a right solution")
    wrong: float = option(-0.5, "a well-formed wrong solution")
    malformed: float = option(-1.0, "a reply without the required form, or an invalid proposal")
    unlearnable: float = option(-0.5, "a valid proposal that is solved never or always (the paper's formula: 0)")
    learnability: str = option(
        "one_minus", "of a solve rate r: one_minus is 1 - r, variance is 4r(1 - r)", choices=("one_minus", "variance")
    )
    crowded: float = option(
        0.0,
        "taken from a valid proposal, times n / (n + m): n programs like it in the run, m of each sort on average",
        low=0,
    )


@dataclass(frozen=True)
class AdvantageConfig:
    baseline: str = option(
        "by_task_role",
        "the set that centres a reward: by_task_role is TRR++, by_prompt is GRPO",
        choices=("by_task_role", "by_prompt"),
    )
    attempts_baseline: str = option(
        "by_prompt", "the same for attempts and other grouped solver rollouts", choices=("by_task_role", "by_prompt")
    )
    proposals_baseline: str = option(
        "by_task_role",
        "the same for proposals of one prompt (batch.propose_group)",
        choices=("by_task_role", "by_prompt"),
    )
    proposal_signals: str = option(
        "joint",
        "a proposal's reward is centred as one number, or its form over all proposals and its learnability over the "
        "valid ones (separate)",
        choices=("joint", "separate"),
    )
    form_weight: float = option(
        1.0, "with separate signals, factor on a proposal's form; its learnability has 1", low=0
    )
    proposer_weight: float = option(
        1.0, "factor on the advantages of proposals: their learning rate beside the solver's", low=0
    )
    per: str = option(
        "token", "what counts once in a mean: token weighs a rollout by its length", choices=("token", "rollout")
    )
    divide_by_std: bool = option(True, "divide by the standard deviation of the set")
    positive_only: bool = option(False, "keep only what did better than its baseline")
    small_set: int = option(8, "sets smaller than this use a running mean and deviation", low=0)
    decay: float = option(0.9, "decay of the running mean and deviation", low=0, high=1)


@dataclass(frozen=True)
class LossConfig:
    clip_low: float = option(0.2, "lower clip of the probability ratio", low=0, high=1)
    clip_high: float = option(0.28, "upper clip of the probability ratio", low=0)
    importance_cap: float = option(2.0, "cap of the truncated importance weight when logprobs are recomputed", low=1)
    recompute_old_logprobs: bool = option(
        False, "take old logprobs from a forward pass of the trainer, not from the sampler"
    )
    entropy: float = option(0.0, "coefficient of the entropy bonus")
    kl: float = option(0.0, "coefficient of the KL penalty to the model with adapters off", low=0)
    mask_truncated: bool = option(True, "leave truncated solver completions out of the loss")
    updates_per_batch: int = option(1, "optimizer steps on each batch of rollouts", low=1)


@dataclass(frozen=True)
class OptimConfig:
    lr: float = option(2e-5, "learning rate of AdamW", above=0)
    schedule: str = option(
        "constant",
        "learning rate after warm-up: inverse_sqrt falls with the root of the step, linear and cosine end at 0",
        choices=("constant", "inverse_sqrt", "linear", "cosine"),
    )
    warmup_steps: int = option(0, "steps of linear warm-up", low=0)
    beta1: float = option(0.9, "decay of the first moment", low=0, below=1)
    beta2: float = option(0.95, "decay of the second moment", low=0, below=1)
    weight_decay: float = option(0.0, "decoupled weight decay", low=0)
    grad_clip: float = option(1.0, "largest norm of the gradient; 0 is no limit", low=0)
    micro_batch_tokens: int = option(16384, "tokens of one forward and backward pass", low=1)
    gradient_items: int = option(
        0, "sums of consecutive micro-batches that an update is added up from; 0 is one for each micro-batch", low=0
    )
    checkpoint_layers: str = option(
        "auto",
        "what the backward pass computes again instead of keeping it: true is each layer, projections is what lies "
        "between a layer's matrices, false is nothing; auto takes for each micro-batch the last of these that fits "
        "into free memory",
        choices=("auto", "true", "projections", "false"),
    )


@dataclass(frozen=True)
class BufferConfig:
    capacity: int = option(16384, "items of each kind; the oldest that is not a seed leaves first", low=1)
    per_program: int = option(
        0, "most tasks of a kind about one program, where the proposer chooses it; 0 is any number", low=0
    )
    seed_size: int = option(64, "valid seed tasks to collect before the first step", low=1)
    archive: bool = option(
        False, "count the programs of the whole run by what they are made of and by what they do (metrics cells/)"
    )
    seed_rounds: int = option(40, "most rounds of proposing spent on seeds", low=0)


@dataclass(frozen=True)
class ExecutorConfig:
    level: str = option(
        "standard",
        "sandbox: strict refuses without an OS sandbox, off runs unconfined",
        choices=("strict", "standard", "off"),
    )
    wall_seconds: float = option(5.0, "wall time of one program", above=0)
    cpu_seconds: float = option(5.0, "processor time of one program", above=0)
    memory_mb: int = option(512, "memory of one program", low=32)
    workers: int = option(0, "programs that run at once; 0 is one for each core", low=0)


@dataclass(frozen=True)
class EvaluationConfig:
    every: int = option(0, "steps between evaluations on held-out tasks; 0 is only before and after", low=0)
    probe: str = option(
        "",
        "held-out tasks: built-in, cruxeval, none or a JSONL file; empty: probe.jsonl beside the model, or built-in",
    )
    probe_tasks: int = option(0, "held-out tasks of each kind; 0 is all", low=0)
    minutes: float = option(
        0.0, "minutes that one evaluation may take: as many tasks as fit by the speed measured first; 0 is all", low=0
    )
    samples: int = option(4, "samples of each task at temperature 1", low=1)
    bench: str = option("", "benchmark to evaluate a slice of, greedily, with every evaluation")
    bench_limit: int = option(20, "tasks of that slice", low=1)


@dataclass(frozen=True)
class StopConfig:
    plateau: int = option(
        0, "held-out evaluations in a row without a better score after which a run ends; 0 is never", low=0
    )
    worse: bool = option(True, "end a run whose held-out score has fallen beyond its 95 % interval")
    malformed: int = option(
        5, "steps in a row without one reply of the required form after which a run ends; 0 is never", low=0
    )


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = option(10, "steps between checkpoints; 0 leaves it to minutes", low=0)
    minutes: float = option(0.0, "minutes of training between checkpoints; 0 leaves it to every", low=0)
    keep: int = option(3, "newest checkpoints that are kept; the best one is kept as well", low=1)


@dataclass(frozen=True)
class TrackingConfig:
    rollouts: bool = option(True, "write every rollout to rollouts/step-*.jsonl")
    sinks: tuple[str, ...] = option(
        (),
        "where metrics and sampled rollouts go besides the run folder; trl is trl.jsonl, in the names of TRL",
        choices=("wandb", "tensorboard", "trackio", "trl"),
    )
    wandb: bool = option(False, "the older way to write sinks: wandb")
    wandb_project: str = option("azr_mlx", "project in W&B and Trackio")
    report: bool = option(True, "write report.html at the end")

    def all_sinks(self) -> tuple[str, ...]:
        """The sinks, the older option included, each once."""
        return tuple(dict.fromkeys((*self.sinks, *(("wandb",) if self.wandb else ()))))


@dataclass(frozen=True)
class Config:
    """Everything a run depends on. `name` is the run folder's name under checkpoints/."""

    name: str = option("run", "name of the run folder under checkpoints/")
    mode: str = option(
        "selfplay",
        "where tasks and rewards come from: self-play, your own rows (grpo), or both in every step (mix)",
        choices=("selfplay", "grpo", "mix"),
    )
    seed: int = option(0, "seed of every random choice", low=0)
    steps: int = option(200, "steps of training", low=0)
    minutes: float = option(0.0, "stop after this many minutes of training; 0 is no limit", low=0)
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    data: DataConfig = DataConfig()
    rows: RowsConfig = RowsConfig()
    mix: MixConfig = MixConfig()
    tasks: TasksConfig = TasksConfig()
    batch: BatchConfig = BatchConfig()
    sampling: SamplingConfig = SamplingConfig()
    reward: RewardConfig = RewardConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    buffer: BufferConfig = BufferConfig()
    executor: ExecutorConfig = ExecutorConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    stop: StopConfig = StopConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def played_kinds(self) -> tuple[Kind, ...]:
        """The task kinds of self-play; none in a run on rows alone."""
        return () if self.mode == "grpo" else tuple(map(Kind, self.tasks.kinds))

    @property
    def uses_rows(self) -> bool:
        """Whether the run trains on rows of the user's."""
        return self.mode != "selfplay"


@cache
def sections() -> frozenset[str]:
    """The names that hold options of their own."""
    return frozenset(f.name for f in fields(Config) if is_dataclass(f.default))


# A section that is given as a value instead: `reward: file.py:function` is `reward: {functions: file.py:function}`.
SHORT_FORMS: Mapping[str, str] = {"reward": "reward.functions", "data": "data.path"}


@cache
def options() -> Mapping[str, Option]:
    """Every option by its dotted key, in the order of the dataclasses."""

    def walk(owner: type, prefix: str) -> Iterator[Option]:
        hints = get_type_hints(owner)
        for f in fields(owner):
            if is_dataclass(f.default):
                yield from walk(type(f.default), f"{prefix}{f.name}.")
            else:
                yield Option(key=prefix + f.name, type=hints[f.name], default=f.default, **f.metadata)

    return {one.key: one for one in walk(Config, "")}


def flatten(config: Config) -> dict[str, Any]:
    """The configuration as dotted key -> value."""

    def value(key: str) -> Any:
        section, _, leaf = key.rpartition(".")
        return getattr(getattr(config, section) if section else config, leaf)

    return {key: value(key) for key in options()}


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with the options of `values` (dotted key -> value) turned. Nothing is checked."""
    changes: dict[str, Any] = {}
    for key, value in values.items():
        section, _, leaf = key.rpartition(".")
        if section:
            changes[section] = replace(changes.get(section, getattr(config, section)), **{leaf: value})
        else:
            changes[leaf] = value
    return replace(config, **changes)


def diff(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """The options that differ: (dotted key, old value, new value), in the order of the dataclasses."""
    before, after = flatten(old), flatten(new)
    return [(key, before[key], after[key]) for key in before if before[key] != after[key]]


# What a resumed run may change: how long it goes on, what is kept and shown, and how the machine shares out the work.
# Everything else decides what is learned. The probe set stays, for the figures taken before training were taken on it.
RESUMABLE = frozenset(
    key
    for key in options()
    if key
    in ("name", "steps", "minutes", "reward.seconds", "evaluation.every", "evaluation.bench", "evaluation.bench_limit")
    or key in ("sampling.max_rows", "sampling.tile_rows", "sampling.item_rows", "sampling.kv_gb", "executor.workers")
    or key in ("optim.micro_batch_tokens", "optim.gradient_items", "optim.checkpoint_layers")
    or key.startswith(("checkpoint.", "tracking.", "stop."))
)
