"""The verdicts of LiveCodeBench's or APPS's official `run_test`, one JSON line each, each in a process of its own.

Run with the Python of an environment that has numpy; needs nothing of azr_mlx.

    python theirs_contests.py livecodebench|apps CHECKOUT GIVEN OUT

APPS's code imports pyext, which no longer installs; its one function that is used is a few lines, and stands here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 4  # of one test; the whole has one more for each, and five


def run_livecodebench(checkout: str, row: dict[str, Any], sender: Any) -> None:
    quiet()
    run_test = official(checkout, "lcb_runner/evaluation/testing_util.py")
    sample = {"input_output": json.dumps(row["tests"])}
    results, _ = run_test(sample, test=row["program"], timeout=SECONDS)
    sender.send([int(one) for one in results])


def run_apps(checkout: str, row: dict[str, Any], sender: Any) -> None:
    class RuntimeModule:
        @staticmethod
        def from_string(name: str, about: str, source: str) -> types.SimpleNamespace:
            space: dict[str, Any] = {}
            exec(compile(source, name, "exec", dont_inherit=True), space)  # not with this file's annotations
            return types.SimpleNamespace(**{key: value for key, value in space.items() if key != "__builtins__"})

    stand_in: Any = types.ModuleType("pyext")
    stand_in.RuntimeModule = RuntimeModule
    sys.modules["pyext"] = stand_in
    quiet()
    run_test = official(checkout, "eval/testing_util.py")
    results = run_test(problem={"input_output": row["tests"]}, test=row["program"])
    sender.send([int(one) for one in results])


def official(checkout: str, path: str) -> Any:
    """`run_test` of one file of a checkout, without the packages that stand beside it."""
    return runpy.run_path(os.path.join(checkout, path), run_name="testing_util")["run_test"]


def quiet() -> None:
    """What the harness and the programs print goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


def judge(harness: str, checkout: str, row: dict[str, Any]) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    run = run_livecodebench if harness == "livecodebench" else run_apps
    process = context.Process(target=run, args=(checkout, row, sender))
    process.start()
    sender.close()
    count = len(row["tests"]["inputs"])
    process.join((SECONDS + 1) * count + 5 + 20)  # and some for starting
    if process.is_alive():
        process.kill()
        process.join()
    try:
        results = receiver.recv() if receiver.poll() else None
    except EOFError:
        results = None
    # Both harnesses count a program as right when every result is above 0.
    passed = results is not None and len(results) > 0 and all(one > 0 for one in results)
    return {"passed": passed, "said": str(results)}


def main() -> None:
    harness, checkout, given, out = sys.argv[1:]
    with open(given) as file:
        rows = [json.loads(line) for line in file]
    with ThreadPoolExecutor(os.cpu_count()) as pool, open(out, "w") as file:
        for found in pool.map(lambda row: judge(harness, checkout, row), rows):
            file.write(json.dumps(found) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
