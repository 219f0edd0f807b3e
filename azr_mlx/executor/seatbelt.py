"""Confinement on macOS: a Seatbelt profile for `sandbox-exec`, which wraps each slot's interpreter.

Written from the profiles that other projects ship and from Apple's own; none of it could be run where this was
written. Two facts shape it: a profile cannot be tightened later, so what the zygote may do (fork), its children may
too, and RLIMIT_NPROC is what keeps them from it; and a process that is in a sandbox already (an IDE's, an agent's)
cannot enter another, so that a probe decides and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys

SANDBOX_EXEC = "/usr/bin/sandbox-exec"  # by its full path: a PATH can be changed, this file cannot

# The last rule that matches wins. Paths come in as parameters, never as text, which a path could break out of.
_PROFILE = """(version 1)
(deny default)
(allow process-fork)
(allow process-exec (literal (param "PYTHON")))
(allow process-info* (target self))
(allow process-info* (target {scope}))
(allow signal (target self))
(allow signal (target {scope}))
(allow sysctl-read)
(allow file-read*)
(deny file-read* (subpath "/Users") (subpath "/Volumes") (subpath "/private/var/root") (subpath "/private/var/folders")
    (subpath "/private/tmp") (subpath "/Library/Keychains") (subpath "/private/var/db") (subpath (param "HOME")))
(allow file-read-metadata)
(allow file-read* (subpath (param "PREFIX")) (subpath (param "EXEC_PREFIX")) (subpath (param "HERE"))
    (literal (param "PYTHON")) (subpath (param "BOX"))
    (subpath "/private/var/db/dyld") (subpath "/private/var/db/timezone"))
(deny file-write*)
(allow file-write* (subpath (param "BOX")) (literal "/dev/null"))
(deny network*)
(deny mach-lookup)
(deny iokit-open)
"""


def profile(scope: str = "children") -> str:
    """The profile; `scope` is whom the zygote may signal and watch: its children, or everyone in the same sandbox."""
    return _PROFILE.format(scope=scope)


def wrap(command: list[str], box: str, scope: str) -> list[str]:
    """The command that runs `command` (whose first word is the interpreter) inside the sandbox."""
    here = os.path.dirname(os.path.abspath(__file__))
    parameters = {
        "PYTHON": command[0],
        "PREFIX": sys.base_prefix,
        "EXEC_PREFIX": sys.base_exec_prefix,
        "HERE": here,
        "HOME": os.path.expanduser("~"),
        "BOX": box,
    }
    words = [SANDBOX_EXEC, "-p", profile(scope)]
    for name, path in parameters.items():
        # Seatbelt sees real paths: /tmp is /private/tmp, /var is /private/var.
        words += ["-D", f"{name}={os.path.realpath(path)}"]
    return words + command


def probe() -> tuple[str, str]:
    """(scope, "") when a sandbox can be entered here, else ("", why not)."""
    if sys.platform != "darwin":
        return "", "not macOS"
    if not os.access(SANDBOX_EXEC, os.X_OK):
        return "", f"{SANDBOX_EXEC} is not there"
    true = "/usr/bin/true"
    try:
        plain = subprocess.run(
            [SANDBOX_EXEC, "-p", "(version 1)(allow default)", true], capture_output=True, timeout=10, check=False
        )
        if plain.returncode != 0:
            return "", "sandbox-exec is refused: already inside a sandbox (an IDE's or an agent's), or not available"
        for scope in ("children", "same-sandbox"):
            words = wrap([true], "/private/tmp", scope)
            if subprocess.run(words, capture_output=True, timeout=10, check=False).returncode == 0:
                return scope, ""
    except (OSError, subprocess.SubprocessError) as error:
        return "", f"sandbox-exec does not run: {error}"
    return "", "this macOS does not accept the sandbox profile"
