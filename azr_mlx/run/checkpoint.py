"""Checkpoints: written whole or not at all, and enough to go on from as if nothing had happened.

A run folder holds `step-000123/` folders, each a valid `--adapter-path` for mlx_lm:

    adapters.safetensors, adapter_config.json   the adapters
    state.safetensors                           the optimizer's moments
    state.json                                  step, best result so far, hashes of the files, and what the
                                                environments have to say, such as running baselines
    buffer.jsonl                                every task in the memory of self-play
    archive.jsonl                               every cell of its archive, if the run keeps one

No random state is stored: every draw is keyed by (seed, step, phase, row).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from azr_mlx.environment import Environment
from azr_mlx.errors import AzrError
from azr_mlx.files import plain_errors, sha256, sync, write_text
from azr_mlx.run.folder import RunFolder


class Saved(Protocol):
    """What a checkpoint needs of a policy."""

    def state(self) -> Mapping[str, Any]: ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...

    def save_adapter(self, folder: Path) -> None: ...


def save(
    run: RunFolder,
    step: int,
    policy: Saved,
    environments: Sequence[Environment],
    extra: Mapping[str, Any] | None = None,
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
            told: dict[str, Any] = {}
            for environment in environments:
                told |= environment.save(fresh)
            state = {  # `extra` first: after a resume it holds the facts of the checkpoint that was loaded
                **(extra or {}),
                "step": step,
                **told,
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


def load(folder: Path, policy: Saved, environments: Sequence[Environment]) -> dict[str, Any]:
    """Put a checkpoint back into policy and environments; returns its state.json. Raises AzrError."""
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
    for environment in environments:
        environment.load(folder, state)
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
