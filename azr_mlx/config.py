"""The dials: one dataclass tree, one source for each default.

A configuration is this tree, overlaid by a YAML file and by `--set a.b=c` words. Every field says what it
is in `help`, and what it may be in `choices`, `low` and `high` (both inclusive), `above` and `below` (exclusive).

The type of a dial decides how its text is read, never the look of the text: `1e-5` is a number where a number
belongs, and `off` is a word where a word belongs, whatever YAML 1.1 makes of them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from azr_mlx import places
from azr_mlx.errors import AzrError, UsageError


def dial(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field that knows its meaning and its range."""
    metadata = {"help": help, "low": low, "high": high, "above": above, "below": below, "choices": choices}
    if isinstance(default, (list, dict, set)):
        raise TypeError("dials are immutable: use a tuple")
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Model:
    id: str = dial("checkpoints/qwen3-nano", "Hugging Face repository or local folder")
    revision: str = dial("", "branch, tag or commit of the repository; empty is its default branch")
    bits: int = dial(
        4, "bits of the weights when full-precision weights are quantized locally", choices=(2, 3, 4, 5, 6, 8)
    )
    group_size: int = dial(64, "weights that share one scale when quantized locally", choices=(16, 32, 64, 128))
    mode: str = dial("affine", "quantization mode of mlx", choices=("affine", "mxfp4", "nvfp4", "mxfp8"))
    dtype: str = dial(
        "auto",
        "activation type; auto is bfloat16 on a GPU and float32 on a CPU",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    style: str = dial(
        "r1",
        "prompt style: r1 for base models, chat for instruct models, compact for nano",
        choices=("r1", "chat", "compact"),
    )
    thinking: bool = dial(False, "let a chat template open a think section (Qwen3)")


@dataclass(frozen=True)
class Lora:
    rank: int = dial(16, "rank of every adapter matrix", low=1, high=512)
    scale: float = dial(2.0, "factor on the adapter's output (alpha / rank)", above=0)
    layers: int = dial(-1, "how many blocks, counted from the last, get adapters; -1 is all", low=-1)
    keys: tuple[str, ...] = dial((), "linear layers of a block to adapt; empty is all of them")


@dataclass(frozen=True)
class Tasks:
    kinds: tuple[str, ...] = dial(
        ("deduction", "abduction", "induction"),
        "the task kinds that are played",
        choices=("deduction", "abduction", "induction"),
    )
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
    draw: str = dial(
        "uniform",
        "older tasks are drawn uniformly, or those first that are solved sometimes and not always",
        choices=("uniform", "learnable"),
    )
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
    overlap: bool = dial(True, "attempt a fresh task while others are proposed; else when all are judged")


@dataclass(frozen=True)
class Reward:
    correct: float = dial(1.0, "a right solution")
    wrong: float = dial(-0.5, "a well-formed wrong solution")
    malformed: float = dial(-1.0, "a reply without the required form, or an invalid proposal")
    unlearnable: float = dial(-0.5, "a valid proposal that is solved never or always (the paper's formula: 0)")
    learnability: str = dial(
        "one_minus", "of a solve rate r: one_minus is 1 - r, variance is 4r(1 - r)", choices=("one_minus", "variance")
    )


@dataclass(frozen=True)
class Advantage:
    baseline: str = dial(
        "by_task_role",
        "the set that centres a reward: by_task_role is TRR++, by_prompt is GRPO",
        choices=("by_task_role", "by_prompt"),
    )
    attempts_baseline: str = dial(
        "by_prompt", "the same for attempts and other grouped solver rollouts", choices=("by_task_role", "by_prompt")
    )
    per: str = dial(
        "token", "what counts once in a mean: token weighs a rollout by its length", choices=("token", "rollout")
    )
    divide_by_std: bool = dial(True, "divide by the standard deviation of the set")
    positive_only: bool = dial(False, "keep only what did better than its baseline")
    small_set: int = dial(8, "sets smaller than this use a running mean and deviation", low=0)
    decay: float = dial(0.9, "decay of the running mean and deviation", low=0, high=1)


@dataclass(frozen=True)
class Loss:
    clip_low: float = dial(0.2, "lower clip of the probability ratio", low=0, high=1)
    clip_high: float = dial(0.28, "upper clip of the probability ratio", low=0)
    importance_cap: float = dial(2.0, "cap of the truncated importance weight when logprobs are recomputed", low=1)
    recompute_old_logprobs: bool = dial(
        False, "take old logprobs from a forward pass of the trainer, not from the sampler"
    )
    entropy: float = dial(0.0, "coefficient of the entropy bonus")
    kl: float = dial(0.0, "coefficient of the KL penalty to the model with adapters off", low=0)
    mask_truncated: bool = dial(True, "leave truncated solver completions out of the loss")
    updates_per_batch: int = dial(1, "optimizer steps on each batch of rollouts", low=1)


@dataclass(frozen=True)
class Optim:
    lr: float = dial(2e-5, "learning rate of AdamW", above=0)
    schedule: str = dial(
        "constant",
        "learning rate after warm-up: inverse_sqrt falls with the root of the step, linear and cosine end at 0",
        choices=("constant", "inverse_sqrt", "linear", "cosine"),
    )
    warmup_steps: int = dial(0, "steps of linear warm-up", low=0)
    beta1: float = dial(0.9, "decay of the first moment", low=0, below=1)
    beta2: float = dial(0.95, "decay of the second moment", low=0, below=1)
    weight_decay: float = dial(0.0, "decoupled weight decay", low=0)
    grad_clip: float = dial(1.0, "largest norm of the gradient; 0 is no limit", low=0)
    micro_batch_tokens: int = dial(16384, "tokens of one forward and backward pass", low=1)
    checkpoint_layers: bool = dial(False, "recompute each layer in the backward pass: less memory, more time")


@dataclass(frozen=True)
class Buffer:
    capacity: int = dial(16384, "items of each kind; the oldest that is not a seed leaves first", low=1)
    per_program: int = dial(0, "most deduction, and most abduction, tasks about one program; 0 is any number", low=0)
    seed_size: int = dial(64, "valid seed tasks to collect before the first step", low=1)
    seed_rounds: int = dial(40, "most rounds of proposing spent on seeds", low=0)


@dataclass(frozen=True)
class ExecutorDials:
    level: str = dial(
        "standard",
        "sandbox: strict refuses without an OS sandbox, off runs unconfined",
        choices=("strict", "standard", "off"),
    )
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


# -- the dials as a list ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dial:
    """One leaf of the tree: its dotted key, its type and what it may be."""

    key: str
    type: Any  # int, float, bool, str or tuple[str, ...]
    default: Any
    help: str
    low: float | None
    high: float | None
    above: float | None
    below: float | None
    choices: tuple[Any, ...] | None

    @property
    def allowed(self) -> str:
        """What the value may be, in words."""
        if self.choices is not None:
            listed = ", ".join(str(choice) for choice in self.choices)
            return f"some of {listed}" if self.many else f"one of {listed}"
        if self.many:
            return "a list of words"
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return "text"
        noun = "a whole number" if self.type is int else "a number"
        if self.low is not None and self.high is not None:
            return f"{noun} from {self.low:g} to {self.high:g}"
        limits = {
            "of {:g} or more": self.low,
            "of at most {:g}": self.high,
            "above {:g}": self.above,
            "below {:g}": self.below,
        }
        ends = " and ".join(words.format(end) for words, end in limits.items() if end is not None)
        return f"{noun} {ends}".rstrip()

    @property
    def many(self) -> bool:
        return self.type not in (int, float, bool, str)

    def permits(self, value: Any) -> bool:
        """Whether a value of the right type lies within the limits."""
        if self.choices is not None:
            return all(one in self.choices for one in value) if self.many else value in self.choices
        if self.type not in (int, float):
            return True
        return (
            not (isinstance(value, float) and not math.isfinite(value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


@cache
def sections() -> frozenset[str]:
    """The names that hold dials of their own."""
    return frozenset(f.name for f in fields(Config) if is_dataclass(f.default))


@cache
def dials() -> Mapping[str, Dial]:
    """Every dial by its dotted key, in the order of the dataclasses."""

    def walk(owner: type, prefix: str) -> Iterator[Dial]:
        hints = get_type_hints(owner)
        for f in fields(owner):
            if is_dataclass(f.default):
                yield from walk(type(f.default), f"{prefix}{f.name}.")
            else:
                yield Dial(key=prefix + f.name, type=hints[f.name], default=f.default, **f.metadata)

    return {one.key: one for one in walk(Config, "")}


def flatten(config: Config) -> dict[str, Any]:
    """The configuration as dotted key -> value."""

    def value(key: str) -> Any:
        section, _, leaf = key.rpartition(".")
        return getattr(getattr(config, section) if section else config, leaf)

    return {key: value(key) for key in dials()}


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain data."""
    return asdict(config)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with the dials of `values` (dotted key -> value) turned. Nothing is checked."""
    changes: dict[str, Any] = {}
    for key, value in values.items():
        section, _, leaf = key.rpartition(".")
        if section:
            changes[section] = replace(changes.get(section, getattr(config, section)), **{leaf: value})
        else:
            changes[leaf] = value
    return replace(config, **changes)


# -- reading ------------------------------------------------------------------------------------------------


class ConfigError(UsageError):
    """One line: where, which dial, what it was given, what it may be."""


def load(source: str | Path | None = None, sets: Sequence[str] = ()) -> Config:
    """The configuration of a preset's name or a YAML file (None: the defaults), overlaid by `--set a.b=c` words.

    Raises ConfigError for an unknown dial, a wrong type, a value out of range or an impossible combination.
    """
    values: dict[str, Any] = {}
    where = "config"
    if source is not None:
        path = find(source)
        where = places.shown(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: cannot be read: {error}") from None
        values.update(_read(text, where))
    for word in sets:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: write it as key=value, for example --set optim.lr=1e-5")
        values.update(_read_set(key.strip(), text))
    config = with_values(Config(), values)
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def parse(text: str, where: str = "config") -> Config:
    """The configuration written in a YAML text; `where` names the text in errors."""
    config = with_values(Config(), dict(_read(text, where)))
    check(config)
    return config


def presets() -> tuple[str, ...]:
    """The names of the shipped configurations."""
    try:
        return tuple(sorted(path.stem for path in places.configs().glob("*.yaml")))
    except AzrError:
        return ()


def find(source: str | Path) -> Path:
    """The file of a path or of a preset's name. Raises ConfigError with the nearest preset when there is neither."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir() and (path / "config.yaml").is_file():
        return path / "config.yaml"  # a run folder
    names = presets()
    if str(source) in names:
        return places.configs() / f"{source}.yaml"
    if not names:
        places.root()  # says how to get the presets
    word = path.stem if path.suffix in (".yaml", ".yml") else str(source)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.4)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{source}: no such file and no such preset; the presets are {', '.join(names)}{guess}")


def _read(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a YAML text. YAML gives the structure; its dial reads a scalar."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: is not YAML: {' '.join(str(error).split())}") from None
    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{where}: must hold `key: value` lines, not {_noun(node)}")
    yield from _walk(node, "", lambda line: f"{where}:{line}")


def _read_set(key: str, text: str) -> Iterator[tuple[str, Any]]:
    """The same for one `--set key=text`: the text is read as the YAML value it would be in a file."""
    where = f"--set {key}={text}"
    if not key:
        raise ConfigError(f"{where}: names no setting")
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        node = yaml.ScalarNode("", text, style="'")  # such as a lone bracket: take it as it stands
    yield from _place(key, node or yaml.ScalarNode("", "", style="'"), lambda line: where, 1)


def _walk(node: yaml.MappingNode, prefix: str, at: Callable[[int], str]) -> Iterator[tuple[str, Any]]:
    """The keys of one level; `at` names a line of the text in errors."""
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{at(line)}: a setting's name must be a word, not {_noun(key_node)}")
        key = prefix + key_node.value
        if key in seen:
            raise ConfigError(f"{at(line)}: {key} is given twice, first on line {seen[key]}")
        seen[key] = line
        yield from _place(key, value_node, at, line)


def _place(key: str, node: yaml.Node, at: Callable[[int], str], line: int) -> Iterator[tuple[str, Any]]:
    """One key with its node: a section is walked, a dial is read, anything else is refused."""
    place = at(line)
    if key in sections():
        if isinstance(node, yaml.MappingNode):
            yield from _walk(node, f"{key}.", at)
        elif not (
            isinstance(node, yaml.ScalarNode) and node.style is None and not node.value
        ):  # an empty section is fine
            inside = ", ".join(one.rpartition(".")[2] for one in dials() if one.startswith(f"{key}."))
            raise ConfigError(f"{place}: {key} is a section, not a setting: it holds {inside}")
    elif key in dials():
        yield key, _value(dials()[key], node, place)
    else:
        near = nearest(key)
        about = f"{near.allowed}; default {written(near.default)}"
        raise ConfigError(f"{place}: {key} is not a setting; the nearest is {near.key} ({about})")


def nearest(key: str) -> Dial:
    """The dial whose name, or else whose help, is most like the key."""
    leaf = key.rpartition(".")[2].lower()
    words = " ".join(re.split(r"[\W_]+", leaf))

    def likeness(one: Dial) -> float:
        name = one.key.rpartition(".")[2]
        by_name = difflib.SequenceMatcher(None, leaf, name).ratio()
        by_path = difflib.SequenceMatcher(None, key.lower(), one.key).ratio()
        by_help = 0.9 if len(words) > 3 and re.search(rf"\b{re.escape(words)}\b", one.help) else 0.0
        return max(by_name, by_path, by_help) + 0.1 * by_path

    return max(dials().values(), key=likeness)


def _value(one: Dial, node: yaml.Node, place: str) -> Any:
    """The value of a dial from its node, by the dial's type. Raises ConfigError unless it is allowed."""

    def refuse(given: str, hint: str = "") -> ConfigError:
        return ConfigError(f"{place}: {one.key} is {given}: it must be {one.allowed}{hint}")

    if isinstance(node, yaml.SequenceNode):
        if not one.many:
            raise refuse("a list")
        if not all(isinstance(item, yaml.ScalarNode) for item in node.value):
            raise refuse("a nested list")
        value: Any = tuple(item.value for item in node.value)
    elif isinstance(node, yaml.ScalarNode):
        text = node.value
        if node.style is None and (text in ("~", "null", "Null", "NULL") or (not text and one.type is not str)):
            raise refuse("empty", "; remove the line to keep the default")
        if one.many:
            value = tuple(part.strip() for part in text.split(",") if part.strip())
        else:
            value = _scalar(one.type, text)
            if value is None:
                raise refuse(text if text else "empty")
    else:
        raise refuse("a section")
    if not one.permits(value):
        wrong = next((v for v in value if v not in (one.choices or ())), value) if one.many else value
        near = difflib.get_close_matches(str(wrong), [str(c) for c in one.choices or ()], n=1, cutoff=0.5)
        raise refuse(written(wrong) if one.many else node.value, f"; did you mean {near[0]}?" if near else "")
    return value


_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_NUMBER = re.compile(r"[-+]?([0-9]+(_[0-9]+)*\.?([0-9]+(_[0-9]+)*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


def _scalar(type_: Any, text: str) -> Any:
    """The text as a value of the type, or None when it is not one."""
    if type_ is str:
        return text
    if type_ is bool:
        return {"true": True, "false": False}.get(text.lower())
    if len(text) > 100 or not _NUMBER.fullmatch(text):
        return None
    if type_ is int and _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    if type_ is float:
        return number
    return int(number) if number.is_integer() else None  # 1e3 is a whole number, however it is written


def _noun(node: yaml.Node) -> str:
    return {"MappingNode": "a section", "SequenceNode": "a list"}.get(type(node).__name__, "a single value")


# -- checking -----------------------------------------------------------------------------------------------


def check(config: Config) -> None:
    """Raises ConfigError, one line, when a dial is out of range or two of them contradict each other."""
    for key, value in flatten(config).items():
        one = dials()[key]
        right = isinstance(value, tuple) if one.many else _is(value, one.type)
        if not right or not one.permits(value):
            raise ConfigError(f"{key} is {written(value)}: it must be {one.allowed}")
    for wrong, why in _contradictions(config):
        if wrong:
            raise ConfigError(why)


def _is(value: Any, type_: type) -> bool:
    """Whether the value is of the dial's type: an int serves as a float, a bool never as a number."""
    if isinstance(value, bool):
        return type_ is bool
    return isinstance(value, (int, float) if type_ is float else type_)


# Group size and bits that MLX's quantization modes fix.
_FIXED_MODES = {"mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}


def _contradictions(c: Config) -> Iterator[tuple[bool, str]]:
    """(whether it is so, the line that says what to change)."""
    m, t, b, r, a = c.model, c.tasks, c.batch, c.reward, c.advantage
    yield (
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", c.name) is None,
        f"name is {written(c.name)}: it names a folder, so use letters, digits, dots, dashes and underscores",
    )
    yield not m.id.strip(), "model.id is empty: give a Hugging Face repository or a local folder"
    group, bits = _FIXED_MODES.get(m.mode, (m.group_size, m.bits))
    yield (
        (m.group_size, m.bits) != (group, bits),
        f"model.mode {m.mode} needs model.group_size {group} and model.bits {bits}, not {m.group_size} and {m.bits}",
    )
    yield (
        m.mode == "affine" and m.group_size == 16,
        "model.group_size 16 needs model.mode nvfp4; affine takes 32, 64 or 128",
    )
    yield (
        m.thinking and m.style != "chat",
        f"model.thinking needs model.style chat, not {m.style}: other styles open their own think section or none",
    )
    yield c.lora.layers == 0, "lora.layers 0 would train nothing: use -1 for all blocks, or how many from the last"
    yield not t.kinds, "tasks.kinds is empty: name at least one of deduction, abduction, induction"
    yield len(set(t.kinds)) < len(t.kinds), f"tasks.kinds names a kind twice: {', '.join(t.kinds)}"
    yield b.proposals == 0 and b.solves == 0, "batch.proposals and batch.solves are both 0: a step would do nothing"
    trains_proposals = b.train_proposer and b.proposals > 0
    trains_attempts = b.train_attempts and b.proposals > 0
    yield (
        not (trains_proposals or trains_attempts or b.solves),
        "nothing would be trained: turn on batch.train_proposer or batch.train_attempts, or set batch.solves above 0",
    )
    grouped = (trains_attempts and b.attempts > 1) or (b.solves > 0 and b.solve_group > 1)
    yield (
        a.baseline == "by_prompt" and not grouped,
        "advantage.baseline by_prompt compares rollouts of one prompt, and here every trained prompt has a single one: "
        "set batch.solve_group to 2 or more, turn on batch.train_attempts, or use by_task_role",
    )
    yield r.correct <= r.wrong, f"reward.correct {r.correct:g} must be above reward.wrong {r.wrong:g}"
    yield (
        c.loss.clip_high == 0 and c.loss.clip_low == 0,
        "loss.clip_low and loss.clip_high are both 0: no token could be learned from",
    )
    yield (
        c.buffer.seed_size > c.buffer.capacity,
        f"buffer.seed_size {c.buffer.seed_size} is more than buffer.capacity {c.buffer.capacity}",
    )
    yield c.tracking.wandb and not c.tracking.wandb_project.strip(), "tracking.wandb needs tracking.wandb_project"


def cautions(config: Config) -> list[str]:
    """What is allowed but will surprise: one line each, with the size of the effect where it is known."""
    s, b, r, found = config.sampling, config.batch, config.reward, []
    if s.temperature != 1:
        # Tokens are drawn in proportion to p^(1/T), the loss differentiates log p.
        ratio = 10 ** (1 / s.temperature)
        found.append(
            f"sampling.temperature {s.temperature:g}: rollouts are drawn from p^(1/T) but trained as p, so a token ten "
            f"times likelier than another is drawn {ratio:.3g} times as often; 1 is exact"
        )
    if s.top_p < 1:
        found.append(
            f"sampling.top_p {s.top_p:g}: a tail of up to {1 - s.top_p:.2g} is never drawn but keeps its probability "
            f"in the loss, so the ratio is off by up to {1 / s.top_p:.3g} a token and {_power(1 / s.top_p, 100)} "
            "over 100 tokens; 1 is exact"
        )
    if b.train_proposer and b.proposals and b.attempts == 1:
        found.append("batch.attempts 1: a solve rate of one attempt is 0 or 1, so no proposal is ever learnable")
    if config.advantage.baseline == "by_prompt" and b.train_proposer and b.proposals:
        found.append(
            "advantage.baseline by_prompt: a proposal has its prompt to itself, so the proposer learns nothing"
        )
    if config.advantage.baseline == "by_prompt" and b.solve_group == 1 and b.solves:
        found.append(
            "advantage.baseline by_prompt with batch.solve_group 1: drawn tasks are solved once, so they teach nothing"
        )
    if r.malformed > r.wrong:
        found.append(
            f"reward.malformed {r.malformed:g} is above reward.wrong {r.wrong:g}: "
            "breaking the form pays better than a wrong answer"
        )
    if 0 < config.steps < config.optim.warmup_steps:
        found.append(f"optim.warmup_steps {config.optim.warmup_steps}: a run of {config.steps} never reaches optim.lr")
    if config.optim.schedule in ("linear", "cosine") and config.minutes:
        found.append(
            f"optim.schedule {config.optim.schedule} decays over steps, so a run that ends after "
            f"{config.minutes:g} minutes may stop on its way"
        )
    if config.optim.schedule == "inverse_sqrt" and not config.optim.warmup_steps:
        found.append(
            "optim.schedule inverse_sqrt counts from the end of the warm-up: without optim.warmup_steps "
            "the learning rate has halved after 4 steps"
        )
    if config.executor.level == "off":
        found.append("executor.level off: programs that the model writes run unconfined on this machine")
    return found


def _power(factor: float, times: int) -> str:
    return f"{factor**times:.2g}" if times * math.log10(factor) < 300 else "beyond any number"


# -- writing ------------------------------------------------------------------------------------------------


def dump(config: Config, comment: str = "") -> str:
    """The whole configuration as YAML that `parse` reads back equal; `comment` becomes the lines above it."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    section = ""
    for key, value in flatten(config).items():
        owner, _, leaf = key.rpartition(".")
        if owner != section:
            section = owner
            lines.append(f"{owner}:")
        lines.append(f"{'  ' if owner else ''}{leaf}: {written(value)}")
    return "\n".join(lines) + "\n"


_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*")


def written(value: Any) -> str:
    """A value as it is written in YAML and in messages."""
    if isinstance(value, tuple):
        return f"[{', '.join(written(one) for one in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.lower() != "null"):
        quoted: str = yaml.dump(value, default_style='"', allow_unicode=True, width=math.inf)
        return quoted.rstrip("\n")
    return str(value)


def diff(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """The dials that differ: (dotted key, old value, new value), in the order of the dataclasses."""
    before, after = flatten(old), flatten(new)
    return [(key, before[key], after[key]) for key in before if before[key] != after[key]]


# What a resumed run may change: how long it goes on, what is kept and shown, and how the machine shares out the work.
# Everything else decides what is learned. The probe set stays, for the figures taken before training were taken on it.
RESUMABLE = frozenset(
    key
    for key in dials()
    if key in ("name", "steps", "minutes", "evaluation.every", "evaluation.bench", "evaluation.bench_limit")
    or key in ("sampling.max_rows", "sampling.kv_gb", "executor.workers")
    or key in ("optim.micro_batch_tokens", "optim.checkpoint_layers")
    or key.startswith(("checkpoint.", "tracking."))
)


def document() -> str:
    """The reference of every dial, as Markdown: docs/configuration.md is this text."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by `python -m azr_mlx.config`; edit the dataclasses in azr_mlx/config.py instead. -->",
        "",
        "`azr train --config NAME` takes a preset of `configs/` or a YAML file; `--set section.key=value` turns one.",
        "What a file leaves out keeps the default below. A dial marked ↻ may change when a run is resumed.",
        "",
    ]
    section = None
    for key, one in dials().items():
        owner, _, leaf = key.rpartition(".")
        if owner != section:
            section = owner
            lines += ["", f"## {owner}", ""] if owner else ["## The run", ""]
            lines += ["| dial | default | allowed | meaning |", "|---|---|---|---|"]
        mark = " ↻" if key in RESUMABLE else ""
        lines.append(f"| `{leaf}`{mark} | `{written(one.default)}` | {one.allowed} | {one.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
