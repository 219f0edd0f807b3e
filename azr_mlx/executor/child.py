"""What happens inside the child, between its confinement and its end: one job, one frame, nothing else.

The child is told a program and its inputs, never the expected outputs. It answers with one frame on the result
pipe: a length, a letter for the status, and a text or encoded values. Whatever the program does to this interpreter,
all it can do is to choose that frame, which is no more than its own return value could say.

The code is plain and flat on purpose: each page of memory that a forked child touches for the first time is a page
fault, and those are most of what running a small program costs.
"""

from __future__ import annotations

import _ast
import builtins
import gc
import marshal
import os
import resource
import sys
import types
from collections.abc import Sequence
from typing import Any

from azr_mlx.executor import checks, remote
from azr_mlx.executor.values import EncodeError, encode
from azr_mlx.executor.wire import (
    HEADER,
    RESULT_BAD,
    RESULT_EXCEPTION,
    RESULT_EXITED,
    RESULT_FAILED,
    RESULT_FD,
    RESULT_FORBIDDEN,
    RESULT_MEMORY,
    RESULT_OK,
)

_DETAIL_CHARS = 400
_write = os.write
_AssertionError = AssertionError  # the name in builtins is the program's to change


def _flush() -> None:
    streams: list[Any] = [sys.__stdout__, sys.__stderr__]
    if sys.stdout is not streams[0] or sys.stderr is not streams[1]:
        streams += [sys.stdout, sys.stderr]
    for stream in streams:
        try:  # noqa: SIM105  contextlib would cost every child some page faults
            stream.flush()
        except BaseException:
            pass


def send(status: int, body: bytes) -> None:
    """Write the one frame of this child."""
    data = HEADER.pack(len(body) + 1) + bytes((status,)) + body
    sent = _write(RESULT_FD, data)
    while sent < len(data):
        sent += _write(RESULT_FD, data[sent : sent + 65536])


def say(status: int, text: str) -> None:
    """Send a status without values."""
    send(status, text[:_DETAIL_CHARS].encode("utf-8", "backslashreplace"))


def send_values(encoded: list[bytes], token: bytes = b"") -> None:
    """Send an ok: the token of a test job, then each value with its length."""
    parts = [token]
    for item in encoded:
        parts.append(HEADER.pack(len(item)))
        parts.append(item)
    send(RESULT_OK, b"".join(parts))


def describe(error: BaseException) -> str:
    """`Type: message` of an exception of the program, bounded, whatever its __str__ does."""
    try:
        name = str(type.__dict__["__name__"].__get__(type(error)))
    except BaseException:
        name = "exception"
    try:
        text = str(error)
        if type(text) is not str:
            text = ""
    except BaseException:
        text = ""
    line = ""
    try:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<program>":
                line = f" (line {trace.tb_lineno})"
            trace = trace.tb_next
    except BaseException:
        pass
    return f"{name}: {text[: _DETAIL_CHARS - 100]}{line}" if text else f"{name}{line}"


def report(error: BaseException, where: str = "") -> None:
    """Send the frame that an exception of the program deserves."""
    letter, text = classify(error)
    say(letter, where + text)


def classify(error: BaseException) -> tuple[int, str]:
    """The letter and the text of the frame that an exception of the program deserves."""
    if isinstance(error, MemoryError):
        return RESULT_MEMORY, "MemoryError"
    if isinstance(error, SystemError) and _memory_is_short():
        return RESULT_MEMORY, "SystemError"
    if isinstance(error, SystemExit):
        return RESULT_EXITED, f"SystemExit({_code(error)})"
    if isinstance(error, OSError) and error.errno in (1, 13, 30):  # EPERM, EACCES, EROFS: a layer said no
        return RESULT_FORBIDDEN, describe(error)
    return RESULT_EXCEPTION, describe(error)


def _memory_is_short() -> bool:
    """Where memory has run out, the interpreter may lose the MemoryError and raise SystemError for having none."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return limit > 0 and peak > limit * 3 // 4


def _code(error: SystemExit) -> str:
    try:
        return str(error.code)[:50]
    except BaseException:
        return "?"


def fresh_module(name: str) -> dict[str, Any]:
    """The namespace of a new module. It is registered, since dataclasses and pickle look their module up by name."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    module.__dict__["__builtins__"] = builtins
    return module.__dict__


def call_expression(function: str, text: str) -> types.CodeType:
    """Code for `function(text)`. Raises SyntaxError unless that is exactly one call of a plain name."""
    if ")" not in text:  # then it cannot close the call's own bracket, and the tree need not be looked at
        return compile(f"{function}({text}\n)", "<input>", "eval", dont_inherit=True)
    tree: Any = compile(f"_({text}\n)", "<input>", "eval", _ast.PyCF_ONLY_AST, True)
    call = tree.body
    if not (isinstance(call, _ast.Call) and isinstance(call.func, _ast.Name) and call.func.id == "_"):
        raise SyntaxError("not the arguments of one call")
    call.func.id = function
    return compile(tree, "<input>", "eval")


def run_function(program: str, inputs: tuple[str, ...], function: str, reverse: bool, max_bytes: int) -> None:
    """Call `function` once for each input, each time in a fresh execution of the program; send the values."""
    code = compile(program, "<program>", "exec", 0, True)
    count = len(inputs)
    encoded: list[bytes] = [b""] * count
    left = max_bytes
    where = ""
    for index in reversed(range(count)) if reverse else range(count):
        if count > 1:
            where = f"input {index + 1}: "
        try:
            expression = call_expression(function, inputs[index])
        except SyntaxError as error:
            say(RESULT_EXCEPTION, f"{where}bad arguments: {error.msg}")
            return
        try:
            namespace = fresh_module("program")
            exec(code, namespace)
            if function not in namespace:
                say(RESULT_EXCEPTION, f"no function {function}")
                return
            value = eval(expression, namespace)
            encoded[index] = encode(value, left)
        except EncodeError as error:
            say(RESULT_BAD, where + str(error))
            return
        except BaseException as error:
            report(error, where)
            return
        left -= len(encoded[index])
    _flush()
    send_values(encoded)


def run_script(program: str, stdin: str) -> None:
    """Run the program as `__main__` with `stdin` as its standard input. Leaving by exit(0) is an ordinary end."""
    handle = os.open("stdin", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink("stdin")
    data = memoryview(stdin.encode("utf-8", "surrogatepass"))
    while data:
        data = data[os.write(handle, data) :]
    os.lseek(handle, 0, os.SEEK_SET)
    os.dup2(handle, 0)
    os.close(handle)
    reader = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115  open for good
    sys.stdin = sys.__stdin__ = reader  # type: ignore[misc]
    code = compile(program, "<program>", "exec", dont_inherit=True)
    namespace = fresh_module("__main__")
    try:
        exec(code, namespace)
    except SystemExit as error:
        if error.code not in (None, 0):
            _flush()
            report(error)
            return
    except BaseException as error:
        _flush()
        report(error)
        return
    _flush()
    send_values([])


def run_test(program: str, test: str, token: bytes, caller: checks.Caller) -> None:
    """Run the program, then the test; what the test said is described in checks.py."""
    word, error = checks.run(program, test, token, fresh_module, caller)
    if error is None:
        _flush()
        send_values([], bytes.fromhex(word))
    elif word == "test" and isinstance(error, _AssertionError):
        _flush()
        say(RESULT_FAILED, f"{_failed_line(test.splitlines(), error)}{describe(error)}")
    else:
        report(error, f"{word}: ")


def run_calls(program: str, calls: Any, names: Any, going_on: bool, track: bool, max_bytes: int) -> None:
    """The candidate's half of a test in two processes: load the program once, make the calls, send the answers."""
    try:
        namespace = fresh_module("program")
        exec(compile(program, "<program>", "exec", 0, True), namespace)
    except BaseException as error:
        report(error, "program: ")
        return
    encoded = remote.answer(namespace, calls, names, going_on, track, classify, max_bytes - 1024)
    _flush()
    send_values([encoded])


def run_half(
    test: Any, helpers: Any, names: Any, seeded: bool, calls: Any, answers: Any, lines: tuple[str, ...]
) -> None:
    """The test's half: no line of the program is in this process."""
    word, body, error = remote.play(test, helpers, names, seeded, calls, answers, fresh_module("test"))
    _flush()
    if error is None:
        send_values([encode((word, body), 1 << 24)])
    elif isinstance(error, AssertionError):
        say(RESULT_FAILED, f"{_failed_line(lines, error)}{describe(error)}")
    else:
        letter, text = getattr(error, "_azr_verdict", None) or classify(error)
        say(letter, f"test: {text}")


def _failed_line(lines: Sequence[str], error: BaseException) -> str:
    """The line of the test that failed, for the reader."""
    number = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<test>":
            number = trace.tb_lineno
        trace = trace.tb_next
    return f"line {number}: {lines[number - 1].strip()[:200]}: " if 0 < number <= len(lines) else ""


Prepared = tuple[str, str, tuple[Any, ...], int, Any]


def prepare(job: bytes) -> Prepared:
    """Everything of a job that can fail through no fault of the program's. Raises then, and nothing is blamed on it."""
    # marshal, not pickle, and in this direction only: the trainer wrote it, the same interpreter reads it.
    mode, program, rest, max_bytes = marshal.loads(job)
    return mode, program, rest, max_bytes, checks.Caller() if mode == "test" else None


def work(run: Prepared) -> None:
    """Run one job of the trainer's. Returns normally whatever the program did, unless it ended the process."""
    mode, program, rest, max_bytes, caller = run
    del run
    gc.enable()
    try:
        if mode == "function":
            inputs, function, reverse = rest
            run_function(program, inputs, function, reverse, max_bytes)
        elif mode == "script":
            run_script(program, *rest)
        elif mode == "calls":
            calls, names, going_on, track = rest
            run_calls(program, calls, names, going_on, track, max_bytes)
        elif mode == "half":
            run_half(*rest)
        else:
            test, token = rest
            del rest
            run_test(program, test, token, caller)
    except BaseException as error:  # compile() raises SyntaxError, ValueError, MemoryError, RecursionError, ...
        report(error)
