"""Pictures of the console and of the report for the README, made from a real run.

    python -m tests.report.pictures checkpoints/nano docs/images

Writes console.svg, report.png and report-phone.png. The pictures of the report need Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
from pathlib import Path

from rich.console import Console

from azr_mlx import report
from azr_mlx.report import run_data
from azr_mlx.run import metrics
from azr_mlx.run.console import HighlightedTask, View, draw
from azr_mlx.types import Kind


def view_of(run: Path) -> View:
    """The panel's view of a run at its last step, as if it were in the middle of it."""
    story = run_data.read(run)
    assert story.settings is not None
    done = [one for one in run_data.tasks(run).tasks if one["rate"] and one["step"] >= len(story.rows) - 5]
    best = min(done, key=lambda one: (one["rate"], -len(one["program"])))
    tried = sum(count for *_, count in best["attempts"])
    highlighted = HighlightedTask(
        best["step"], Kind(best["kind"]), best["program"], tuple(best["cases"][-1]), round(best["rate"] * tried), tried
    )
    view = View(story.name, story.kinds, story.settings.steps, done=len(story.rows) - 1, minutes=story.settings.minutes)
    view.rows, view.task, view.alarms = story.rows, highlighted, metrics.alarms(story.rows)
    view.spent = min(story.seconds, 60 * view.minutes or story.seconds)
    view.phase, view.finished, view.total, view.phase_began = "write", 104, 304, view.began
    return view


def console_svg(run: Path) -> str:
    console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True, color_system="truecolor")
    console.print(draw(view_of(run), 100, 40))
    text = console.export_svg(title=f"azr train --config {run.name}")
    # Rich names fonts by web address; a page of ours loads nothing.
    text = re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL)
    return text.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")


def photograph(page: Path, folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, width, height, scheme in (
            ("report.png", 1280, 1000, "light"), ("report-phone.png", 390, 844, "dark")
        ):  # fmt: skip
            tab = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1.5
            )
            tab.goto(page.resolve().as_uri())
            tab.screenshot(path=folder / name)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "console.svg").write_text(console_svg(given.run), encoding="utf-8")
    photograph(report.write(given.run, given.folder / "report.html"), given.folder)
    (given.folder / "report.html").unlink()
    print(*sorted(path.name for path in given.folder.iterdir()))
