"""Checkpoints: written whole or not at all, and enough to go on from as if nothing had happened.

A run folder holds `step-000123/` folders, each a valid `--adapter-path` for mlx_lm:

    adapters.safetensors, adapter_config.json   the adapters
    state.safetensors                           the optimizer's moments
    state.json                                  step, running baselines, best result so far, hashes of the files
    buffer.jsonl                                every task in memory
    archive.jsonl                               every cell of the archive, if the run keeps one

No random state is stored: every draw is keyed by (seed, step, phase, row).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from azr_mlx.errors import AzrError
from azr_mlx.files import plain_errors, sha256, sync, write_text
from azr_mlx.run.folder import RunFolder
from azr_mlx.selfplay.advantages import Running
from azr_mlx.selfplay.archive import Archive
from azr_mlx.selfplay.task_buffer import Buffer

ARCHIVE = "archive.jsonl"


class Saved(Protocol):
    """What a checkpoint needs of a policy."""

    def state(self) -> Mapping[str, Any]: ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...

    def save_adapter(self, folder: Path) -> None: ...


def save(
    run: RunFolder,
    step: int,
    policy: Saved,
    buffer: Buffer,
    running: Running,
    extra: Mapping[str, Any] | None = None,
    archive: Archive | None = None,
) -> Path:
    """Write `step-NNNNNN`: the state after `step` steps. Raises AzrError, and then leaves nothing behind."""
    import mlx.core as mx

    target = run.checkpoint(step)
    fresh = target.with_name(f".{target.name}.new")
    with plain_errors(f"checkpoint of step {step}"):
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            policy.save_adapter(fresh)
            # Sorted, because the order in which a file holds its arrays follows the order of this dictionary.
            moments = {name: value for name, value in sorted(policy.state().items()) if name.startswith("optim.")}
            mx.save_safetensors(str(fresh / "state.safetensors"), moments)
            (fresh / "buffer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in buffer.rows()))
            if archive is not None:
                (fresh / ARCHIVE).write_text("".join(json.dumps(row) + "\n" for row in archive.rows()))
            state = {  # `extra` first: after a resume it holds the facts of the checkpoint that was loaded
                **(extra or {}),
                "step": step,
                "running": {name: list(pair) for name, pair in running.moments.items()},
                "files": {path.name: sha256(path) for path in sorted(fresh.iterdir())},
            }
            (fresh / "state.json").write_text(json.dumps(state, indent=1) + "\n")
            for path in fresh.iterdir():
                sync(path)
            if target.exists():  # the same step, written again after a resume
                shutil.rmtree(target)
            fresh.replace(target)
            write_text(run.path / "latest", target.name + "\n")
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    return target


def load(
    folder: Path, policy: Saved, buffer: Buffer, running: Running, archive: Archive | None = None
) -> dict[str, Any]:
    """Put a checkpoint back into policy, buffer and baselines; returns its state.json. Raises AzrError.

    Tasks of the buffer that are left out are told on stderr, with the reasons.
    """
    import mlx.core as mx

    state = read_state(folder)
    try:
        adapters: Any = mx.load(str(folder / "adapters.safetensors"))
        moments: Any = mx.load(str(folder / "state.safetensors"))
        policy.load_state({**{f"adapter.{name}": value for name, value in adapters.items()}, **moments})
    except ValueError as error:
        raise AzrError(f"{folder} belongs to another model or other LoRA settings: {error}") from None
    except RuntimeError as error:
        raise AzrError(f"{folder} cannot be read: {str(error).splitlines()[0]}") from None
    left_out = buffer.load(json.loads(line) for line in (folder / "buffer.jsonl").read_text().splitlines())
    if left_out:
        reasons = ", ".join(f"{why} {number}" for why, number in left_out.most_common())
        sys.stderr.write(f"{left_out.total()} tasks of {folder / 'buffer.jsonl'} are left out: {reasons}\n")
    running.moments = {name: (pair[0], pair[1]) for name, pair in state["running"].items()}
    if archive is not None:
        try:
            archive.load(json.loads(line) for line in (folder / ARCHIVE).read_text().splitlines())
        except (OSError, ValueError) as error:
            raise AzrError(f"{folder / ARCHIVE} cannot be read: {error}") from None
    return state


def read_state(folder: Path) -> dict[str, Any]:
    """state.json of a checkpoint whose files are all as they were written. Raises AzrError naming what is not."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        for name, digest in state["files"].items():
            if sha256(folder / name) != digest:
                raise AzrError(f"{folder / name} is damaged: delete {folder} to go on from the checkpoint before it")
    except FileNotFoundError as error:
        raise AzrError(f"{folder} is not a checkpoint: it has no {Path(error.filename).name}") from None
    except (ValueError, KeyError, TypeError):
        raise AzrError(f"{folder / 'state.json'} is damaged: delete {folder} to go on from the one before it") from None
    return state
