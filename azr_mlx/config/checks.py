"""What a configuration may not be, and what is allowed but will surprise."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from azr_mlx.config.option import ConfigError, written
from azr_mlx.config.prompt_style import load_style, style_names
from azr_mlx.config.schema import Config, flatten, options
from azr_mlx.types import Kind


def check(config: Config) -> None:
    """Raises ConfigError, one line, when an option is out of range or two of them contradict each other."""
    for key, value in flatten(config).items():
        one = options()[key]
        right = isinstance(value, tuple) if one.many else _is(value, one.type)
        if not right or not one.permits(value):
            raise ConfigError(f"{key} is {written(value)}: it must be {one.allowed}")
    for wrong, why in _contradictions(config):
        if wrong:
            raise ConfigError(why)


def _is(value: Any, type_: type) -> bool:
    """Whether the value is of the option's type: an int serves as a float, a bool never as a number."""
    if isinstance(value, bool):
        return type_ is bool
    return isinstance(value, (int, float) if type_ is float else type_)


def is_name(text: str) -> bool:
    """Whether a text can be a run's `name`. A folder given with --run-dir may be called anything."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


# Group size and bits that MLX's quantization modes fix.
_FIXED_MODES = {"mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}


def _contradictions(c: Config) -> Iterator[tuple[bool, str]]:
    """(whether it is so, the line that says what to change)."""
    m, t, b, r, a = c.model, c.tasks, c.batch, c.reward, c.advantage
    yield (
        not is_name(c.name),
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
        not m.style.endswith((".yaml", ".yml")) and m.style not in style_names(),
        f"model.style is {written(m.style)}: it must be one of {', '.join(style_names())}, or a YAML file of your own",
    )
    yield (
        m.thinking and not _leaves_the_reply_to_the_model(m.style),
        f"model.thinking needs model.style chat, not {m.style}: other styles open their own think section or none",
    )
    yield c.lora.layers == 0, "lora.layers 0 would train nothing: use -1 for all blocks, or how many from the last"
    yield not t.kinds, f"tasks.kinds is empty: name at least one of {', '.join(Kind)}"
    yield len(set(t.kinds)) < len(t.kinds), f"tasks.kinds names a kind twice: {', '.join(t.kinds)}"
    yield b.proposals == 0 and b.solves == 0, "batch.proposals and batch.solves are both 0: a step would do nothing"
    yield (
        b.proposals % b.propose_group > 0,
        f"batch.proposals {b.proposals} is no multiple of batch.propose_group {b.propose_group}",
    )
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
    yield (
        not (c.checkpoint.every or c.checkpoint.minutes),
        "checkpoint.every and checkpoint.minutes are both 0: nothing would be saved before the end",
    )
    yield r.correct <= r.wrong, f"reward.correct {r.correct:g} must be above reward.wrong {r.wrong:g}"
    yield (
        c.loss.clip_high == 0 and c.loss.clip_low == 0,
        "loss.clip_low and loss.clip_high are both 0: no token could be learned from",
    )
    yield (
        r.crowded > 0 and not c.buffer.archive,
        f"reward.crowded {r.crowded:g} needs buffer.archive: true, which counts the programs that are alike",
    )
    yield (
        c.buffer.seed_size > c.buffer.capacity,
        f"buffer.seed_size {c.buffer.seed_size} is more than buffer.capacity {c.buffer.capacity}",
    )
    yield from _of_rows(c)
    named = [sink for sink in ("wandb", "trackio") if sink in c.tracking.all_sinks()]
    yield (
        bool(named) and not c.tracking.wandb_project.strip(),
        f"tracking.sinks {' and '.join(named)} needs tracking.wandb_project",
    )


def _leaves_the_reply_to_the_model(style: str) -> bool:
    """Whether a style goes through the chat template and begins no reply. A file that is not at hand is not judged."""
    try:
        found = load_style(style)
    except ConfigError:
        return True
    return found.chat and not found.opening and not any(one.opening for one in found.wordings.values())


def _of_rows(c: Config) -> Iterator[tuple[bool, str]]:
    """What cannot be in a run on rows of the user's, or without them."""
    given = [key for key, value in (("data.path", c.data.path), ("reward.functions", c.reward.functions)) if value]
    yield (
        bool(given) and not c.uses_rows,
        f"{' and '.join(given)} needs mode: grpo (your rows alone) or mode: mix (beside self-play), not {c.mode}",
    )
    yield c.uses_rows and not c.data.path, f"mode {c.mode} needs data.path: a file of rows with prompts"
    yield (
        c.uses_rows and not c.reward.functions,
        f"mode {c.mode} needs reward: file.py:function, or one that comes with azr_mlx, such as exact",
    )
    yield (
        bool(c.reward.weights) and len(c.reward.weights) != len(c.reward.functions),
        f"reward.weights has {len(c.reward.weights)} numbers for {len(c.reward.functions)} functions",
    )
    for word in c.reward.weights:
        yield not _is_number(word), f"reward.weights holds {written(word)}, which is no number"
    yield (
        c.rows.group == 1 and c.rows.algorithm != "reinforce++",
        f"rows.group 1 leaves rows.algorithm {c.rows.algorithm} nothing to compare: use 2 or more, or reinforce++",
    )
    yield (
        c.uses_rows and c.rows.algorithm == "gspo" and c.loss.updates_per_batch > 1,
        "rows.algorithm gspo needs loss.updates_per_batch 1, where every ratio is 1: the ratio of whole answers is not "
        "computed over several updates",
    )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


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
    if config.tracking.wandb:
        found.append("tracking.wandb is the older way to write tracking.sinks: wandb; it works as before")
    if b.train_proposer and b.proposals and b.attempts == 1:
        found.append("batch.attempts 1: a solve rate of one attempt is 0 or 1, so no proposal is ever learnable")
    lone_proposals = b.train_proposer and b.proposals and b.propose_group == 1
    if config.advantage.baseline == "by_prompt" and lone_proposals:
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
    found += _idle(config)
    if config.executor.level == "off":
        found.append("executor.level off: programs that the model writes run unconfined on this machine")
    return found


def _idle(config: Config) -> Iterator[str]:
    """Settings that have no effect beside the others."""
    evaluation = config.evaluation
    if evaluation.bench and not evaluation.every:
        yield "evaluation.bench has no effect without evaluation.every: its slice is scored where a run is measured"
    if config.stop.plateau and not evaluation.every:
        yield (
            f"stop.plateau {config.stop.plateau} has no effect without evaluation.every: a run is compared with its "
            "best where it is measured"
        )
    if evaluation.probe == "none":
        needs = {
            "evaluation.minutes": evaluation.minutes, "evaluation.probe_tasks": evaluation.probe_tasks,
            "evaluation.every": evaluation.every and not evaluation.bench, "stop.plateau": config.stop.plateau,
        }  # fmt: skip
        if idle := [key for key, wanted in needs.items() if wanted]:
            yield f"no effect without held-out tasks (evaluation.probe none): {', '.join(idle)}"


def _power(factor: float, times: int) -> str:
    return f"{factor**times:.2g}" if times * math.log10(factor) < 300 else "beyond any number"
