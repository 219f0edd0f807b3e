"""The profile that programs run under on macOS, evaluated for the ways in which Python is installed there."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import pytest

from azr_mlx.executor import seatbelt
from tests.executor.profile_language import Access, Profile

WRITES = ("create", "data", "mode", "times", "unlink", "xattr")
TEMPORARY = "/private/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T"


@dataclass(frozen=True)
class Layout:
    """Where the interpreter of one way to install Python lives, and what belongs to the user beside it."""

    name: str
    prefix: str
    python: str
    home: str = "/Users/ada"
    temporary: str = TEMPORARY
    app: str = ""  # what a framework build re-executes

    @property
    def stdlib(self) -> str:
        return f"{self.prefix}/lib/python3.12"

    @property
    def folder(self) -> str:
        return f"{self.temporary}/azr-sandbox-x1"

    @property
    def box(self) -> str:
        return f"{self.folder}/slot-0-0-y2"

    def given(self) -> dict[str, str]:
        return seatbelt.paths(self.box, [self.prefix], self.stdlib)


_FRAMEWORK = "/Library/Frameworks/Python.framework/Versions/3.12"
_BREW = "/opt/homebrew/Cellar/python@3.12/3.12.7_1/Frameworks/Python.framework/Versions/3.12"
_UV = "/Users/ada/.local/share/uv/python/cpython-3.12.7-macos-aarch64-none"
LAYOUTS = [
    Layout("python.org", _FRAMEWORK, f"{_FRAMEWORK}/bin/python3.12",
           app=f"{_FRAMEWORK}/Resources/Python.app/Contents/MacOS/Python"),
    Layout("homebrew", _BREW, f"{_BREW}/bin/python3.12", app=f"{_BREW}/Resources/Python.app/Contents/MacOS/Python"),
    Layout("uv", _UV, f"{_UV}/bin/python3.12"),
    Layout("pyenv", "/Users/ada/.pyenv/versions/3.12.7", "/Users/ada/.pyenv/versions/3.12.7/bin/python3.12"),
    Layout("conda", "/Users/ada/miniforge3/envs/azr", "/Users/ada/miniforge3/envs/azr/bin/python3.12"),
    Layout("external volume", "/Volumes/Fast/python-3.12", "/Volumes/Fast/python-3.12/bin/python3.12"),
    Layout("home on another volume", "/Volumes/Home/ada/.pyenv/versions/3.12.7",
           "/Volumes/Home/ada/.pyenv/versions/3.12.7/bin/python3.12", home="/Volumes/Home/ada"),
    Layout("temporary folder in /tmp", _UV, f"{_UV}/bin/python3.12", temporary="/private/tmp"),
    Layout("spaces and quotes", '/Users/ada b"c/My Python', '/Users/ada b"c/My Python/bin/python3.12',
           home='/Users/ada b"c', temporary='/Users/ada b"c/tmp dir'),
]  # fmt: skip
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name.replace(" ", "-"))
variants = pytest.mark.parametrize(
    ("scope", "without"),
    [(scope, without) for scope in seatbelt.SCOPES for without in ((), seatbelt.OPTIONAL)],
    ids=["children", "children-plain", "same-sandbox", "same-sandbox-plain"],
)


def profile(layout: Layout, scope: str = "children", without: Collection[str] = ()) -> Profile:
    return Profile.parse(seatbelt.profile(layout.given(), scope, without), layout.given())


@layouts
@variants
def test_what_a_child_does_is_allowed(layout: Layout, scope: str, without: Collection[str]) -> None:
    """Imports of the standard library, its box, devices, its own signals, and what the zygote does with it."""
    box, lib = layout.box, layout.stdlib
    ours = [
        Access("process-fork"),
        Access("signal", target="self"),
        Access("signal", target="child"),
        Access("process-info-rusage", target="child"),
        Access("file-read-metadata", lib),
        Access("file-read-data", lib, kind="DIRECTORY"),
        Access("file-read-data", f"{lib}/json/__init__.py"),
        Access("file-read-data", f"{lib}/lib-dynload/_json.cpython-312-darwin.so"),
        Access("file-read-data", f"{layout.prefix}/lib/libssl.3.dylib"),
        Access("file-read-metadata", layout.prefix),
        Access("file-read-data", "/dev/urandom", kind="CHARACTER-DEVICE"),
        Access("file-write-data", "/dev/null", kind="CHARACTER-DEVICE"),
        Access("file-read-data", "/private/var/db/timezone/zoneinfo/Europe/Paris"),
        Access("file-read-data", box, kind="DIRECTORY"),
        Access("file-read-metadata", layout.folder),
        *(Access(f"file-write-{what}", f"{box}/a/b") for what in WRITES),
        *(Access("sysctl-read", name=name) for name in ("hw.ncpu", "kern.osrelease", "hw.pagesize_compat")),
    ]  # fmt: skip
    if not without:
        ours.append(Access("file-map-executable", f"{lib}/lib-dynload/_json.cpython-312-darwin.so"))
        ours.append(Access("system-socket", domain="AF_UNIX"))
    evaluated = profile(layout, scope, without)
    assert [access for access in ours if not evaluated.allows(access)] == []


def hostile(layout: Layout) -> list[Access]:
    """What programs must not do, whatever they are made of."""
    home = layout.home
    return [
        *(Access("file-read-data", f"{home}/{name}") for name in (".ssh/id_ed25519", ".zsh_history", "Documents/a.txt",
          ".cache/huggingface/token", "Library/Keychains/login.keychain-db", "Library/Messages/chat.db", ".netrc")),
        Access("file-read-data", home, kind="DIRECTORY"),
        Access("file-read-metadata", f"{home}/.ssh/id_ed25519"),
        Access("file-read-data", f"{layout.folder}", kind="DIRECTORY"),
        Access("file-read-data", f"{layout.folder}/slot-0-1-zz/x"),
        Access("file-read-data", f"{layout.temporary}/other/x"),
        Access("file-read-data", "/Users/eve/notes"),
        Access("file-read-data", "/Volumes/Backup/x"),
        Access("file-read-data", "/private/etc/master.passwd"),
        Access("file-read-data", "/Library/Keychains/System.keychain"),
        Access("file-read-data", "/private/var/db/dslocal/nodes/Default/users/ada.plist"),
        *(Access(f"file-write-{what}", f"{layout.folder}/beside") for what in WRITES),
        *(Access("file-write-data", path) for path in (f"{home}/.zshrc", f"{layout.stdlib}/site-packages/x.pth",
          f"{layout.stdlib}/os.py", "/Library/LaunchAgents/x.plist", f"{home}/Library/LaunchAgents/x.plist",
          "/private/tmp/x", "/dev/disk0", f"{layout.box}-2/x")),
        *(Access("process-exec", path) for path in ("/bin/sh", "/usr/bin/osascript", "/usr/bin/open", layout.python,
          f"{layout.box}/made")),
        Access("signal", target="others"),
        Access("process-info-pidinfo", target="others"),
        Access("process-info-listpids", target="others"),
        *(Access("sysctl-read", name=name) for name in ("kern.procargs2.1", "kern.proc.all", "kern.proc.pid.1",
          "net.routetable.0.0.1.0")),
        Access("sysctl-write", name="kern.maxproc"),
        *(Access("network-outbound", remote=remote) for remote in ("ip:127.0.0.1:80", "ip:192.0.2.1:443",
          "unix-socket:/private/var/run/mDNSResponder", f"unix-socket:{layout.temporary}/agent.sock")),
        Access("network-bind", remote="ip:0.0.0.0:8080"),
        Access("network-inbound", remote="ip:0.0.0.0:8080"),
        Access("system-socket", domain="AF_INET"),
        *(Access("mach-lookup", name=name) for name in ("com.apple.pasteboard.1", "com.apple.securityd.xpc",
          "com.apple.coreservices.launchservicesd", "com.apple.windowserver.active")),
        Access("mach-priv-task-port", target="others"),
        Access("mach-register", name="x"),
        Access("iokit-open", name="AGXAcceleratorG15"),
        Access("iokit-open-user-client", name="IOSurfaceRootUserClient"),
        Access("appleevent-send"),
        Access("lsopen"),
        Access("job-creation"),
        Access("ipc-posix-shm-write-create", name="/x"),
        Access("ipc-posix-sem-create", name="/x"),
        Access("ipc-sysv-shm"),
        Access("user-preference-read", name="kCFPreferencesAnyApplication"),
        Access("file-mount", "/x"),
        Access("file-chroot", "/x"),
    ]  # fmt: skip


@layouts
@variants
def test_what_a_hostile_program_tries_is_denied(layout: Layout, scope: str, without: Collection[str]) -> None:
    evaluated = profile(layout, scope, without)
    assert [access for access in hostile(layout) if evaluated.allows(access)] == []


@layouts
def test_a_child_never_reaches_the_zygote_where_the_narrow_scope_holds(layout: Layout) -> None:
    assert not profile(layout, "children").allows(Access("signal", target="parent"))
    assert profile(layout, "same-sandbox").allows(Access("signal", target="parent"))  # why it is tried second


@layouts
def test_nothing_in_a_box_becomes_unremovable(layout: Layout) -> None:
    refined = profile(layout)
    for what in ("flags", "acl", "owner", "setugid"):
        assert not refined.allows(Access(f"file-write-{what}", f"{layout.box}/x"))


@pytest.mark.parametrize(
    ("rule", "of"),
    [
        ("(deny default)", "(allow default)"),
        ("(deny network*)", "(allow network*)"),
        ("(deny process-exec*)", "(allow process-exec*)"),
        ("(deny mach-lookup)", ""),
        ('file-write* (subpath (param "BOX"))', "file-write*"),
        ("(allow sysctl-read ", "(allow sysctl-read) (allow sysctl-read "),
        ("(allow signal (target self))", "(allow signal)"),
    ],
)
def test_a_profile_that_lost_a_rule_is_seen(rule: str, of: str) -> None:
    """The lists above can fail: each of these changes opens something, or is covered by the default."""
    layout = LAYOUTS[0]
    text = seatbelt.profile(layout.given())
    assert rule in text
    changed = Profile.parse(text.replace(rule, of), layout.given())
    opened = [access for access in hostile(layout) if changed.allows(access)]
    assert bool(opened) == (rule != "(deny mach-lookup)")


def test_paths_are_parameters_and_never_text() -> None:
    layout = Layout("hostile", '/x/") (allow default) ("', "/x/python")
    for text in (seatbelt.profile(layout.given()), seatbelt.outer_profile(layout.given(), "children")):
        assert "/x/" not in text
        assert "(allow default)" not in text


def test_a_prefix_of_the_system_opens_no_more_than_its_standard_library() -> None:
    given = seatbelt.paths("/private/tmp/box", ["/usr", "/"], "/usr/lib/python3.12")
    assert [path for name, path in given.items() if name.startswith("READ_")] == ["/usr/lib/python3.12"]


@layouts
def test_the_wrapper_may_start_the_interpreter_also_a_framework_one(layout: Layout) -> None:
    """`sandbox-exec` confines from the first instruction: the executable, what it re-executes, the zygote's file."""
    words = seatbelt.wrap([layout.python, "zygote.py"], layout.given(), "children")
    assert words[0] == "/usr/bin/sandbox-exec"
    assert words[-2:] == [layout.python, "zygote.py"]
    given = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "-D")
    evaluated = Profile.parse(words[2], given)
    start = [Access("process-exec", layout.python), Access("file-read-data", layout.python)]
    start += [Access("process-exec", layout.app), Access("file-read-data", layout.app)] if layout.app else []
    start += [Access("file-read-data", f"{given['HERE']}/zygote.py")]
    assert [access for access in start if not evaluated.allows(access)] == []
    secret = Access("file-read-data", f"{layout.home}/.ssh/id_ed25519")
    assert not evaluated.allows(secret)


class FakeLibrary:
    """`sandbox_init_with_parameters` as it answers: 0, or -1 with a text."""

    def __init__(self, said: bytes) -> None:
        self.said, self.calls = said, list[tuple[bytes, list[bytes]]]()
        self.sandbox_init_with_parameters = self

    def __call__(self, text: bytes, flags: int, parameters: ctypes.Array[ctypes.c_char_p], error: object) -> int:
        words = list(parameters)
        assert words.pop() is None
        self.calls.append((text, words))
        if self.said:
            error._obj.value = self.said  # type: ignore[attr-defined]
        return -1 if self.said else 0


def test_entering_hands_over_the_profile_with_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary(b"")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    seatbelt.enter("(version 1)", {"BOX": "/a b", "READ_0": "/ü"})
    assert library.calls == [(b"(version 1)", [b"BOX", b"/a b", b"READ_0", "/ü".encode()])]


def test_a_refusal_says_what_the_system_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: FakeLibrary(b"unbound variable: file-write-acl"))
    with pytest.raises(seatbelt.ProfileRefused, match="file-write-acl"):
        seatbelt.enter("(version 1)", {})


@pytest.mark.parametrize("unknown", seatbelt.OPTIONAL)
def test_a_profile_without_a_name_is_tried_when_the_name_is_unknown(
    unknown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older compiler refuses a whole profile for one name; only that name is given up."""
    entered: list[str] = []

    def enter(text: str, given: Mapping[str, str]) -> None:
        if unknown in text:
            raise seatbelt.ProfileRefused(f"unbound variable: {unknown}")
        entered.append(text)

    monkeypatch.setattr(seatbelt, "enter", enter)
    monkeypatch.setattr(seatbelt, "_entry", lambda: None)
    given = LAYOUTS[0].given()
    assert seatbelt.confine(given) == "children"
    assert entered == [seatbelt.profile(given, "children", [unknown])]


def test_when_every_profile_is_refused_the_last_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(text: str, given: Mapping[str, str]) -> None:
        raise seatbelt.ProfileRefused("Operation not permitted")

    monkeypatch.setattr(seatbelt, "enter", enter)
    monkeypatch.setattr(seatbelt, "_entry", lambda: None)
    with pytest.raises(seatbelt.ProfileRefused, match="Operation not permitted"):
        seatbelt.confine(LAYOUTS[0].given())


@pytest.mark.skipif(sys.platform == "darwin", reason="is about the other systems")
def test_another_system_has_no_entry() -> None:
    with pytest.raises(seatbelt.ProfileRefused, match="no sandbox_init_with_parameters"):
        seatbelt.confine(LAYOUTS[0].given())
