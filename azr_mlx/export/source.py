"""What is exported: a checkpoint of a run, or an adapter folder that mlx_lm wrote."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from azr_mlx import config, paths
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.model import weights
from azr_mlx.model.adapter_config import ADAPTER_CONFIG, read_adapter_config
from azr_mlx.run import checkpoint
from azr_mlx.run.folder import RunFolder


@dataclass(frozen=True)
class AdapterSource:
    """What is exported: a checkpoint folder, the settings it was trained with, and the run it belongs to, if any."""

    folder: Path
    settings: config.Config
    run: Path | None
    step: int | None

    @property
    def name(self) -> str:
        return f"{self.run.name}-{self.folder.name}" if self.run else self.folder.name


def find_source(path: str | Path) -> AdapterSource:
    """The checkpoint of a run folder (the newest), a step folder, or an adapter folder that mlx_lm wrote.

    Raises UsageError or AzrError with one line.
    """
    folder = paths.resolve_existing(path) or paths.resolve_existing(Path("checkpoints") / path)
    if folder is None or not folder.is_dir():
        raise UsageError(f"there is no run or checkpoint {path}")
    folder = folder.resolve()
    run = folder if (folder / "config.yaml").is_file() else None
    if run is not None or (RunFolder(folder).checkpoints() and not (folder / "adapters.safetensors").is_file()):
        newest = RunFolder(folder).latest()
        if newest is None:
            raise UsageError(
                f"{path} has no checkpoint yet: train it first (a run keeps one every checkpoint.every steps)"
            )
        folder = newest
    elif (folder.parent / "config.yaml").is_file():
        run = folder.parent
    if not (folder / "adapters.safetensors").is_file():
        raise UsageError(f"{path} is neither a run nor a checkpoint: it has no adapters.safetensors")
    weights.tensors(folder / "adapters.safetensors")
    step: int | None = None
    if (folder / "state.json").is_file():
        step = int(checkpoint.read_state(folder)["step"])
    return AdapterSource(folder, _settings(folder, run), run, step)


def _settings(folder: Path, run: Path | None) -> config.Config:
    """The run's settings, with model and LoRA as the adapter itself says. Raises AzrError when they contradict."""
    path = folder / ADAPTER_CONFIG
    try:
        described = read_adapter_config(folder)
    except (OSError, ValueError) as error:
        raise AzrError(f"{path} cannot be read as an adapter's description: {weights.first_line(error)}") from None
    if described.kind != "lora":
        raise UsageError(f"{folder} holds {described.kind} weights: only LoRA adapters are exported")
    settings = config.load(run / "config.yaml") if run else config.Config()
    named = described.model
    if run is None:
        if not named:
            raise UsageError(f'{path} does not say which model the adapter belongs to: add "model"')
        return replace(settings, model=replace(settings.model, id=named, style="compact"), lora=described.lora)
    if named and named != settings.model.id:
        raise AzrError(f"{folder} was trained on {named}, but its run's config.yaml says {settings.model.id}")
    return replace(settings, lora=described.lora)


def running_policy(source: AdapterSource) -> Any:
    """The running policy of a checkpoint. Raises AzrError when the adapter does not fit its model."""
    from azr_mlx.model.policy import Policy

    s = source.settings
    try:
        return Policy.load(s.model, s.lora, s.optim, s.sampling, s.loss, seed=s.seed, adapter=source.folder)
    except ValueError as error:
        raise AzrError(
            f"{source.folder} belongs to another base model than {s.model.id}, or to other LoRA settings: "
            f"{weights.first_line(error)}"
        ) from None


def default_target(source: AdapterSource) -> Path:
    """exports/RUN-STEP, beside the folder of runs."""
    return paths.home() / "exports" / source.name
