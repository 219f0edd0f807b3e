"""What a model runs on: a Mac by its chip and memory, or this machine, looked up or measured."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from azr_mlx.errors import UsageError
from azr_mlx.model.limits import TILE_ROWS
from azr_mlx.planner import chips
from azr_mlx.types import GB

# Shares of the peaks that kernels reach; derived from published speeds of other programs, not measured here.
GPU_BANDWIDTH, GPU_FLOPS = 0.7, 0.6
# The same for the product of a few dozen rows with 4-bit weights: 11.2 to 11.5 TFLOP/s on an M3 Max (mlx pull request
# 3863), 0.8 of its peak.
GPU_TILE_FLOPS = 0.8
# Seconds that a kernel adds to a decoding step of an Apple GPU, however small it is: what a published 180.6 tokens/s of
# a 4-bit 3B on an M2 Ultra leaves beside reading its weights, shared by some 25 kernels in each of 36 blocks.
GPU_LAUNCH = 2.7e-6
MATRIX_UNIT_TILE = 64  # rows of a tile of MLX's kernels for the matrix units of M5; up to 32 rows take half of one


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
    tile: int = 1  # rows that a product with the weights computes together: a row more costs a whole tile
    measured: bool = False  # bandwidth and flops are what kernels reached, not what the hardware could

    @property
    def packed(self) -> bool:
        return self.kind != "cpu"

    @property
    def reached(self) -> tuple[float, float]:
        """Shares of bandwidth and flops that are reached. A measured rate is reached."""
        return (GPU_BANDWIDTH, GPU_FLOPS) if self.packed and not self.measured else (1.0, 1.0)

    @property
    def tile_flops(self) -> float:
        """The share of flops that is reached in decoding."""
        return GPU_TILE_FLOPS if self.packed and not self.measured else 1.0

    @property
    def batch_tile(self) -> int:
        """The rows to whose multiples the sampler keeps its batches here."""
        return TILE_ROWS if self.tile > 1 else 1

    def padded(self, rows: int) -> int:
        """The rows that a product of so many rows with the weights computes."""
        tile = min(self.tile, TILE_ROWS) if rows <= TILE_ROWS else self.tile
        return -(-rows // tile) * tile


def mac(memory: float, chip: str = "", room: float = 0.0, gpu_cores: int = 0) -> Machine:
    """A Mac by its memory in bytes and its chip ("M3 Max"; empty: the least M3 sold with so much memory).

    gpu_cores: where the name alone does not say the size. Raises UsageError for a chip that is not in the table.
    """
    assumed = "" if chip else ", assumed"
    found = chips.find(chip or ("M3 Max" if memory > 36e9 else "M3 Pro" if memory > 24e9 else "M3"), memory, gpu_cores)
    room = room or _metal_room(memory)
    return Machine(
        f"Apple {found.name} with {found.gpu_cores} GPU cores{assumed}", "metal", memory, room, found.bandwidth * GB,
        found.tflops * 1e12, "published bandwidth, derived flops", found.cores, launch=GPU_LAUNCH,
        tile=MATRIX_UNIT_TILE if found.matrix_units else TILE_ROWS,
    )  # fmt: skip


def mac_here() -> Machine | None:
    """This Mac by its chip, one that is not in the table as the least M3 with its memory; None elsewhere.

    Never imports MLX, so that it may be asked before an executor is started.
    """
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return None
    memory, limit = _mac_memory()
    try:
        return mac(memory, _sysctl("machdep.cpu.brand_string"), limit, _gpu_cores())
    except UsageError:
        return mac(memory, "", limit)


def _mac_memory() -> tuple[float, float]:
    """Bytes of this Mac, and of them those that Metal may wire (0: as Metal decides)."""
    memory = float(_sysctl("hw.memsize") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return memory, float(_sysctl("iogpu.wired_limit_mb") or 0) * 2**20


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
    basis, tile = f"measured by azr bench on {when}", 1
    if kind == "metal":
        try:
            tile = MATRIX_UNIT_TILE if chips.find(name, memory).matrix_units else TILE_ROWS
        except UsageError:  # newer than the table
            tile = TILE_ROWS
    bandwidth, flops, launch = numbers
    return Machine(name, kind, memory, room, bandwidth, flops, basis, cores, launch=launch, tile=tile, measured=True)


def _metal_room(memory: float) -> float:
    """recommendedMaxWorkingSetSize as Metal reports it: two thirds of memory up to 32 GB, three quarters above."""
    return memory * (2 / 3 if memory <= 33e9 else 3 / 4)


def here(seconds: float = 0.2) -> Machine:
    """This machine: a Mac by its chip, anything else by four measurements of `seconds` each. Imports MLX unless it is
    a Mac."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        memory, limit = _mac_memory()
        try:
            return mac(memory, _sysctl("machdep.cpu.brand_string"), limit, _gpu_cores())
        except UsageError:
            return replace(_measured(seconds), memory=memory, room=limit or 0.75 * memory)
    return _measured(seconds)


def _sysctl(name: str) -> str:
    said = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else ""


def _gpu_cores() -> int:
    """GPU cores of this Mac, 0 when the registry does not say."""
    said = subprocess.run(
        ["/usr/sbin/ioreg", "-rc", "AGXAccelerator", "-d1"], capture_output=True, text=True, check=False
    )
    found = re.search(r'"gpu-core-count" = (\d+)', said.stdout)
    return int(found.group(1)) if found else 0


def _measured(seconds: float) -> Machine:
    """Bandwidth, flops and what small things cost, with the operations that the trainer uses."""
    import time

    from azr_mlx.model import device

    profile = device.prepare()
    import mlx.core as mx

    from azr_mlx.model.cpu_kernels import exp

    def best(make: Any) -> float:
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
        os.cpu_count() or 1, elementwise, launch, TILE_ROWS if profile.name == "metal" else 1,
    )  # fmt: skip


def size(text: str) -> float:
    """Bytes of a text such as 48GB, 48, 512MB or 64GiB; a bare number is GB. Raises UsageError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(T|G|M)?(i)?B?\s*", text, re.IGNORECASE)
    if found is None or float(found.group(1)) == 0:
        raise UsageError(f"{text} is not a size: write it as 48GB")
    base = 1024.0 if found.group(3) else 1000.0
    power: int = {"M": 2, "G": 3, "T": 4}[(found.group(2) or "G").upper()]
    return float(found.group(1)) * float(base**power)
