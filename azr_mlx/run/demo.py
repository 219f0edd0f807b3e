"""One step of self-play on the embedded model, told in words: how the method works, on this machine, in a minute.

Nothing is made up or replayed: the task, the attempts and the numbers are those of a real step of `Trainer`, chosen
only in that the task was solved sometimes and not always. Nothing is written to disk.
"""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azr_mlx import config
from azr_mlx.errors import AzrError
from azr_mlx.executor import Executor
from azr_mlx.run.executors import start_executor
from azr_mlx.terminal import printable
from azr_mlx.types import Kind, Scored, Step, Task

if TYPE_CHECKING:  # importing these imports MLX
    from azr_mlx.model.policy import Policy
    from azr_mlx.trainer import Trainer

Print = Callable[[str], None]

# The preset, with few seeds and without the slow start of its learning rate: one step is to be seen.
CHANGES = ("buffer.seed_size=48", "buffer.seed_rounds=8", "optim.warmup_steps=0", "executor.level=standard")
FEW_STEPS = 6  # steps after the one that is told
TRIES = 10  # steps that may pass until one has a task to tell of
WIDTH = 88


@dataclass(frozen=True)
class DemoTask:
    """A proposal of a step with two attempts at its task, and what it stands for."""

    proposal: Scored
    task: Task
    right: Scored
    wrong: Scored
    solved: int
    attempts: int


def choose(step: Step) -> DemoTask | None:
    """The task of a step to tell of: solved by some attempts and missed by others in a readable form.

    Deductions first, as they need the fewest words, then the rate nearest to one half. None when there is none.
    """
    found: list[tuple[tuple[bool, float, int], DemoTask]] = []
    for one in step.proposals:
        task = one.verdict.task
        if task is None or one.solve_rate is None:
            continue
        mine = [attempt for attempt in step.attempts if attempt.rollout.prompt.task is task]
        right = [attempt for attempt in mine if attempt.verdict.correct]
        wrong = [attempt for attempt in mine if attempt.verdict.valid and not attempt.verdict.correct]
        if right and wrong:
            order = (one.kind is not Kind.DEDUCTION, abs(one.solve_rate - 0.5), len(task.program))
            found.append((order, DemoTask(one, task, right[0], wrong[0], len(right), len(mine))))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def demo(say: Print, seed: int = 0, steps: int = FEW_STEPS) -> None:
    """Play and tell. say: prints one line. steps: further steps after the one that is told.

    Raises AzrError when the sandbox does not start or no step had a task to tell of.
    """
    settings = config.load("nano", [*CHANGES, f"seed={seed}"])
    with start_executor(settings) as executor:
        trainer, policy = _players(settings, executor)
        began = time.monotonic()
        say("A language model teaches itself: no data, no teacher, only Python. One task from start to end.\n")
        trainer.prepare()
        sizes = sum(map(len, trainer.tasks().values()))
        say(_fold(f"The model has proposed {sizes} first tasks; they are its examples. Nothing is learned yet.") + "\n")
        for number in range(TRIES):
            step = trainer.train_step(number)
            example = choose(step)
            if example is not None:
                break
        else:
            raise AzrError(f"no task of {TRIES} steps was solved by some attempts only: try another --seed")
        _tell(say, settings, step, example)
        pair = [example.right.rollout, example.wrong.rollout]
        before = [sum(one.completion.logprobs) for one in pair]
        _tell_change(say, before, _logprobs(policy, pair), 1)
        if steps:
            say(_fold(f"\n5  And again. Each step has new tasks of the model's own; {steps} more:") + "\n")
            for more in range(number + 1, number + 1 + steps):
                say(f"   {_summary(trainer.train_step(more))}")
            say("")
            _tell_change(say, before, _logprobs(policy, pair), 1 + steps)
        say(f"\n{time.monotonic() - began:.0f} seconds. Ten minutes of the same, with held-out tasks before and after:")
        say("  azr train --config nano")


def _players(settings: config.Config, executor: Executor) -> tuple[Trainer, Policy]:
    """The trainer of a run without a folder, and its policy. Imports MLX: the executor has to run already."""
    from azr_mlx.model.policy import Policy
    from azr_mlx.run import environments
    from azr_mlx.trainer import Trainer

    policy = Policy.load(
        settings.model, settings.lora, settings.optim, settings.sampling, settings.loss, seed=settings.seed,
        total_steps=settings.steps,
    )  # fmt: skip
    playing = environments.self_play(settings, policy, environments.solver(settings, policy, executor))
    return Trainer(settings, policy, [playing]), policy


def _logprobs(policy: Policy, rollouts: list[Any]) -> list[float]:
    """ln of the probability of each whole completion under the policy as it is now."""
    return [float(values.sum()) for values in policy.logprobs(rollouts)]


# Telling ------------------------------------------------------------------------------------------------------------

ASKED = {
    Kind.DEDUCTION: "The question: what comes out?",
    Kind.ABDUCTION: "The question: what went in?",
    Kind.INDUCTION: "The question: which program is it?",
}


def _tell(say: Print, settings: config.Config, step: Step, example: DemoTask) -> None:
    task, reward = example.task, settings.reward
    valid = sum(one.verdict.valid for one in step.proposals)
    say("1  The model proposes a task\n")
    say(_block(task.program))
    say("")
    for case in task.cases:
        say(_block(f"f({case.input}) -> {case.output}"))
    say("")
    text = "Python ran it in a sandbox: it is a task because it ends, uses its arguments and gives the same twice. "
    text += f"{ASKED[task.kind]} ({valid} of {len(step.proposals)} proposals of this step were tasks; the others were "
    say(_fold(text + "refused.)", indent=3))
    say(f"\n2  The model attempts it {example.attempts} times, without seeing what the sandbox saw. Two of them:\n")
    for label, attempt in (("right", example.right), ("wrong", example.wrong)):
        say(f"   {label}:")
        say(_block(attempt.rollout.reply.strip() or "(nothing)", indent=6))
        say("")
    rate = example.solved / example.attempts
    say(_fold(f"Python compares values, not texts: {example.solved} of {example.attempts} are right, so the task's "
              f"solve rate r is {rate:.2f}.", indent=3))  # fmt: skip
    weights = {id(one): value for one, value in zip(step.trained, step.advantages, strict=True)}
    say("\n3  Rewards, and what they are compared with\n")
    rows = (
        ("the right attempt", example.right, "right"),
        ("the wrong attempt", example.wrong, "well formed, but wrong"),
        ("the proposal", example.proposal, f"1 - r; never or always solved it would earn {reward.unlearnable:g}"),
    )
    for name, one, why in rows:
        worth = weights.get(id(one))
        says = "" if worth is None else f"   advantage {worth:+.2f}"
        say(f"   {name:<18} {one.reward:>5.2f}{says}   ({why})")
    say("")
    text = "An advantage is a reward minus the mean of its like, in which long texts weigh more: attempts at the same "
    text += "task, proposals of the same kind. Above zero a text becomes likelier, below zero less likely."
    say(_fold(text, indent=3))
    update = step.update
    say(f"\n4  One step of the gradient, over {update.rows} texts ({update.tokens:,} tokens)\n")


def _tell_change(say: Print, before: list[float], after: list[float], steps: int) -> None:
    """How much likelier the two attempts are now than when they were written."""
    right, wrong = (math.exp(new - old) for new, old in zip(after, before, strict=True))
    when = "one step" if steps == 1 else f"{steps} steps"
    say(_fold(f"After {when} the model would write the right attempt {_times(right)}, the wrong one {_times(wrong)}.",
              indent=3))  # fmt: skip
    if right / wrong > 1:
        say(_fold(f"Between the two, the right one has gained: {_odds(right / wrong)}.", indent=3))
    else:
        say(_fold("Between the two, the right one has not gained: all texts of a step move the same weights. It is the "
                  "average over many steps that counts.", indent=3))  # fmt: skip


def _times(factor: float) -> str:
    return f"{factor:.2f} times as often" if factor >= 0.01 else "hardly ever"


def _odds(factor: float) -> str:
    return f"its odds are {factor:.2f} times what they were" if factor < 100 else "its odds are over 100 times as high"


def _summary(step: Step) -> str:
    solver = [*step.attempts, *step.solutions]
    solved = sum(one.verdict.correct for one in solver) / max(1, len(solver))
    valid = sum(one.verdict.valid for one in step.proposals)
    learnable = sum(0 < (one.solve_rate or 0) < 1 for one in step.proposals)
    return (
        f"step {step.number + 1:>2}   {valid:>2} of {len(step.proposals)} proposals were tasks, {learnable:>2} of them "
        f"solved sometimes; {100 * solved:.0f} % of answers right"
    )


def _block(text: str, indent: int = 6) -> str:
    return textwrap.indent(printable(text), " " * indent)


def _fold(text: str, indent: int = 0) -> str:
    lead = "\n" * (len(text) - len(text.lstrip("\n")))
    return lead + textwrap.fill(text.strip(), WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)
