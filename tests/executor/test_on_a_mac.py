"""The real pool, zygote, child and clean-up on an emulated Mac (mac.py): they start, confine, end and leave nothing.

What the emulation shows is logged, and the log is replayed against the profile for every way in which Python is
installed on Macs: what was ours must be allowed there, and what the trial tried must be denied.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from azr_mlx.executor import Executor, Job, Limits, SandboxUnavailable, Status, StdinJob, TestJob, seatbelt
from tests.executor import mac
from tests.executor.conftest import job, on_a_mac
from tests.executor.profile_language import Access, Profile
from tests.executor.test_seatbelt import LAYOUTS, Layout, layouts
from tests.executor.world import descriptors, processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="emulates a Mac on Linux")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with on_a_mac(), Executor("strict", Limits(5, 5), workers=2) as made:
        yield made


# -- it runs ------------------------------------------------------------------------------------------------


def test_it_starts_confined_and_says_so(executor: Executor) -> None:
    layers = executor.layers
    assert layers.active == ("seatbelt", "footprint")
    assert (layers.missing, layers.open, layers.confined, layers.memory) == ({}, {}, True, True)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ("return a + 1", Status.OK, ""),
        ("import asyncio\nasync def g(): return 2\nreturn asyncio.run(g())", Status.OK, ""),
        ("open('x', 'w').write('y')\nreturn len(open('x').read()) + 1", Status.OK, ""),
        ("import uuid, random, decimal, hashlib, datetime, dataclasses\nreturn 2", Status.OK, ""),
        ("import os\nos._exit(3)", Status.EXITED_EARLY, "exit code 3"),
        ("import os\nos.abort()", Status.KILLED, "SIGABRT"),
        ("import ctypes, os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", Status.KILLED, "SIGSEGV"),
        ("import time\ntime.sleep(60)", Status.TIMEOUT, "wall"),
        (
            "x = bytearray(500 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nwhile True: pass",
            Status.MEMORY,
            "over",
        ),
        ("print('x' * 10**7)", Status.OUTPUT_LIMIT, ""),
        ("open('/etc/passwd')", Status.FORBIDDEN, "PermissionError"),
        ("import os\nos.listdir(os.path.expanduser('~') + '/..')", Status.FORBIDDEN, "PermissionError"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))", Status.FORBIDDEN, "PermissionError"),
        ("import os\nos.kill(os.getppid(), 9)", Status.FORBIDDEN, "PermissionError"),
        ("import subprocess\nsubprocess.run(['/bin/sh'])", Status.FORBIDDEN, "PermissionError"),
        ("import os\nos.fork()", Status.EXCEPTION, "BlockingIOError"),
    ],
)
def test_programs_end_as_they_should(executor: Executor, body: str, status: Status, detail: str) -> None:
    """Among them exits and crashes, which a Python without waitid has to notice by itself, long before the wall."""
    limits = Limits(wall_seconds=1.0 if "sleep" in body else 20, cpu_seconds=20, memory_mb=128)
    outcome = executor.submit(job(body, limits=limits)).result()
    assert (outcome.status, detail in outcome.detail) == (status, True), outcome
    if status is Status.OK:
        assert outcome.value == 2
    if status in (Status.EXITED_EARLY, Status.KILLED):
        assert outcome.wall_seconds < 10


def test_tests_scripts_and_checks_work_too(executor: Executor) -> None:
    assert executor.submit(StdinJob("print(int(input()) + 1)", "1")).result().stdout == "2\n"
    assert executor.submit(TestJob("def g(x): return x + 1", "def check(c):\n    assert c(1) == 2", "g")).result().ok
    assert executor.submit_check(job("return sorted({'a', 'b'})")).result().value == ["a", "b"]
    assert executor.submit_check(job("return hash('a')")).result().status is Status.NOT_DETERMINISTIC
    assert executor.counters["slots-replaced"] == 0


def test_times_are_those_of_nowhere(executor: Executor) -> None:
    body = "import time\nreturn [time.strftime('%H', time.localtime(0)), time.tzname[0]]"
    assert executor.submit(job(body)).result().value == ["00", "UTC"]


# -- whatever is refused, it starts -------------------------------------------------------------------------

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "inside another sandbox": ({"refuse": "Operation not permitted"}, "seatbelt (Operation not permitted)"),
    "no such function": ({"entry": False}, "no sandbox_init_with_parameters"),
    "entering kills": ({"deadly": True}, "the sandbox ended the process"),
    "entering hangs": ({"hangs": True, "patience": 1.0}, "the sandbox does not answer"),
    "too narrow for programs": ({"narrow": True}, "no slot starts with it"),
    "no footprint": ({"usage": False}, "nothing holds programs to their memory"),
    "nobody may be signalled by the narrow scope": ({"children": False}, "signal the zygote"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_standard_goes_on_with_what_holds_and_says_so_once(what: str) -> None:
    options, said = REFUSALS[what]
    with on_a_mac(**options), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Executor(workers=1) as made:
            assert made.submit(job("return a + 1")).result().value == 2
    messages = [str(one.message) for one in seen if issubclass(one.category, UserWarning)]
    assert len(messages) == 1
    assert said in messages[0]


@pytest.mark.parametrize("what", [name for name in REFUSALS if name != "no footprint"])
def test_strict_refuses_in_one_line(what: str) -> None:
    with on_a_mac(**REFUSALS[what][0]), pytest.raises(SandboxUnavailable) as error:
        Executor("strict", workers=1)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith("no sufficient sandbox here: ")


def test_an_older_compiler_costs_one_name_and_not_the_sandbox() -> None:
    with on_a_mac(unknown="file-write-acl"), Executor("strict", workers=1) as made:
        assert made.layers.confined


def test_where_the_function_is_missing_the_command_confines(tmp_path: Path) -> None:
    with on_a_mac(entry=False, wrapper=True, log=str(tmp_path / "log")), Executor("strict", workers=1) as made:
        assert made.layers.active == ("seatbelt", "footprint")
        assert made.submit(job("return a")).result().value == 1
    assert [one for one in mac.records(tmp_path / "log") if one["operation"] == "enter"]


def test_off_confines_nothing_and_still_ends_orphans() -> None:
    with on_a_mac():
        with pytest.warns(UserWarning, match="unconfined"):
            made = Executor("off", workers=1)
        assert made.layers.active == ()
        assert made.submit(job("import os\nreturn os.path.exists('/etc')")).result().value is True
        made.close()


# -- it ends ------------------------------------------------------------------------------------------------


def gone(pids: set[int], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not {pid for pid in pids if _alive(pid)}:
            return True
        time.sleep(0.02)
    return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


SLEEPER = "import time\ntime.sleep(600)\nreturn a"


@pytest.mark.parametrize("victim", ["keeper", "zygote", "child"])
def test_whoever_is_killed_takes_a_sleeping_program_along(victim: str) -> None:
    """No other system than Linux ends a child with its parent: keeper, zygote and lifeline have to."""
    with on_a_mac(), Executor(workers=1, limits=Limits(600, 600)) as made:
        made.submit(job("return a")).result()
        sleeping = made.submit(job(SLEEPER))
        keeper = made._slots[0].process
        assert keeper is not None
        zygote = _wait_for_child(keeper.pid)
        child = _wait_for_child(zygote)
        while not sleeping.running():
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill({"keeper": keeper.pid, "zygote": zygote, "child": child}[victim], signal.SIGKILL)
        assert gone({child} if victim == "child" else {keeper.pid, zygote, child})
        if victim == "child":
            assert sleeping.result(timeout=30).status is Status.KILLED


def _wait_for_child(pid: int) -> int:
    while True:
        with contextlib.suppress(OSError):
            found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if found:
                return int(found[-1])
        time.sleep(0.01)


def test_closing_leaves_no_process_no_descriptor_and_no_folder() -> None:
    before, open_before = processes(), descriptors()
    with on_a_mac():
        made = Executor(workers=2, limits=Limits(600, 600))
        mine = processes() - before
        futures = [made.submit(job(SLEEPER)) for _ in range(4)]
        time.sleep(0.2)
        made.close()
    assert {future.result(timeout=1).status for future in futures} == {Status.SANDBOX_ERROR}
    assert gone(mine)
    assert descriptors() == open_before
    assert not os.path.exists(made._folder)


TRAINER = """
import sys
sys.path.insert(0, {root!r})
from tests.executor.test_on_a_mac import on_a_mac
from tests.executor.test_on_a_mac import SLEEPER
from azr_mlx.executor import Executor, Limits
from tests.executor.conftest import job, on_a_mac
import os, time
with on_a_mac():
    executor = Executor(workers=2, limits=Limits(600, 600))
    executor.submit(job("return a")).result()
    futures = [executor.submit(job(SLEEPER)) for _ in range(2)]
    time.sleep(0.3)
    print(executor._folder, flush=True)
    time.sleep(600)
"""


def test_when_the_trainer_is_killed_everything_ends_and_the_folder_goes(root: Path) -> None:
    before = processes()
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER.format(root=str(root))], stdout=subprocess.PIPE, cwd=root)
    assert trainer.stdout is not None
    folder = trainer.stdout.readline().decode().strip()
    assert os.path.isdir(folder)
    family: set[int] = set()
    end = time.monotonic() + 60
    while len(family) < 7 and time.monotonic() < end:  # the trainer, and for each slot a keeper, a zygote and a child
        time.sleep(0.02)
        family = processes() - before
    assert len(family) >= 7
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    assert gone(family)
    end = time.monotonic() + 15
    while os.path.exists(folder) and time.monotonic() < end:
        time.sleep(0.02)
    assert not os.path.exists(folder)


# -- what it did, on every layout ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every access of a slot's processes: start, trial, honest and hostile programs, clean-up."""
    file = tmp_path_factory.mktemp("mac") / "log"
    with on_a_mac(log=str(file)), Executor("strict", Limits(2, 2), workers=1) as made:
        bodies = [
            "import json, decimal, uuid, random, asyncio, datetime, hashlib, sqlite3\nreturn a",
            "import os\nos.makedirs('a/b/c')\nopen('a/b/c/d', 'w').write('x')\nos.chmod('a', 0)\nreturn a",
            "import os\nopen('x', 'w').close()\nos.symlink('/etc', 'y')\nos.utime('x')\nos.rename('x', 'z')\nreturn a",
            "import tempfile\nwith tempfile.NamedTemporaryFile() as f: f.write(b'1')\nreturn a",
            "import asyncio\nasync def g(): return 1\nreturn asyncio.run(g())",
            "open('/etc/passwd')",
            "import os\nos.abort()",
            "import time\ntime.sleep(9)",
        ]
        jobs = [job(body, limits=Limits(0.5, 0.5) if "sleep" in body else None) for body in bodies]
        statuses = [outcome.status for outcome in made.run(jobs)]
        assert statuses[:5] == [Status.OK] * 5
        made.submit(StdinJob("print(input())", "1")).result()
        folder = made._folder
    found = list(mac.records(file))
    for record in found:
        record["folder"] = folder
    return found


def moved(path: str, layout: Layout, folder: str) -> str:
    """A path of this machine where it would be on that Mac."""
    version = f"python3.{sys.version_info[1]}"
    places = {
        folder: layout.folder,
        os.path.realpath(sys.base_prefix): layout.prefix,
        os.path.realpath(tempfile.gettempdir()): layout.temporary,
        str(HERE.parents[1]): f"{layout.home}/azr_mlx",
        os.path.realpath(os.path.expanduser("~")): layout.home,
        "/etc": "/private/etc",
    }
    for here, there in sorted(places.items(), key=lambda pair: -len(pair[0])):
        if path == here or path.startswith(here + "/"):
            return there + path[len(here) :].replace(f"/lib/{version}", "/lib/python3.12")
    return path


def differing(log: list[dict[str, Any]], layout: Layout, whole: bool) -> list[str]:
    """Accesses that this layout decides otherwise than the emulation did; `whole`: also those before the entry."""
    boxes = {record["given"]["BOX"] for record in log if record["operation"] == "enter"}
    found = []
    for box in boxes:
        name = os.path.basename(box)
        given = seatbelt.paths(f"{layout.folder}/{name}", [layout.prefix], layout.stdlib)
        profile = Profile.parse(seatbelt.profile(given), given)
        for record in log:
            if record["operation"] in ("enter", "exec", "minherit") or not (whole or record["entered"]):
                continue
            others = [other for other in boxes if other != box and other in record["path"]]
            if others:
                continue
            about = {key: record[key] for key in ("name", "target", "kind", "domain", "remote") if key in record}
            access = Access(record["operation"], moved(record["path"], layout, record["folder"]), **about)
            if profile.allows(access) != record["allowed"]:
                found.append(f"{'denied' if record['allowed'] else 'allowed'}: {access.operation} {access.path}")
    return sorted(set(found))


@layouts
def test_what_the_slot_did_is_allowed_and_what_it_tried_denied(log: list[dict[str, Any]], layout: Layout) -> None:
    entered = [record for record in log if record.get("entered")]
    assert len(entered) > 300
    assert {False, True} == {record["allowed"] for record in entered}
    assert differing(log, layout, whole=False) == []


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=["python.org", "homebrew"])
def test_a_slot_that_was_confined_from_its_first_instruction_would_not_start(
    log: list[dict[str, Any]], layout: Layout
) -> None:
    """Why the zygote enters by itself: folders above the box, and what a framework build re-executes."""
    denied = differing(log, layout, whole=True)
    assert f"denied: file-read-data {layout.folder}" in denied
    assert f"denied: file-read-data {layout.temporary}" in denied
    given = layout.given()
    assert not Profile.parse(seatbelt.profile(given), given).allows(Access("process-exec", layout.app))


@pytest.mark.parametrize(
    ("rule", "of"),
    [
        ('(subpath (param "READ_', '(literal (param "READ_'),
        ('(subpath (param "BOX"))', '(literal (param "BOX"))'),
        ("(allow process-fork)", ""),
        ("(allow signal (target children))", ""),
        ("(allow process-info* (target children))", ""),
        ("(allow system-socket (socket-domain AF_UNIX))", ""),
        ('(literal "/dev/null")', '(literal "/dev/nought")'),
        ("(deny default)", "(allow default)"),
        ("file-write* (subpath", "file-write-create (subpath"),
    ],
)
def test_a_profile_that_is_wrong_for_the_slot_is_seen(
    log: list[dict[str, Any]], rule: str, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = seatbelt.profile
    assert rule in real(LAYOUTS[0].given())
    monkeypatch.setattr(seatbelt, "profile", lambda given: real(given).replace(rule, of))
    assert differing(log, LAYOUTS[0], whole=False) != []


def test_what_a_program_wrote_is_hidden_from_the_next(log: list[dict[str, Any]]) -> None:
    """Memory that output is read into is left out of every fork: minherit(VM_INHERIT_NONE) on the whole mapping."""
    hidden = [record for record in log if record["operation"] == "minherit"]
    assert len(hidden) >= 3
    assert all(record["how"] == 2 and record["length"] == 1 << 17 for record in hidden)


# -- clean-up of what only a Mac has ------------------------------------------------------------------------


def test_flags_and_access_lists_go_before_a_box_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated `chflags uchg`: files that cannot be removed, folders that cannot be changed, until it is undone."""
    from azr_mlx.executor import cleaning

    box = tmp_path / "box"
    (box / "folder" / "deep").mkdir(parents=True)
    for place in ("file", "folder/file", "folder/deep/file"):
        (box / place).write_text("x")
    locked = {str(box / place) for place in ("file", "folder", "folder/file", "folder/deep")} | {str(box)}
    undone: list[str] = []

    def lchflags(path: str, flags: int) -> None:
        assert flags == 0
        undone.append(path)
        locked.discard(path)

    def where(name: Any, folder: int | None) -> str:
        text = os.fspath(name)
        return text if text.startswith("/") or folder is None else os.readlink(f"/proc/self/fd/{folder}") + "/" + text

    def guarded(function: Any) -> Any:
        def act(name: Any, *rest: Any, **words: Any) -> Any:
            folder = words.get("dir_fd", words.get("src_dir_fd"))
            path = where(name, folder)
            if path in locked or os.path.dirname(path) in locked:
                raise PermissionError(1, "Operation not permitted", path)
            return function(name, *rest, **words)

        return act

    for name in ("unlink", "rmdir", "rename"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    monkeypatch.setattr(os, "lchflags", lchflags, raising=False)
    assert cleaning.remove(str(box)) == ""
    assert not box.exists()
    assert str(box / "file") in undone


def test_a_job_of_a_shared_layout_is_a_job(executor: Executor) -> None:
    """Two hundred programs in a row: none is lost, none blamed."""
    jobs = [Job("def f(a):\n    return a * a", (str(n),)) for n in range(200)]
    assert [outcome.value for outcome in executor.run(jobs)] == [n * n for n in range(200)]
    assert executor.counters["sandbox-error"] == 0
