"""The formats of an export, the number formats of whole models, and what is said of a written folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from azr_mlx.export.verify import Check

FORMATS = ("mlx", "peft", "hf", "base")
DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class ExportedFolder:
    """One exported folder."""

    format: str
    folder: Path
    size: int
    check: Check
