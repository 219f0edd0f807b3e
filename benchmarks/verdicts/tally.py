"""What a comparison with one harness came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one comparison: `explained` by reason, `open` the differences that nothing explains."""

    bench: str
    harness: str
    completions: int = 0
    habits: int = 0
    passed: int = 0  # here
    equal: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    open: list[str] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)  # of wall time, ours and theirs

    def line(self) -> str:
        return (
            f"{self.bench}: {self.equal} of {self.completions} verdicts equal to {self.harness} ({self.passed} right "
            f"here), {self.explained.total()} known differences, {len(self.open)} differences that nothing explains"
        )


def table(tallies: Sequence[Tally]) -> str:
    """Markdown: a row for each comparison, then the known differences with their reasons."""
    lines = [
        "| benchmark | beside | completions | habits | right here | equal | known differences | others |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in tallies:
        numbers = [one.completions, one.habits, one.passed, one.equal, sum(one.explained.values()), len(one.open)]
        lines.append(f"| {one.bench} | {one.harness} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    lines.append("")
    for one in tallies:
        lines += [f"- {one.bench}, {count}: {why}" for why, count in one.explained.most_common()]
    return "\n".join(lines)
