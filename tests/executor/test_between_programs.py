"""Nothing that one program can change is there for the next one, nor for the other half of a check."""

# ruff: noqa: E501  a program stays on one line
from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import pytest

from azr_mlx.executor import Executor, Job, Status
from tests.executor.conftest import job

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="changes what Linux lets one change")

# Each changes one thing and goes on when that is refused: the next program must see nothing of it either way.
CHANGES = {
    "times of the box": "os.utime('.', ns=(5731573157315731573, 5731573157315731574))",
    "mode of the box": "os.chmod('.', 0o711)",
    "files in the box": "open('left', 'w').close()",
    "folders in the box": "os.makedirs('a/b/c')",
    "a link in the box": "os.symlink('/etc', 'left')",
    "size of the box": "[open(str(n), 'w').close() for n in range(1500)]",
    "flags of the box": "fcntl.ioctl(os.open('.', os.O_RDONLY), 0x40086602, (64).to_bytes(8, 'little'))",
    "attributes of the box": "os.setxattr('.', 'user.left', b'x')",
    "hint of the box": "fcntl.fcntl(os.open('.', os.O_RDONLY), 1036, (3).to_bytes(8, 'little'))",
    **{f"times of descriptor {fd}": f"os.utime({fd}, ns=(5731573157315731573, 5731573157315731574))" for fd in range(4)},
    # Of /dev/null, should this ever get through, no more than the sticky bit.
    "mode of descriptor 0": "os.fchmod(0, 0o1666)",
    **{f"mode of descriptor {fd}": f"os.fchmod({fd}, 0o10{fd})" for fd in range(1, 4)},
    **{f"flags of descriptor {fd}": f"fcntl.fcntl({fd}, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND | fcntl.fcntl({fd}, fcntl.F_GETFL))" for fd in range(4)},
    **{f"signal of descriptor {fd}": f"fcntl.fcntl({fd}, 10, 40 + {fd})" for fd in range(4)},
    **{f"owner of descriptor {fd}": f"fcntl.fcntl({fd}, fcntl.F_SETOWN, os.getpid())" for fd in range(4)},
    **{f"size of pipe {fd}": f"fcntl.fcntl({fd}, 1031, 4096 * 32)" for fd in range(1, 4)},
    **{f"bytes in pipe {fd}": f"os.write({fd}, b'left')" for fd in range(1, 3)},
    "times of /dev/null": "os.utime('/dev/null')",
    "a signal that is ignored": "__import__('signal').signal(2, __import__('signal').SIG_IGN)",
    "the file mode mask": "os.umask(0o777)",
    "the working folder": "os.chdir('/')",
}  # fmt: skip

LOOK = """
import fcntl, os, signal, time
def f(a):
    def one(what):
        s = os.stat(what)
        now = time.time_ns()
        # Times near now are those of making or emptying it.
        times = [t if abs(now - t) > 60 * 10**9 else 'now' for t in (s.st_atime_ns, s.st_mtime_ns)]
        return (oct(s.st_mode), s.st_nlink, s.st_size, s.st_uid == os.getuid(), *times)
    flags = []
    for fd in range(4):
        row = [fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, 11), fcntl.fcntl(fd, fcntl.F_GETOWN)]
        try: row.append(fcntl.fcntl(fd, 1032))
        except OSError: row.append(None)
        flags.append(row)
    box = os.open('.', os.O_RDONLY)
    try: attributes = os.listxattr('.')
    except OSError: attributes = []
    held = [fcntl.fcntl(box, 1035, bytes(8)), attributes]
    null = os.stat('/dev/null')
    mask = os.umask(0)
    mode = [one(w) for w in ('.', 1, 2, 3)]
    mode[0] = mode[0][:4] + one('.')[4:]
    return mode, flags, held, os.listdir('.'), oct(null.st_mode), null.st_mtime_ns, mask, signal.getsignal(2) is signal.default_int_handler
"""


@pytest.fixture(scope="module", params=[(), ("namespaces",)], ids=["all layers", "no namespaces"])
def alone(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Executor(workers=1, without=request.param)
    with made:
        yield made


@linux
@pytest.mark.parametrize("change", CHANGES, ids=lambda name: name.replace(" ", "-"))
def test_the_next_program_sees_nothing_of(alone: Executor, change: str) -> None:
    pristine = alone.submit(Job(LOOK, ("1",))).result()
    assert pristine.ok, pristine
    body = (
        f"import fcntl, os\ntry:\n    {CHANGES[change]}\nexcept OSError as error:\n    return str(error)\nreturn 'done'"
    )
    assert alone.submit(job(body)).result().ok
    after = alone.submit(Job(LOOK, ("1",))).result()
    assert after.values == pristine.values
    assert (after.stdout, after.stderr) == ("", "")


COUNTERS = {
    "times of the box": "n = os.stat('.').st_mtime_ns\nn = n - 10**18 if 10**18 <= n < 10**18 + 100 else 0\nos.utime('.', ns=(0, 10**18 + n + 1))\nreturn n",
    "flags of standard input": "import fcntl\nn = fcntl.fcntl(0, 3)\nfcntl.fcntl(0, 4, n ^ os.O_APPEND)\nreturn n",
}


@linux
@pytest.mark.parametrize("counter", COUNTERS, ids=lambda name: name.replace(" ", "-"))
def test_no_counter_is_kept_across_checks(alone: Executor, counter: str) -> None:
    """Each check sees the same: what one run wrote is gone before the next begins."""
    body = f"import os\ntry:\n    {COUNTERS[counter]}".replace("\n", "\n    ").replace("\n    try", "\ntry")
    body += "\nexcept OSError:\n    return -1"
    outcomes = [alone.submit_check(job(body)).result() for _ in range(4)]
    assert len({(outcome.status, outcome.values) for outcome in outcomes}) == 1


@linux
@pytest.mark.parametrize(
    "number", ["os.getpid()", "os.stat(os.open('x', os.O_CREAT | os.O_RDWR)).st_ino"], ids=["process", "file"]
)
def test_numbers_that_the_kernel_counts_up_are_never_taken_for_deterministic(alone: Executor, number: str) -> None:
    """A slot starts them at random, so that two slots do not agree by having run as many programs."""
    if "st_ino" in number and "root" not in alone.layers.active:
        pytest.skip("files of the machine's own file system: all its programs move those numbers")
    outcomes = [alone.submit_check(job(f"import os\nreturn {number}")).result() for _ in range(5)]
    assert {outcome.status for outcome in outcomes} == {Status.NOT_DETERMINISTIC}


@linux
def test_the_two_runs_of_a_check_are_in_different_slots(alone: Executor) -> None:
    """The box of the second run is not that of the first, nor its hash seed."""
    seeds = alone.submit_check(job("return hash('a')")).result()
    assert seeds.status is Status.NOT_DETERMINISTIC
    assert {slot.seed for slot in alone._slots} == {0, 1}
