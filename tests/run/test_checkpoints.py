"""Checkpoints on a disk that misbehaves."""

from __future__ import annotations

import errno
import json
import os

import mlx.core as mx
import pytest

from azr_mlx import config
from azr_mlx.errors import AzrError
from azr_mlx.executor import Executor
from azr_mlx.run import checkpoint
from azr_mlx.run.folder import RunFolder
from azr_mlx.selfplay.advantages import Running
from azr_mlx.selfplay.archive import Archive, Cell, Signature
from azr_mlx.selfplay.environment import SelfPlay
from azr_mlx.selfplay.task_buffer import Buffer, seed_tasks
from azr_mlx.types import Kind


class Weights:
    """The smallest thing that can be saved: one adapter, one moment."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def state(self):
        return {"adapter.w": mx.full((2, 2), self.value), "optim.w.m": mx.full((2, 2), -self.value)}

    def load_state(self, state):
        assert sorted(state) == ["adapter.w", "optim.w.m"]
        self.value = state["adapter.w"][0, 0].item()
        assert state["optim.w.m"][0, 0].item() == -self.value

    def save_adapter(self, folder):
        mx.save_safetensors(str(folder / "adapters.safetensors"), {"w": mx.full((2, 2), self.value)})
        (folder / "adapter_config.json").write_text("{}")


def playing(running: Running | None = None, tasks: bool = True, archive: Archive | None = None) -> SelfPlay:
    """The memory of self-play, and nobody to play."""
    made = SelfPlay(config.Config(), None, None, Buffer(10), None, running or Running(), archive)
    for task in seed_tasks(Kind, 6) if tasks else ():
        made.buffer.add(task)
    return made


def test_what_was_saved_comes_back(tmp_path):
    running = Running({"deduction/solve": (0.25, 0.5)})
    folder = checkpoint.save(RunFolder(tmp_path), 7, Weights(3.0), [playing(running)], {"seconds": 1.5})
    policy, back = Weights(0.0), playing(tasks=False)
    state = checkpoint.load(folder, policy, [back])
    assert (policy.value, back.running, state["step"], state["seconds"]) == (3.0, running, 7, 1.5)
    assert back.buffer.rows() == playing().buffer.rows()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "may not be written")],
)
def test_a_failing_disk_is_one_line_and_costs_no_older_checkpoint(tmp_path, monkeypatch, number, words):
    first = checkpoint.save(RunFolder(tmp_path), 1, Weights(1.0), [playing()])

    def fails(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(AzrError, match=words):
        checkpoint.save(RunFolder(tmp_path), 2, Weights(2.0), [playing()])
    monkeypatch.undo()
    assert RunFolder(tmp_path).latest() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]
    checkpoint.read_state(first)


def test_the_archive_of_a_run_travels_with_its_checkpoints(tmp_path):
    cells = {Signature("s", "b"): Cell(3, "def f(a):\n    return a", -1), Signature("s", "c"): Cell(1, "def f", 4)}
    with Executor() as executor:
        kept, back = Archive(executor), Archive(executor)
        kept.restore(cells)
        folder = checkpoint.save(RunFolder(tmp_path), 7, Weights(), [playing(archive=kept)])
        checkpoint.load(folder, Weights(), [playing(archive=back)])
        assert back.rows() == kept.rows()
        again = checkpoint.save(RunFolder(tmp_path / "again"), 7, Weights(), [playing(archive=back)])
        assert (again / "archive.jsonl").read_bytes() == (folder / "archive.jsonl").read_bytes()
        (folder / "archive.jsonl").unlink()
        with pytest.raises(AzrError, match="archive"):
            checkpoint.load(folder, Weights(), [playing(archive=back)])


def test_a_damaged_file_is_named(tmp_path):
    folder = checkpoint.save(RunFolder(tmp_path), 1, Weights(), [playing()])
    with (folder / "adapters.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(AzrError, match=r"adapters\.safetensors is damaged"):
        checkpoint.load(folder, Weights(), [playing()])


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(AzrError, match="is not a checkpoint"):
        checkpoint.read_state(tmp_path)


def test_a_half_written_checkpoint_is_never_the_latest(tmp_path):
    done = checkpoint.save(RunFolder(tmp_path), 1, Weights(), [playing()])
    (tmp_path / ".step-000002.new").mkdir()
    assert RunFolder(tmp_path).latest() == done
    with RunFolder(tmp_path).lock():
        assert not (tmp_path / ".step-000002.new").exists()


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in range(1, 7):
        checkpoint.save(RunFolder(tmp_path), step, Weights(step), [playing()])
    RunFolder(tmp_path).prune(keep=2, best=3)
    assert [step for step, _ in RunFolder(tmp_path).checkpoints()] == [3, 5, 6]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(RunFolder(tmp_path), 1, Weights(1.0), [playing()])
    folder = checkpoint.save(RunFolder(tmp_path), 1, Weights(2.0), [playing()])
    policy = Weights()
    checkpoint.load(folder, policy, [playing()])
    assert policy.value == 2.0


def test_a_checkpoint_says_what_it_holds(tmp_path):
    folder = checkpoint.save(RunFolder(tmp_path), 4, Weights(), [playing()])
    state = json.loads((folder / "state.json").read_text())
    assert sorted(state["files"]) == [
        "adapter_config.json",
        "adapters.safetensors",
        "buffer.jsonl",
        "state.safetensors",
    ]
    assert (tmp_path / "latest").read_text() == "step-000004\n"


def test_what_a_loaded_checkpoint_said_of_itself_is_not_carried_over(tmp_path):
    first = checkpoint.save(RunFolder(tmp_path), 1, Weights(1.0), [playing(Running({"a": (0.0, 1.0)}))])
    loaded = checkpoint.read_state(first)
    second = checkpoint.save(RunFolder(tmp_path), 2, Weights(2.0), [playing(Running({"a": (0.5, 1.0)}))], loaded)
    back = playing(tasks=False)
    assert checkpoint.load(second, Weights(), [back])["step"] == 2
    assert back.running.moments == {"a": (0.5, 1.0)}
