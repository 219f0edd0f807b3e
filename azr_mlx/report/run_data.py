"""What a run folder holds, read without trust: half-written lines, missing files and hostile texts are normal here."""

from __future__ import annotations

import ast
import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from azr_mlx import config
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.executor import syntax
from azr_mlx.report.svg import Change
from azr_mlx.run import held_out, metrics
from azr_mlx.run.folder import RunFolder
from azr_mlx.selfplay.environment import ARCHIVE_FILE
from azr_mlx.terminal import printable
from azr_mlx.types import Kind

# The task browser's caps. A 500-step run of a 3B model writes some hundred MB of rollouts; a page that people send
# around and open on a phone holds a part of them, chosen evenly over the run so that it is not only its beginning.
MOST_TASKS = 4000
ROWS_SHOWN = 4  # the user's rows of a step whose answers are shown
MOST_BYTES = 10_000_000
TEXT = 4000  # characters of a program or of a proposer's reply
SHORT_TEXT = 600  # characters of a solver's answer, an input, an output, a message

RULE = (
    f"Shown are all proposals of evenly spaced steps, the last one included: as many steps as give at most "
    f"{MOST_TASKS} proposals and {MOST_BYTES // 1_000_000} MB. Programs and replies are cut at {TEXT} characters, "
    f"answers, inputs and outputs at {SHORT_TEXT}. The run folder's rollouts/ holds everything."
)


@dataclass(frozen=True)
class RunData:
    """One run, as its folder holds it. `rows` are metrics and timings joined by step."""

    run: Path
    name: str
    settings: config.Config | None
    rows: list[dict[str, Any]]
    versions: dict[str, str]
    result: dict[str, Any] | None  # held_out.json: before and after

    @property
    def kinds(self) -> list[Kind]:
        if self.settings is not None:
            return list(self.settings.played_kinds)
        return [kind for kind in Kind if any(f"buffer/{kind}" in row for row in self.rows)]

    @property
    def seconds(self) -> float:
        """Time of training: what the run says of itself, else the sum of its steps."""
        said = self.result.get("seconds") if self.result else None
        return float(said) if isinstance(said, int | float) else sum(row.get("seconds/step", 0.0) for row in self.rows)

    def named(self, prefix: str) -> list[str]:
        """The metrics of this run whose names begin so, sorted."""
        return sorted({name for row in self.rows for name in row if name.startswith(prefix)})

    def points(self, name: str) -> list[tuple[float, float]]:
        """A metric by step. The probe's begins with the measurement before the run and ends with the one after it."""
        found = [(row["step"], float(row[name])) for row in self.rows if isinstance(row.get(name), int | float)]
        if not name.startswith(("probe", "heldout/")) or self.result is None or not self.rows:
            return found
        ends = [(self.rows[0]["step"], "before"), (self.rows[-1]["step"] + 1, "after")]
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            for step, when in ends:
                found = [p for p in found if p[0] != step] + [
                    (step, held_out.HeldOutScore.from_state(self.result[when]).row()[name])
                ]
        return sorted(found)


def read(run: Path) -> RunData:
    """The data of a run folder. Raises UsageError when it is none."""
    folder = RunFolder(run)
    if not folder.exists:
        raise UsageError(f"{run} is not a run: it has neither config.yaml nor metrics.jsonl")
    settings = None
    with contextlib.suppress(AzrError):  # of another version: the page does without the options
        settings = folder.settings()
    versions, _ = folder.read_versions()
    return RunData(run, run.resolve().name, settings, folder.rows(), versions, _json(folder.held_out))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):  # a line that a kill cut in two
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


# Before and after -----------------------------------------------------------------------------------------------


def changes(data: RunData) -> list[Change]:
    """The before/after table of a finished run with a probe, the mean at temperature 1 first."""
    try:
        assert data.result is not None
        before, after = (held_out.HeldOutScore.from_state(data.result[name]) for name in ("before", "after"))
        lines = held_out.compare(before, after)
        bands = held_out.compare_bands(before, after)
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
        return []
    found = []
    for part, label in (("sampled", "T=1"), ("greedy", "greedy")):
        widths: dict[str, list[float]] = {}
        for score in (before, after):
            of_kinds = {str(kind): held_out.half_width(rates) for kind, rates in getattr(score, part).items()}
            of_kinds["mean"] = math.sqrt(sum(w * w for w in of_kinds.values())) / len(of_kinds)
            for name, width in of_kinds.items():
                widths.setdefault(name, []).append(width)
        mine = {line.name.removesuffix(f" {label}"): line for line in lines if line.name.endswith(f" {label}")}
        for name in ["mean", *(k for k in mine if k != "mean")]:
            line, (old, new) = mine[name], widths[name]
            words = {"T=1": "", "greedy": ", greedy"}[label]
            title = f"all kinds{words}" if name == "mean" else f"{name}{words}"
            found.append(Change(title, line.before, old, line.after, new, line.change, line.half_width, name == "mean"))
    for number, rows in zip(before.band_numbers(), bands, strict=True):
        line = rows[-1]  # the mean over the kinds
        old, new = (_width_of_mean(score.in_band(number).sampled) for score in (before, after))
        found.append(Change(f"band {number}", line.before, old, line.after, new, line.change, line.half_width, False))
    return found


def _width_of_mean(rates: Mapping[str, Sequence[float]]) -> float:
    """Half of the 95 % interval of the mean over kinds."""
    return math.sqrt(sum(held_out.half_width(values) ** 2 for values in rates.values())) / len(rates)


def held_out_tasks(data: RunData) -> int:
    """How many held-out tasks the before/after table rests on."""
    if not changes(data) or data.result is None:
        return 0
    return sum(len(rates) for rates in data.result["after"]["sampled"].values())


def drift(data: RunData, name: str = "solve/mean") -> tuple[float, float] | None:
    """A metric's mean over the first and the last tenth of the steps."""
    values = [y for _, y in data.points(name)]
    part = max(1, len(values) // 10)
    return (fmean(values[:part]), fmean(values[-part:])) if len(values) > 1 else None


# Reasons for rejection --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reason:
    """Why proposals were refused: shares of all proposals in the first and in the last third, and the count."""

    why: str
    count: int
    early: float
    late: float


def reasons(data: RunData) -> list[Reason]:
    third = max(1, len(data.rows) // 3)
    early, early_all = _refused(data.rows[:third], data)
    late, late_all = _refused(data.rows[-third:], data)
    total, _ = _refused(data.rows, data)
    return [
        Reason(why, count, early[why] / max(1.0, early_all), late[why] / max(1.0, late_all))
        for why, count in total.most_common(14)
    ]


def _refused(rows: Sequence[Mapping[str, Any]], data: RunData) -> tuple[Counter[str], float]:
    """Counts of reasons, and how many proposals there were: refused / (1 - valid), and valid ones alone if none was."""
    counts: Counter[str] = Counter()
    proposals = 0.0
    usual = data.settings.batch.proposals if data.settings else 0
    for row in rows:
        for kind in Kind:
            refused = row.get(f"refused/{kind}")
            if not isinstance(refused, dict):
                continue
            clean = {printable(str(why))[:80]: n for why, n in refused.items() if isinstance(n, int)}
            counts.update(clean)
            valid = row.get(f"valid/{kind}")
            share = 1 - valid if isinstance(valid, int | float) else 1.0
            number = sum(clean.values())
            proposals += number / share if share > 1e-9 else max(usual, number)
    return counts, proposals


# How hard fresh tasks were --------------------------------------------------------------------------------------------

BANDS = ("never solved", "solved by under half", "solved by half or more", "always solved")


def bands(data: RunData) -> list[list[tuple[float, float]]]:
    """Shares of fresh tasks in four bands of the solve rate, by step, in up to 60 groups of steps."""
    found: list[list[tuple[float, float]]] = [[] for _ in BANDS]
    for rows in groups(data.rows, 60):
        counts = [0.0] * len(BANDS)
        for row in rows:
            for kind in Kind:
                bins = row.get(f"solve_rates/{kind}")
                if not isinstance(bins, list) or len(bins) < 3:
                    continue
                # The middle bin of an odd number of inner bins straddles one half: it is shared out.
                inner = bins[1:-1]
                half, odd = divmod(len(inner), 2)
                middle = inner[half] / 2 if odd else 0
                counts[0] += bins[0]
                counts[1] += sum(inner[:half]) + middle
                counts[2] += sum(inner[half + odd :]) + middle
                counts[3] += bins[-1]
        total = sum(counts)
        for band, count in zip(found, counts, strict=True):
            if total:
                band.append((fmean(row["step"] for row in rows), count / total))
    return found


def groups(rows: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    count = min(most, len(rows))
    for i in range(count):
        yield rows[len(rows) * i // count : len(rows) * (i + 1) // count]


# The archive ----------------------------------------------------------------------------------------------------------

FAMILIES = ("expression", "assignment", "conditional", "comprehension", "loop", "further functions")
NODES = 5  # of a syntax tree in one column of the map
COLUMNS = 10


@dataclass(frozen=True)
class Square:
    """A place of the map: how many cells of it are filled, and by how many programs."""

    cells: int = 0
    programs: int = 0


def archive_map(data: RunData) -> tuple[list[str], dict[str, list[Square]]]:
    """The archive of the newest checkpoint: sizes of programs as heads of columns, and a row for each family.

    Both empty where there is no archive. A family is the most that a program is made of, in the order of `FAMILIES`.
    """
    latest = RunFolder(data.run).latest()
    rows = [] if latest is None else list(_lines(latest / ARCHIVE_FILE))
    counts: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        program, count = row.get("program"), row.get("count")
        if not isinstance(program, str) or not isinstance(count, int):
            continue
        try:
            tree = syntax.parse(program[:TEXT])
            nodes = sum(1 for _ in ast.walk(tree))
            family = _family(tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        square = counts.setdefault((family, min(COLUMNS - 1, nodes // NODES)), [0, 0])
        square[0] += 1
        square[1] += count
    if not counts:
        return [], {}
    first, last = min(column for _, column in counts), max(column for _, column in counts)
    heads = [
        f"{NODES * column}+" if column == COLUMNS - 1 else f"{NODES * column} to {NODES * column + NODES - 1}"
        for column in range(first, last + 1)
    ]
    lines = {
        family: [Square(*counts.get((family, column), (0, 0))) for column in range(first, last + 1)]
        for family in FAMILIES
        if any(name == family for name, _ in counts)
    }
    return heads, lines


def _family(tree: ast.Module) -> str:
    kinds = {type(node) for node in ast.walk(tree)}
    if len([node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]) > 1:
        return "further functions"
    if kinds & {ast.For, ast.While}:
        return "loop"
    if kinds & {ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp}:
        return "comprehension"
    if kinds & {ast.If, ast.IfExp, ast.Match}:
        return "conditional"
    return "assignment" if kinds & {ast.Assign, ast.AugAssign, ast.AnnAssign} else "expression"


# Tasks ----------------------------------------------------------------------------------------------------------------


def clean(value: Any, limit: int) -> str:
    """Text of a model for a page: bounded, and with nothing in it that a terminal or a bidirectional layout obeys.

    Escaping HTML is not done here: the page sets all of it as text.
    """
    text = value if isinstance(value, str) else "" if value is None else str(value)
    if len(text) > limit:
        text = f"{text[:limit]} … ({len(text) - limit} more characters)"
    plain = text.replace("\n", "").replace("\t", "")
    return text if plain.isprintable() else printable(text)


@dataclass(frozen=True)
class Shown:
    """What the task browser gets: proposals as plain data, and how many there were in all steps."""

    tasks: list[dict[str, Any]]
    steps: int
    all_steps: int


def tasks(run: Path) -> Shown:
    """Proposals with their attempts, thinned by the rule that the page states."""
    files = sorted((run / "rollouts").glob("step-*.jsonl"))
    if not files:
        return Shown([], 0, 0)
    stride = max(1, len(files) * max(1, len(list(_proposals(files[0])))) // MOST_TASKS)
    chosen = sorted(range(len(files) - 1, -1, -stride))
    by_file = {i: list(_proposals(files[i])) for i in chosen}
    sizes = {i: len(json.dumps(found)) for i, found in by_file.items()}
    while len(chosen) > 1 and (
        sum(len(by_file[i]) for i in chosen) > MOST_TASKS or sum(sizes[i] for i in chosen) > MOST_BYTES
    ):
        stride += 1
        chosen = sorted(range(len(files) - 1, -1, -stride))
        for i in chosen:
            if i not in by_file:
                by_file[i] = list(_proposals(files[i]))
                sizes[i] = len(json.dumps(by_file[i]))
    return Shown([one for i in chosen for one in by_file[i]], len(chosen), len(files))


@dataclass(frozen=True, slots=True)
class RewardedAnswer:
    """An answer to one of the user's rows, and what it earned by reward function."""

    prompt: str
    reply: str
    reward: float | None
    rewards: dict[str, float | None]


def answers(run: Path) -> list[tuple[int, list[RewardedAnswer]]]:
    """Answers to the user's rows in the first, the middle and the last step that was kept: of a few rows of each step
    the one that earned most and the one that earned least. Empty for a run without rows."""
    files = sorted((run / "rollouts").glob("step-*.jsonl"))
    chosen = sorted({0, len(files) // 2, len(files) - 1}) if files else []
    return [(number, found) for i in chosen for number, found in [_answers(files[i])] if found]


def _answers(path: Path) -> tuple[int, list[RewardedAnswer]]:
    groups: dict[int, list[RewardedAnswer]] = {}
    number = 0
    for row in _lines(path):
        place, given = row.get("row"), row.get("rewards")
        if not isinstance(place, int) or not isinstance(given, dict):
            continue
        number = row["step"] if isinstance(row.get("step"), int) else number
        rewards = {clean(name, 40): _number(value) for name, value in list(given.items())[:12]}
        prompt, reply = clean(row.get("prompt"), SHORT_TEXT), clean(row.get("reply"), SHORT_TEXT)
        groups.setdefault(place, []).append(RewardedAnswer(prompt, reply, _number(row.get("reward")), rewards))
    found = []
    for group in list(groups.values())[:ROWS_SHOWN]:
        ordered = sorted(group, key=lambda one: -math.inf if one.reward is None else one.reward)
        found += [ordered[-1]] if ordered[0].reward == ordered[-1].reward else [ordered[-1], ordered[0]]
    return number, found


def _proposals(path: Path) -> Iterator[dict[str, Any]]:
    """The proposals of one step; an attempt belongs to the proposal with the same task."""
    rows = [row for row in _lines(path) if isinstance(row.get("kind"), str)]
    tried: dict[str, Counter[tuple[str, str, bool]]] = {}
    for row in rows:
        if row.get("attempt") and isinstance(row.get("task"), dict):
            answer = (clean(row.get("reply"), SHORT_TEXT), clean(row.get("why"), 80), bool(row.get("correct")))
            tried.setdefault(_name(row), Counter())[answer] += 1
    for row in rows:
        if row.get("role") != "propose":
            continue
        task = row["task"] if isinstance(row.get("task"), dict) else {}
        attempts = tried.get(_name(row), Counter()) if row.get("valid") else Counter()
        cases = [case for case in task.get("cases", ()) if isinstance(case, list) and len(case) == 2][:12]
        yield {
            "step": row.get("step"),
            "kind": clean(row["kind"], 20),
            "rate": _number(row.get("solve_rate")),
            "valid": bool(row.get("valid")),
            "why": clean(row.get("why"), 80),
            "detail": clean(row.get("detail"), SHORT_TEXT),
            "reward": _number(row.get("reward")),
            "advantage": _number(row.get("advantage")),
            "tokens": row.get("tokens") if isinstance(row.get("tokens"), int) else None,
            "program": clean(task.get("program"), TEXT),
            "message": clean(task.get("message"), SHORT_TEXT),
            "cases": [[clean(part, SHORT_TEXT) for part in case] for case in cases],
            "reply": clean(row.get("reply"), TEXT),
            "attempts": [[*answer, count] for answer, count in attempts.most_common(16)],
        }


def _name(row: Mapping[str, Any]) -> str:
    task = row.get("task") or {}
    return json.dumps([row["kind"], task.get("program"), task.get("cases")])


def _number(value: Any) -> float | None:
    return round(float(value), 4) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True)
class Milestone:
    """A stretch of the run with the easiest, the median and the hardest of its tasks that were solved at all."""

    first: int
    last: int
    picks: list[tuple[str, dict[str, Any]]]


def curriculum(shown: Sequence[Mapping[str, Any]], most: int = 6) -> list[Milestone]:
    """Milestones over the tasks that the browser shows. Ties go to the longest program: it says more."""
    steps = sorted({one["step"] for one in shown if isinstance(one["step"], int)})
    found = []
    for stretch in groups(steps, most):
        mine = [dict(one) for one in shown if one["step"] in set(stretch) and one["rate"] and one["program"]]
        if not mine:
            continue
        mine.sort(key=lambda one: (-one["rate"], -len(one["program"])))
        hardest = min(mine, key=lambda one: (one["rate"], -len(one["program"])))
        picks = [("easiest", mine[0]), ("median", mine[len(mine) // 2]), ("hardest", hardest)]
        found.append(Milestone(stretch[0], stretch[-1], picks))
    return found


def alarms(data: RunData) -> list[str]:
    return metrics.alarms(data.rows)
