"""Where the system gives no user namespaces (Ubuntu's default, most containers), and where it gives little at all."""

# ruff: noqa: E501  a program stays on one line
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from azr_mlx.executor import Executor, Job, LayerReport, Limits, Status, cleaning
from azr_mlx.executor.slots import Folder
from tests.executor.conftest import job

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is about layers of Linux")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
SYSTEM_PYTHON = "/usr/bin/python3"  # root's own may be closed to others


@pytest.fixture(scope="module")
def bare() -> Iterator[Executor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Executor(limits=Limits(5, 5), workers=1, without=("namespaces",))
    with made:
        yield made


PROLOGUE = """
import json, os, sys, threading, time, types, warnings
warnings.simplefilter("ignore")
package = types.ModuleType("azr_mlx"); package.__path__ = [sys.argv[1] + "/azr_mlx"]; sys.modules["azr_mlx"] = package
from azr_mlx.executor import *
"""


def as_ordinary_user(source: str, root: Path, *words: str, before: str = "") -> Any:
    """What `source` prints as JSON in a process of an ordinary user; `before` is shell to run first, as we are."""
    python = [sys.executable]
    if ROOT:
        found = subprocess.run(
            [SYSTEM_PYTHON, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
        )
        if found.stdout.strip() != "True" or shutil.which("setpriv") is None:
            pytest.skip(f"{SYSTEM_PYTHON} of version 3.11 and setpriv are needed to become another user")
        python = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", SYSTEM_PYTHON]
    command = [*python, "-B", "-c", PROLOGUE + source, str(root), *words]
    done = subprocess.run(
        ["sh", "-c", f'{before or ":"} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/tmp",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


TOUCH = """
import os
def f(home):
    worked = []
    def attempt(name, action):
        try: action(); worked.append(name)
        except OSError: pass
    key, folder, link = home + '/key', home + '/folder', home + '/link'
    import ctypes
    libc, x86 = ctypes.CDLL(None, use_errno=True), os.uname().machine == 'x86_64'
    def raw(number, *arguments):
        if libc.syscall(number, *arguments) < 0: raise OSError(ctypes.get_errno(), '')
    path = ctypes.create_string_buffer(key.encode())
    attempt('open', lambda: open(key).read())
    attempt('chmod', lambda: os.chmod(key, 0o666))
    attempt('chmod of a folder', lambda: os.chmod(folder, 0o700))
    attempt('fchmodat2', lambda: raw(452, -100, path, 0o666, 0))
    attempt('chown', lambda: os.chown(key, -1, os.getgid()))
    attempt('lchown', lambda: os.lchown(link, -1, os.getgid()))
    attempt('utime', lambda: os.utime(key, (0, 0)))
    attempt('utime of a link', lambda: os.utime(link, (0, 0), follow_symlinks=False))
    if x86:
        attempt('utimes', lambda: raw(235, path, 0))
        attempt('utime of old', lambda: raw(132, path, 0))
        attempt('futimesat', lambda: raw(261, -100, path, 0))
    attempt('setxattr', lambda: os.setxattr(key, 'user.note', b'x'))
    attempt('removexattr', lambda: os.removexattr(key, 'user.note'))
    attempt('removexattrat', lambda: raw(466, -100, path, 0, b'user.note'))
    attempt('file_setattr', lambda: raw(469, -100, path, bytes(24), 24, 0))
    attempt('listxattr', lambda: os.listxattr(key))
    attempt('readlink', lambda: os.readlink(link))
    attempt('truncate', lambda: os.truncate(key, 0))
    attempt('unlink', lambda: os.unlink(key))
    attempt('rename', lambda: os.rename(key, key + 'x'))
    attempt('link', lambda: os.link(key, 'x'))
    attempt('list', lambda: os.listdir(home))
    attempt('mkdir', lambda: os.mkdir(home + '/made'))
    return worked
"""

METADATA = """
home, program = sys.argv[2:]
key = home + "/key"
open(key, "w").write("secret"); os.chmod(key, 0o600); os.mkdir(home + "/folder"); os.symlink("token", home + "/link")
try: os.setxattr(key, "user.note", b"kept")
except OSError: pass
def state():
    found = [os.lstat(home + name) for name in ("/key", "/folder", "/link")]
    return [(s.st_mode, s.st_mtime_ns, s.st_atime_ns, s.st_ctime_ns, s.st_gid, s.st_size) for s in found], os.listxattr(key)
before = state()
with Executor("strict", workers=1, without=("namespaces",)) as executor:
    outcome = executor.submit(Job(program, (repr(home),))).result()
    said = {"confined": executor.layers.confined, "active": executor.layers.active}
print(json.dumps({"worked": outcome.values, "detail": outcome.detail, "same": state() == before, **said}))
"""


def test_an_ordinary_users_files_keep_their_metadata_too(root: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        said = as_ordinary_user(METADATA, root, home, TOUCH)
    if "landlock" not in said["active"]:
        pytest.skip("this kernel has no landlock: files are not confined, and that is said")
    assert said == {"worked": [[]], "detail": "", "same": True, "confined": True, "active": said["active"]}


SIGNALS = """
import fcntl, os, time
def f(pid):
    worked = []
    def attempt(name, action):
        try: action(); worked.append(name)
        except OSError: pass
    attempt('kill', lambda: os.kill(pid, 0))
    attempt('F_SETOWN', lambda: fcntl.fcntl(1, 8, pid))
    attempt('F_SETSIG', lambda: fcntl.fcntl(1, 10, 15))
    attempt('F_SETOWN_EX', lambda: fcntl.fcntl(1, 15, (1).to_bytes(4, 'little') + pid.to_bytes(4, 'little')))
    attempt('O_ASYNC', lambda: fcntl.fcntl(1, 4, os.O_WRONLY | 0o20000))
    attempt('FIOASYNC', lambda: fcntl.ioctl(1, 0x5452, (1).to_bytes(4, 'little')))
    attempt('FIOSETOWN', lambda: fcntl.ioctl(1, 0x8901, pid.to_bytes(4, 'little')))
    attempt('F_NOTIFY', lambda: fcntl.fcntl(os.open('.', 0), 1026, 0x80000007))
    attempt('F_SETLEASE', lambda: fcntl.fcntl(os.open('x', os.O_CREAT | os.O_RDONLY), 1024, 0))
    os.write(2, b'x')
    time.sleep(0.2)
    return worked
"""


@pytest.mark.parametrize("without", [("namespaces",), ("namespaces", "landlock"), ()], ids="+".join)
def test_no_process_outside_is_signalled(without: tuple[str, ...]) -> None:
    victim = subprocess.Popen(["/bin/sleep", "60"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = Executor(workers=1, without=without)
        with made:
            outcome = made.submit(Job(SIGNALS, (str(victim.pid),))).result()
            # A number of an own pid namespace is nobody's outside of it.
            assert set(outcome.value) <= ({"kill"} if not without else set())  # type: ignore[call-overload]
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_signals_count_as_confined_only_with_namespaces_or_a_landlock_that_scopes_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Executor(workers=1, without=("namespaces", "landlock")) as made:
            assert "signals" in made.layers.open["processes"]
            assert not made.layers.processes


@pytest.mark.parametrize(
    ("without", "open_"),
    [
        (("namespaces", "seccomp", "landlock"), {"files": "read", "network": "connect", "processes": "signal, "}),
        (("seccomp",), {"processes": "fork"}),
        ((), {}),
    ],
    ids=["nothing", "no filter", "all"],
)
def test_what_is_reported_as_confined_was_tried(without: tuple[str, ...], open_: dict[str, str]) -> None:
    """A child of the slot attempts what programs must not do; what works is named, and then nothing is `confined`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Executor(workers=1, without=without) as made:
            layers = made.layers
    for what, how in open_.items():
        assert how in layers.open[what]
        assert not getattr(layers, what)
        assert what in layers.lacking()
    if not open_ and not layers.missing:
        assert layers.open == {}
        assert layers.confined


def test_a_layer_that_did_not_hold_in_the_trial_is_not_believed() -> None:
    active = ("namespaces", "root", "landlock", "seccomp")
    assert LayerReport("strict", active, {}).confined
    for what in ("files", "network", "processes"):
        report = LayerReport("strict", active, {}, {what: "tried and done"})
        assert not getattr(report, what)
        assert not report.confined
    assert not LayerReport("strict", ("landlock",), {}).files  # alone it leaves metadata to be changed


DISK = """
import os, time
def f(how):
    n = 0
    for i in range(24):
        fd = os.open('f%d' % i, os.O_CREAT | os.O_RDWR)
        if how == 'unlinked': os.unlink('f%d' % i)
        if how == 'reserved': os.posix_fallocate(fd, 0, 60 << 20)
        else:
            for _ in range(16): os.write(fd, bytes(1 << 20))
        if how == 'closed': os.close(fd)
        n += 16
        time.sleep(0.06)
    return n
"""


@pytest.mark.parametrize("how", ["closed", "held", "unlinked"])
def test_the_disk_is_bounded_without_a_file_system_of_its_own(bare: Executor, how: str) -> None:
    outcome = bare.submit(Job(DISK, (repr(how),))).result()
    assert outcome.status is Status.OUTPUT_LIMIT, outcome
    assert "64 MB" in outcome.detail


def test_space_cannot_be_reserved_in_one_call(bare: Executor) -> None:
    outcome = bare.submit(Job(DISK, ("'reserved'",))).result()
    assert outcome.status in (Status.FORBIDDEN, Status.OUTPUT_LIMIT)


DEEP = """
import os
def f(x):
    os.mkdir('a'); os.chdir('a')
    for i in range(21000): os.close(os.open('n%d' % i, os.O_CREAT | os.O_WRONLY))
    for i in range(1500):
        os.mkdir('d'); os.chdir('d')
    return 1
"""


def test_a_deep_and_full_box_costs_nobody_else_anything(bare: Executor) -> None:
    hostile = bare.submit(Job(DEEP, ("1",))).result()
    assert hostile.status in (Status.OK, Status.OUTPUT_LIMIT, Status.TIMEOUT), hostile
    assert bare.submit(job("import os\nreturn os.listdir('.')")).result().values == ([],)
    assert bare.counters["repairs"] == 0


def fill(box: Path, files: int, depth: int) -> None:
    box.mkdir(exist_ok=True)
    here = os.open(box, os.O_RDONLY)
    for number in range(files):
        os.close(os.open(f"n{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.fchmod(here, 0)
    os.close(here)


def test_cleaning_is_neither_deep_nor_endless(tmp_path: Path) -> None:
    """1,500 nested folders and 21,000 files go, without recursion; beyond the budget the box is put aside and said."""
    fill(tmp_path / "box", 21_000, 1_500)
    assert cleaning.remove(str(tmp_path / "box"), budget=1_000) == "more than 1000 files in it"
    assert cleaning.remove(str(tmp_path / "box")) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_box_that_does_not_go_is_put_aside_and_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder()
    box = folder.make_box("slot-")
    fill(Path(box), 50, 3)
    with monkeypatch.context() as patch:
        patch.setattr(cleaning, "BUDGET", 10)
        patch.setattr(cleaning.remove, "__defaults__", (10,))
        assert "more than 10 files" in folder.remove_box(box)
    assert folder.kept.keys() == {box}
    assert folder.close() == {}
    assert not os.path.exists(folder.path)


def test_what_cannot_be_removed_in_the_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Executor(workers=1)
    made._boxes.kept[made._boxes.make_box("kept-")] = "a test"
    monkeypatch.setattr(cleaning, "remove", lambda *_: "no right to")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made._boxes.close()
        made.close()
    monkeypatch.undo()
    shutil.rmtree(made._folder)
    assert said == [] or any("could not be removed: no right to" in str(one.message) for one in said)


BUSY = """
stop = threading.Event()
for _ in range(int(sys.argv[2])): threading.Thread(target=stop.wait, daemon=True).start()
threaded = "import threading\\ndef f(x):\\n    r = []\\n    t = [threading.Thread(target=r.append, args=(x,)) for _ in range(20)]\\n    [s.start() for s in t]\\n    [s.join() for s in t]\\n    return len(r)"
many = "import threading, time\\ndef f(x):\\n    for _ in range(1000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\\n    time.sleep(1)\\n    return threading.active_count()"
found = {}
for without in ((), ("namespaces",)):
    with Executor(limits=Limits(5, 5, 2000), workers=1, without=without) as executor:
        test = executor.submit(TestJob("def g(x):\\n    return x", "def check(c):\\n    assert c(1) == 1", "g")).result()
        honest = executor.submit(Job(threaded, ("1",))).result()
        hostile = executor.submit(Job(many, ("1",))).result()
        found["+".join(without)] = [test.status, test.detail, honest.status, honest.values, hostile.status, hostile.detail]
stop.set()
print(json.dumps(found))
"""


def test_what_else_the_user_runs_takes_no_thread_from_a_program(root: Path) -> None:
    """200 other tasks of the user: in-child tests and honest threads work, and a thousand threads still do not."""
    for said in as_ordinary_user(BUSY, root, "200").values():
        test, why, honest, values, hostile, detail = said
        assert (test, why, honest, values) == ("ok", "", "ok", [20]), said
        assert hostile in ("exception", "forbidden"), said
        assert "thread" in detail


MAPS = """
with Executor(workers=1) as executor:
    outcomes = executor.run([Job("import os\\ndef f(x): return x, os.getuid()", (str(n),)) for n in range(8)])
    print(json.dumps([executor.layers.active, executor.layers.missing, dict(executor.counters), [o.values for o in outcomes]]))
"""


@pytest.mark.skipif(not ROOT or shutil.which("unshare") is None, reason="root makes /proc read-only for the test alone")
def test_a_namespace_whose_map_is_refused_is_not_entered(root: Path) -> None:
    """Ubuntu 24.04: unshare succeeds and uid_map is refused. One trial, then none at all, and nothing is replaced."""
    inner = 'mount --make-rprivate / && mount -o remount,bind,ro /proc && exec "$@"'
    active, missing, counters, values = as_ordinary_user(
        MAPS, root, before=f"exec unshare -m sh -c '{inner}' sh \"$@\" ; true"
    )
    assert "namespaces" not in active
    assert missing["namespaces"]
    assert counters == {"ok": 8}
    assert values == [[[n, 65534]] for n in range(8)]


ULIMITS = """
with Executor(workers=1, without=json.loads(sys.argv[2])) as executor:
    jobs = [Job("def f(x): return x", ("1",)), TestJob("def g(x): return x", "assert g(1) == 1"), StdinJob("print(input())", "1")]
    outcomes = executor.run(jobs * 3)
    print(json.dumps([[o.status, o.detail] for o in outcomes]))
"""


@pytest.mark.parametrize("without", [[], ["namespaces"]], ids=["all layers", "no namespaces"])
@pytest.mark.parametrize("limit", ["-v 400000", "-t 4", "-f 100", "-s 1024", "-n 64", "-c 0", "-l 0"])
def test_limits_from_outside_are_no_fault_of_a_program(root: Path, limit: str, without: list[str]) -> None:
    outcomes = as_ordinary_user(ULIMITS, root, json.dumps(without), before=f"ulimit {limit}")
    assert outcomes == [["ok", ""]] * 9


def test_a_limit_that_leaves_no_room_is_a_fault_of_the_harness(root: Path) -> None:
    """RLIMIT_AS below what the interpreter itself maps: not a verdict about a program in any case."""
    source = """
try:
    with Executor(workers=1) as executor:
        print(json.dumps([o.status for o in executor.run([Job("def f(x): return x", ("1",))] * 3)]))
except RuntimeError as error:
    print(json.dumps(["sandbox-error"]))
"""
    assert set(as_ordinary_user(source, root, before="ulimit -v 60000")) <= {"sandbox-error", "ok"}
