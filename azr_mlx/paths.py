"""Where things are: what the package brings (presets, benchmarks, the embedded model), and where runs and logs go.

In a clone configs/, benchmarks/ and checkpoints/qwen3-nano lie beside the package; the build copies them into it, so
that an installed package has them as well. Runs and logs belong to the person: they go below the working folder.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from azr_mlx.errors import AzrError

HOME_VARIABLE = "AZR_HOME"  # a folder that takes the place of the working folder: runs and logs go below it
_PACKAGED = "shipped"  # where pyproject.toml maps the folders to, inside the installed package
_LANDMARK = Path("configs/nano.yaml")


def shipped() -> Path:
    """The folder that holds configs/, benchmarks/ and checkpoints/qwen3-nano: the clone around this package, else the
    copy inside it.

    Raises AzrError when there is neither: the package was copied without its data.
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parent, package / _PACKAGED):
        if (folder / _LANDMARK).is_file():
            return folder
    raise AzrError(f"{package} is incomplete: it has no presets; install azr-mlx again")


def home() -> Path:
    """The folder below which runs and logs go: $AZR_HOME, else the clone around the working folder, else the working
    folder."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / _LANDMARK).is_file() and (folder / "azr_mlx" / Path(__file__).name).is_file():
            return folder
    return here


def configs() -> Path:
    return shipped() / "configs"


def benchmarks() -> Path:
    return shipped() / "benchmarks"


def checkpoints() -> Path:
    """The folder of run folders."""
    return home() / "checkpoints"


def logs() -> Path:
    """The folder of evaluation results."""
    return home() / "logs"


def resolve_existing(path: str | Path) -> Path | None:
    """An existing file or folder: taken from the working folder, else from `home`, else from what the package brings;
    None when it is in none of them."""
    given = Path(path).expanduser()
    if given.exists():
        return given
    if given.is_absolute():
        return None
    for place in (home, shipped):
        try:
            inside = place() / given
        except AzrError:
            continue
        if inside.exists():
            return inside
    return None


def make_folder(folder: Path, remedy: str = "") -> None:
    """Create a folder that will be written to, with its parents. Raises AzrError, one line, when that cannot be.

    `remedy` names the option that chooses another place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refused = None if os.access(folder, os.W_OK | os.X_OK) else "it may not be written to"
    except OSError as error:
        refused = "it is a file" if isinstance(error, FileExistsError) else (error.strerror or str(error)).lower()
    if refused:
        option = f", or name one with {remedy}" if remedy else ""
        raise AzrError(
            f"cannot write to {folder}: {refused}; work in a folder of your own{option}, or set {HOME_VARIABLE} to one"
        )


def typed(path: str | Path) -> str:
    """A path as it is typed into a shell: what `resolve_existing` finds, relative where possible, quoted where needed.

    A name that is no path of this machine (a Hugging Face repository) comes back as it is, quoted.
    """
    found = resolve_existing(path)
    return shlex.quote(display_path(found) if found is not None else str(path))


def display_path(path: Path) -> str:
    """A path as a person would type it: relative when it lies below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
