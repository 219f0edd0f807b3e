"""Where the repository's own folders are: configs/, benchmarks/ and checkpoints/ live beside the package, not in it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from azr_mlx.errors import AzrError

ROOT_VARIABLE = "AZR_HOME"  # names the repository when neither the package nor the working folder lies in it
_LANDMARK = Path("configs/nano.yaml")


def root() -> Path:
    """The repository: $AZR_HOME, else the nearest folder above this package or the working folder that looks like it.

    Raises AzrError when there is none, as with a wheel that was installed without the repository.
    """
    named = os.environ.get(ROOT_VARIABLE)
    if named:
        folder = Path(named).expanduser().resolve()
        if not (folder / _LANDMARK).is_file():
            raise AzrError(f"{ROOT_VARIABLE}={named} is not a clone of azr_mlx: it has no {_LANDMARK}")
        return folder
    here = Path.cwd()
    for folder in (*Path(__file__).resolve().parents, here, *here.parents):
        if (folder / _LANDMARK).is_file():
            return folder
    raise AzrError(f"azr_mlx is installed without its repository: work inside a clone, or set {ROOT_VARIABLE} to one")


def configs() -> Path:
    return root() / "configs"


def benchmarks() -> Path:
    return root() / "benchmarks"


def checkpoints() -> Path:
    """The folder of run folders and of the embedded model."""
    return root() / "checkpoints"


def local(path: str | Path) -> Path | None:
    """An existing file or folder: taken from the working folder first, then from the repository; None when neither."""
    given = Path(path).expanduser()
    if given.exists():
        return given
    if given.is_absolute():
        return None
    try:
        inside = root() / given
    except AzrError:
        return None
    return inside if inside.exists() else None


def shown(path: Path) -> str:
    """A path as a person would type it: relative when it lies below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def quoted(path: Path) -> str:
    """The same as a word of a shell's command line, for commands that a person is told to type."""
    return shlex.quote(shown(path))
