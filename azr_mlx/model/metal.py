"""What a Mac's GPU wants of the process that uses it: an environment set in time, and room when memory gets short.

macOS ends a process whose kernels delay the screen ("Impacting Interactivity", mlx issue 3267): an abort that no code
can catch. `AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1`, read by the driver when the device is made, is what the maintainers
name against it; azr_mlx/run/supervisor.py goes on after one that happens all the same. Nothing here imports MLX.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, MutableMapping

RELAX = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
NORMAL, WARNING, CRITICAL = 1, 2, 4  # kern.memorystatus_vm_pressure_level


def relax_watchdog(
    environment: MutableMapping[str, str] | None = None, *, darwin: bool | None = None, loaded: bool | None = None
) -> tuple[str, ...]:
    """Set the variable on macOS unless the user has; returns what to say about it. Call it before MLX is imported."""
    environment = os.environ if environment is None else environment
    if not (sys.platform == "darwin" if darwin is None else darwin):
        return ()
    chosen = environment.get(RELAX)
    if chosen is not None:
        return () if chosen == "1" else (f"{RELAX}={chosen}, as the environment says: macOS may end long kernels",)
    environment[RELAX] = "1"
    if "mlx.core" in sys.modules if loaded is None else loaded:
        return (f"{RELAX}=1 comes too late, MLX was imported before: set it in the shell",)
    return (f"{RELAX}=1, so that macOS does not end the run for its kernels while the display is on",)


def sysctl(name: str) -> int | None:
    """A whole number that the kernel knows by name; None where there is none or it is refused."""
    try:
        read = ctypes.CDLL(None).sysctlbyname
    except (AttributeError, OSError):
        return None
    value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)
    if read(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    return int(value.value)


def memory_pressure() -> int | None:
    """How short of memory macOS says it is: NORMAL, WARNING or CRITICAL; None where it does not say."""
    return sysctl("kern.memorystatus_vm_pressure_level") if sys.platform == "darwin" else None


class Relief:
    """Answers memory pressure before the system ends somebody: halves the rows written together and learned from.

    `levels` gives the pressure now, `shrink` halves what the policy holds at once and says how, or says nothing when
    there is nothing left to halve. Rows stay halved: what was too much once is so again. Which rows share a batch
    changes no draw (each is keyed by its own number), so that a run stays what it was up to rounding.
    """

    def __init__(self, shrink: Callable[[], str], levels: Callable[[], int | None] = memory_pressure) -> None:
        self._shrink = shrink
        self._levels = levels
        self._told = False

    def look(self) -> str:
        """To be called between steps: what was done about the pressure, or nothing."""
        level = self._levels()
        if level is None or level < WARNING:
            return ""
        how = self._shrink()
        word = "critical" if level >= CRITICAL else "high"
        if how:
            return f"memory pressure is {word}: {how}"
        if self._told:
            return ""
        self._told = True
        return f"memory pressure is {word}, and there is nothing left to halve: close other programs"
