"""The executor that a configuration asks for."""

from __future__ import annotations

from azr_mlx import config
from azr_mlx.errors import AzrError
from azr_mlx.executor import Executor, Limits, SandboxUnavailable


def start_executor(settings: config.Config) -> Executor:
    """Raises AzrError, one line, when the sandbox does not start at the level that is asked for."""
    options = settings.executor
    limits = Limits(wall_seconds=options.wall_seconds, cpu_seconds=options.cpu_seconds, memory_mb=options.memory_mb)
    try:
        return Executor(options.level, limits, workers=options.workers)
    except SandboxUnavailable as error:
        raise AzrError(str(error)) from None
