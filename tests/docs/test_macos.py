"""A reader finds for every place where macOS differs the test or the CI step that covers it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import macos_branches


def test_every_place_that_asks_for_the_system_is_in_the_table() -> None:
    found, listed = macos_branches.places(), set(macos_branches.COVERED)
    assert found - listed == set(), (
        "say in tests/docs/macos_branches.py what happens there on macOS, and what covers it"
    )
    assert listed - found == set()


@pytest.mark.parametrize("place", sorted(macos_branches.COVERED))
def test_what_covers_a_place_exists(place: str) -> None:
    _, covers = macos_branches.COVERED[place]
    assert covers
    assert [cover for cover in covers if not macos_branches.exists(cover)] == []


def test_the_page_has_the_table_of_today(root: Path) -> None:
    """`make docs` writes it."""
    page = (root / "docs" / "macos.md").read_text(encoding="utf-8")
    assert macos_branches.written(page) == page


def test_a_test_or_step_that_is_not_there_is_seen() -> None:
    assert not macos_branches.exists("tests/executor/test_on_a_mac.py::test_that_nobody_wrote")
    assert not macos_branches.exists("CI macos: A step that nobody wrote")
    assert not macos_branches.exists("CI nothing: Two steps of training")
    assert macos_branches.exists("CI macos: Two steps of training")
