"""The formats of an export, the number formats of whole models, and what is said of a written folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from azr_mlx.export.check import Check

FORMATS = ("mlx", "peft", "hf", "base", "gguf")
WHOLE = ("hf", "base", "gguf")  # whole models, in the number format that is asked for
DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def dtype_of(format_: str, asked: str = "") -> str:
    """The number format (a key of DTYPES) of a format's weights: as asked, else half precision for GGUF alone."""
    if format_ not in WHOLE:
        return "f32"
    return asked or ("f16" if format_ == "gguf" else "f32")


@dataclass(frozen=True)
class ExportedFolder:
    """One exported folder."""

    format: str
    folder: Path
    size: int
    check: Check
