"""Files on disk: replaced atomically, hashed, flushed to the device; disks that fail in one line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from azr_mlx.errors import AzrError


def write_text(path: Path, text: str) -> None:
    """Replace a file by new text, atomically: a reader sees the old file or the new one. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def sha256(path: Path) -> str:
    """The hash of a file's content, as hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until the content of a closed file is on the device, not only in the system's memory. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turn the ways in which a disk fails into one line. Raises AzrError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # safetensors writing in MLX raises RuntimeError
        number = getattr(error, "errno", None)
        reasons = {
            errno.ENOSPC: "the disk is full: free some space, then go on with --resume",
            errno.EDQUOT: "the disk quota is used up: free some space, then go on with --resume",
            errno.EROFS: "the folder is read-only",
            errno.EACCES: "the folder may not be written to",
        }
        reason = reasons.get(number or 0, str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise AzrError(f"{what}: {reason}; earlier checkpoints are untouched") from error
