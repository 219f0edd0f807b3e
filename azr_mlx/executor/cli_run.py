"""What `azr run FILE` prints. The command itself is in cli.py."""

# ruff: noqa: T201  printing is what this module is for
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from azr_mlx.executor import boundary
from azr_mlx.executor.jobs import Job, Limits, Outcome, Status, StdinJob
from azr_mlx.executor.layers import LayerReport, SandboxUnavailable
from azr_mlx.executor.literals import LiteralError, check_arguments
from azr_mlx.executor.pool import Executor
from azr_mlx.terminal import printable

_JSON_CHARS = 16 << 20  # of one value: more than the default limit of a result can hold
_MAX_INPUT_CHARS = 1 << 20  # the user's own argument text, which is no model's


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
