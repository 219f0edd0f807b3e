"""Text where not every character can be written: a finished run must not fail for want of a box or a sign."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.terminal import PLAIN

ROOT = Path(__file__).resolve().parents[1]


@given(st.text())
def test_any_text_can_be_written_to_any_stream(text: str) -> None:
    for encoding in ("ascii", "latin-1", "cp437"):
        assert text.encode(encoding, "azr-plain").decode(encoding).isprintable() in (True, False)


def test_ascii_text_is_itself_and_signs_are_like_what_they_stand_for() -> None:
    assert "+12.5 ± 3, a → b, ▁▄█".encode("ascii", "azr-plain") == b"+12.5 +- 3, a -> b, _:#"
    assert all(plain.isascii() for plain in PLAIN.values())


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_tables_curves_and_panels_are_printed_to_an_ascii_stream(environment: dict[str, str], tmp_path: Path) -> None:
    """What stands on the last screen of a run, through the program that prints it."""
    code = f"""
from pathlib import Path
from azr_mlx.terminal import never_refuse
never_refuse()
from azr_mlx.run.held_out import Line
from azr_mlx.run.folder import RunFolder
from azr_mlx.run.tracker import Tracker
from azr_mlx import config
from azr_mlx.run.console import draw
from tests.run.test_console import play
tracker = Tracker(RunFolder(Path({str(tmp_path)!r})), config.load("nano", ["steps=3"]))
play(tracker, 3)
tracker.print_curves()
line = Line("mean T=1", 0.1, 0.2, 0.1, 0.05)
tracker.print_table([line], "held-out")
tracker.print_bands([[line], [line]], {{"copying": {{}}}})
tracker.console.print(draw(tracker.view, 80))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode("ascii")
    assert "10.0 %" in said
    assert "solve/deduction" in said
