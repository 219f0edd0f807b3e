"""Prompt styles as files: what is shipped reads back, and what is wrong is one line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.config.prompt_style import COMPACT, dump_style, parse_style
from azr_mlx.types import Kind, Role

SHIPPED = [name for name in config.style_names() if name != COMPACT]

FINE = """\
turns: chat
solve:
  deduction:
    text: "{program}{input}"
    examples:
      - {program: "def f(a): return a + 1", input: "1", output: "2"}
"""


@pytest.mark.parametrize("name", SHIPPED)
def test_a_style_that_is_written_reads_back_equal(name: str) -> None:
    style = config.load_style(name)
    assert parse_style(dump_style(style), name) == style


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_style_says_in_a_line_whom_it_is_for(name: str) -> None:
    about = config.load_style(name).about
    assert "for " in about
    assert "\n" not in about


def test_a_style_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FINE)
    settings = config.load(None, [f"model.style={path}"])
    style = config.load_style(settings.model.style)
    assert style.chat
    assert style.wording(Role.SOLVE, Kind.DEDUCTION).examples[0].cases[0].output == "2"
    assert style.wording(Role.SOLVE, Kind.ABDUCTION).text is None  # the kind's own


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("turns: chat\n", "", "lacks turns: chat, or the keys begin, question and reply"),
        ("turns: chat", "turns: dialog", "turns must be chat, or the keys"),
        ("turns: chat", "turns: {question: 'Q:', reply: '{text}'}", "turns.question must hold {text} once"),
        ("solve:", "sovle:", "has no key sovle: there are .*; did you mean solve"),
        ("deduction:", "deductoin:", "solve has no key deductoin: .*did you mean deduction"),
        ("    text:", "    txet:", "solve.deduction has no key txet: .*did you mean text"),
        ("    text:", "    references: turns\n    text:", "solve.deduction has no key references"),
        ("    text:", "    stop: '```'\n    text:", "solve.deduction.stop must be a list of texts"),
        ("    text:", "    opening: [a]\n    text:", "solve.deduction.opening must be a text: put it in quotes"),
        ('output: "2"', "output: [2]", r"solve.deduction.examples\[0\].cases\[0\].output must be a text"),
        (', output: "2"', "", r"examples\[0\].cases\[0\] lacks output"),
        ('program: "def f(a): return a + 1", ', "", r"examples\[0\] lacks program"),
        ('input: "1", output: "2"', 'input: "1", cases: []', r"either input and output, or cases"),
        ("turns: chat", "turns: chat\ntags: maybe", "tags must be true or false"),
        ("turns: chat", "turns: [", ":3: is not YAML"),
        (FINE, "- a\n", "must hold keys of about"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in FINE
    path = tmp_path / "mine.yaml"
    path.write_text(FINE.replace(old, new, 1))
    with pytest.raises(config.ConfigError, match=told) as error:
        config.load_style(str(path))
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_style_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(config.ConfigError, match=r"must be one of .*chat-direct.*or a YAML file of your own"):
        config.load(None, ["model.style=chat-driect"])
    with pytest.raises(config.ConfigError, match=r"no prompt style none\.yaml"):
        config.load_style("none.yaml")


def test_thinking_needs_a_reply_that_is_the_models_own(tmp_path: Path) -> None:
    path = tmp_path / "free.yaml"
    path.write_text("turns: chat\n")
    assert config.load(None, [f"model.style={path}", "model.thinking=true"]).model.thinking
    path.write_text("turns: chat\nopening: '```output'\n")
    for style in ("chat-direct", str(path)):
        with pytest.raises(config.ConfigError, match=r"thinking needs model\.style chat"):
            config.load(None, [f"model.style={style}", "model.thinking=true"])
