"""What the executor asks the operating system about other processes, one small function for each question.

Nothing else in the executor reads /proc, calls libproc or knows a primitive that only one system has. A system that
cannot answer says nought, and the limits that need the answer are then held by something else (docs/security.md has
the table); one that could and refuses raises OSError.

Imports the standard library and confine.py only: the zygote loads it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import stat
import time

from azr_mlx.executor import confine


def limit(kind: str, soft: int, hard: int | None = None) -> bool:
    """Lower one limit as far as the hard limit in force lets us.

    False when this system does not have it or refuses: the others must not suffer from that.
    """
    number = getattr(resource, f"RLIMIT_{kind}", None)
    if number is None:
        return False
    hard = soft if hard is None else hard
    try:
        _, highest = resource.getrlimit(number)
        if highest != resource.RLIM_INFINITY:
            hard = min(hard, highest)
            soft = min(soft, hard)
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError):
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """Processor time that a child has used. Raises OSError when it is gone."""
    if confine.LINUX:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    return confine.footprint(pid)[1] if confine.DARWIN else 0.0


def memory_bytes(pid: int) -> int:
    """Memory of a child in bytes, on systems where RLIMIT_AS does not hold it; else 0.

    Raises ProcessLookupError when it is gone, and another OSError when the system does not say: then nothing holds
    the limit.
    """
    return confine.footprint(pid)[0] if confine.DARWIN else 0


def arguments(pid: int) -> bytes:
    """What another process was started with, which may hold secrets. Raises OSError, as it should in a sandbox."""
    if confine.DARWIN:
        return confine.process_arguments(pid)
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def hide_from_children(memory: mmap.mmap) -> bool:
    """Leave a mapping out of what a fork copies: madvise on Linux, minherit on macOS. False where neither works."""
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_DONTFORK)
        return True
    return confine.DARWIN and confine.minherit_none(ctypes.c_char.from_buffer(memory), len(memory))


def unlock(path: str) -> None:
    """Take away what keeps its owner from removing a file or folder on macOS: flags such as uchg, and ACLs.

    Never follows a link. Raises nothing: what comes next says whether it helped.
    """
    if hasattr(os, "lchflags"):
        with contextlib.suppress(OSError):
            os.lchflags(path, 0)
    if confine.DARWIN:
        confine.remove_acl(path)


def threads(pid: int) -> int:
    """Threads of a process, 0 when that cannot be seen."""
    if confine.DARWIN:
        return confine.task_threads(pid)
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def user_tasks(uid: int) -> int:
    """Processes and threads of a user as far as they can be seen: what RLIMIT_NPROC counts."""
    count = 0
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if entry.stat().st_uid == uid:
                        count += max(1, threads(int(entry.name)))
    return count


def unlinked_bytes(pid: int) -> int:
    """Bytes of the files that a process holds open though they have no name any more, as far as they can be seen."""
    total = 0
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                state = os.stat(f"{folder}/{name}")
                if stat.S_ISREG(state.st_mode) and not state.st_nlink:
                    total += state.st_blocks * 512
    return total


def exit_handle(pid: int) -> int:
    """A descriptor that poll() finds readable when the process has ended, or -1: then ask `os.wait4` now and then."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def parent_ended(pid: int) -> bool:
    """Whether `pid`, which was the parent of this process, has ended."""
    return os.getppid() != pid


def counts_tasks_by_namespace() -> bool:
    """Whether RLIMIT_NPROC counts within a user namespace (Linux 5.14) and not over all that the user runs."""
    try:
        major, minor = os.uname().release.split(".")[:2]
        return (int(major), int("".join(filter(str.isdigit, minor[:3])) or 0)) >= (5, 14)
    except (ValueError, AttributeError):
        return False
