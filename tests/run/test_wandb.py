"""Weights & Biases, offline: stable names, a table of rollouts, the report as an artifact, one run id over a resume."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from azr_mlx import config, report
from azr_mlx.errors import AzrError
from azr_mlx.run.folder import RunFolder
from azr_mlx.run.tracker import Tracker
from tests.run.test_console import play, screen


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def tracker_in(folder: Path) -> Tracker:
    settings = replace(config.load("nano"), steps=3, tracking=config.TrackingConfig(wandb=True))
    return Tracker(RunFolder(folder), settings, console=screen(80))


def written(folder: Path, last: bytes) -> bytes:
    """What W&B wrote of the run, whose records hold names as plain bytes; `last` is in one of the last records.

    Its service writes the end of the file after the run is finished (W&B 0.31), so the file is waited for.
    """
    [path] = (folder / "wandb").glob("offline-run-*/*.wandb")
    patience = time.monotonic() + 20
    while last not in path.read_bytes() and time.monotonic() < patience:
        time.sleep(0.05)
    return path.read_bytes()


def test_a_run_its_report_and_its_resume(tmp_path: Path, offline: None) -> None:
    tracker = tracker_in(tmp_path)
    identity = tracker.start_wandb(config.flatten(tracker.config), None)
    assert identity
    play(tracker, 3)
    (tmp_path / "config.yaml").write_text(config.dump(tracker.config))
    tracker.close()
    tracker.publish(report.write(tmp_path))
    report_name = f"report-{identity}".encode()
    first = written(tmp_path, report_name)
    for name in (b"solve/deduction", b"tokens_per_second", b"memory/peak", b"refused/abduction/", b"optim.lr"):
        assert name in first, name
    assert report_name in first
    tables = list((tmp_path / "wandb").glob("offline-run-*/files/media/table/rollouts*.json"))
    assert tables
    assert b"propose" in tables[0].read_bytes()

    again = tracker_in(tmp_path)
    assert again.start_wandb(config.flatten(again.config), identity) == identity
    again.publish(None)
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    assert folders
    # Opened twice within a second, W&B numbers the second folder after the run id.
    assert all(identity in folder.name for folder in folders), folders


def test_off_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = Tracker(RunFolder(tmp_path), config.load("nano"), console=screen(80))
    assert tracker.start_wandb({}, None) is None
    tracker.publish(None)


def test_asked_for_but_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(AzrError, match="pip install wandb"):
        tracker_in(tmp_path).start_wandb({}, None)
