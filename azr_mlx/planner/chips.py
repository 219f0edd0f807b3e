"""Apple's chips from M1 to M5 in every size: GPU cores, bandwidth, processor cores and the memory they are sold with.

Bandwidth and cores are those of Apple's technical specifications (support.apple.com/specs) and press releases; the
M5 Ultra's are those of August 2026, where Apple says 1.2 TB/s. llama.cpp discussion 4167 collects the same figures
beside measured speeds.

Rates of matrix products are derived, GPU cores x operations of a core and cycle x clock: 128 float32 units of two
operations each up to M4 (clocks as in github.com/philipturner/metal-benchmarks), 1,024 float16 operations of the matrix
units in each core of an M5. An M5 Max is seen to reach 55 TFLOP/s of the 65 that follow (mlx issue 3821).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from azr_mlx.errors import UsageError

# float16 TFLOP/s of one GPU core.
CORE_TFLOPS = {"M1": 0.327, "M2": 0.358, "M3": 0.354, "M4": 0.430, "M5": 1.616}


@dataclass(frozen=True, slots=True)
class Chip:
    """One size of a chip. `bandwidth` in GB/s, `memory` the sizes in GB that it is sold with."""

    name: str
    gpu_cores: int
    bandwidth: float
    cores: int  # of the processor
    memory: tuple[int, ...]

    @property
    def generation(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def tflops(self) -> float:
        return self.gpu_cores * CORE_TFLOPS[self.generation]

    @property
    def matrix_units(self) -> bool:
        """Whether its GPU has units for matrix products (the neural accelerators of M5)."""
        return self.generation == "M5"


# The largest size of a name comes last.
CHIPS = (
    Chip("M1", 7, 68.25, 8, (8, 16)), Chip("M1", 8, 68.25, 8, (8, 16)),
    Chip("M1 Pro", 14, 200, 8, (16, 32)), Chip("M1 Pro", 16, 200, 10, (16, 32)),
    Chip("M1 Max", 24, 400, 10, (32, 64)), Chip("M1 Max", 32, 400, 10, (32, 64)),
    Chip("M1 Ultra", 48, 800, 20, (64, 128)), Chip("M1 Ultra", 64, 800, 20, (64, 128)),
    Chip("M2", 8, 100, 8, (8, 16, 24)), Chip("M2", 10, 100, 8, (8, 16, 24)),
    Chip("M2 Pro", 16, 200, 10, (16, 32)), Chip("M2 Pro", 19, 200, 12, (16, 32)),
    Chip("M2 Max", 30, 400, 12, (32, 64)), Chip("M2 Max", 38, 400, 12, (32, 64, 96)),
    Chip("M2 Ultra", 60, 800, 24, (64, 128, 192)), Chip("M2 Ultra", 76, 800, 24, (64, 128, 192)),
    Chip("M3", 8, 100, 8, (8, 16, 24)), Chip("M3", 10, 100, 8, (8, 16, 24)),
    Chip("M3 Pro", 14, 150, 11, (18, 36)), Chip("M3 Pro", 18, 150, 12, (18, 36)),
    Chip("M3 Max", 30, 300, 14, (36, 96)), Chip("M3 Max", 40, 400, 16, (48, 64, 128)),
    Chip("M3 Ultra", 60, 819, 28, (96, 256)), Chip("M3 Ultra", 80, 819, 32, (96, 256, 512)),
    Chip("M4", 8, 120, 8, (16, 24)), Chip("M4", 10, 120, 10, (16, 24, 32)),
    Chip("M4 Pro", 16, 273, 12, (24, 48, 64)), Chip("M4 Pro", 20, 273, 14, (24, 48, 64)),
    Chip("M4 Max", 32, 410, 14, (36,)), Chip("M4 Max", 40, 546, 16, (48, 64, 128)),
    Chip("M5", 8, 153, 10, (16, 24)), Chip("M5", 10, 153, 10, (16, 24, 32)),
    Chip("M5 Pro", 16, 307, 15, (24, 48, 64)), Chip("M5 Pro", 20, 307, 18, (24, 48, 64)),
    Chip("M5 Max", 32, 460, 18, (36,)), Chip("M5 Max", 40, 614, 18, (48, 64, 128)),
    Chip("M5 Ultra", 64, 1200, 30, (96,)), Chip("M5 Ultra", 80, 1200, 36, (96, 256, 512)),
)  # fmt: skip


_NAME = re.compile(
    r"(?:apple\s+)?(m\d+)(?:\s+(pro|max|ultra))?(?:[\s,(]+(\d+)(?:[\s-]*(?:gpu|cores?))*\)?)?", re.IGNORECASE
)


def names() -> tuple[str, ...]:
    return tuple(dict.fromkeys(chip.name for chip in CHIPS))


def find(text: str, memory: float = 0.0, gpu_cores: int = 0) -> Chip:
    """The chip of a text such as "M4 Max", "Apple M4 Max" or "M4 Max 32" (GPU cores).

    Without a number of cores it is the largest size sold with `memory` bytes, else the largest. Raises UsageError.
    """
    found = _NAME.fullmatch(text.strip())
    if found is not None:
        name = " ".join(part.capitalize() for part in found.groups()[:2] if part)
        sizes = [chip for chip in CHIPS if chip.name == name]
        wanted = int(found.group(3) or gpu_cores or 0)
        if wanted and sizes and wanted not in [chip.gpu_cores for chip in sizes] and found.group(3):
            raise UsageError(
                f"{name} comes with {' or '.join(str(chip.gpu_cores) for chip in sizes)} GPU cores, not {wanted}"
            )
        if sizes:
            return next(_preferred(sizes, wanted, memory))
    raise UsageError(
        f"the chip {text.strip()} is not in the table: give --bandwidth and --flops, or one of {', '.join(names())}"
    )


def _preferred(sizes: list[Chip], gpu_cores: int, memory: float) -> Iterator[Chip]:
    """The size with that many GPU cores, then those sold with that much memory, then the largest."""
    yield from (chip for chip in sizes if chip.gpu_cores == gpu_cores)
    # Sold sizes are powers of two of GiB in all but name: 48 is 48e9 to one person and 48 * 2**30 to another.
    yield from (chip for chip in reversed(sizes) if any(abs(memory / size / 1e9 - 1) < 0.08 for size in chip.memory))
    yield sizes[-1]
