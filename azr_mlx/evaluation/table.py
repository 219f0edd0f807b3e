"""The results of an evaluation as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from azr_mlx.evaluation.record import Evaluation, label


def show_results(
    console: Console, evaluations: Sequence[Evaluation], comparison: Mapping[str, Any] | None = None
) -> None:
    """The table for people."""
    for evaluation in evaluations:
        _table(console, evaluation.record)
    if comparison is not None:
        _comparison(console, comparison)


def _table(console: Console, record: Mapping[str, Any]) -> None:
    sampling = record["sampling"]
    how = record["prompt"]
    if sampling:
        drawn = f"{sampling['samples']} samples at temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}"
        how = f"{record['weights']}, prompt {how}, {'greedy' if sampling['temperature'] == 0 else drawn}"
    title = " ".join(f"{record['title']} {record['revision']}".split())
    console.print(f"{title}: {label(record)} ({how})", style="bold", markup=False, soft_wrap=True)
    table = Table()
    published = record["published"]
    table.add_column("")
    for name in ("score", "95 % interval", "standard error", "tasks", *(["published"] if published else [])):
        table.add_column(name, justify="right")

    # Beside base stands plus, beside strict official; without other ways of counting pass@k needs no word.
    words = {"base": "plus ", "strict": "official "}
    headline = next((words[name.split()[0]] for name in record["scores"] if name.split()[0] in words), "")

    def line(name: str, one: Mapping[str, float], tasks: int, style: str = "") -> None:
        theirs = published and published["scores"].get(name.removeprefix(headline))
        cells = [
            name, f"{100 * one['value']:.1f} %", f"{100 * one['low']:.1f} to {100 * one['high']:.1f}",
            f"{100 * one['error']:.1f}", str(tasks),
        ]  # fmt: skip
        table.add_row(*cells, *([f"{theirs:.1f} %" if theirs else ""] if published else []), style=style)

    for number, (name, one) in enumerate(record["scores"].items()):
        line(name if " " in name else headline + name, one, record["tasks"], "bold" if not number else "")
    for level, part in record.get("levels", {}).items():
        for name in (name for name in part if name != "tasks"):
            line(f"  {level} {name}", part[name], part["tasks"])
    console.print(table)
    facts = [f"{record['samples']} samples"]
    if record["tokens"] is not None:
        facts.append(f"{record['tokens']} tokens")
    if record["truncated"] is not None:
        facts.append(f"{record['truncated']} truncated")
    facts.append(f"{record['timed_out']} timed out")
    if "test_cases_right" in record:
        facts.append(f"{100 * record['test_cases_right']:.1f} % of test cases right")
    facts.append(f"{record['seconds']:.1f} s")
    if record["tokens_per_second"]:
        facts.append(f"{record['tokens_per_second']:.0f} tokens/s")
    console.print(", ".join(facts), markup=False, soft_wrap=True)
    if record["answer"]:
        stops = ", ".join(map(repr, record["stop"])) or "none"
        beside = record["harness"] or "no published harness"
        how = f"prompt {record['prompt']}, answer {record['answer']}, stop texts {stops}; comparable with {beside}"
        console.print(how, markup=False, soft_wrap=True)
    if published:
        other = "" if published["same"] else f"; not comparable: {', '.join(published['unlike'])}"
        console.print(f"published: {published['source']}{other}", markup=False, soft_wrap=True)
    for note in record["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"samples: {record['samples_file']}_results.jsonl", markup=False, soft_wrap=True)


def _comparison(console: Console, found: Mapping[str, Any]) -> None:
    low, high = 100 * found["low"], 100 * found["high"]
    verdict = "chance alone seldom does this" if found["p"] < 0.05 else "chance alone may well do this"
    console.print(f"{found['second']} against {found['first']}, {found['tasks']} tasks:", markup=False, soft_wrap=True)
    console.print(
        f"  {100 * found['change']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}; "
        f"{len(found['won'])} won, {len(found['lost'])} lost, exact p = {found['p']:.3g}: {verdict}",
        markup=False,
        soft_wrap=True,
    )
    for word in ("won", "lost"):
        if found[word]:
            console.print(f"  {word}: {', '.join(found[word])}", markup=False, soft_wrap=True)
