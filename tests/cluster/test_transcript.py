"""docs/cluster.md shows what two machines really say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import transcript


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_shows_the_transcript_of_today(root: Path) -> None:
    page = (root / "docs/cluster.md").read_text(encoding="utf-8")
    shown = page.partition(transcript.BEGIN)[2].partition(transcript.END)[0]
    typed = [line for line in transcript.form(shown) if "$ " in line]
    assert len(typed) == 4
    played = transcript.form(transcript.play())
    # Who computes which item changes from run to run; every sort of line is there, in the page and today.
    assert set(map(sort_of, played)) == set(map(sort_of, transcript.form(shown)))


def sort_of(line: str) -> str:
    return " ".join(line.split()[:3]) if line[:1] != "#" else "#"
