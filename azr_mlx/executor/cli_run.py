"""What `azr run FILE` and the sandbox part of `azr doctor` print. The verbs themselves are wired in cli.py."""

# ruff: noqa: T201  printing is what this module is for
from __future__ import annotations

import dataclasses
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

from azr_mlx.executor import boundary
from azr_mlx.executor.jobs import Job, Limits, Outcome, Status, StdinJob
from azr_mlx.executor.layers import LayerReport, SandboxUnavailable
from azr_mlx.executor.literals import LiteralError, check_arguments
from azr_mlx.executor.pool import Executor, find_layers

_PURPOSE = {
    "namespaces": "no network, own process numbers, no shared memory with others",
    "root": "a file system of its own: Python and libraries, read-only, and an empty /box",
    "uid": "programs run as a user that owns nothing, not as root",
    "capabilities": "no privileges, none to be gained",
    "landlock": "files and TCP denied once more, by the kernel's access rules",
    "seccomp": "no new processes, other programs, sockets, tracing or exotic system calls",
    "footprint": "memory of programs is watched (macOS has no limit that holds)",
    "seatbelt": "macOS sandbox: no network, no other programs, no reading at home, no writing elsewhere",
}


_JSON_CHARS = 16 << 20  # of one value: more than the default limit of a result can hold
_MAX_INPUT_CHARS = 1 << 20  # the user's own argument text, which is no model's


def printable(text: str) -> str:
    """Text of a program, safe for a terminal: every control and bidirectional character becomes its escape."""
    return "".join(
        mark
        if mark in "\n\t" or unicodedata.category(mark)[0] != "C"
        else mark.encode("unicode_escape", "surrogatepass").decode()
        for mark in text
    )


def outcome_record(outcome: Outcome, layers: LayerReport) -> dict[str, Any]:
    """The verdict of one program as plain JSON data.

    Values are given as their `repr`, since JSON has few types; integers of more digits than `repr` writes are in
    hexadecimal.
    """
    return {
        "status": outcome.status.value,
        "detail": printable(outcome.detail),
        "values": [boundary.shown(value, _JSON_CHARS) for value in outcome.values],
        "stdout": outcome.stdout,
        "stderr": outcome.stderr,
        "wall_seconds": round(outcome.wall_seconds, 6),
        "cpu_seconds": round(outcome.cpu_seconds, 6),
        "peak_memory_bytes": outcome.peak_memory,
        "level": layers.level,
        "layers": list(layers.active),
        "missing_layers": layers.missing,
    }


def run_file(
    path: str,
    input_text: str | None = None,
    as_json: bool = False,
    level: str = "standard",
    limits: Limits | None = None,
    function: str = "f",
    stdin_text: str = "",
) -> int:
    """Run one program in the sandbox and print its verdict, time, memory and the active layers.

    With `input_text` (argument text, "1, [2]") the program's function is called with it, twice, and must agree with
    itself; without, the program runs as a script. Returns the exit code: 0 ok, 1 any other verdict, 2 bad use.
    """
    try:
        source = Path(path).read_bytes().decode("utf-8", "surrogateescape")
        if input_text is not None:
            check_arguments(input_text, _MAX_INPUT_CHARS)
    except OSError as error:
        print(f"azr run: cannot read {path}: {error.strerror}", file=sys.stderr)
        return 2
    except LiteralError as error:
        print(
            f"azr run: --input is {error}; give the arguments of one call, for example --input '1, [2]'",
            file=sys.stderr,
        )
        return 2
    try:
        with Executor(level, limits, workers=1) as executor:
            if input_text is None:
                outcome = executor.submit(StdinJob(source, stdin_text)).result()
            else:
                outcome = executor.submit_check(Job(source, (input_text,), function)).result()
            layers = executor.layers
    except (SandboxUnavailable, RuntimeError) as error:
        if as_json:
            nothing = Outcome(Status.SANDBOX_ERROR, detail=str(error))
            print(json.dumps(outcome_record(nothing, LayerReport(level, (), {})), ensure_ascii=True))
        print(f"azr run: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(outcome_record(outcome, layers), ensure_ascii=True))
        return 0 if outcome.ok else 1
    print(f"verdict  {outcome.status.value}" + (f": {printable(outcome.detail)}" if outcome.detail else ""))
    for value in outcome.values:
        print(f"value    {printable(boundary.shown(value))}")
    for name, text in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
        for line in printable(text).splitlines():
            print(f"{name}   {line}")
    print(
        f"used     {outcome.wall_seconds * 1e3:.1f} ms wall, {outcome.cpu_seconds * 1e3:.1f} ms cpu, "
        f"{outcome.peak_memory / 1e6:.1f} MB resident"
    )
    print(f"sandbox  level {layers.level}: {', '.join(layers.active) or 'no layer active'}")
    for name, why in layers.missing.items():
        print(f"missing  {name}: {why}")
    return 0 if outcome.ok else 1


def layer_lines(report: LayerReport | None = None) -> list[str]:
    """The lines that `azr doctor` prints about the sandbox: one per layer, then what they add up to."""
    try:
        report = report or find_layers()
    except (SandboxUnavailable, RuntimeError) as error:
        return [f"sandbox: does not start: {error}"]
    lines = [f"  {name:<12} active   {_PURPOSE.get(name, '')}" for name in report.active]
    lines += [f"  {name:<12} missing  {why}" for name, why in report.missing.items()]
    if report.confined:
        lines.insert(0, "sandbox: full confinement (files, network, processes); level strict can be used")
    else:
        open_ = [word for word in ("files", "network", "processes") if not getattr(report, word)]
        lines.insert(
            0, f"sandbox: NOT fully confined, open to programs: {', '.join(open_)}; level strict refuses to run"
        )
    return lines


def layers_record(report: LayerReport) -> dict[str, Any]:
    """The same as plain JSON data."""
    return {**dataclasses.asdict(report), "confined": report.confined}
