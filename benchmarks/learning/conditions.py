"""What is compared: each condition is the nano preset with some options turned, or with one part of the game replaced.

A replacement is a function that is called once before the run starts and changes a part of the trainer in place; it
lives here because nobody but an experiment wants it.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

NANO = Path(__file__).resolve().parents[2] / "checkpoints" / "qwen3-nano"


@dataclass(frozen=True)
class Condition:
    """`sets` are options as `--set` takes them; `prepare` replaces a part of the game."""

    meaning: str
    sets: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None


def shuffle_rewards() -> None:
    """Permute the rewards within each group of one prompt, and the proposers' within each kind: the same rewards,
    the same sizes of step, no information."""
    from azr_mlx.selfplay import environment
    from azr_mlx.types import Role

    real = environment.advantages  # type: ignore[attr-defined]
    state = {"step": 0}

    def shuffled(scored: Any, settings: Any, running: Any) -> list[float]:
        state["step"] += 1
        rng = random.Random(f"shuffle/{state['step']}")
        groups: dict[Any, list[int]] = defaultdict(list)
        for index, one in enumerate(scored):
            groups[one.kind if one.role is Role.PROPOSE else (one.kind, one.rollout.prompt.text)].append(index)
        mixed = list(scored)
        for members in groups.values():
            rewards = [scored[i].reward for i in members]
            rng.shuffle(rewards)
            for i, reward in zip(members, rewards, strict=True):
                mixed[i] = replace(scored[i], reward=reward)
        return real(mixed, settings, running)

    environment.advantages = shuffled  # type: ignore[attr-defined]


def propose_from_grammar() -> None:
    """Fresh tasks come from the grammar of the model's pre-training: as from a perfect proposer."""
    sys.path.insert(0, str(NANO))
    import grammar

    from azr_mlx.selfplay.environment import SelfPlay
    from azr_mlx.types import Kind, Task

    def draw(self: Any, kind: Kind, step: int) -> list[Task]:
        rng = random.Random(f"grammar/{self.config.seed}/{step}/{kind}")
        tasks = []
        for _ in range(self.config.batch.solves):
            program, cases = grammar.draw(rng, self.config.tasks.induction_pairs)
            hint = grammar.message(rng, program) if kind is Kind.INDUCTION else ""
            tasks.append(Task(kind, program.source, tuple(cases) if hint else (cases[0],), hint, step))
        return tasks

    SelfPlay.drawn_tasks = draw  # type: ignore[method-assign]


def probe_every_kind() -> None:
    """The kinds that are not played are held out as well, so that the means of all conditions are of the same tasks."""
    from azr_mlx import config
    from azr_mlx.run import held_out
    from azr_mlx.types import Kind

    real = held_out.tasks_for

    def tasks_for(settings: Any, folder: Path | None) -> Any:
        return real(config.with_values(settings, {"tasks.kinds": tuple(map(str, Kind))}), folder)

    held_out.tasks_for = tasks_for  # type: ignore[assignment]


def allow_duplicates() -> None:
    """Only held-out tasks are refused, so a proposer is paid for repeating itself."""
    from azr_mlx.selfplay.task_buffer import Buffer, program_key
    from azr_mlx.types import Task

    def refusal(self: Buffer, task: Task) -> str | None:
        return "held out" if program_key(task) in self.forbidden else None

    Buffer.refusal = refusal  # type: ignore[method-assign]


def train_all_weights() -> None:
    """The matrices of the blocks are trained themselves, without LoRA: on a CPU, where they are kept in float32."""
    import mlx.nn as nn

    from azr_mlx.model import policy

    def unfreeze(model: Any, layers: int, parameters: dict[str, Any]) -> None:
        for layer in model.layers:
            layer.apply_to_modules(lambda _, module: module.unfreeze() if isinstance(module, nn.Linear) else None)

    policy.linear_to_lora_layers = unfreeze  # type: ignore[attr-defined]


# More fresh tasks and fewer old ones: the attempts at fresh tasks are what a proposer learns from.
WIDE = ("batch.proposals=16", "batch.solves=2")
SEPARATE = (*WIDE, "advantage.proposal_signals=separate", "reward.learnability=variance", "tasks.draw=learnable")
SHARP = (
    *SEPARATE,
    "batch.proposals=12",
    "batch.solves=3",
    "advantage.proposer_weight=3",
    "advantage.form_weight=0.5",
)
CURRICULUM = (
    *SHARP,
    "batch.proposals=10",
    "batch.solves=5",
    "batch.draw=frontier",
    "tasks.draw=frontier",
    "buffer.archive=true",
)

CONDITIONS = {
    "default": Condition("the nano preset"),
    "shuffled": Condition("rewards shuffled within groups", prepare=shuffle_rewards),
    "frozen": Condition("learning rate nearly 0", ("optim.lr=1e-12",)),
    "seeds-only": Condition("no proposals: only the seed tasks are solved", ("batch.proposals=0", "batch.solves=24")),
    "grammar": Condition(
        "tasks from the pre-training grammar: the ceiling",
        ("batch.proposals=0", "batch.solves=24"),
        propose_from_grammar,
    ),
    "solver-only": Condition("the proposer is not trained", ("batch.train_proposer=false",)),
    "no-references": Condition("proposals without examples", ("tasks.references=0",)),
    "one-reference": Condition("proposals with one example", ("tasks.references=1",)),
    "deduction-only": Condition("one kind, deduction", ("tasks.kinds=[deduction]",), probe_every_kind),
    "abduction-only": Condition("one kind, abduction", ("tasks.kinds=[abduction]",), probe_every_kind),
    "no-induction": Condition("two kinds, no induction", ("tasks.kinds=[deduction, abduction]",), probe_every_kind),
    "no-attempts": Condition("attempts are not trained on (the paper)", ("batch.train_attempts=false",)),
    "paper-unlearnable": Condition("unlearnable proposals get 0, not -0.5", ("reward.unlearnable=0",)),
    "variance": Condition("learnability 4r(1 - r)", ("reward.learnability=variance",)),
    "divide": Condition("advantages divided by the deviation", ("advantage.divide_by_std=true",)),
    "positive": Condition("only positive advantages", ("advantage.positive_only=true",)),
    "task-role": Condition("every advantage per kind and role (TRR++)", ("advantage.attempts_baseline=by_task_role",)),
    "duplicates": Condition("a task that is in the buffer already counts as new", prepare=allow_duplicates),
    "known-programs": Condition("a program may come back with new inputs for ever", ("buffer.per_program=0",)),
    "uniform-draw": Condition("old tasks are drawn uniformly", ("batch.draw=uniform",)),
    "overlap": Condition("attempts beside proposals", ("sampling.overlap=true",)),
    "degenerate": Condition("programs that ignore their arguments are valid", ("tasks.reject_constant=false",)),
    "per-rollout": Condition("baselines over rollouts, not over tokens", ("advantage.per=rollout",)),
    "group-4": Condition(
        "4 attempts at twice as many tasks", ("batch.attempts=4", "batch.solve_group=4", "batch.solves=12")
    ),
    "group-16": Condition(
        "16 attempts at half as many tasks", ("batch.attempts=16", "batch.solve_group=16", "batch.solves=3")
    ),
    "two-updates": Condition("two clipped updates on each batch", ("loss.updates_per_batch=2",)),
    "rank-4": Condition("LoRA of rank 4", ("lora.rank=4",)),
    "rank-64": Condition("LoRA of rank 64", ("lora.rank=64",)),
    "full": Condition("every matrix of the blocks, no LoRA; learning rate 2e-4", ("optim.lr=2e-4",), train_all_weights),
    "full-half": Condition("the same with 1e-4", ("optim.lr=1e-4",), train_all_weights),
    "constant-rate": Condition("the learning rate does not fall", ("optim.schedule=constant",)),
    "lr-quarter": Condition("learning rate 4e-4", ("optim.lr=4e-4",)),
    "lr-half": Condition("learning rate 8e-4", ("optim.lr=8e-4",)),
    "lr-double": Condition("learning rate 3.2e-3", ("optim.lr=3.2e-3",)),
    "separate": Condition(
        "form and learnability of 16 proposals centred apart, r near 1/2 paid, shown and lent", SEPARATE
    ),
    "grouped": Condition(
        "the same, four proposals from each prompt, compared with each other",
        (*SEPARATE, "batch.propose_group=4", "advantage.proposals_baseline=by_prompt"),
    ),
    "sharp": Condition("12 proposals: learnability three times as heavy as an attempt, form half of that", SHARP),
    "curriculum": Condition(
        "10 such proposals, all draws with r near 1/3, less for what the archive is full of",
        (*CURRICULUM, "reward.crowded=0.5"),
    ),
    "curriculum-counted": Condition("the same without the reward of the archive, which only counts", CURRICULUM),
    "mutations": Condition("the nano preset with two edited programs of each kind", ("batch.mutations=2",)),
    "counted": Condition("the nano preset, its programs counted in the archive", ("buffer.archive=true",)),
    "fresh-half": Condition("half of the drawn tasks are of the same step", ("batch.fresh_share=0.5",)),
}
