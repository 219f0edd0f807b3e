"""The report as a file: complete, bounded, tolerant of broken run folders, and safe whatever the model wrote."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from azr_mlx import config, report
from azr_mlx.cli import azr
from azr_mlx.errors import UsageError
from azr_mlx.report import run_data, svg
from azr_mlx.report.page import TEMPLATE
from tests.report.runs import HOSTILE, make_run


class Page(HTMLParser):
    """What a browser would make of a page: its elements, the text of each script, and where it would load from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


@pytest.fixture(scope="module")
def text(finished: Path) -> str:
    return report.write(finished).read_text(encoding="utf-8")


def test_the_work_of_a_step_is_shown_by_phase(text: str) -> None:
    """What the program counted of itself (timings.jsonl) stands beside the seconds."""
    assert text.index("Seconds of a step, by phase") < text.index("Operations of a step, by phase")
    assert "Tokens of the update" in text
    assert "if rows were apart" in text


def test_the_report_is_one_file_that_loads_nothing(text: str) -> None:
    page = Page(text)
    loading = {"src", "srcset", "poster", "data", "action", "background"}
    assert not [(tag, key) for tag, attributes in page.tags for key in attributes if key in loading]
    assert all((a.get("href") or "").startswith("#") for tag, a in page.tags if tag in ("a", "link", "use"))
    assert "@import" not in text
    assert "url(" not in text
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "object", "embed", "img", "link", "base", "form"})


def test_its_policy_lets_run_the_one_script_that_it_has(text: str) -> None:
    page = Page(text)
    policy = next(a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert len(page.scripts) == 2
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]


def test_the_script_never_turns_text_into_code_or_markup() -> None:
    script = (TEMPLATE / "report.js").read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert word not in script


def test_a_model_that_writes_html_adds_no_element(hostile: Path, finished: Path) -> None:
    wild, tame = (Page(report.write(run).read_text(encoding="utf-8")) for run in (hostile, finished))
    assert {tag for tag, _ in wild.tags} <= {tag for tag, _ in tame.tags}
    assert len(wild.scripts) == 2
    assert any(HOSTILE[0] in one["program"] for one in wild.facts["tasks"]), "its texts are there, as text"


def test_nothing_that_a_terminal_or_a_layout_obeys_is_in_the_page(hostile: Path) -> None:
    text = report.write(hostile).read_text(encoding="utf-8")
    shown = json.dumps(Page(text).facts["tasks"], ensure_ascii=False) + re.sub(r"(?s)<script.*?</script>", "", text)
    assert not [mark for mark in "\x1b\x07\x9b\x00\x08\u202e\u2066" if mark in shown]
    assert r"\x1b[31mred" in shown


def test_the_headline_is_the_before_and_after_of_the_probe(finished: Path, text: str) -> None:
    result = json.loads((finished / "probe.json").read_text())
    means = [
        100 * sum(sum(rates) / len(rates) for rates in result[when]["sampled"].values()) / 3
        for when in ("before", "after")
    ]
    assert f'<span class="old">{means[0]:.1f}</span>' in text
    assert f'<span class="new">{means[1]:.1f}' in text
    assert "95 % interval of the change" in text


def test_every_section_of_the_story_is_told(text: str) -> None:
    for heading in (
        "Does it get better?", "What does it propose?", "How does it learn?", "What does it cost?",
        "The curriculum it made for itself", "Every task has a story", "Why proposals were refused",
        "Settings and surroundings",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    for chart in ("Solve rate", "Entropy", "Seconds of a step, by phase", "Memory", "Length of answers"):
        assert f"<h3>{chart}" in text
    assert "optim.lr" in text
    assert "Apple M4 Max" in text


def test_a_task_carries_its_attempts_and_the_models_own_words(finished: Path, text: str) -> None:
    tasks = Page(text).facts["tasks"]
    assert len(tasks) == 30 * 24
    for one in tasks:
        tried = sum(count for *_, count in one["attempts"])
        assert tried == (8 if one["valid"] else 0)
        if one["valid"]:
            right = sum(count for _, _, correct, count in one["attempts"] if correct)
            assert right / tried == pytest.approx(one["rate"])
        assert one["reply"]


def test_the_browser_is_capped_evenly_and_says_so(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_data, "MOST_TASKS", 100)
    shown = run_data.tasks(finished)
    assert 50 < len(shown.tasks) <= 100
    assert shown.all_steps == 30
    steps = sorted({one["step"] for one in shown.tasks})
    assert steps[-1] == 29
    assert len({b - a for a, b in itertools.pairwise(steps)}) == 1
    monkeypatch.setattr(run_data, "MOST_BYTES", 30_000)
    assert len(json.dumps(run_data.tasks(finished).tasks)) <= 31_000
    assert "evenly spaced steps" in run_data.RULE


def test_the_archive_is_a_map_of_size_and_sort(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert "The archive, as a map" not in report.write(run).read_text()
    programs = (
        "def f(x):\n    return x",
        "def f(y):\n    return y",
        "def f(x):\n    for v in x:\n        pass\n    return v",
    )
    rows: list[Any] = [
        {"skeleton": str(i), "behaviour": "b", "count": 4 + i, "step": 0, "program": program}
        for i, program in enumerate(programs)
    ]
    (run / "step-000030").mkdir()
    rows += [{"program": HOSTILE[0], "count": 1}, {"program": 3}, {"count": "many", "program": "x"}, 7]
    (run / "step-000030" / "archive.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{half")
    heads, lines = run_data.archive_map(run_data.read(run))
    assert heads == ["5 to 9", "10 to 14"]
    assert lines == {
        "expression": [run_data.Square(2, 9), run_data.Square()],
        "loop": [run_data.Square(), run_data.Square(1, 6)],
    }
    assert "The archive, as a map" in report.write(run).read_text()


def test_long_texts_are_cut_where_the_rule_says(tmp_path: Path) -> None:
    assert run_data.clean("x" * 5000, run_data.TEXT).startswith("x" * run_data.TEXT + " … (1000 more")
    assert run_data.clean(None, 10) == ""
    assert run_data.clean(12, 10) == "12"


@pytest.mark.slow
def test_500_steps_stay_under_20_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "long", 500, hostile=True)
    assert report.write(run).stat().st_size < 20e6


# Broken and unfinished runs.


def test_a_run_without_a_single_step_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(config.dump(config.load("nano")))
    assert "no steps to show yet" in report.write(tmp_path).read_text()


def test_half_lines_missing_files_and_rubbish_are_lived_with(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "broken"
    shutil.copytree(finished, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "solve/dedu')
    (run / "rollouts" / "step-000007.jsonl").write_text('[1, 2]\nnull\n{"role": "propose"}\n{"kind": "x", "task": 3}\n')
    (run / "probe.json").write_text('{"before": {}, "after": 3}')
    (run / "versions.json").write_bytes(b"\xff\xfe")
    (run / "config.yaml").write_text("no_such_option: 1\n")
    (run / "timings.jsonl").unlink()
    text = report.write(run).read_text(encoding="utf-8")
    assert "Does it get better?" in text
    assert "config.yaml is missing or of another version" in text


def test_an_interrupted_run_does_not_pretend(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "interrupted"
    shutil.copytree(finished, run)
    (run / "probe.json").unlink()
    assert "this is no measure of skill" in report.write(run).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run"):
        report.write(tmp_path)


# Several runs.


def test_runs_side_by_side(finished: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", 20, seed=1, optim=config.OptimConfig(lr=1e-3))
    text = report.write([finished, other], tmp_path / "both.html").read_text(encoding="utf-8")
    assert "<code>optim.lr</code>" in text
    assert "<code>seed</code>" in text
    assert "<code>lora.rank</code>" not in text, "what does not differ is not in the table"
    charts = Page(text).facts["charts"].values()
    assert {len(chart["series"]) for chart in charts} == {2}
    assert text.count("± ") >= 2


# Drawing.


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1.0]), (0, 8, [0, 2, 4, 6, 8]), (0.31, 0.55, [0.3, 0.4, 0.5, 0.6])],
)
def test_axes_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [0.0], [1.0, 1.0], [1e-9, 1e9], [-1.0] * 30, list(range(1000))])
def test_any_numbers_make_a_chart_or_none(values: list[float]) -> None:
    for style in ("line", "dots", "stack"):
        chart = svg.Chart("t", "", "s", [svg.Series("a", 0, list(enumerate(values)))], style)
        drawn = svg.draw_chart(chart, "c")
        assert bool(drawn) == bool(values)
        assert "nan" not in drawn


def test_names_of_runs_are_escaped_in_drawings() -> None:
    chart = svg.Chart("<b>", "", "s", [svg.Series("<script>", 0, [(0, 1.0)])])
    assert "<b>" not in svg.draw_chart(chart, "c")


def test_smoothing_gives_the_first_value_no_more_weight_than_others() -> None:
    assert svg.smooth([1.0, 1.0, 1.0], 5) == pytest.approx([1, 1, 1])
    assert svg.smooth([0.0, 1.0], 1e9)[1] == pytest.approx(0.5)


# The verb.


def test_azr_report_writes_beside_the_run(finished: Path) -> None:
    said = CliRunner().invoke(azr, ["report", str(finished)])
    assert said.exit_code == 0, said.output
    assert str(finished / "report.html") in said.output


def test_azr_metrics_finds_by_word() -> None:
    said = CliRunner().invoke(azr, ["metrics", "entropy"])
    assert "-sum p ln p" in said.output
    assert "grad_norm" not in said.output
    assert CliRunner().invoke(azr, ["metrics", "xyzzy"]).exit_code == 2
    assert "zero_signal is over 0.9" in CliRunner().invoke(azr, ["metrics", "--alarms"]).output
