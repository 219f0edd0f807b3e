"""A run, or several side by side, as one HTML file that needs nothing else: no network, no fonts, no libraries.

    report.write(Path("checkpoints/nano"))              # checkpoints/nano/report.html
    report.write([first, second], Path("compare.html"))

Two walls stand between a model's texts and the reader's browser. The page puts them in as text only: Jinja escapes all
it prints, and the task browser's data is JSON that the script shows with textContent. And the page's own policy
(Content-Security-Policy) lets run no script but the one whose hash it names, and load nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from azr_mlx import __version__, config
from azr_mlx.files import plain_errors, write_text
from azr_mlx.report import run_data, svg
from azr_mlx.report.run_data import BANDS, RunData
from azr_mlx.report.svg import Chart, Series
from azr_mlx.run import metrics
from azr_mlx.types import Kind

TEMPLATE = Path(__file__).parent / "template"
PHASES = ("write", "execute", "update")
Section = tuple[str, str, list[Chart]]  # title, what to look for, charts


def write(runs: Path | Sequence[Path], output: Path | None = None, *, refresh: int = 0) -> Path:
    """Write the report of one run (report.html in its folder) or the comparison of several (report-compare.html).

    refresh: seconds after which an open page loads itself again, for a run that goes on; 0 for never.
    Raises UsageError when a folder is not a run.
    """
    folders = [runs] if isinstance(runs, Path) else list(runs)
    found = [run_data.read(folder) for folder in folders]
    if output is None:
        output = folders[0] / "report.html" if len(found) == 1 else Path("report-compare.html")
    html = render(found, refresh=refresh)
    with plain_errors(f"report {output}"):
        write_text(output, html)
    return output


def render(runs: Sequence[RunData], *, refresh: int = 0) -> str:
    """The page of one or several runs."""
    script = (TEMPLATE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": lambda share: f"{100 * share:.1f} %", "code": _code}
    one = runs[0] if len(runs) == 1 else None
    shown = run_data.tasks(one.run) if one else run_data.Shown([], 0, 0)
    sections = charts(one) if one else overlays(runs)
    numbered = [(title, note, _numbered(found, f"g{i}")) for i, (title, note, found) in enumerate(sections)]
    facts = {
        "charts": {
            identity: {
                "unit": chart.unit,
                "series": [
                    {"x": [x for x, _ in s.points], "y": [_round(y) for _, y in s.points]} for s in chart.series
                ],
            }
            for _, _, found in numbered
            for identity, chart, _ in found
        },
        "tasks": shown.tasks,
        "refresh": refresh,
    }
    return environment.get_template("report.html").render(
        title=one.name if one else " vs ".join(data.name for data in runs),
        one=one,
        runs=[_summary(data, i) for i, data in enumerate(runs)],
        headline=_headline(one) if one else None,
        changes=(found := run_data.changes(one) if one else []),
        dumbbells=svg.dumbbells(found) if found else "",
        held_out=run_data.held_out_tasks(one) if one else 0,
        alarms=run_data.alarms(one) if one else [],
        sections=numbered,
        milestones=run_data.curriculum(shown.tasks),
        answers=run_data.answers(one.run) if one else [],
        reasons=run_data.reasons(one) if one else [],
        archive=(archive := run_data.archive_map(one) if one else ([], {})),
        fullest=max((square.programs for line in archive[1].values() for square in line), default=1),
        shown=shown,
        rule=run_data.RULE,
        differing=_differing(runs),
        options=_options(one) if one else [],
        versions=one.versions if one else {},
        glossary=metrics.listing(),
        made=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        refresh=refresh,
        style=Markup((TEMPLATE / "report.css").read_text(encoding="utf-8") + _labels()),
        script=Markup(script),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        facts=data_block(facts),
    )


def data_block(value: Any) -> Markup:
    """JSON that may stand in a <script type="application/json">: no character in it ends or opens anything."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _round(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else 0.0


_COLOURS, _MEAN = (0, 1, 2, 4, 5), 3  # colour numbers of the kinds, used again when there are more; and of their mean


def _colour(kind: Kind) -> int:
    return _COLOURS[list(Kind).index(kind) % len(_COLOURS)]


def _labels() -> str:
    """The style rules that give a kind's label the colour of its curves."""
    return "".join(f".kind.{kind}::before {{ background: var(--c{_colour(kind)}); }}\n" for kind in Kind)


def _code(text: str, most: int = 14) -> str:
    """A program for a small card: its first lines."""
    lines = text.rstrip().split("\n")
    return "\n".join([*lines[:most], "…"] if len(lines) > most else lines)


def _numbered(found: Sequence[Chart], prefix: str) -> list[tuple[str, Chart, Markup]]:
    drawn = [(f"{prefix}c{i}", chart, svg.draw_chart(chart, f"{prefix}c{i}")) for i, chart in enumerate(found)]
    return [one for one in drawn if one[2]]


# The charts of one run --------------------------------------------------------------------------------------------


def charts(data: RunData) -> list[Section]:
    """What a run's curves are, in the order in which a reader asks."""
    kinds = data.kinds

    def by_kind(
        title: str, name: str, note: str = "", *, style: str = "line", mean: bool = False, wide: bool = False
    ) -> Chart:
        series = [Series(kind, _colour(kind), data.points(f"{name}/{kind}")) for kind in kinds]
        if mean:
            series.append(Series("all", _MEAN, data.points(f"{name}/mean")))
        return _chart(title, [f"{name}/{kind}" for kind in kinds], series, note, style, wide)

    def plain(title: str, *names: str, note: str = "", labels: Sequence[str] = (), first: int = 0) -> Chart:
        """A chart of metrics by their full names; an empty one, which is not drawn, without any."""
        words = labels or [name.rpartition("/")[2].replace("_", " ") for name in names]
        series = [
            Series(word, first + i, data.points(name)) for i, (name, word) in enumerate(zip(names, words, strict=True))
        ]
        return _chart(title, names, series, note)

    band_points = run_data.bands(data)
    hardness = Chart(
        "How often fresh tasks were solved", "shares of a step's new tasks; only the two middle bands teach", "share",
        [Series(word, 10 + i, points) for i, (word, points) in enumerate(zip(BANDS, band_points, strict=True))],
        "stack", True, ("solve_rates/{kind}",), wide=True,
    )  # fmt: skip
    times = Chart(
        "Seconds of a step, by phase", "", "s",
        [Series(name, i, data.points(f"seconds/{name}")) for i, name in enumerate(PHASES)], "stack", True,
        ("seconds/{phase}",), wide=True,
    )  # fmt: skip
    work = Chart(
        "Operations of a step, by phase", "floating-point operations, counted from shapes", "operations",
        [Series(name, i, data.points(f"flops/{name}")) for i, name in enumerate(("prefill", "decode", "update"))],
        "stack", True, ("flops/prefill", "flops/decode", "flops/update"),
    )  # fmt: skip
    own = [
        plain("Reward of the answers", "rows/reward", "probe/rows", labels=["trained", "held out"]),
        plain("Reward by function", *data.named("rows/reward/")),
        plain("Spread of the rewards", "rows/reward_std"),
        plain("Rows whose answers all earned the same", "rows/flat"),
        plain("Length of the answers", "rows/length"),
        plain("Cut off at the token limit, without a reward", "rows/truncated", "rows/unscored"),
        plain("Passes through the rows", "rows/epoch"),
        plain("What your functions logged", *data.named("rows/logged/")),
    ]
    rows = [("What do your rows earn?", "What the reward functions gave to the answers.", own)]
    return [
        *(rows if data.named("rows/") else []),
        (
            "Does it get better?",
            "The probe is the same every time; the solve rate is not: when proposals get harder, it falls.",
            [
                by_kind("Held-out tasks", "probe", style="dots", mean=True, wide=True),
                by_kind("Held-out tasks, greedy", "probe_greedy", style="dots", mean=True),
                plain(
                    "Held-out tasks by band of difficulty",
                    *(f"heldout/band{band}/mean" for band in range(1, 5)),
                    labels=[f"band {band}" for band in range(1, 5)],
                ),
                by_kind("Solve rate", "solve"),
                by_kind("Solver's reward", "reward/solve"),
                by_kind("Proposer's reward", "reward/propose"),
            ],
        ),
        (
            "What does it propose?",
            "A proposal is worth something when it is valid, new, and solved sometimes but not always.",
            [
                hardness,
                by_kind("Valid proposals", "valid"),
                by_kind("Learnable among valid", "learnable"),
                by_kind("Difficulty", "difficulty"),
                by_kind("Programs not seen before", "novel"),
                by_kind("Proposed before", "repeated"),
                by_kind("Crowding of the archive", "crowding"),
                plain("Cells filled", "cells/filled"),
                by_kind("Size of programs", "program_nodes"),
                by_kind("Nesting of programs", "program_depth"),
            ],
        ),
        (
            "How does it learn?",
            "Entropy should sink slowly; the gap between sampler and trainer should stay near zero.",
            [
                plain("Entropy", "entropy"),
                plain("Groups without a signal", "zero_signal"),
                plain("Gradient norm", "grad_norm"),
                plain("Gap of sampler and trainer, |Δ logp|", "delta_logp_mean", "delta_logp_max"),
                by_kind("Length of answers", "length/solve"),
                by_kind("Length of proposals", "length/propose"),
                plain("Cut off at the token limit", "truncated/propose", "truncated/solve"),
                plain("Distance from the base model, KL", "kl"),
            ],
        ),
        (
            "What does it cost?",
            "",
            [
                times,
                work,
                plain(
                    "Tokens of the update",
                    "tokens/update/rows",
                    "tokens/update/slots",
                    "tokens/update",
                    "tokens/update/completions",
                    labels=["if rows were apart", "in attention", "computed", "learned"],
                ),
                plain("Tokens per second", "tokens_per_second", labels=["sampling"]),
                plain("Memory", "memory/peak", "memory/active", "memory/cache"),
                plain("Trouble of the executor", "timeouts", "dropped"),
                by_kind("Tasks in memory", "buffer"),
            ],
        ),
    ]


def _chart(
    title: str, names: Sequence[str], series: Sequence[Series], note: str, style: str = "line", wide: bool = False
) -> Chart:
    """A chart of these metrics, explained by their table."""
    metric = metrics.find(names[0]) if names else None
    unit = metric.unit if metric else ""
    words = note or "; ".join(dict.fromkeys(m.meaning for name in names if (m := metrics.find(name)) is not None))
    arrow = {"up": " ↑", "down": " ↓", "": ""}[metric.better if metric else ""]
    return Chart(title + arrow, words, unit, series, style, names=tuple(names), wide=wide)


def overlays(runs: Sequence[RunData]) -> list[Section]:
    """The same curves for several runs: a chart for each kind, a colour for each run."""
    kinds = [kind for kind in runs[0].kinds if all(kind in data.kinds for data in runs)]

    def chart(title: str, name: str, style: str = "line", wide: bool = False) -> Chart:
        series = [Series(f"{i + 1} {data.name}", i % 6, data.points(name)) for i, data in enumerate(runs)]
        return _chart(title, [name], series, "", style, wide)

    def of_kinds(title: str, name: str) -> list[Chart]:
        return [chart(f"{title}: {kind}", f"{name}/{kind}") for kind in kinds]

    return [
        (
            "Do they get better?", "Each colour is a run.",
            [chart("Held-out tasks", "probe/mean", "dots", wide=True), chart("Solve rate", "solve/mean"),
             *of_kinds("Solve rate", "solve")],
        ),
        (
            "What do they propose?", "",
            [*of_kinds("Valid", "valid"), *of_kinds("Learnable", "learnable"), *of_kinds("Difficulty", "difficulty"),
             *of_kinds("New programs", "novel")],
        ),
        (
            "How do they learn?", "",
            [chart("Entropy", "entropy"), chart("Groups without a signal", "zero_signal"),
             chart("Gradient norm", "grad_norm"), chart("Gap of sampler and trainer", "delta_logp_mean"),
             *of_kinds("Length of answers", "length/solve")],
        ),
        (
            "What do they cost?", "",
            [chart("Seconds of a step", "seconds/step"), chart("Tokens per second", "tokens_per_second"),
             chart("Peak memory", "memory/peak")],
        ),
    ]  # fmt: skip


# Words and tables -------------------------------------------------------------------------------------------------


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _headline(data: RunData) -> dict[str, Any]:
    """The one sentence of a run, in parts that the page sets apart."""
    found = run_data.changes(data)
    what = f"{len(data.rows)} steps of self-play, {_duration(data.seconds)}"
    if found:
        first = found[0]
        low, high = 100 * (first.change - first.change_width), 100 * (first.change + first.change_width)
        verdict = "" if first.real else " The interval holds zero: this may be chance."
        return {
            "before": 100 * first.before, "after": 100 * first.after, "change": 100 * first.change, "what": what,
            "words": f"right answers to {run_data.held_out_tasks(data)} held-out tasks at temperature 1, mean of the "
            "kinds; "
            f"95 % interval of the change {low:+.1f} to {high:+.1f} points.{verdict}",
        }  # fmt: skip
    trend = run_data.drift(data)
    if trend:
        return {
            "before": 100 * trend[0], "after": 100 * trend[1], "change": 100 * (trend[1] - trend[0]), "what": what,
            "words": "solve rate on its own tasks, first and last tenth of the steps. They change as it learns, so "
            "this is no measure of skill; the held-out tasks are measured when a run ends.",
        }  # fmt: skip
    return {"before": None, "after": None, "change": None, "what": what, "words": "no steps to show yet"}


def _summary(data: RunData, index: int) -> dict[str, Any]:
    found = run_data.changes(data)
    settings = data.settings
    return {
        "name": data.name, "colour": index % 6, "number": index + 1, "steps": len(data.rows),
        "wanted": settings.steps if settings else None, "duration": _duration(data.seconds),
        "model": settings.model.id if settings else "", "seed": settings.seed if settings else "",
        "device": data.versions.get("device", ""), "change": found[0] if found else None,
        "drift": run_data.drift(data), "path": str(data.run),
    }  # fmt: skip


def _differing(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """The options on which the runs differ, with each run's value."""
    if len(runs) < 2:
        return []
    flat = [{k: config.written(v) for k, v in config.flatten(s.settings).items()} if s.settings else {} for s in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one if key != "name"))
    rows = [(key, [one.get(key, "") for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _options(data: RunData) -> list[tuple[str, str, bool, str]]:
    """Every option: key, value, whether it differs from its default, what it is."""
    if data.settings is None:
        return []
    changed = {key for key, _, _ in config.diff(config.Config(), data.settings)}
    explained = config.options()
    return [
        (key, config.written(value), key in changed, explained[key].help)
        for key, value in config.flatten(data.settings).items()
    ]
