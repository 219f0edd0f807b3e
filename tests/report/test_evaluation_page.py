"""The page of an evaluation: what a model wrote is text and nothing else, and the page has an end."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from azr_mlx.evaluation import Problem, Score
from azr_mlx.evaluation.judge_pool import JudgedSamples
from azr_mlx.evaluation.record import Evaluation, compare_evaluations
from azr_mlx.report.evaluation_page import GROUPS, group_problems, outcome, render_evaluation, write_evaluation

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\x1b[31m\u202e"
RIGHT, WRONG = Score(True, "passed"), Score(False, "failed: failed: line 2: assert f(1) == 1: AssertionError")


def evaluation(*scores: Score, text: str = "    return 1\n", adapter: str = "", samples: int = 1) -> Evaluation:
    record = {
        "title": "Own", "revision": "1", "tasks": len(scores), "model": "m", "adapter": adapter, "samples": len(scores),
        "prompt": "base", "sampling": None, "harness": "", "notes": ["a note"], "samples_file": "s.jsonl",
        "scores": {"pass@1": {"value": 0.5, "low": 0.1, "high": 0.9, "error": 0.3}},
    }  # fmt: skip
    rows = [
        (
            Problem(f"Own/{i}", {}, stub=f"def f{i}(x):\n"),
            {"completion": text, "text": f"reply {text}", "sample": j},
            score if j == 0 else RIGHT,
        )
        for i, score in enumerate(scores)
        for j in range(samples)
    ]
    return Evaluation(record, JudgedSamples(rows, rows))


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_what_a_model_wrote_is_text_and_nothing_else() -> None:
    html = render_evaluation([evaluation(Score(False, HOSTILE), text=HOSTILE)])
    found = Tags(html)
    assert not {"script", "img", "iframe", "a href"} & set(found.tags)
    assert not {name for name in found.attributes if name.startswith("on")}
    assert "default-src &#39;none&#39;" in html
    assert "{{ 7 * 7 }}" in html, "it is no template"
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("score", "completion", "group"),
    [
        (RIGHT, "x", "passed"),
        (WRONG, "x", "wrong"),
        (Score(False, "failed: input 3: wrong result (plus)"), "x", "wrong"),
        (Score(False, "failed: exception: program: SyntaxError: invalid"), "x", "error"),
        (Score(False, "timed out"), "x", "late"),
        (Score(False, "failed: exception: NameError"), " \n", "no answer"),
        (Score(False, "failed: the sandbox", harness=True), "x", "not judged"),
    ],
)
def test_each_verdict_has_its_group(score: Score, completion: str, group: str) -> None:
    assert outcome(({"completion": completion}, score)) == group
    assert group in GROUPS


def test_base_and_adapter_stand_side_by_side_with_what_was_won_and_lost(tmp_path: Path) -> None:
    base, tuned = evaluation(WRONG, RIGHT, RIGHT), evaluation(RIGHT, WRONG, RIGHT, adapter="a")
    groups = group_problems([base, tuned], 1 << 20)
    assert [(one.name, [p.id for p in one.problems]) for one in groups] == [
        ("won", ["Own/0"]), ("lost", ["Own/1"]), ("passed", ["Own/2"]),
    ]  # fmt: skip
    assert [one.passed for one in groups[0].problems[0].answers] == [False, True]
    path = write_evaluation(tmp_path / "page.html", [base, tuned], compare_evaluations(base, tuned))
    html = path.read_text()
    assert "1 won, 1 lost" in html
    assert "m + a" in html


def test_of_several_samples_one_that_failed_is_shown() -> None:
    (group,) = group_problems([evaluation(WRONG, samples=3)], 1 << 20)
    (answer,) = group.problems[0].answers
    assert (answer.passed, answer.rights) == (False, "2 of 3 right")


def test_a_page_is_bounded_and_says_what_it_leaves_out() -> None:
    many = evaluation(*[WRONG] * 400, *[RIGHT] * 400, text="x" * 100_000)
    html = render_evaluation([many], room=200_000)
    assert len(html) < 400_000
    assert "characters more" in html
    assert "and, without their texts: " in html
    assert "failed" in html
    groups = group_problems([many], 200_000)
    assert sum(group.count for group in groups) == 800
    assert groups[0].problems, "the failed ones come first"
    assert not groups[1].problems
