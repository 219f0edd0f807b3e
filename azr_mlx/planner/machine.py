"""What a model runs on: a Mac by its chip and memory, or this machine, looked up or measured."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from azr_mlx.errors import UsageError
from azr_mlx.types import GB

# Unified memory GB/s as Apple publishes it for the largest variant, and float16 TFLOP/s derived from cores x clock.
APPLE: Mapping[str, tuple[float, float]] = {
    "M1": (68, 2.6), "M1 Pro": (200, 5.3), "M1 Max": (400, 10.6), "M1 Ultra": (800, 21.2),
    "M2": (100, 3.6), "M2 Pro": (200, 6.8), "M2 Max": (400, 13.6), "M2 Ultra": (800, 27.2),
    "M3": (100, 3.5), "M3 Pro": (150, 6.4), "M3 Max": (400, 14.2), "M3 Ultra": (819, 28.4),
    "M4": (120, 4.3), "M4 Pro": (273, 8.6), "M4 Max": (546, 17.2),
}  # fmt: skip
# Shares of the peaks that kernels reach; derived from published speeds of other programs, not measured here.
GPU_BANDWIDTH, GPU_FLOPS = 0.7, 0.6


@dataclass(frozen=True, slots=True)
class Machine:
    """What the model runs on. `room` is what it may use of `memory`; bandwidth and flops are peaks, per second."""

    name: str
    kind: str  # "metal", "cuda" or "cpu"
    memory: float
    room: float
    bandwidth: float
    flops: float
    basis: str  # where the two come from
    cores: int  # workers of the executor when executor.workers is 0
    elementwise: float = 0.0  # seconds an exponential takes, where they are not hidden behind the rest
    launch: float = 0.0  # seconds that one operation costs however small it is
    measured: bool = False  # bandwidth and flops are what kernels reached, not what the hardware could

    @property
    def packed(self) -> bool:
        return self.kind != "cpu"

    @property
    def reached(self) -> tuple[float, float]:
        """Shares of bandwidth and flops that are reached. A measured rate is reached."""
        return (GPU_BANDWIDTH, GPU_FLOPS) if self.packed and not self.measured else (1.0, 1.0)


def mac(memory: float, chip: str = "", room: float = 0.0) -> Machine:
    """A Mac by its memory in bytes and its chip ("M3 Max"; empty: the least one sold with so much memory of M3)."""
    chip = chip.removeprefix("Apple ").strip()
    known = {name.lower(): name for name in APPLE}
    assumed = "" if chip else ", assumed"
    chip = chip or ("M3 Max" if memory > 36e9 else "M3 Pro" if memory > 24e9 else "M3")
    name = known.get(chip.lower())
    if name is None:
        raise UsageError(
            f"the chip {chip} is not in the table: give --bandwidth and --flops, or one of {', '.join(APPLE)}"
        )
    bandwidth, flops = APPLE[name]
    room = room or _metal_room(memory)
    basis = "published bandwidth, derived flops"
    cores = 8 if name.count(" ") == 0 else 24 if "Ultra" in name else 14
    return Machine(f"Apple {name}{assumed}", "metal", memory, room, bandwidth * GB, flops * 1e12, basis, cores)


def calibrated(file: Path) -> Machine:
    """The machine of a file that `azr bench` wrote: its rates are reached ones. Raises UsageError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        machine, products = found["machine"], found["products"]
        kind, memory = str(machine["device"]), float(machine["memory"])
        rate = products["quantized_tflops"] if kind != "cpu" else products["tflops"]
        numbers = [
            float(products["gb_per_second"]) * GB,
            float(rate) * 1e12,
            float(products["launch_microseconds"]) / 1e6,
        ]
        if found["format"] != 1 or not all(math.isfinite(one) and one > 0 for one in [memory, *numbers]):
            raise ValueError("numbers that cannot be")
        cores, name, when = int(found["executor"]["workers"]), str(machine["name"]), str(found["date"])
    except OSError as error:
        raise UsageError(f"--calibrate {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"--calibrate {file} is no file of azr bench ({what}): azr bench writes one") from None
    room = _metal_room(memory) if kind == "metal" else (0.9 if kind == "cuda" else 0.8) * memory
    basis = f"measured by azr bench on {when}"
    return Machine(name, kind, memory, room, numbers[0], numbers[1], basis, cores, launch=numbers[2], measured=True)


def _metal_room(memory: float) -> float:
    """recommendedMaxWorkingSetSize as Metal reports it: two thirds of memory up to 32 GB, three quarters above."""
    return memory * (2 / 3 if memory <= 33e9 else 3 / 4)


def here() -> Machine:
    """This machine: a Mac by its chip, anything else measured in about a second. Imports MLX unless it is a Mac."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        memory = float(_sysctl("hw.memsize") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        limit = float(_sysctl("iogpu.wired_limit_mb") or 0) * 2**20
        try:
            return mac(memory, _sysctl("machdep.cpu.brand_string"), limit)
        except UsageError:
            return replace(_measured(), memory=memory, room=limit or 0.75 * memory)
    return _measured()


def _sysctl(name: str) -> str:
    said = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else ""


def _measured() -> Machine:
    """Bandwidth, flops and what small things cost, with the operations that the trainer uses."""
    import time

    from azr_mlx.model import device

    profile = device.prepare()
    import mlx.core as mx

    from azr_mlx.model.cpu_kernels import exp

    def best(make: Any, seconds: float = 0.2) -> float:
        mx.eval(make())
        shortest, end = math.inf, time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            mx.eval(make())
            shortest = min(shortest, time.perf_counter() - start)
        return shortest

    dtype = mx.bfloat16 if profile.packed else mx.float32
    side = 4096 if profile.packed else 768
    a = mx.random.normal((side, side)).astype(dtype)
    flops = 2 * side**3 / best(lambda: a @ a)
    wide = mx.zeros((32 * 10**6 // dtype.size,), dtype)  # beyond any cache of a core
    bandwidth = 2 * wide.nbytes / best(lambda: wide + 1)
    numbers = mx.zeros((200_000,))
    small = mx.zeros((8,))

    def chain() -> mx.array:
        value = small
        for _ in range(200):
            value = value + 1
        return value

    elementwise = 0.0 if profile.packed else best(lambda: exp(numbers)) / numbers.size
    launch = best(chain) / 200
    room = 0.9 * profile.memory if profile.packed else 0.8 * profile.memory
    return Machine(
        profile.device_name, profile.name, profile.memory, room, bandwidth, flops, "measured just now",
        os.cpu_count() or 1, elementwise, launch,
    )  # fmt: skip


def size(text: str) -> float:
    """Bytes of a text such as 48GB, 48, 512MB or 64GiB; a bare number is GB. Raises UsageError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(T|G|M)?(i)?B?\s*", text, re.IGNORECASE)
    if found is None or float(found.group(1)) == 0:
        raise UsageError(f"{text} is not a size: write it as 48GB")
    base = 1024.0 if found.group(3) else 1000.0
    power: int = {"M": 2, "G": 3, "T": 4}[(found.group(2) or "G").upper()]
    return float(found.group(1)) * float(base**power)
