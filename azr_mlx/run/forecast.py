"""What a run will take, on one screen, before anything is downloaded: model, disk, memory, and when what comes.

Memory and time are the planner's, derived from the model's shapes and the machine's rates; a time is at mean
lengths. `azr train` prints this first, and `azr train --dry-run` nothing else.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from azr_mlx import config, paths, planner
from azr_mlx.errors import UsageError
from azr_mlx.model import weights
from azr_mlx.run.held_out_tasks import tasks_for
from azr_mlx.types import GB

FIRST_NUMBER = 180.0  # seconds from the loaded model to the first held-out number, where the machine can do it
FIRST_LOOK = 8  # tasks of each kind that are solved for it: two of each band
LEAST_LOOK = 4  # one of each band
DAY = 86_400.0


@dataclass(frozen=True)
class FirstNumber:
    """How the first held-out number comes: tasks of each kind (0: all of them, at once), and the seconds it takes."""

    each: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a run takes: bytes and seconds. Zero is nothing of it."""

    download: int  # of the model's repository
    quantized: int  # kept beside it
    memory: int
    room: float  # memory that may be used
    step: float
    steps: int  # that are expected
    first: FirstNumber
    evaluation: float  # one of them
    evaluations: int
    seeding: float  # at most
    training: float

    @property
    def fits(self) -> bool:
        return self.memory <= self.room

    @property
    def seconds(self) -> float:
        """From the loaded model to the last table, at most."""
        return self.seeding + self.training + self.evaluations * self.evaluation


def forecast(settings: config.Config, machine: planner.Machine) -> Forecast:
    """The forecast of a run that begins now. Raises UsageError when the shapes of its model are not known."""
    shape = planner.shape_of(settings.model)
    folder = local_folder(settings.model)
    packed = replace(machine, kind="metal")  # what is on disk is packed, whatever computes with it
    in_full = 2 * shape.parameters
    quantized = 0
    if not shape.quantized:
        kept = weights.quantized_folder(settings.model, folder) if folder is not None else None
        large = in_full >= weights.SMALL if folder is None else kept is not None and not kept.is_dir()
        quantized = planner.weight_bytes(settings.model, shape, packed) if large else 0
    download = 0
    if folder is None:
        download = planner.weight_bytes(settings.model, shape, packed) if shape.quantized else in_full
    step = sum(cost.seconds for cost in planner.step_costs(settings, shape, machine))
    training = settings.steps * step
    if settings.minutes:
        training = min(training, 60 * settings.minutes)
    steps = min(settings.steps, max(1, round(training / step))) if step and settings.steps else settings.steps
    counts: Counter[str] = Counter(task.kind for task in tasks_for(settings, folder))
    if settings.uses_rows and settings.data.held_out:
        counts["rows"] = settings.data.held_out_most  # at most: the rows are not read yet
    first, evaluation = first_number(settings, shape, machine, counts)
    every = settings.evaluation.every
    return Forecast(
        download, quantized, planner.plan_memory(settings, shape, machine).total, machine.room, step, steps, first,
        evaluation, (2 + max(0, steps - 1) // every if every else 2) if counts else 0,
        settings.buffer.seed_rounds * _seeding(settings, shape, machine), training,
    )  # fmt: skip


def local_folder(model: config.ModelConfig) -> Path | None:
    """Where a model is on this machine, its whole weights included; None when it has to be fetched. Asks no network."""
    folder = paths.resolve_existing(model.id)
    if folder is not None and folder.is_dir():
        return folder
    if model.id.count("/") != 1 or model.id.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> Path | None:
        found = try_to_load_from_cache(model.id, name, revision=model.revision or None)
        return Path(found) if isinstance(found, str) else None

    settings, listing = cached("config.json"), cached("model.safetensors.index.json")
    names = ["model.safetensors"]
    if listing is not None:
        try:
            names = sorted(set(json.loads(listing.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError):
            return None
    return settings.parent if settings is not None and all(cached(name) for name in names) else None


def first_number(
    settings: config.Config, shape: planner.Shape, machine: planner.Machine, counts: Counter[str]
) -> tuple[FirstNumber, float]:
    """How the first held-out number comes, and the seconds of a whole evaluation."""
    if not counts:
        return FirstNumber(0, 0.0), 0.0

    def seconds(each: int) -> float:
        return _solving(settings, shape, machine, sum(min(each, count) for count in counts.values()))

    most = max(counts.values())
    whole, limit = seconds(most), 60 * settings.evaluation.minutes
    evaluation = min(whole, limit) if limit else whole
    if most <= FIRST_LOOK or (not limit and whole <= FIRST_NUMBER):
        return FirstNumber(0, whole), evaluation
    each = FIRST_LOOK if seconds(FIRST_LOOK) <= FIRST_NUMBER else LEAST_LOOK
    return FirstNumber(each, seconds(each)), evaluation


def first_look(settings: config.Config, counts: Counter[str], machine: planner.Machine | None) -> int:
    """Tasks of each kind that are solved for a first number; 0 where all of them come soon enough."""
    if not counts or max(counts.values()) <= FIRST_LOOK:
        return 0
    if machine is None:
        return FIRST_LOOK if settings.evaluation.minutes else 0
    try:
        return first_number(settings, planner.shape_of(settings.model), machine, counts)[0].each
    except UsageError:  # a model whose shapes are not known
        return FIRST_LOOK


def _solving(settings: config.Config, shape: planner.Shape, machine: planner.Machine, tasks: int) -> float:
    """Seconds in which so many held-out tasks are solved greedily and `evaluation.samples` times."""
    return _writing(
        settings, shape, machine, {"batch.proposals": 0, "batch.solves": tasks,
                                   "batch.solve_group": 1 + settings.evaluation.samples}, "solve",
    )  # fmt: skip


def _seeding(settings: config.Config, shape: planner.Shape, machine: planner.Machine) -> float:
    """Seconds of a round of seeding."""
    kinds = len(settings.played_kinds)
    if not kinds:
        return 0.0
    proposals = kinds * max(settings.batch.proposals, settings.sampling.max_rows // (2 * kinds))
    return _writing(settings, shape, machine, {"batch.proposals": proposals, "batch.solves": 0}, "propose")


def _writing(
    settings: config.Config, shape: planner.Shape, machine: planner.Machine, values: dict[str, Any], name: str
) -> float:
    """Seconds of prefill and decoding of a step of one kind with these values."""
    one_kind = config.with_values(settings, {"mode": "selfplay", "tasks.kinds": settings.tasks.kinds[:1], **values})
    costs = planner.step_costs(one_kind, shape, machine)
    return sum(cost.seconds for cost in costs if cost.name.startswith(f"{name}:"))


# The screen -----------------------------------------------------------------------------------------------------------


def screen(settings: config.Config, machine: planner.Machine, now: float | None = None) -> tuple[list[str], bool]:
    """The lines of the first screen, at most 80 columns each, and whether the run fits into memory and on the disk.

    now: seconds since the epoch. Of a model whose shapes are not known the screen says so and how to get them.
    """
    title = f"run       {settings.name} on {machine.name}"
    try:
        found = forecast(settings, machine)
    except UsageError as error:
        return [title, f"model     {settings.model.id}", f"size, memory and time cannot be foretold: {error}"], True
    shape = planner.shape_of(settings.model)
    bits = shape.quantized.get("bits", settings.model.bits)
    disk, enough = _disk_lines(found)
    lines = [
        title,
        f"model     {settings.model.id}, {_count(shape.parameters)} weights, {bits} bits",
        *disk,
        f"memory    {found.memory / GB:.1f} GB at most, of {found.room / GB:.1f} GB that may be used"
        + ("" if found.fits else ","),
        *([] if found.fits else [f"          DOES NOT FIT: azr plan --config {settings.name} says what to turn"]),
        f"a step    {_about(found.step)}",
        *_number_lines(settings, found),
    ]
    started = time.time() if now is None else now
    form = "%H:%M" if found.seconds < 20 * 3600 else "%a %d %b, %H:%M" if found.seconds < 100 * DAY else "%d %b %Y"
    clock = time.strftime(form, time.localtime(started + found.seconds))
    steps = "1 step" if found.steps == 1 else f"some {found.steps} steps"
    limit = f" (minutes={settings.minutes:g})" if settings.minutes and found.steps < settings.steps else ""
    lines += [
        f"the end   near {clock}, {_about(found.seconds)} in all, after {steps}:",
        f"          {spoken_time(found.training)} of training{limit}, up to {spoken_time(found.seeding)} of seeding",
        "          (derived from shapes and lengths, not measured; without the download)",
    ]
    return lines, found.fits and enough


def _disk_lines(found: Forecast) -> tuple[list[str], bool]:
    from huggingface_hub import constants

    parts, wanted = [], found.download + found.quantized
    if found.download:
        parts.append(f"{_size(found.download)} to download once")
    if found.quantized:
        parts.append(f"{_size(found.quantized)} packed to keep")
    if not parts:
        return ["disk      nothing to download"], True
    free = weights.free_bytes(Path(constants.HF_HUB_CACHE) if found.download else weights.cache())
    enough = wanted * 1.02 + 50e6 <= free
    line = f"disk      {', '.join(parts)}; {_size(free)} free"
    return [line, *([] if enough else ["          NOT ENOUGH: HF_HOME and AZR_CACHE choose other places"])], enough


def _number_lines(settings: config.Config, found: Forecast) -> list[str]:
    if not found.evaluations:
        return ["held-out  no tasks (evaluation.probe: none): nothing will say what was learned"]
    first = found.first
    what = f"{first.each} tasks of each kind" if first.each else "all tasks"
    late = [] if first.seconds <= FIRST_NUMBER else [
        f"          (later than {spoken_time(FIRST_NUMBER)}: lower sampling.solve_tokens)"
    ]  # fmt: skip
    limit = f" (evaluation.minutes={settings.evaluation.minutes:g})" if settings.evaluation.minutes else ""
    return [
        f"held-out  first number {_about(first.seconds)} after loading ({what})",
        *late,
        f"          {found.evaluations} evaluations of at most {spoken_time(found.evaluation)} each{limit}",
    ]


def _count(number: int) -> str:
    return f"{number / 1e9:.3g} G" if number >= 1e9 else f"{number / 1e6:.3g} M"


def _size(number: float) -> str:
    return f"{number / GB:.1f} GB" if number >= 0.1 * GB else f"{number / 1e6:.0f} MB"


def _about(seconds: float) -> str:
    return f"about {spoken_time(seconds)}"


def spoken_time(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 4 * DAY else f"{seconds / DAY:.0f} days"
