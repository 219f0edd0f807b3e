"""The lengths of a self-play step before any model is there: real prompts, real vocabulary, assumed replies.

    python benchmarks/speed/simulate.py --config qwen2.5-coder-3b --tokenizer FOLDER [--set KEY=VALUE] [--steps 3]

The trainer, proposer, solver, buffer, executor and prompt style of the preset are the real ones, and prompts are
tokenized by FOLDER's tokenizer (of any model of the family). Only the policy is simulated: its replies have the form
that is asked for, some are right, and their lengths are drawn (`ASSUMED`). What comes out is the lengths that
`azr plan` takes where nothing has been measured yet (azr_mlx/planner/lengths.py), and with --json the rollouts of
each step, which update_before.py learns from.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from azr_mlx import config  # noqa: E402
from azr_mlx.executor import Executor, Limits  # noqa: E402
from azr_mlx.executor.rules import ALLOWED_MODULES  # noqa: E402
from azr_mlx.generation import fits  # noqa: E402
from azr_mlx.model.packing import common_prefix  # noqa: E402
from azr_mlx.selfplay.environment import SelfPlay  # noqa: E402
from azr_mlx.selfplay.prompts import make_style  # noqa: E402
from azr_mlx.selfplay.proposer import Proposer  # noqa: E402
from azr_mlx.selfplay.solver import Solver  # noqa: E402
from azr_mlx.selfplay.task_buffer import Buffer  # noqa: E402
from azr_mlx.trainer import Trainer  # noqa: E402
from azr_mlx.types import Completion, Kind, Prompt, Role, Rollout, Step, Stop, Update  # noqa: E402

# Assumed, not measured: mean tokens of the reasoning before an answer, by role and kind; the share of proposals that
# are valid; how often a solver is right. The limits of the preset cut what is longer.
ASSUMED = {"propose": 300, Kind.DEDUCTION: 220, Kind.ABDUCTION: 220, Kind.INDUCTION: 320}
VALID = 0.6
RIGHT = {Kind.DEDUCTION: 0.5, Kind.ABDUCTION: 0.45, Kind.INDUCTION: 0.2}
SPREAD = 0.6  # of the logarithm of a length
FILL = "We go through the list one value at a time and keep the running state in mind before we look at the next one . "


def chat(text: str, prefill: str = "", earlier: Sequence[tuple[str, str]] = ()) -> str:
    """The chat template of Qwen 2.5."""
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    said = "".join(f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n" for q, a in earlier)
    return f"{system}{said}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{prefill}"


@dataclass
class SimulatedPolicy:
    """Writes replies of drawn lengths; keeps what it wrote, and learns nothing."""

    settings: config.Config
    tokenizer: Any
    tags: bool  # whether replies are in think and answer tags
    random: random.Random = field(default_factory=lambda: random.Random(0))
    written: list[Rollout] = field(default_factory=list)
    learned: list[tuple[Sequence[Rollout], Sequence[float]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fill = self.encode(FILL)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def generate(self, **_: Any) -> SimulatedSession:
        return SimulatedSession(self)

    def update(self, rollouts: Sequence[Rollout], advantages: Sequence[float]) -> Update:
        self.learned.append((rollouts, advantages))
        nan = math.nan
        tokens = sum(len(one.completion.tokens) for one in rollouts)
        return Update(nan, 0.0, 0.0, nan, nan, nan, nan, nan, nan, len(rollouts), tokens)

    def reply(self, prompt: Prompt, limit: int) -> Completion:
        mean = ASSUMED["propose" if prompt.role is Role.PROPOSE else str(prompt.kind)]
        length = max(8, min(limit, int(self.random.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD))))
        thought = self.tokenizer.decode((self.fill * (length // len(self.fill) + 1))[:length])
        body = self._proposal(prompt) if prompt.role is Role.PROPOSE else self._solution(prompt)
        text = f"{thought}</think>\n<answer>\n{body}\n</answer>" if self.tags else f"{thought}\n{body}"
        tokens = self.encode(text)
        stop = Stop.TEXT if self.tags else Stop.EOS
        if len(tokens) > limit:
            tokens, stop = tokens[:limit], Stop.LENGTH
            text = self.tokenizer.decode(tokens)
        return Completion(tuple(tokens), (-0.5,) * len(tokens), text, stop)

    def _proposal(self, prompt: Prompt) -> str:
        if self.random.random() > VALID:
            return "I cannot think of one."
        if prompt.kind is Kind.INDUCTION:
            inputs = "".join(
                f"```input\n{self._program()[1]}\n```\n" for _ in range(self.settings.tasks.induction_pairs)
            )
            return f"{inputs}```message\nA running state over a list, mixed with counts.\n```"
        program, arguments = self._program()
        return f"```python\n{program}\n```\n```input\n{arguments}\n```"

    def _program(self) -> tuple[str, str]:
        """A program of the size that published proposals have, and arguments of it."""
        pick = self.random.randint
        a, b, c = pick(2, 97), pick(2, 97), pick(2, 9)
        name, sign = self.random.choice(["acc", "total", "state", "score"]), self.random.choice("+-^*")
        program = f"""def f(items, k):
    {name} = {a}
    seen = {{}}
    for index, value in enumerate(items):
        if value % {c} == 0:
            {name} = ({name} {sign} value * index) % {1000 + b}
        else:
            {name} = {name} + seen.get(value, k)
        seen[value] = seen.get(value, 0) + {b}
    result = [v for v in sorted(seen) if seen[v] > {c * 10}]
    return [{name}, len(seen), result[:k]]"""
        return program, f"[{', '.join(str(pick(1, 60)) for _ in range(pick(4, 8)))}], {pick(1, 4)}"

    def _solution(self, prompt: Prompt) -> str:
        task = prompt.task
        assert task is not None
        right = self.random.random() < RIGHT.get(task.kind, 0.4)
        if prompt.kind is Kind.DEDUCTION:
            return f"```output\n{task.cases[0].output if right else '0'}\n```"
        if prompt.kind is Kind.ABDUCTION:
            return f"```input\n{task.cases[0].input if right else '[], 1'}\n```"
        program = task.program if right else "def f(a, b=0):\n    return 1"
        return f"```python\n{program}\n```"


@dataclass
class SimulatedSession:
    """Replies one after the other, in the order in which they were asked for."""

    policy: SimulatedPolicy
    waiting: list[tuple[int, int, Prompt, int]] = field(default_factory=list)
    prompts: int = 0

    def submit(self, prompts: Sequence[Prompt], n: int | Sequence[int] = 1, *, max_tokens: int | Sequence[int]) -> None:
        counts = [n] * len(prompts) if isinstance(n, int) else n
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
        for prompt, count, limit in zip(prompts, counts, limits, strict=True):
            self.waiting += [(self.prompts, sample, prompt, limit) for sample in range(count)]
            self.prompts += 1

    def __iter__(self) -> Iterator[tuple[int, int, Rollout]]:
        while self.waiting:
            number, sample, prompt, limit = self.waiting.pop(0)
            rollout = Rollout(prompt, tuple(self.policy.encode(prompt.text)), self.policy.reply(prompt, limit))
            self.policy.written.append(rollout)
            yield number, sample, rollout


@dataclass(frozen=True)
class SimulatedStep:
    """What a step wrote, and what it learned from with which advantages."""

    step: Step
    written: list[Rollout]
    learned: list[tuple[Rollout, float]]


def simulate(settings: config.Config, tokenizer: Any, steps: int) -> list[SimulatedStep]:
    """Seed the buffer and play steps. Raises UsageError of a style or option that does not work."""
    options = settings.executor
    limits = Limits(options.wall_seconds, options.cpu_seconds, options.memory_mb)
    found = []
    with Executor(options.level, limits, workers=2) as executor:
        style = make_style(
            settings.model.style, seconds=options.wall_seconds, modules=sorted(ALLOWED_MODULES), render=chat
        )
        policy = SimulatedPolicy(settings, tokenizer, style.tags)
        playing = SelfPlay(
            settings, Proposer(style, executor, settings.tasks), Solver(style, executor),
            Buffer(settings.buffer.capacity), fits(policy.encode, settings.sampling.prompt_tokens),
        )  # fmt: skip
        trainer = Trainer(settings, policy, [playing])
        trainer.prepare()
        for number in range(steps):
            policy.written, policy.learned = [], []
            step = trainer.train_step(number)
            ((rollouts, advantages),) = policy.learned
            found.append(SimulatedStep(step, policy.written, list(zip(rollouts, advantages, strict=True))))
    return found


def main() -> None:
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="qwen2.5-coder-3b")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with tokenizer.json")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rollouts of the last step to this file")
    args = parser.parse_args()
    settings = config.load(args.config, args.sets)
    steps = simulate(settings, Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")), args.steps)
    written: dict[tuple[str, str], list[Rollout]] = defaultdict(list)
    for one in steps:
        for rollout in one.written:
            written[str(rollout.prompt.role), str(rollout.prompt.kind)].append(rollout)
    print(f"{args.config} {' '.join(args.sets)}: {len(steps)} steps")
    print(f"{'role':<9}{'kind':<11}{'rollouts':>9}{'alike':>7}{'prompt':>8}{'reply':>7}  (mean tokens)")
    for (role, kind), rollouts in sorted(written.items()):
        prompts = {rollout.prompt_tokens for rollout in rollouts}
        alike = common_prefix(min(prompts), max(prompts))
        prompt, reply = fmean(map(len, prompts)), fmean(len(rollout.completion.tokens) for rollout in rollouts)
        print(f"{role:<9}{kind:<11}{len(rollouts):>9}{alike:>7}{prompt:>8.0f}{reply:>7.0f}")
    last = steps[-1]
    distinct = {one.prompt_tokens for one in last.written}
    trained = {one.prompt_tokens for one, advantage in last.learned if advantage}
    completions = sum(len(one.completion.tokens) for one, advantage in last.learned if advantage)
    print(
        f"last step: {len(last.written)} rollouts, {len(distinct)} prompts of {sum(map(len, distinct)):,} tokens; "
        f"learned from {sum(bool(a) for _, a in last.learned)} rollouts, {completions:,} completion tokens after "
        f"{sum(map(len, trained)):,} prompt tokens"
    )
    if args.json:
        rows = [[list(one.prompt_tokens), list(one.completion.tokens), advantage] for one, advantage in last.learned]
        sampled = [[list(one.prompt_tokens), len(one.completion.tokens)] for one in last.written]
        args.json.write_text(json.dumps({"config": args.config, "learned": rows, "written": sampled}))


if __name__ == "__main__":
    main()
