"""The ladder of presets for real models: what each takes on a machine, what to expect, and which to begin with.

Memory and time come from the planner and are derived, not measured: no Mac has run these presets yet. What to expect
comes from published runs of other programs, named with each rung. docs/presets.md has the reasons for the values.
"""

from __future__ import annotations

from dataclasses import dataclass

from azr_mlx import config
from azr_mlx.planner.machine import Machine, mac_here
from azr_mlx.planner.memory import plan_memory
from azr_mlx.planner.roofline import step_costs
from azr_mlx.planner.shapes import shape_of
from azr_mlx.types import GB

# A change of some points on 384 held-out tasks takes this many steps at 1e-4, going by published LoRA curves.
STEPS_TO_SEE = 40
FIRST_HOUR = 3600.0  # seconds
SPARE = 0.75  # share of the usable memory that a first run may take: other programs are open
FALLBACK = "nano"


@dataclass(frozen=True)
class Rung:
    """A preset, what to expect of it, and from whom that is known."""

    preset: str
    expect: str
    source: str
    begin: bool = False  # a first run may take it: instruct models of one family, each a step up from the last


# From the smallest to the largest model.
LADDER = (
    Rung(
        "qwen2.5-coder-0.5b-instruct",
        "form in minutes; guesses much, so band 1 moves and little else",
        "derived; a 0.5B lost to plain GRPO in pippa's log (Qwen2-0.5B, 2025)",
        begin=True,
    ),
    Rung(
        "qwen3-0.6b",
        "like 0.5B, stronger at answers in words; thinking off",
        "derived; TRL's LoRA Without Regret runs this model at 5e-5",
    ),
    Rung(
        "qwen2.5-coder-1.5b-instruct",
        "the first hour: bands 1 and 2 at temperature 1",
        "derived from public LoRA curves; never run here",
        begin=True,
    ),
    Rung("qwen3-1.7b", "like 1.5B, slower; thinking off, a bounded think section on demand", "derived; never run here"),
    Rung(
        "qwen2.5-coder-3b-instruct",
        "a night; +1 to +2 points of HumanEval in published runs, 164 tasks: within their noise",
        "SPARK-Code cards: .796 to .816, QLoRA, r 16, lr 5e-6",
        begin=True,
    ),
    Rung(
        "qwen2.5-coder-3b",
        "a weekend; the paper's base model, which must learn the form of an answer first",
        "AZR (2505.03335): HumanEval+ 67.1 to 71.3 with all weights trained; MAE: no gain out of domain at 3B",
    ),
    Rung("qwen1.5-4b", "an older, weaker model: slower than 3B and behind it", "derived; never run here"),
    Rung("qwen3-4b", "strong before training: less to gain, long answers", "Agent0, table 1: maths 42.6 to 46.4"),
    Rung(
        "qwen2.5-coder-7b",
        "days; the paper's main model",
        "AZR (2505.03335), all weights; limit-of-AZR: HumanEval+ pass@1 .744 to .774, pass@32 falls",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class RungEstimate:
    """What a preset takes on a machine: bytes at most, seconds of a step (at mean lengths)."""

    preset: str
    memory: int
    room: float
    step: float
    steps: int  # that the preset asks for
    minutes: float  # that it is limited to; 0 is none

    @property
    def fits(self) -> bool:
        return self.memory <= self.room

    @property
    def steps_an_hour(self) -> int:
        return int(FIRST_HOUR / self.step)

    @property
    def seconds(self) -> float:
        """Of the whole run, without seeding and evaluation."""
        whole = self.steps * self.step
        return min(whole, 60 * self.minutes) if self.minutes else whole


@dataclass(frozen=True)
class RungChoice:
    """The preset to begin with, why, and the one above it (empty: none)."""

    preset: str
    why: str
    then: str = ""


def estimate(preset: str, machine: Machine) -> RungEstimate:
    """Raises AzrError when the shapes of the preset's model are not known."""
    settings = config.load(preset)
    shape = shape_of(settings.model)
    step = sum(cost.seconds for cost in step_costs(settings, shape, machine))
    memory = plan_memory(settings, shape, machine).total
    return RungEstimate(preset, memory, machine.room, step, settings.steps, settings.minutes)


def choose(machine: Machine) -> RungChoice:
    """The largest model that fits with room to spare and makes enough steps in an hour to show what it learns."""
    if not machine.packed:
        return RungChoice(FALLBACK, "there is no GPU here, and a real model needs one", LADDER[0].preset)
    found = [estimate(rung.preset, machine) for rung in LADDER if rung.begin]
    good = [one for one in found if one.memory <= SPARE * one.room and one.steps_an_hour >= STEPS_TO_SEE]
    if not good:
        return RungChoice(
            FALLBACK,
            f"no real model fits into {SPARE * machine.room / GB:.0f} GB and makes {STEPS_TO_SEE} steps in an hour",
            next((one.preset for one in found if one.fits), ""),
        )
    taken = good[-1]
    above = found[found.index(taken) + 1 :]
    why = (
        f"the largest of the ladder that makes {STEPS_TO_SEE} steps in an hour ({taken.steps_an_hour}) and fits with "
        f"room to spare ({taken.memory / GB:.1f} of {machine.room / GB:.0f} GB)"
    )
    return RungChoice(taken.preset, why, next((one.preset for one in above if one.fits), ""))


def choose_here() -> RungChoice:
    """The same for this machine. Does not import MLX: on anything but a Mac it is the embedded model.

    A run starts its executor before MLX is imported, and to measure a machine takes MLX.
    """
    machine = mac_here()
    if machine is None:
        return RungChoice(FALLBACK, "this is no Mac with Apple silicon; azr presets looks at what is here")
    return choose(machine)


def _hours(seconds: float) -> str:
    """Hours in six columns; a machine may need years."""
    return f"{seconds / 3600:.1f}" if seconds < 3600e3 else f"{seconds / 3600:.0f}" if seconds < 3600e5 else "> 1e5"


def table(machine: Machine) -> list[str]:
    """The lines of `azr presets`."""
    choice = choose(machine)
    lines = [
        f"machine   {machine.name}, {machine.room / GB:.1f} GB usable; {machine.basis}",
        "          memory at the longest lengths, time at mean lengths, both derived and not measured",
        "",
        f"  {'preset':<28}{'GB':>6}{'s a step':>10}{'steps/h':>9}{'hours':>7}",
    ]
    for rung in LADDER:
        one = estimate(rung.preset, machine)
        mark = ">" if one.preset == choice.preset else " " if one.fits else "x"
        lines += [
            f"{mark} {one.preset:<28}{one.memory / GB:6.1f}{one.step:10.0f}{one.steps_an_hour:9}"
            f" {_hours(one.seconds):>6}  {rung.expect}",
            f"  {'':<28}{'':<32}  [{rung.source}]",
        ]
    lines += ["", f"> begin with {choice.preset}: {choice.why}"]
    if choice.then:
        lines.append(f"  then {choice.then}")
    lines.append("x does not fit: azr plan --config NAME says what to turn")
    return lines
