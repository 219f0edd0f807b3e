"""azr_mlx: a language model teaches itself to reason about code by self-play, on Apple MLX.

Public names are loaded when they are first used, so that `import azr_mlx` is quick and starts nothing. In
particular it does not import MLX: the executor has to start before MLX does.

    from azr_mlx import load, train

    train(load("nano", ["steps=20"]))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from azr_mlx.config import Config, ConfigError, load
    from azr_mlx.errors import AzrError, UsageError
    from azr_mlx.executor import Executor, Job, Outcome
    from azr_mlx.run.session import train
    from azr_mlx.types import Case, Completion, Kind, Prompt, Role, Rollout, Scored, Stop, Task, Update, Verdict

# Public name -> the module it lives in.
_HOMES = {
    "AzrError": "errors",
    "Case": "types",
    "Completion": "types",
    "Config": "config",
    "ConfigError": "config",
    "Executor": "executor",
    "Job": "executor",
    "Kind": "types",
    "Outcome": "executor",
    "Prompt": "types",
    "Role": "types",
    "Rollout": "types",
    "Scored": "types",
    "Stop": "types",
    "Task": "types",
    "Update": "types",
    "UsageError": "errors",
    "Verdict": "types",
    "load": "config",
    "train": "run.session",
}

__all__ = [
    "AzrError",
    "Case",
    "Completion",
    "Config",
    "ConfigError",
    "Executor",
    "Job",
    "Kind",
    "Outcome",
    "Prompt",
    "Role",
    "Rollout",
    "Scored",
    "Stop",
    "Task",
    "Update",
    "UsageError",
    "Verdict",
    "__version__",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
