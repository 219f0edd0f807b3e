"""Confinement on macOS: the zygote enters Seatbelt itself, once it has imported and opened what it needs.

The order is Chromium's: what a process does before it enters needs no rule, so the profile holds only what a child
does afterwards, and neither a framework build that re-executes itself nor the loader of libraries is a question of the
profile. Children inherit it. Where `sandbox_init_with_parameters` is missing, `wrap` starts the interpreter inside
`sandbox-exec`, with a wider profile.

Written from published profiles (Chromium, Codex CLI, Claude Code's sandbox runtime, Bazel, Nix) and Apple's headers;
tested by an evaluator of the profile language and by CI on Macs. Facts that shape it:

- A profile cannot be tightened later: what the zygote may do (fork) its children may too. RLIMIT_NPROC 0 denies it to
  them, because XNU's fork compares the user's processes with the limit of the parent (root is exempt).
- A process that is in a sandbox already (an IDE's, an agent's) cannot enter another.
- `sysctl-read` without names would show arguments and environment of the user's other processes (KERN_PROCARGS2).

Imports the standard library only: the zygote loads it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Collection, Iterable, Mapping

SANDBOX_EXEC = "/usr/bin/sandbox-exec"  # by its full path: a PATH can be changed, this file cannot
_PATIENCE = 10.0  # seconds that a rehearsal may take
_LIBRARY = "/usr/lib/libsandbox.1.dylib"

# What `os.uname`, `os.cpu_count`, `os.sysconf` and the allocator ask. No kern.proc, no kern.procargs2.
SYSCTLS = """
hw.activecpu hw.byteorder hw.logicalcpu hw.logicalcpu_max hw.machine hw.memsize hw.ncpu hw.pagesize hw.pagesize_compat
hw.physicalcpu hw.physicalcpu_max kern.hostname kern.maxfilesperproc kern.osproductversion kern.osrelease kern.ostype
kern.osversion kern.usrstack64 kern.version sysctl.proc_cputype
""".split()  # noqa: SIM905

# Nothing of the user's: the sealed system volume, and what package managers install for everybody.
LIBRARIES = """
/usr/lib /System/Library /System/Cryptexes /System/Volumes/Preboot/Cryptexes /usr/share/zoneinfo.default
/private/var/db/timezone /opt/homebrew/opt /opt/homebrew/Cellar /usr/local/opt /usr/local/Cellar /opt/local/lib
/nix/store
""".split()  # noqa: SIM905
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
# On the way to files that may be read: links and mount points that resolving a path looks at.
_WAY = ("/", "/dev", "/var", "/tmp", "/etc", "/private", "/private/var", "/usr", "/usr/share", "/usr/share/zoneinfo")

# Names that some version's compiler may not know: then it refuses the whole profile, which is tried without that name.
OPTIONAL = (
    "file-map-executable",  # newer systems ask for it beside reading
    "file-write-flags", "file-write-acl", "file-write-owner", "file-write-setugid",
    "system-socket",
)  # fmt: skip
SCOPES = ("children", "same-sandbox")  # whom the zygote may signal and measure; tried in this order


def paths(box: str, prefixes: Iterable[str], stdlib: str) -> dict[str, str]:
    """The parameters of the profile: real paths, since Seatbelt sees /private/tmp where a program says /tmp.

    `prefixes` are the interpreter's base prefixes, `stdlib` the folder of its standard library. Paths go in as
    parameters, never as text, which a path could break out of.
    """
    box = os.path.realpath(box)
    read = [stdlib, *(os.path.join(prefix, "lib") for prefix in prefixes)]
    read = list(dict.fromkeys(os.path.realpath(path) for path in read))
    # A prefix of / or /usr would open the whole system for the sake of one interpreter.
    read = [path for path in read if path not in ("/", "/lib", "/usr", "/usr/lib")]
    given = {"BOX": box} | {f"READ_{number}": path for number, path in enumerate(read)}
    above: list[str] = []
    for path in (box, *read):
        while (path := os.path.dirname(path)) != "/":
            above.append(path)
    return given | {f"ABOVE_{number}": path for number, path in enumerate(dict.fromkeys(above))}


def profile(given: Mapping[str, str], scope: str = SCOPES[0], without: Collection[str] = ()) -> str:
    """The profile that a zygote enters. Of the rules that match an operation the last one decides.

    `without` are those of OPTIONAL to leave out.
    """

    def parameters(start: str, rule: str) -> str:
        return " ".join(f'({rule} (param "{name}"))' for name in given if name.startswith(start))

    def each(rule: str, words: Iterable[str]) -> str:
        return " ".join(f'({rule} "{word}")' for word in words)

    reading = "file-read*" if "file-map-executable" in without else "file-read* file-map-executable"
    # Nothing in the box may become unremovable, or another user's.
    locks = [name for name in OPTIONAL if name.startswith("file-write-") and name not in without]
    lines = [
        "(version 1)",
        "(deny default)",
        "(allow process-fork)",
        "(allow process-info* (target self))",
        f"(allow process-info* (target {scope}))",
        "(allow signal (target self))",
        f"(allow signal (target {scope}))",
        f"(allow sysctl-read {each('sysctl-name', SYSCTLS)})",
        f"(allow file-read-metadata {each('literal', _WAY)} {parameters('ABOVE_', 'literal')})",
        f"(allow {reading} {each('subpath', LIBRARIES)})",
        f"(allow {reading} {parameters('READ_', 'subpath')})",
        f"(allow file-read* {each('literal', DEVICES)})",
        '(allow file-write-data (literal "/dev/null"))',
        '(allow file-read* file-write* (subpath (param "BOX")))',
    ]
    if locks:
        lines.append(f"(deny {' '.join(locks)})")
    if "system-socket" not in without:
        lines.append("(allow system-socket (socket-domain AF_UNIX))")  # pairs, for asyncio; connecting stays denied
    lines += [
        "(deny network*)",
        "(deny mach-lookup)",
        "(deny iokit-open)",
        "(deny process-exec*)",
    ]
    return "\n".join(lines) + "\n"


def outer_profile(given: Mapping[str, str], scope: str) -> str:
    """The profile of `wrap`: also what starting the interpreter and the zygote takes.

    Under it the keeper is confined too, so that the boxes of a trainer that was killed stay behind.
    """
    return (
        profile(given, scope, OPTIONAL)
        + '(allow process-exec* (literal (param "PYTHON")) (subpath (param "APP")))\n'
        + '(allow file-read* (literal (param "PYTHON")) (subpath (param "APP")) (subpath (param "HERE"))\n'
        + '  (literal (param "LIBRARY")) (literal "/") (literal "/dev/dtracehelper")\n'
        + '  (subpath "/private/var/db/dyld"))\n'
        + "(allow file-read-metadata)\n"
    )


class ProfileRefused(OSError):
    """This system does not let the process into the sandbox."""


def _entry() -> object:
    """The C function. Raises ProfileRefused where there is none."""
    for name in (None, _LIBRARY):
        try:
            return ctypes.CDLL(name, use_errno=True).sandbox_init_with_parameters
        except (OSError, AttributeError):
            continue
    raise ProfileRefused("this system has no sandbox_init_with_parameters")


def enter(text: str, given: Mapping[str, str]) -> None:
    """Confine this process and all that it forks, for ever. Raises ProfileRefused with what the system says."""
    function: ctypes._NamedFuncPointer = _entry()  # type: ignore[assignment]
    function.argtypes = [
        ctypes.c_char_p,
        ctypes.c_uint64,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_char_p),
    ]
    function.restype = ctypes.c_int
    words = [os.fsencode(word) for pair in given.items() for word in pair]
    parameters = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    said = ctypes.c_char_p()
    if function(text.encode(), 0, parameters, ctypes.byref(said)) != 0:
        reason = (said.value or b"").decode("utf-8", "replace").strip()
        raise ProfileRefused(reason or os.strerror(ctypes.get_errno()))


def confine(given: Mapping[str, str]) -> str:
    """Enter the narrowest profile that this system accepts and under which a parent can still end its child.

    Returns the scope it has. Raises ProfileRefused. Each candidate is first entered by a forked copy, because there is
    no way back out of one.
    """
    _entry()
    without: set[str] = set()
    trouble = "no profile was accepted"
    for scope in SCOPES:
        for _ in range(1 + len(OPTIONAL)):
            text = profile(given, scope, without)
            trouble = _rehearse(text, given)
            if not trouble:
                enter(text, given)
                return scope
            unknown = {name for name in OPTIONAL if name in trouble} - without
            if not unknown:
                break
            without |= unknown
    raise ProfileRefused(trouble)


def can_enter() -> bool:
    """Whether this system has the function at all, not whether it lets this process in."""
    try:
        _entry()
    except ProfileRefused:
        return False
    return True


def _rehearse(text: str, given: Mapping[str, str]) -> str:
    """Let a copy of this process enter, fork, and kill what it forked. Nothing when all of that went well."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            signal.alarm(2 * int(_PATIENCE))  # should nobody be left to end it
            enter(text, given)
            child = os.fork()
            if not child:
                os.close(writing)
                time.sleep(5)  # if it cannot be killed it ends by itself
                os._exit(0)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.write(writing, b".")
        except BaseException as error:
            os.write(writing, (str(error) or repr(error)).encode("utf-8", "replace")[:1000])
        finally:
            os._exit(0)
    os.close(writing)
    said, end = b"", time.monotonic() + _PATIENCE
    while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(reading, 1024)
        if not piece:
            break
        said += piece
    else:
        said = b"the sandbox does not answer"
        os.kill(pid, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if said == b".":
        return ""
    return said.decode("utf-8", "replace") or f"the sandbox ended the process (wait status {status})"


def wrap(command: list[str], given: Mapping[str, str], scope: str) -> list[str]:
    """The command that runs `command` (an interpreter and a script) inside `sandbox-exec`."""
    python = os.path.realpath(command[0])
    version = os.path.dirname(os.path.dirname(python))
    more = dict(given) | {
        "PYTHON": python,
        # A framework build re-executes the program inside its Python.app.
        "APP": os.path.join(version, "Resources", "Python.app"),
        "LIBRARY": os.path.join(version, "Python"),
        "HERE": os.path.realpath(os.path.dirname(__file__)),
    }
    words = [SANDBOX_EXEC, "-p", outer_profile(given, scope)]
    for name, path in more.items():
        words += ["-D", f"{name}={path}"]
    return [*words, python, *command[1:]]
