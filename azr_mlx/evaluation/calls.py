"""Calling a function of an untrusted program on many inputs, and bringing what it returned back as plain data.

One sandboxed process loads the program and calls the function on one input after the other, as EvalPlus does, so that a
thousand inputs cost one process. The process is told inputs only: what they should give stays here, and is compared
here. Whatever a program does to the few lines that call it, it can only choose which plain values to send.
"""

from __future__ import annotations

import marshal
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from azr_mlx.executor import Executor, Job, Limits, Outcome, Status

# What a call's result is turned into before it is sent, where a benchmark compares something else than the value.
VALUE, SET, PRESENCE = "value", "set", "presence"

# Wall time for each second of processor time: a program that waits for others on a busy machine is not a slow one.
PATIENCE = 6.0
_OVERHEAD = 10.0  # seconds for packing and sending what was returned
_LARGE = 1 << 17  # bytes of a packed value that is sent as its hash first: two values of one hash are the same
_ROOM = 16 << 20  # bytes of the packed values of one process together, after which the others are sent so, too
_RESULT_BYTES = 2 * _ROOM  # our own encoding of small numbers is a little longer

# Runs in the sandbox, below the program's last line. The clock is processor time, since a busy machine must fail
# nobody, and the seconds in which the call slept: it used less than 0.2 % of a processor, as in executor/watch.py.
# Values are copied at once, since a program may change later what it returned earlier.
# What it prints goes nowhere.
_LOOP = """

def __azr_calls(__data, __target, __mode, __most, __room):
    import hashlib, io, marshal, signal, sys, time

    class Late(BaseException):
        pass

    class Nowhere(io.TextIOBase):
        def write(self, text):
            return len(text)

    sys.stdout = sys.stderr = Nowhere()

    asleep = [0.0, 0.0, 0.0]  # seconds of this call, clock and processor time of the last count

    def late(*_):
        raise Late

    def tick(*_):
        now, cpu = time.monotonic(), time.process_time()
        if cpu - asleep[2] < 0.002 * (now - asleep[1]):
            asleep[0] += now - asleep[1]
        asleep[1:] = now, cpu
        if asleep[0] + cpu - began >= seconds:
            raise Late

    def plain(value, depth=60):
        kind = type(value)
        if value is None or kind in (bool, int, float, complex, str, bytes):
            return value
        if not depth:
            raise TypeError("nested too deep")
        for base in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset):
            if isinstance(value, base) and kind.__eq__ is base.__eq__:
                if base is dict:
                    return {plain(k, depth - 1): plain(v, depth - 1) for k, v in dict.items(value)}
                if base in (list, tuple, set, frozenset):
                    return base(plain(item, depth - 1) for item in base.__iter__(value))
                return base(value)
        names = {one.__name__ for one in kind.__mro__}
        module = kind.__module__
        if (kind.__name__, module) in (("Counter", "collections"), ("OrderedDict", "collections")):
            return {plain(k, depth - 1): plain(v, depth - 1) for k, v in dict.items(value)}
        if (kind.__name__, module) in (("Fraction", "fractions"), ("Decimal", "decimal")):
            return int(value) if value == int(value) else float(value) if value == float(value) else str(value)
        if kind is bytearray:
            return bytes(value)
        raise TypeError("the result is no plain data but " + kind.__name__)

    target = eval(__target, globals())
    signal.signal(signal.SIGPROF, late)
    signal.signal(signal.SIGALRM, tick)
    results = []
    for arguments, seconds in marshal.loads(__data):
        began = time.process_time()
        try:
            try:
                asleep[:] = 0.0, time.monotonic(), began
                signal.setitimer(signal.ITIMER_PROF, seconds)
                signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
                value = target(*arguments)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
            spent = time.process_time() - began
            if __mode == "set":
                value = set(value)
            elif __mode == "presence":
                value = value if isinstance(value, bool) else value is not None
            try:
                packed = marshal.dumps(value, 2)
            except ValueError:
                value = plain(value)
                packed = marshal.dumps(value, 2)
            __room -= len(packed)
            if __most and (len(packed) > __most or __room < 0):
                results.append(("large", hashlib.sha256(packed).hexdigest(), spent))
                continue
            value = marshal.loads(packed)
        except Late:
            results.append(("late", "", time.process_time() - began))
            break
        except BaseException as error:
            results.append(("error", (type(error).__name__ + ": " + str(error))[:200], time.process_time() - began))
            break
        results.append(("ok", value, spent))
    return results
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What one call came to: `why` is "ok", "large", "late" (over its time limit) or "error".

    `value` is what was returned; of a large value `detail` is a hash, of an error its message.
    """

    why: str
    value: Any = None
    detail: str = ""
    seconds: float = 0.0  # of processor time


@dataclass(frozen=True, slots=True)
class Calls:
    """The results of the calls in order, up to and with the first that failed; `trouble` when the process itself did.

    `harness` says that the trouble is the sandbox's own, not the program's.
    """

    results: tuple[Result, ...]
    trouble: str = ""
    harness: bool = False


def call_all(
    executor: Executor,
    program: str,
    target: str,
    inputs: Sequence[Sequence[Any]],
    seconds: Sequence[float],
    *,
    mode: str = VALUE,
    whole: bool = False,
    total_seconds: float = 60.0,
    memory_mb: int = 1024,
) -> Calls:
    """Call `target`, an expression such as "f" or "Solution().f", on each argument list, stopping at the first failure.

    seconds: processor time allowed to each call; total_seconds: to all together. Inputs and results are plain data.
    whole: send large values, too; beyond 32 MB of them together there is a `trouble`. Blocks until the process has
    ended.
    """
    total = min(total_seconds, sum(seconds)) + 1.0
    data = marshal.dumps([(list(arguments), limit) for arguments, limit in zip(inputs, seconds, strict=True)])
    limits = Limits(
        wall_seconds=PATIENCE * (total + _OVERHEAD),
        cpu_seconds=total + _OVERHEAD,
        memory_mb=memory_mb,
        output_bytes=16 << 20,
        result_bytes=_RESULT_BYTES,
    )
    given = f"{data!r}, {target!r}, {mode!r}, {0 if whole else _LARGE}, {_ROOM}"
    job = Job(program + _LOOP, (given,), "__azr_calls", limits)
    return read(executor.submit(job).result(), len(inputs))


def read(outcome: Outcome, count: int) -> Calls:
    """What the outcome of `count` calls says. Raises nothing, whatever the program made of the lines that call it."""
    if outcome.status is Status.SANDBOX_ERROR:
        return Calls((), outcome.detail or "sandbox error", harness=True)
    if not outcome.ok:
        return Calls((), f"{outcome.status}: {outcome.detail}" if outcome.detail else str(outcome.status))
    results: list[Result] = []
    # The list is the program's word for it: its shape is looked at before it is believed.
    rows = outcome.values[0] if len(outcome.values) == 1 else None
    if not isinstance(rows, list) or len(rows) > count:
        return Calls((), "bad-result: not what the calls report")
    for row in rows:
        if not (isinstance(row, tuple) and len(row) == 3 and isinstance(row[2], float) and math.isfinite(row[2])):
            return Calls((), "bad-result: not what the calls report")
        why, value, seconds = row
        if why == "ok":
            results.append(Result("ok", value, "", seconds))
        else:
            said = value[:200] if type(value) is str else ""
            results.append(Result(why if why in ("late", "large") else "error", None, said, seconds))
    return Calls(tuple(results))
