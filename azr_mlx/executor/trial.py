"""What a confined child of a slot can do all the same: tried by the real thing, before the slot says that it is ready.

`confined` must not rest on what a kernel promises. Each attempt is what a hostile program would do first, in a form
that harms nobody when it works. Runs in a child after its confinement, in place of a program; before it, `honest` does
what ordinary programs do, for a layer that keeps them from it is no layer to run them under.

Imports the standard library and modules of the same kind only: the zygote loads it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from azr_mlx.executor import system

FILE = "canary"  # in the executor's folder, made by the trainer, readable and writable for all


def honest() -> None:
    """What every program may do: import, compute, read what is random, and use its folder. Raises what went wrong."""
    import decimal
    import hashlib

    if hashlib.sha256(str(decimal.Decimal(1) / 7).encode()).digest()[0] != 0xF6:
        raise ArithmeticError("wrong digits")
    os.urandom(8)
    os.mkdir("folder")
    with open("folder/file", "w+") as file:
        file.write("text")
        file.flush()
        file.seek(0)
        if file.read() != "text":
            raise OSError("a file does not keep what is written")
    os.rename("folder/file", "file")
    if sorted(os.listdir(".")) != ["file", "folder"]:
        raise OSError("a folder does not list what is in it")
    os.unlink("file")
    os.rmdir("folder")


def attempts(folder: str, trainer: int, private: str, alone: bool) -> dict[str, str]:
    """What worked of it: {"files": "read, chmod", ...}, empty for a slot that holds.

    `folder` is the executor's, where only boxes are a program's; `trainer` a process outside; `private` a file of
    the user's; `alone` says that this is an own pid namespace, where that number is nobody's or the slot's own.
    """
    canary, made = f"{folder}/{FILE}", f"{folder}/made-{os.getpid()}"
    tried: dict[str, list[tuple[str, Callable[[], object]]]] = {
        "files": [
            ("read", lambda: open(canary, "rb").close()),
            ("list", lambda: os.listdir(folder)),
            ("read at home", lambda: open(private, "rb").close()),
            ("write", lambda: open(canary, "r+b").close()),
            ("create", lambda: _create(made)),
            ("truncate", lambda: os.truncate(canary, 0)),
            ("chmod", lambda: os.chmod(canary, 0o666)),
            ("chown", lambda: os.chown(canary, -1, -1)),
            ("utime", lambda: os.utime(canary)),
        ],
        "network": [("connect", _connect)],
        "processes": [("fork", _fork)],
    }
    if hasattr(os, "setxattr"):
        tried["files"].append(("setxattr", lambda: os.setxattr(canary, "user.azr", b"1")))
        tried["files"].append(("removexattr", lambda: os.removexattr(canary, "user.azr")))
    if not alone:
        tried["processes"].append(("signal", lambda: os.kill(trainer, 0)))
        tried["processes"].append(("signal the zygote", lambda: os.kill(os.getppid(), 0)))
        if hasattr(fcntl, "F_SETSIG"):  # elsewhere the kernel sends SIGIO only, which ends nobody
            tried["processes"].append(("signal by fcntl", lambda: _own(trainer)))
        tried["processes"].append(("read arguments", lambda: system.arguments(trainer)))
    worked: dict[str, str] = {}
    for what, list_ in tried.items():
        names = [name for name, attempt in list_ if _works(attempt)]
        if names:
            worked[what] = ", ".join(names)
    return worked


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(path)


def _connect() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect(("127.0.0.1", 9))  # sends nothing


def _fork() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def _own(pid: int) -> None:
    fcntl.fcntl(1, fcntl.F_SETOWN, pid)
    fcntl.fcntl(1, fcntl.F_SETOWN, 0)
