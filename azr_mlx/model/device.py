"""The machine: which device MLX runs on, how much memory it has, and how much of it MLX may keep.

`prepare` comes before any other use of MLX in a process. On Linux it lets MLX call OpenBLAS
(`azr_mlx.model.openblas`), because the MLX wheel for CPUs carries the reference BLAS (3 GFLOP/s against 120 for a
1024^3 matmul on two cores). Importing `mlx_lm.utils` lowers the limit of open files of this process and of all its
children to 2048; `prepare` imports it and puts the limit back.

`rehearsal` makes a CPU take the path of a GPU, for tests.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from azr_mlx.model import limits, metal, openblas

REHEARSAL_VARIABLE = "AZR_REHEARSAL"  # 1: this process takes the path of a GPU, on the CPU (see `rehearsal`)


@dataclass(frozen=True, slots=True)
class Profile:
    """What MLX computes on. `memory` is in bytes: unified memory on Metal, the device's own on CUDA, else RAM."""

    name: str  # "metal", "cuda", "cpu", or "rehearsal": a CPU that takes the path of a GPU
    device_name: str
    memory: int
    blas: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def packed(self) -> bool:
        """Whether quantized weights stay packed: its quantized matmul has no BLAS (3 GFLOP/s)."""
        return self.name != "cpu"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that MLX holds now (`active`), held at most since a reset (`peak`), and keeps for reuse (`cache`)."""

    active: int
    peak: int
    cache: int


_profile: Profile | None = None


def prepare() -> Profile:
    """Make MLX ready in this process and say what it runs on. Later calls return the first answer."""
    global _profile
    if _profile is not None:
        return _profile
    notes = list(metal.relax_watchdog())
    library: str | None = None
    if sys.platform.startswith("linux"):
        library = openblas.accelerate()
        if library is None:
            notes.append("no OpenBLAS in use: `pip install scipy-openblas32` makes CPU matmuls some 20 times faster")
    file_limits = _file_limits()
    import mlx.core as mx
    import mlx_lm.utils  # noqa: F401  (imported for its side effect on the limits, undone below)

    _restore_file_limits(file_limits)
    _import_tuner()
    name = "cpu"
    if mx.default_device() == mx.gpu:
        name = "metal" if mx.metal.is_available() else "cuda"
    info = mx.device_info()
    memory = int(info.get("memory_size") or info.get("total_memory") or _ram())
    device_name = str(info.get("device_name") or platform.processor() or platform.machine())
    _profile = Profile(name, device_name, memory, library, tuple(notes))
    if name == "cpu" and os.environ.get(REHEARSAL_VARIABLE) == "1":
        _profile = _rehearsing(_profile)
    if name == "metal":
        limit_cache(limits.cache_limit(memory))
    return _profile


def _import_tuner() -> None:
    """Import `mlx_lm.tuner` without wandb: a callback that nobody here calls imports it, a quarter of all imports."""
    if "wandb" not in sys.modules:
        sys.modules["wandb"] = None  # type: ignore[assignment]  # "not installed", for as long as this import takes
        try:
            import mlx_lm.tuner  # noqa: F401
        finally:
            del sys.modules["wandb"]


@contextmanager
def rehearsal() -> Iterator[Profile]:
    """Inside, policies that are loaded on a CPU take the path of a GPU: a rehearsal for tests, slow and never for runs.

    What changes is all that this package decides by device: weights stay packed, activations are bfloat16, adapters
    are computed beside the weights instead of added to them, and no kernel made for CPUs is used. What does not: the
    kernels are MLX's for CPUs, so that a fault of a Metal kernel is not found here. `AZR_REHEARSAL=1` does it for a
    whole process.
    """
    global _profile
    known = prepare()
    _profile = _rehearsing(known)
    try:
        yield _profile
    finally:
        _profile = known


def _rehearsing(profile: Profile) -> Profile:
    note = f"{REHEARSAL_VARIABLE}: a CPU takes the path of a GPU, which is slow and only good for tests"
    return replace(profile, name="rehearsal", notes=(*profile.notes, note))


def memory() -> Memory:
    """Bytes in use by MLX."""
    import mlx.core as mx

    return Memory(mx.get_active_memory(), mx.get_peak_memory(), mx.get_cache_memory())


def spare_memory() -> int:
    """Bytes of the machine's memory that MLX does not hold: what another library could take at most."""
    return _ram() - memory().active


def room() -> int:
    """Bytes that MLX may hold on this machine: what Metal recommends, nine tenths of another GPU, most of a CPU's."""
    import mlx.core as mx

    profile = prepare()
    recommended = mx.device_info().get("max_recommended_working_set_size", 0)
    if profile.name == "metal" and recommended:
        return int(recommended)
    return int((0.9 if profile.packed and profile.name != "rehearsal" else 0.8) * profile.memory)


def reset_peak() -> None:
    """Start a new peak at what is active now."""
    import mlx.core as mx

    mx.reset_peak_memory()


def limit_cache(size: int) -> int:
    """Let MLX keep at most `size` bytes of freed buffers; returns the former limit in bytes."""
    import mlx.core as mx

    return int(mx.set_cache_limit(size))


def clear_cache() -> None:
    """Give freed buffers back to the system: between sampling and training, whose shapes differ."""
    import mlx.core as mx

    mx.clear_cache()


def blas_threads(count: int) -> bool:
    """Set how many threads one OpenBLAS call uses; False when OpenBLAS is not what MLX calls."""
    return openblas.set_threads(count)


def activation_dtype(choice: str, profile: Profile) -> Any:
    """The dtype of activations and of the base model's scales: "auto" is float32 on a CPU, bfloat16 on a GPU."""
    import mlx.core as mx

    if choice == "auto":
        choice = "bfloat16" if profile.packed else "float32"
    return {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}[choice]


def _file_limits() -> tuple[int, int] | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _restore_file_limits(limits: tuple[int, int] | None) -> None:
    if limits is None:
        return
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    except (ValueError, OSError):
        # The hard limit was lowered and this process may not raise it again: raise the soft limit as far as it goes.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ram() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
