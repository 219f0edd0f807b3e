"""A training run in which a share of the completions is replaced by hostile ones, and whether it was disturbed.

    python benchmarks/fuzz/hostile_run.py FOLDER [--steps 30] [--share 0.05]

The run has to reach its end. Then every other completion is judged again by a new executor that never met a hostile
one: its verdict must be the same. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import inspect
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from azr_mlx import config  # noqa: E402
from azr_mlx.executor import Executor, boundary  # noqa: E402
from azr_mlx.run.folder import RunFolder  # noqa: E402
from azr_mlx.run.session import Session  # noqa: E402
from azr_mlx.selfplay.environment import SelfPlay  # noqa: E402
from azr_mlx.selfplay.proposer import Proposer  # noqa: E402
from azr_mlx.selfplay.solver import Solver  # noqa: E402
from azr_mlx.types import Role, Rollout, Verdict  # noqa: E402
from benchmarks.fuzz.hostile_replies import replies  # noqa: E402

PACK = 64  # completions that are judged again at once


@dataclass
class Judged:
    """A rollout, whether its text was replaced, and its verdict (worked out by the run)."""

    rollout: Rollout
    hostile: bool
    verdict: Callable[[], Verdict]
    tags: bool = True  # as the judge was told


class Replaced:
    """A generation session in which some completions come out as another text. Tokens stay: training goes on."""

    def __init__(self, session: Any, rng: random.Random, share: float, hostile: set[int]) -> None:
        self.session, self.rng, self.share, self.hostile = session, rng, share, hostile
        self.texts = replies()
        self.submit = session.submit

    def __iter__(self) -> Iterator[tuple[int, int, Rollout]]:
        for number, sample, rollout in self.session:
            if self.rng.random() < self.share:
                rollout = replace(rollout, completion=replace(rollout.completion, text=self.rng.choice(self.texts)))
                self.hostile.add(id(rollout))
            yield number, sample, rollout


def self_play(session: Session) -> SelfPlay:
    (playing,) = session.trainer.environments
    assert isinstance(playing, SelfPlay)
    return playing


def train(folder: Path, steps: int, share: float) -> tuple[Session, list[Judged]]:
    settings = config.load("nano", [f"steps={steps}", "minutes=0", "evaluation.every=0", "tracking.report=false"])
    rng, hostile, judged = random.Random(0), set[int](), list[Judged]()
    run = RunFolder(folder)
    with run.lock(), Executor(settings.executor.level) as executor:
        session = Session.open(settings, run, executor, None, quiet=False)
        generate = session.policy.generate

        def generate_some_hostile(**options: Any) -> Any:
            return Replaced(generate(**options), rng, share, hostile)

        def remembered(judge: Any) -> Any:
            def wrapped(*words: Any, **named: Any) -> Callable[[], Verdict]:
                verdict: Callable[[], Verdict] = judge(*words, **named)
                told = inspect.signature(judge).bind(*words, **named)
                told.apply_defaults()
                rollout, tags = told.arguments["rollout"], told.arguments["tags"]
                judged.append(Judged(rollout, id(rollout) in hostile, verdict, tags))
                return verdict

            return wrapped

        playing = self_play(session)
        for part in (playing.proposer, playing.solver):
            object.__setattr__(part, "judge", remembered(part.judge))
        session.policy.generate = generate_some_hostile  # type: ignore[method-assign]
        code = session.run()
        if code:
            sys.exit(f"the run ended with {code}")
        for one in judged:
            verdict = one.verdict()
            one.verdict = lambda verdict=verdict: verdict  # type: ignore[misc]
    return session, judged


def judge_again(session: Session, judged: Sequence[Judged]) -> Iterator[tuple[Judged, Verdict]]:
    """The same completions before an executor of their own."""
    style, settings = self_play(session).solver.style, session.settings
    with Executor(settings.executor.level) as executor:
        proposer, solver = Proposer(style, executor, settings.tasks), Solver(style, executor)
        for first in range(0, len(judged), PACK):
            pack = judged[first : first + PACK]
            pending = [
                (proposer if one.rollout.prompt.role is Role.PROPOSE else solver).judge(one.rollout, tags=one.tags)
                for one in pack
            ]
            yield from zip(pack, (verdict() for verdict in pending), strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.05)
    given = parser.parse_args()
    session, judged = train(given.folder, given.steps, given.share)
    hostile = [one for one in judged if one.hostile]
    honest = [one for one in judged if not one.hostile]
    reasons = Counter(one.verdict().why for one in hostile)
    paid = [one for one in hostile if one.verdict().correct and one.rollout.prompt.role is Role.SOLVE]
    print(
        f"{given.steps} steps, {len(judged)} completions, {len(hostile)} of them hostile, {len(paid)} paid as answers"
    )
    print("verdicts on hostile ones: " + ", ".join(f"{why} {n}" for why, n in reasons.most_common()))
    differ = [
        (one, again)
        for one, again in judge_again(session, honest)
        if (one.verdict().valid, one.verdict().correct, one.verdict().why) != (again.valid, again.correct, again.why)
    ]
    print(f"{len(honest)} others judged again by a new executor: {len(differ)} verdicts differ")
    for one, again in differ[:10]:
        print(f"  {one.verdict().why} -> {again.why}: {one.rollout.reply[:120]!r}")
    dropped = sum(one.verdict().dropped for one in judged)
    print(f"dropped {dropped}, faults of the boundary {dict(boundary.faults)}")
    sys.exit(bool(differ or boundary.faults))


if __name__ == "__main__":
    main()
