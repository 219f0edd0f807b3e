"""Sinks: the same metrics under the same names in each, read back with the library's own reader; no network."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from azr_mlx import config, report
from azr_mlx.errors import AzrError
from azr_mlx.run import sinks
from azr_mlx.run.folder import RunFolder, read_rows
from azr_mlx.run.tracker import Tracker
from tests.run.test_console import play, screen, text_of

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3


def tracker_in(folder: Path, *names: str) -> Tracker:
    settings = replace(config.load("nano"), steps=STEPS, tracking=config.TrackingConfig(sinks=names))
    return Tracker(RunFolder(folder), settings, console=screen(80))


def played(folder: Path, *names: str, hostile: bool = False) -> Tracker:
    """A run of STEPS made-up steps whose sinks are closed."""
    tracker = tracker_in(folder, *names)
    tracker.open_sinks(config.flatten(tracker.config), None)
    play(tracker, STEPS, hostile)
    tracker.close()
    tracker.publish(None)
    return tracker


def own(folder: Path) -> list[dict[str, float]]:
    """The rows of the run folder as numbers by name: what every sink must hold."""
    return [sinks.flat(row) for row in RunFolder(folder).rows()]


# -- which, and what when there is none


def test_none_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("wandb", "tensorboardX", "trackio"):
        monkeypatch.setitem(sys.modules, library, None)
    tracker = tracker_in(tmp_path)
    assert tracker.open_sinks({}, None) is None
    tracker.publish(None)


@pytest.mark.parametrize(
    ("sink", "library", "package"),
    [
        ("wandb", "wandb", "wandb"),
        ("tensorboard", "tensorboardX", r"azr-mlx\[tensorboard\]"),
        ("trackio", "trackio", r"azr-mlx\[trackio\]"),
    ],
)
def test_asked_for_but_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: str, library: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(AzrError, match=f"tracking.sinks names {sink}.*pip install '{package}'"):
        tracker_in(tmp_path, sink).open_sinks({}, None)


def test_the_older_option_still_chooses_wandb_and_says_so() -> None:
    older = config.load("nano", ["tracking.wandb=true", "tracking.sinks=tensorboard"])
    assert older.tracking.all_sinks() == ("tensorboard", "wandb")
    assert config.load("nano", ["tracking.wandb=true", "tracking.sinks=wandb"]).tracking.all_sinks() == ("wandb",)
    assert any("tracking.sinks: wandb" in line for line in config.cautions(older))


def test_an_unknown_sink_is_one_line_with_those_that_there_are() -> None:
    with pytest.raises(config.ConfigError, match=r"tracking.sinks is mlflow.*wandb, tensorboard, trackio, trl"):
        config.load("nano", ["tracking.sinks=mlflow"])


def test_a_run_may_be_resumed_with_other_sinks() -> None:
    assert "tracking.sinks" in config.RESUMABLE


def test_a_sink_that_fails_is_dropped_and_the_others_go_on(tmp_path: Path) -> None:
    class Broken:
        where = "a broken one"

        def log(self, row: Mapping[str, Any], rollouts: Any) -> None:
            raise ConnectionError("the\nserver is gone")

        def finish(self, report: Path | None) -> None:
            raise AssertionError("it was dropped")

    run = sinks.Sinks([Broken(), sinks.TrlSink(tmp_path, 0)])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run.log({"step": 0, "entropy": 0.5}, [])
        run.log({"step": 1, "entropy": 0.4}, [])
        run.finish(None)
    [line] = [str(warning.message) for warning in said]
    assert line == "no more metrics go to a broken one: ConnectionError: the server is gone; the run goes on"
    assert [row["step"] for row in read_rows(tmp_path / "trl.jsonl")] == [0, 1]


# -- Weights & Biases


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def written(folder: Path, last: bytes) -> bytes:
    """What W&B wrote of the run, whose records hold names as plain bytes; `last` is in one of the last records.

    Its service writes the end of the file after the run is finished (W&B 0.31), so the file is waited for.
    """
    [path] = (folder / "wandb").glob("offline-run-*/*.wandb")
    patience = time.monotonic() + 20
    while last not in path.read_bytes() and time.monotonic() < patience:
        time.sleep(0.05)
    return path.read_bytes()


def logged_steps(folder: Path, count: int) -> list[int]:
    """The steps that a W&B run's file holds, once so many are written."""
    from wandb.proto import wandb_internal_pb2

    [path] = folder.glob("*.wandb")
    patience = time.monotonic() + 20
    while True:
        steps = []
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            steps += [int(json.loads(items["step"]))] if "step" in items else []
        if len(steps) >= count or time.monotonic() > patience:
            return steps
        time.sleep(0.05)


def records(data: bytes) -> Iterator[bytes]:
    """The records of a W&B file: a header of 7 bytes, then a log in LevelDB's format (blocks of 32 KiB; a part of a
    record has a checksum, its length in two bytes, and its type: whole, first, middle, last)."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if at % 32768 > 32768 - 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part = data[at + 7 : at + 7 + length]
        if kind == 0 or len(part) < length:
            return
        parts += part
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_wandb_gets_metrics_a_table_the_report_and_goes_on_after_a_resume(tmp_path: Path, offline: None) -> None:
    tracker = tracker_in(tmp_path, "wandb")
    identity = tracker.open_sinks(config.flatten(tracker.config), None)
    assert identity
    play(tracker, STEPS, hostile=True)
    (tmp_path / "config.yaml").write_text(config.dump(tracker.config))
    tracker.close()
    tracker.publish(report.write(tmp_path))
    report_name = f"report-{identity}".encode()
    first = written(tmp_path, report_name)
    for name in (b"optim.lr", *(name.encode() for name in own(tmp_path)[0])):
        assert name in first, name
    assert report_name in first
    tables = list((tmp_path / "wandb").glob("offline-run-*/files/media/table/rollouts*.json"))
    assert tables
    assert b"propose" in tables[0].read_bytes()

    again = tracker_in(tmp_path, "wandb")
    again.rewind(STEPS - 1)  # the last step is made again
    assert again.open_sinks(config.flatten(again.config), identity) == identity
    play(again, STEPS, first=STEPS - 1)
    again.close()
    again.publish(None)
    # One folder, and the whole run in it: every step once, and the table of rollouts.
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    assert identity in folder.name
    assert logged_steps(folder, STEPS) == [0, 1, 2]
    assert list(folder.glob("files/media/table/rollouts*.json"))


def test_an_offline_run_whose_first_part_is_on_the_server_keeps_it(tmp_path: Path, offline: None) -> None:
    tracker = tracker_in(tmp_path, "wandb")
    identity = tracker.open_sinks(config.flatten(tracker.config), None)
    play(tracker, STEPS)
    tracker.publish(None)
    [first] = (tmp_path / "wandb").glob("offline-run-*")
    (first / f"run-{identity}.wandb.synced").touch()  # as wandb sync leaves it
    again = tracker_in(tmp_path, "wandb")
    again.rewind(STEPS)
    again.open_sinks(config.flatten(again.config), identity)
    again.publish(None)
    assert first.is_dir()
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    assert "wandb sync --append" in text_of(again.console)


# -- TensorBoard


def events(folder: Path) -> Any:
    """TensorBoard's own reader of a run's event files."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    found = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def test_tensorboard_reads_every_metric_of_every_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    tracker = played(tmp_path, "tensorboard")
    found = events(tmp_path)
    rows = own(tmp_path)
    assert set(found.Tags()["scalars"]) == {name for row in rows for name in row}
    for row in rows:
        for name, value in row.items():
            [said] = [event.value for event in found.Scalars(name) if event.step == row["step"]]
            assert said == pytest.approx(value, rel=1e-6, nan_ok=True)
    assert f"tensorboard --logdir {tmp_path}" in text_of(tracker.console).replace("\n", "")


def test_tensorboard_forgets_the_steps_that_a_resumed_run_makes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    for first, values in ((0, [1.0, 2.0, 3.0]), (1, [20.0])):
        sink = sinks.TensorBoardSink(tmp_path, first)
        for i, value in enumerate(values):
            sink.log({"step": first + i, "entropy": value}, [])
        sink.finish(None)
        time.sleep(1.1)  # files are named by the second
    said = [(event.step, event.value) for event in events(tmp_path).Scalars("entropy")]
    assert said == [(0, 1.0), (1, 20.0)]


def test_what_a_model_writes_is_code_to_a_dashboard(tmp_path: Path) -> None:
    """Markdown would load a picture from the network that a model names."""
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    sink = sinks.TensorBoardSink(tmp_path, 0)
    hostile = "```\n![x](http://192.0.2.1/a.png)\r<script>alert(1)</script>\x0b# heading"
    rollout = dict.fromkeys(sinks.COLUMNS, "x") | {"prompt": hostile, "reply": hostile}
    sink.log({"step": 0}, [rollout])
    sink.finish(None)
    [event] = events(tmp_path).Tensors("rollouts/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    lines = [line for line in text.split("\n") if any(word in line for word in ("```", "![", "<script", "# heading"))]
    assert len(lines) == 8
    assert all(line.startswith("    ") for line in lines)
    assert not set(text) & set("\r\x0b")


@pytest.mark.parametrize("sink", ["tensorboard", "trl"])
def test_no_sink_is_lost_to_what_a_model_writes(tmp_path: Path, sink: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker = tracker_in(tmp_path, sink)
        tracker.open_sinks({}, None)
        play(tracker, STEPS, hostile=True)
        tracker.publish(None)


def test_rollouts_of_every_tenth_step_are_sampled(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    played(tmp_path, "tensorboard", hostile=True)
    [event] = events(tmp_path).Tensors("rollouts/text_summary")
    assert event.step == 0
    assert event.tensor_proto.string_val[0].decode().count("*reply*") == sinks.ROLLOUTS


# -- Trackio


def test_trackio_reads_every_metric_and_a_table(tmp_path: Path) -> None:
    """In processes of their own: Trackio reads where to write when it is imported."""
    pytest.importorskip("trackio", reason="trackio is not installed")
    run = tmp_path / "a run"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRACKIO")}
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}

    def python(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = python(
        "import warnings\nwarnings.simplefilter('error', UserWarning)\n"  # a sink that is dropped
        "from pathlib import Path\nfrom tests.run.test_sinks import played, text_of\n"
        f"print(text_of(played(Path({str(run)!r}), 'trackio', hostile=True).console))"
    )
    assert 'Trackio: trackio show --project "azr_mlx"' in said
    assert "Created new run" not in said
    read = json.loads(
        python(
            "import json, trackio\nfrom trackio.sqlite_storage import SQLiteStorage\n"
            "[run] = trackio.Api().runs('azr_mlx')\n"
            "print(json.dumps([run.name, SQLiteStorage.get_logs('azr_mlx', run.name, run_id=run.id)], default=str))"
        )
    )
    assert read[0] == "a run"
    rows = {row["step"]: row for row in read[1]}
    for row in own(run):
        for name, value in row.items():
            assert rows[row["step"]][name] == pytest.approx(value), name
    assert "propose" in json.dumps(rows[0]["rollouts"])


# -- the log in TRL's names


def test_the_log_in_trl_s_names_is_that_of_the_solver(tmp_path: Path) -> None:
    played(tmp_path, "trl")
    rows = read_rows(tmp_path / "trl.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS))
    for row, mine in zip(rows, own(tmp_path), strict=True):
        rollouts = read_rows(tmp_path / f"rollouts/step-{row['step']:06d}.jsonl")
        solver = [one for one in rollouts if one["role"] == "solve"]
        assert row["reward"] == pytest.approx(sum(one["reward"] for one in solver) / len(solver))
        assert row["completions/mean_length"] == pytest.approx(sum(one["tokens"] for one in solver) / len(solver))
        assert row["frac_reward_zero_std"] == mine["zero_signal"]
        assert row["entropy"] == mine["entropy"]
        assert row["reward_std"] >= 0


def test_a_resumed_run_writes_its_trl_log_again_from_where_it_goes_on(tmp_path: Path) -> None:
    for first, steps in ((0, 3), (1, 1)):
        sink = sinks.TrlSink(tmp_path, first)
        for i in range(steps):
            sink.log({"step": first + i, "entropy": float(10 * first + i)}, [])
    assert [(row["step"], row["entropy"]) for row in read_rows(tmp_path / "trl.jsonl")] == [(0, 0.0), (1, 10.0)]


def test_rldoctor_understands_the_log_and_finds_what_is_wrong_in_it(tmp_path: Path) -> None:
    """A run whose groups all end alike teaches nothing, which is what the tool is for."""
    doctor = pytest.importorskip("rl_doctor", reason="rldoctor is not installed")
    sink = sinks.TrlSink(tmp_path, 0)
    for step in range(60):
        rollouts = [
            {"role": "solve", "kind": "deduction", "prompt": f"p{group}", "reward": 1.0, "tokens": 20, "stop": "eos"}
            for group in range(8)
            for _ in range(4)
        ]
        row = {"step": step, "entropy": 0.4, "zero_signal": 0.95, "grad_norm": 0.1, "loss": 0.0, "clipped": 0.0}
        sink.log(row | {"learning_rate": 1e-4, "seconds/step": 3.0}, rollouts)
    run = doctor.load_run(str(tmp_path / "trl.jsonl"))
    assert {"reward_mean", "entropy", "zero_var_group_frac", "response_len_mean", "grad_norm"} <= set(run.series)
    found = doctor.diagnose(run)
    assert any("advantage" in type(one).__name__.lower() or "advantage" in str(one).lower() for one in found.problems)


def test_numbers_alone_are_metrics_and_tables_of_counts_are_spread() -> None:
    row = {"step": 4, "a": 1.5, "b": {"x": 2, "y y": 3}, "c": [0, 1], "d": "text", "e": None}
    assert sinks.flat(row) == {"step": 4, "a": 1.5, "b/x": 2, "b/y y": 3, "c/0": 0, "c/1": 1}
    assert math.isnan(sinks.flat({"n": math.nan})["n"])
