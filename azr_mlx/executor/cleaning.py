"""Emptying and measuring the folder that a hostile program wrote in: without recursion, and within a budget.

A program may nest folders thousands deep, fill them with tens of thousands of files, and take away their modes. So
nothing here recurses, follows a link, holds more than a few descriptors, or works without end. The zygote cleans
between programs; the trainer cleans what a dead slot left, and keeps away what does not go (pool.py).

Imports the standard library and modules of the same kind only: the zygote loads it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable

from azr_mlx.executor import system

BUDGET = 60_000  # entries that one cleaning removes at most, about half a second of work
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def clean(box: str, budget: int = BUDGET) -> bool:
    """Empty the folder `box`. False when the budget was not enough. Raises OSError for what cannot be removed."""
    root = os.open(box, _FOLDER)
    try:
        return _empty(root, box, budget) >= 0
    finally:
        os.close(root)


def remove(box: str, budget: int = BUDGET) -> str:
    """Remove the folder `box` with all in it: nothing when that went well or it is gone already, else why not."""
    try:
        open_up(box)
        if not clean(box, budget):
            return f"more than {budget} files in it"
        _unlocked(lambda: os.rmdir(box), box)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _unlocked(action: Callable[[], None], *paths: str) -> None:
    """Do something to files, and once more without their flags and access lists when it is refused. Raises OSError."""
    try:
        action()
    except PermissionError:
        for path in paths:
            system.unlock(path)
        action()


def _empty(root: int, box: str, budget: int) -> int:
    """What is left of the budget; below nought when it ran out before the folder was empty."""
    # Folders are lifted to the top one by one, so that their depth costs neither stack nor descriptors.
    waiting = os.listdir(root)
    serial = 0
    while waiting:
        if budget <= 0:
            return -1
        top = waiting.pop()
        budget -= 1
        above = f"{box}/{top}"
        if _unlink(top, root, above, box):
            continue
        open_up(top, root, above)
        folder = os.open(top, _FOLDER, dir_fd=root)
        try:
            for inner in os.listdir(folder):
                budget -= 1
                if budget <= 0:
                    return -1
                if not _unlink(inner, folder, f"{above}/{inner}", above):
                    # A folder that moves has its own ".." rewritten, so it must be writable itself.
                    open_up(inner, folder, f"{above}/{inner}")
                    serial += 1
                    lifted = f".lifted-{os.getpid()}-{serial}-{time.monotonic_ns()}"
                    _lift(inner, folder, f"{above}/{inner}", lifted, root, above)
                    waiting.append(lifted)
        finally:
            os.close(folder)
        _remove_folder(top, root, above, box)
    return budget


def _unlink(name: str, folder: int, path: str, above: str) -> bool:
    """Remove one entry. False when it is a folder. Raises OSError when it cannot be removed.

    `path` and `above` are the same places by name, for what works by name alone.
    """
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError:  # EISDIR on Linux, EPERM elsewhere
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return False
        _unlocked(lambda: os.unlink(name, dir_fd=folder), path, above)
    return True


def _lift(name: str, folder: int, path: str, lifted: str, root: int, above: str) -> None:
    _unlocked(lambda: os.rename(name, lifted, src_dir_fd=folder, dst_dir_fd=root), path, above)


def _remove_folder(name: str, folder: int, path: str, above: str) -> None:
    _unlocked(lambda: os.rmdir(name, dir_fd=folder), path, above)


def open_up(name: str, folder: int | None = None, path: str = "") -> None:
    """Make a folder passable. chmod follows links, hence the look first; nobody is left who could swap the two."""
    with contextlib.suppress(OSError, NotImplementedError):
        state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(state.st_mode) and state.st_mode & 0o700 != 0o700:
            _unlocked(lambda: os.chmod(name, 0o700, dir_fd=folder), path or name)


def usage(box: str, most_bytes: int, most_files: int) -> str:
    """Which bound the files in `box` exceed, or nothing. The program that writes them may still be at work."""
    total = files = 0
    waiting = [box]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    if files > most_files:
                        return f"over {most_files} files"
                    try:
                        state = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    total += state.st_blocks * 512
                    if total > most_bytes:
                        return f"over {most_bytes >> 20} MB of files"
                    if stat.S_ISDIR(state.st_mode):
                        waiting.append(entry.path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # what cannot be named cannot be measured
                return "folders nested too deep"
    return ""
