"""The progress bar of an evaluation in a narrow terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from azr_mlx.evaluation import run


@pytest.mark.parametrize("width", [80, 120, 200])
def test_count_and_time_left_are_whole_at_every_width(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with run._bar(
        console, "humaneval+ checkpoints/qwen2.5-coder-1.5b-instruct/step-000120", SimpleNamespace(done=1234)
    ) as tell:  # type: ignore[arg-type]
        tell(1230, 1640, 1_000_000)
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue().replace("\x1b[2K", "").replace("\r", "\n").split("\n")
    [line] = {one for one in drawn if "1230/1640" in one}
    assert "1234 judged left" in line or "1234 judged 0:00" in line
    assert line.rstrip().endswith(("0:00:00", "-:--:--"))
    assert len(line.rstrip()) <= width
