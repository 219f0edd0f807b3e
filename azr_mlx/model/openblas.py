"""A fast BLAS for MLX on Linux CPUs.

MLX's CPU wheel carries the reference BLAS: a few GFLOP/s where the machine could do a hundred. The package
`scipy-openblas32` is a tuned OpenBLAS that picks its kernels for the processor at hand and depends on nothing, but
each of its symbols carries the prefix `scipy_`, so loading it does not make MLX call it. `accelerate` completes the
link the way a dynamic linker does: MLX's library holds one pointer for each foreign function (its global offset
table), and the pointers to the two matrix products are set to OpenBLAS. Everything else stays with MLX's own library.

Any surprise (another operating system, a musl loader, another layout) leaves MLX as it was, only slower.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
from importlib import util
from pathlib import Path

PRODUCTS = ("cblas_sgemm", "cblas_dgemm")  # same argument types in both libraries: 32-bit integers
_library: ctypes.CDLL | None = None


def accelerate() -> str | None:
    """Let MLX call OpenBLAS for matrix products; returns the library's name and core type, or None.

    Imports `mlx.core`. Calling it again is harmless.
    """
    global _library
    if not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return None
    try:
        path = _openblas_path()
        if path is None:
            return None
        import mlx.core  # noqa: F401  (its library must be in memory)

        library = ctypes.CDLL(str(path))
        base, mlx_path = _loaded("libmlx.so")
        slots = _slots(mlx_path, PRODUCTS)
        for name in PRODUCTS:
            function = ctypes.cast(getattr(library, f"scipy_{name}"), ctypes.c_void_p).value
            for offset in slots.get(name, ()):
                _write_pointer(base + offset, function or 0)
        if not slots.get("cblas_sgemm"):
            return None
        library.scipy_openblas_get_corename.restype = ctypes.c_char_p
        _library = library
        return f"{path.name} ({library.scipy_openblas_get_corename().decode()})"
    except (OSError, AttributeError, ValueError, struct.error):
        return None


def set_threads(count: int) -> bool:
    """How many threads one matrix product uses; False when OpenBLAS is not in use."""
    if _library is None:
        return False
    _library.scipy_openblas_set_num_threads(ctypes.c_int(count))
    return True


def _openblas_path() -> Path | None:
    spec = util.find_spec("scipy_openblas32")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob("lib/libscipy_openblas*.so"))
    return found[0] if found else None


def _loaded(name: str) -> tuple[int, Path]:
    """Base address and path of a loaded library. Raises OSError if it is not in memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and os.path.basename(fields[5]) == name and int(fields[2], 16) == 0:
            return int(fields[0].split("-")[0], 16), Path(fields[5])
    raise OSError(f"{name} is not loaded")


def _slots(path: Path, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Where an ELF64 library keeps its pointers to the named foreign functions, as offsets from its base address.

    Reads the section headers: the relocations with addend (type SHT_RELA) that refer to those symbols.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:5] != b"\x7fELF\x02" or data[5] != 1:
            raise ValueError("not a little-endian ELF64 library")
        (section_table,) = struct.unpack_from("<Q", data, 0x28)
        size, count = struct.unpack_from("<HH", data, 0x3A)
        # name, type, flags, address, offset, size, link, info, align, entry size
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, section_table + size * i) for i in range(count)]
        found: dict[str, list[int]] = {}
        for _, kind, _, _, offset, length, link, *_ in sections:
            if kind != 4 or not link:  # SHT_RELA with a symbol table
                continue
            symbols, strings = sections[link][4], sections[sections[link][6]][4]
            for place, info, addend in struct.iter_unpack("<QQq", data[offset : offset + length]):
                if info >> 32 == 0 or addend:
                    continue
                (name_at,) = struct.unpack_from("<I", data, symbols + 24 * (info >> 32))
                end = data.find(b"\0", strings + name_at)
                name = data[strings + name_at : end].decode()
                if name in names:
                    found.setdefault(name, []).append(place)
        return found


def _write_pointer(address: int, value: int) -> None:
    if not value:
        raise ValueError("no such function")
    page = os.sysconf("SC_PAGE_SIZE")
    libc = ctypes.CDLL(None, use_errno=True)
    start = address - address % page
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mprotect(start, page, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.c_uint64.from_address(address).value = value
