"""docs/troubleshooting.md names only what there is: options, verbs, alarms and pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.cli import azr
from azr_mlx.run import metrics


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs/troubleshooting.md").read_text(encoding="utf-8")


def test_every_option_it_names_exists_and_every_value_fits(page: str) -> None:
    named = re.findall(r"`([a-z]+\.[a-z_]+)(=[^`]+)?`", page)
    options = [(key, value) for key, value in named if key.split(".")[0] in config.sections()]
    assert len(options) > 10
    for key, value in options:
        assert key in config.options(), key
        if value:
            config.load("nano", [key + value])


def test_every_alarm_it_quotes_exists(page: str) -> None:
    quoted = re.findall(r'\*\*"([^"]+)"\.\*\*', page)
    known = {one.name for one in metrics.ALARMS} | {"no sufficient sandbox here"}
    assert set(quoted) <= known


def test_every_verb_and_option_it_names_exists(page: str) -> None:
    for verb, rest in re.findall(r"`azr ([a-z]+)([^`]*)`", page):
        command = azr.commands[verb]
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, f"azr {verb}{rest}"


def test_every_page_it_links_to_exists(page: str, root: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page):
        assert (root / "docs" / target).is_file(), target
