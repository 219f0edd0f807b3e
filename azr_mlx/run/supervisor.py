"""A process that starts the run and starts it again when the system ended it.

macOS aborts a process whose kernels delay the screen (SIGABRT out of the GPU driver's thread), and kills what takes
too much memory (SIGKILL). No code in the run can catch either; every step up to the newest checkpoint is safe. So
`azr train` on a Mac is two processes: this one does nothing but wait, and goes on with `--resume` after such an end.
It gives up when the run gets no further between two ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from azr_mlx.run.folder import RunFolder

VARIABLE = "AZR_RUN_FOLDER_FILE"  # names the file in which a supervised run says where its folder is
FATAL = (signal.SIGABRT, signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV, signal.SIGTRAP)
TRIES = 3  # ends in a row without a new checkpoint


def supervised() -> bool:
    """Whether this process is the run of a supervisor."""
    return bool(os.environ.get(VARIABLE))


def announce(run: Path) -> None:
    """Tell the supervisor, if there is one, where the run is."""
    where = os.environ.get(VARIABLE)
    if where:
        Path(where).write_text(str(run.resolve()), encoding="utf-8")


def supervise(
    command: Callable[[Path | None], Sequence[str]],
    newest: Callable[[Path], str],
    say: Callable[[str], None],
    *,
    scratch: Path,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command until it ends by itself; returns its exit code, or 128 and the signal's number.

    command: the words that start the run, or go on with the one in a folder. newest: name of a run's newest checkpoint,
    empty when there is none. scratch: a folder for the file through which the run says where it is.
    """
    note = scratch / "run"
    words = command(None)
    fruitless, before = 0, ""
    while True:
        code = _wait(words, {**(environment or os.environ), VARIABLE: str(note)})
        if code >= 0:
            return code
        name = _name(-code)
        if -code not in FATAL:
            return 128 - code
        run = Path(note.read_text(encoding="utf-8")) if note.is_file() else None
        at = newest(run) if run is not None else ""
        fruitless = fruitless + 1 if at == before else 0
        before = at
        if run is None or not at:
            say(f"the run was ended by {name} before its first checkpoint: {_advice(-code)}")
            return 128 - code
        if fruitless >= TRIES:
            say(f"the run was ended by {name} {TRIES} times in a row at {at}: {_advice(-code)}")
            return 128 - code
        say(f"the run was ended by {name}; going on from {at} ({_advice(-code)})")
        words = command(run)


def supervise_training(begin: Sequence[str], options: Sequence[str], say: Callable[[str], None]) -> int:
    """`azr train` in a process of its own, as often as it takes; its exit code.

    begin: the words that choose the run when it starts first. options: those that it is started with every time.
    """
    azr = [sys.executable, "-m", "azr_mlx", "train"]

    def command(run: Path | None) -> list[str]:
        return [*azr, *(begin if run is None else ["--resume", str(run)]), *options]

    def newest(run: Path) -> str:
        latest = RunFolder(run).latest()
        return latest.name if latest is not None else ""

    with tempfile.TemporaryDirectory(prefix="azr-run-") as scratch:
        return supervise(command, newest, say, scratch=Path(scratch))


def _wait(words: Sequence[str], environment: Mapping[str, str]) -> int:
    process = subprocess.Popen(words, env=dict(environment))
    with _forwarded(process):
        return process.wait()


@contextlib.contextmanager
def _forwarded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within it Ctrl-C is the run's affair alone (the terminal sends it to both), and SIGTERM is passed on."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    def leave_it(number: int, frame: FrameType | None) -> None:
        """Not SIG_IGN, which the run would inherit when it starts again."""

    before = [(signal.SIGTERM, signal.signal(signal.SIGTERM, pass_on))]
    before.append((signal.SIGINT, signal.signal(signal.SIGINT, leave_it)))
    if not sys.stdin.isatty():  # nobody's terminal sends it to the run as well
        signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _advice(number: int) -> str:
    if number == signal.SIGABRT:
        return "macOS ends long kernels while the display is on: let it sleep, or lower optim.micro_batch_tokens"
    if number == signal.SIGKILL:
        return "memory may have run out: lower sampling.max_rows, or close other programs"
    return "docs/troubleshooting.md says how to report it"
