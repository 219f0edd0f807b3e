"""What is large or odd costs only whoever sent it: every other job goes on, and every check has a verdict."""

from __future__ import annotations

import struct
import threading
from typing import Any

import pytest

from azr_mlx.executor import Executor, Job, Limits, Status, boundary, pool, values
from tests.executor.conftest import job

PRIME = (1 << 61) - 1
LARGE = "return list(range(20_000))"


def test_an_answer_that_takes_long_to_read_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on, readers = threading.Event(), threading.Event(), set()
    read_frame = boundary.read_frame

    def slow(frame: bytes, *rest: Any) -> Any:
        readers.add(threading.current_thread().name)
        if len(frame) > boundary.INLINE_BYTES:
            reading.set()
            assert go_on.wait(60)
        return read_frame(frame, *rest)

    monkeypatch.setattr(boundary, "read_frame", slow)
    with Executor(workers=2) as made:
        large = made.submit(job(LARGE))
        assert reading.wait(60)
        assert [outcome.values for outcome in made.run([job("return a + 1")] * 5)] == [(2,)] * 5
        assert not large.done()
        go_on.set()
        assert large.result(60).values == (list(range(20_000)),)
        assert readers == {"azr-executor", "azr-reader_0"}
        assert made.counters["ok"] == 6


def test_closing_waits_for_the_answer_that_is_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()
    read_frame = boundary.read_frame

    def slow(frame: bytes, *rest: Any) -> Any:
        reading.set()
        assert go_on.wait(60)
        return read_frame(frame, *rest)

    monkeypatch.setattr(boundary, "read_frame", slow)
    with Executor(workers=1) as made:
        large = made.submit(job(LARGE))
        assert reading.wait(60)
        threading.Timer(0.2, go_on.set).start()
    assert large.result(0).ok


@pytest.mark.parametrize("name", ["_read", "_finish"])
def test_a_fault_while_a_large_answer_is_read_costs_another_try(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, left = getattr(pool.Executor, name), [1]

    def broken(self: Executor, *rest: Any) -> Any:
        if left:
            left.pop()
            raise ZeroDivisionError("ours")
        return genuine(self, *rest)

    with Executor(workers=1) as made:
        monkeypatch.setattr(pool.Executor, name, broken)
        assert made.submit(job(LARGE)).result(60).values == (list(range(20_000)),)
        assert made.counters["repairs"] == 1


def forged(encoding: bytes) -> str:
    """The body of a program that sends the frame of one value with this encoding; long ones are made there."""
    return (
        "import os, struct\n"
        f"value = {encoding!r}\n"
        "body = b'o' + struct.pack('<I', len(value)) + value\n"
        "data = struct.pack('<I', len(body)) + body\n"
        "while data: data = data[os.write(3, data):]\n"
        "os._exit(0)"
    )


def colliding(count: int) -> bytes:
    pieces = [values.encode(k * PRIME) for k in range(1, count + 1)]
    return b"S" + struct.pack("<I", count) + b"".join(pieces)


@pytest.mark.parametrize(
    ("encoding", "why"),
    [
        (colliding(18_000), "one hash"),  # 256 KB: six seconds when it was built
        (b"l" + struct.pack("<I", 200_000) + b"S\0\0\0\0" * 200_000, "memory"),
        (b"l" + struct.pack("<I", 4_000_000) + b"N" * 10, "truncated"),
    ],
    ids=["colliding", "empty sets", "truncated"],
)
def test_a_forged_answer_that_would_be_dear_is_refused(executor: Executor, encoding: bytes, why: str) -> None:
    outcome = executor.submit(job(forged(encoding))).result(60)
    assert outcome.status is Status.BAD_RESULT
    assert why in outcome.detail


def test_a_check_of_large_values_has_a_verdict(executor: Executor) -> None:
    limits = Limits(10, 10, result_bytes=4 << 20)
    same = Job("def f(x): return {'a' * (2 << 20): [x]}", ("1",), limits=limits)
    outcome = executor.submit_check(same).result(60)
    assert (outcome.status, len(outcome.values)) == (Status.OK, 1)
    other = Job("def f(x): return {'a' * (2 << 20): list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})}", ("1",), limits=limits)
    assert executor.submit_check(other).result(60).status is Status.NOT_DETERMINISTIC


def test_a_check_of_the_deepest_value_has_a_verdict(executor: Executor) -> None:
    deepest = f"v = a\nfor _ in range({values.MAX_DEPTH}): v = [v]\nreturn v"
    assert executor.submit_check(job(deepest)).result(60).ok
    deeper = executor.submit_check(job(deepest.replace("return v", "return [v]")))
    assert deeper.result(60).status is Status.BAD_RESULT
