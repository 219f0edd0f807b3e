"""What can be asked of the executor, and what it answers: plain frozen data, without the machinery that runs it."""

from __future__ import annotations

import enum
import types
from dataclasses import dataclass
from typing import Any


class Status(enum.StrEnum):
    """How a program ended. Only OK carries values; SANDBOX_ERROR alone says nothing about the program."""

    OK = "ok"
    EXCEPTION = "exception"  # an exception left the program; detail is "Type: message (line n)"
    TIMEOUT = "timeout"  # detail is "wall" or "cpu"
    MEMORY = "memory"  # over its memory limit
    OUTPUT_LIMIT = "output-limit"  # wrote more to stdout or stderr than allowed
    KILLED = "killed"  # by a signal that the executor did not send; detail is its name
    EXITED_EARLY = "exited-early"  # ended its process or raised SystemExit before the result was there
    FORBIDDEN = "forbidden"  # did what the confinement denies, and did not survive the refusal
    BAD_RESULT = "bad-result"  # returned what is not plain data, or is too large or too deep
    NOT_DETERMINISTIC = "not-deterministic"  # two runs differed
    FAILED = "failed"  # a test's assertion did not hold (test jobs only)
    SANDBOX_ERROR = "sandbox-error"  # the harness failed, repeatedly; judge nothing by it


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use. Exceeding a limit ends the program and is told by its status.

    A program that sleeps spends its `cpu_seconds`, too, counted in whole seconds: a `wall_seconds` above them is for
    programs that wait for a processor on a busy machine.
    """

    wall_seconds: float = 5.0
    cpu_seconds: float = 5.0
    memory_mb: int = 512  # beyond what the bare interpreter maps
    output_bytes: int = 1 << 20  # of stdout and of stderr, each
    result_bytes: int = 1 << 20  # of the encoded values

    def __post_init__(self) -> None:
        if not (0 < self.wall_seconds < 86400 and 0 < self.cpu_seconds < 86400):
            raise ValueError("wall_seconds and cpu_seconds must be above 0 and below one day")
        if self.memory_mb < 1 or self.output_bytes < 1 or self.result_bytes < 16:
            raise ValueError("memory_mb, output_bytes and result_bytes must be positive")


@dataclass(frozen=True, slots=True)
class Job:
    """Call `function` of `program` once for each input, each time in a fresh execution of the program.

    An input is the text of exactly one call's arguments ("1, x=[2]"); it is evaluated in the program's namespace,
    inside the sandbox.
    """

    program: str
    inputs: tuple[str, ...]
    function: str = "f"
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class TestJob:
    """Does `program` pass `test`? `entry_point` is passed to the test's `check`, if given.

    Program and test run in two processes, and the outcome's `mode` is "two-process": what the test takes from the
    program are functions, which it calls with plain data. A test that needs more (it passes functions or objects of
    the program's, or inspects it) runs below the program in one process; the outcome's mode is then "in-process", and
    a program that means to can pass it without being right: never pay for such a pass.

    helpers: the task's own code (the stub of a prompt) of which the test may use names; they are not taken from the
    program. functions: names that are the program's even though helpers or Python's built-ins have them too.
    in_process: do not try two processes.
    """

    __test__ = False  # not a test of pytest
    program: str
    test: str
    entry_point: str = ""
    limits: Limits | None = None
    helpers: str = ""
    functions: tuple[str, ...] = ()
    in_process: bool = False


@dataclass(frozen=True, slots=True)
class CallsJob:
    """The candidate's half of a TestJob: load `program`, make `calls`. One value, as remote.answer describes it."""

    program: str
    calls: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...]
    names: tuple[str, ...] = ()  # of the program, about which the test has to know what they are
    going_on: bool = False  # after a call that raised
    track: bool = True  # send back arguments that a call changed
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class HalfJob:
    """The test's half of a TestJob: run a compiled test on the answers so far. One value, as remote.play describes."""

    test: types.CodeType
    helpers: types.CodeType | None
    names: dict[str, tuple[Any, ...]]
    seeded: bool
    calls: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...]
    answers: tuple[Any, ...]
    lines: tuple[str, ...]  # of the test's text
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class StdinJob:
    """Run `program` as a script that reads `stdin`; the outcome's `stdout` is its answer."""

    program: str
    stdin: str = ""
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job. Text in `detail`, `stdout` and `stderr` is the program's: escape it before a terminal."""

    status: Status
    values: tuple[object, ...] = ()
    detail: str = ""
    stdout: str = ""
    stderr: str = ""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0  # bytes resident, the interpreter's own included
    mode: str = ""  # of a TestJob: "two-process", or "in-process" where nothing is proved

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    @property
    def value(self) -> object:
        """The value of a job with one input. Raises IndexError when there is none."""
        return self.values[0]
