"""Our verdicts against the official `run_test` of LiveCodeBench and of APPS, on programs in the habits of models.

Five small problems, each solved in every habit below, right and wrong ones: how a program reads, ends, recurses, names
what it did not import. Both harnesses judge standard input and calls of a function.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from azr_mlx import evaluation
from azr_mlx.evaluation.problems import Problem, Trial
from azr_mlx.executor import Executor
from benchmarks.verdicts.tally import Tally

# A function of one list of numbers, and what it gives.
PROBLEMS: dict[str, tuple[str, tuple[tuple[list[int], int | list[int]], ...]]] = {
    "total": ("return sum(a)", (([1, 2, 3], 6), ([10], 10), ([], 0))),
    "largest": ("return max(a)", (([4, 9, 2], 9), ([-3, -7], -3), ([5, 5], 5))),
    "sorted": ("return sorted(a)", (([3, 1, 2], [1, 2, 3]), ([2, 2, 1], [1, 2, 2]), ([7], [7]))),
    "count": ("return len(set(a))", (([1, 1, 2], 2), ([8], 1), ([1, 2, 3, 4], 4))),
    "odd": ("return [x for x in a if x % 2]", (([1, 2, 3], [1, 3]), ([4, 5], [5]), ([9, 7], [9, 7]))),
}

# {body} is the problem's line; `work` has to be called with the numbers of the only line of standard input.
_WORK = "def work(a):\n    {body}\ndef text(r):\n    return ' '.join(map(str, r)) if isinstance(r, list) else str(r)\n"
_READ = "a = list(map(int, input().split()))\n"
_DOWN = "def down(k):\n    return 0 if k == 0 else 1 + down(k - 1)\n"
_SAY = "print(text(work(a)))\n"
SCRIPTS: dict[str, str] = {
    "plain": _WORK + _READ + _SAY,
    "wrong": _WORK + _READ + "print(text(work(a)) + '1')\n",
    "constant": "print(6)\n",
    "nothing": "pass\n",
    "empty": "",
    "comment only": "# the answer\n",
    "syntax error": _WORK + _READ + "print(text(work(a))\n",
    "crash before": _WORK + _READ + "1 / 0\n" + _SAY,
    "crash after": _WORK + _READ + _SAY + "1 / 0\n",
    "exit 0": _WORK + _READ + _SAY + "import sys\nsys.exit(0)\n",
    "exit 1": _WORK + _READ + _SAY + "import sys\nsys.exit(1)\n",
    "exit()": _WORK + _READ + _SAY + "exit()\n",
    "raise SystemExit": _WORK + _READ + _SAY + "raise SystemExit('bye')\n",
    "os._exit": _WORK + _READ + _SAY + "import os\nos._exit(0)\n",
    "top-level return": _WORK + _READ + _SAY + "return\n",
    "return in if": _WORK + _READ + "if a:\n    print(text(work(a)))\n    return\nprint(text(work(a)))\n",
    "main": _WORK + "def main():\n    a = list(map(int, input().split()))\n    print(text(work(a)))\nmain()\n",
    "guard": _WORK + _READ + "if __name__ == '__main__':\n    print(text(work(a)))\n",
    "guard, double quotes": _WORK + _READ + 'if __name__ == "__main__":\n    print(text(work(a)))\n',
    "guard, not last": _WORK + _READ + "if __name__ == '__main__':\n    print(text(work(a)))\nx = 1\n",
    "guard with else": _WORK + _READ + "if __name__ == '__main__':\n    print(text(work(a)))\nelse:\n    x = 1\n",
    "global": _WORK + _READ + "n = 0\ndef f():\n    global n\n    n += 1\nf()\n" + _SAY,
    "nonlocal": _WORK + _READ + "n = 0\ndef f():\n    nonlocal n\n    n += 1\nf()\n" + _SAY,
    "defaultdict": _WORK + _READ + "d = defaultdict(list)\n" + _SAY,
    "deque": _WORK + _READ + "a = list(deque(a))\n" + _SAY,
    "Counter": _WORK + _READ + "c = Counter(a)\n" + _SAY,
    "inf": _WORK + _READ + "low = inf\n" + _SAY,
    "math": _WORK + _READ + "r = math.sqrt(4)\n" + _SAY,
    "bisect": _WORK + _READ + "i = bisect_left([1, 2], 1)\n" + _SAY,
    "heapq": _WORK + _READ + "h = []\nheappush(h, 1)\n" + _SAY,
    "permutations": _WORK + _READ + "p = list(permutations([1, 2]))\n" + _SAY,
    "reduce": _WORK + _READ + "p = reduce(lambda x, y: x + y, [1, 2])\n" + _SAY,
    "typing": _WORK + _READ + "b: List[int] = a\n" + _SAY,
    "annotated function": "def work(a: List[int]) -> Optional[int]:\n    {body}\n" + _WORK.partition("\n"
    "    {body}\n")[2]
    + _READ + _SAY,
    "recursion 900": _WORK + _READ + _DOWN + "down(900)\n" + _SAY,
    "recursion 3,000": _WORK + _READ + _DOWN + "down(3000)\n" + _SAY,
    "recursion, own limit": _WORK + "import sys\nsys.setrecursionlimit(10**6)\n"
    "" + _READ + _DOWN + "down(9000)\n" + _SAY,
    "recursion, endless": _WORK + _READ + "def f():\n    return f()\nf()\n" + _SAY,
    "cached recursion": _WORK + _READ + "from functools import cache\n@cache\n" + _DOWN + "down(800)\n" + _SAY,
    "sys.stdin.read": _WORK + "import sys\na = list(map(int, sys.stdin.read().split()))\n" + _SAY,
    "sys.stdin.readline": _WORK + "import sys\na = list(map(int, sys.stdin.readline().split()))\n" + _SAY,
    "sys.stdin loop": _WORK + "import sys\na = []\nfor line in sys.stdin:\n    a += map(int, line.split())\n" + _SAY,
    "buffer": _WORK + "import sys\na = list(map(int, sys.stdin.buffer.read().split()))\n" + _SAY,
    "open(0)": _WORK + "a = list(map(int, open(0).read().split()))\n" + _SAY,
    "reads too much": _WORK + _READ + "input()\ninput()\n" + _SAY,
    "stdout.write": _WORK + _READ + "import sys\nsys.stdout.write(text(work(a)))\n",
    "stderr": _WORK + _READ + "import sys\nprint('debug', file=sys.stderr)\n" + _SAY,
    "flush": _WORK + _READ + "print(text(work(a)), flush=True)\n",
    "blank lines": _WORK + _READ + "print()\nprint(text(work(a)))\nprint()\n",
    "trailing space": _WORK + _READ + "print(text(work(a)) + ' ')\n",
    "as float": _WORK + _READ + "r = work(a)\n"
    "print(text([float(x) for x in r] if isinstance(r, list) else float(r)))\n",
    "repeated line": _WORK + _READ + _SAY + _SAY,
    "no output": _WORK + _READ + "work(a)\n",
    "numpy": "import no_such_package\n" + _WORK + _READ + _SAY,
    "future import": "from __future__ import annotations\n" + _WORK + _READ + _SAY,
    "import later": _WORK + _READ + "import collections\nc = collections.Counter(a)\n" + _SAY,
    "CRLF": (_WORK + _READ + _SAY).replace("\n", "\r\n"),
    "docstring first": '"""Reads numbers."""\n' + _WORK + _READ + _SAY,
    "async": "import asyncio\n" + _WORK + "async def main():\n    print(text(work(list(map(int, input().split())))))\n"
    "asyncio.run(main())\n",
    "thread": "import threading\n" + _WORK + "def main():\n    print(text(work(list(map(int, input().split())))))\n"
    "t = threading.Thread(target=main)\nt.start()\nt.join()\n",
    "class Solution": "class Solution:\n    def work(self, a):\n        {body}\n" + _WORK.partition("\n    {body}\n")[2]
    + _READ + "print(text(Solution().work(a)))\n",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n" + _WORK + _READ + _SAY,
    "endless loop": _WORK + _READ + "while True:\n    pass\n",
}  # fmt: skip
FUNCTIONS: dict[str, str] = {
    "plain": "def work(a):\n    {body}\n",
    "method": "class Solution:\n    def work(self, a):\n        {body}\n",
    "annotated": "class Solution:\n    def work(self, a: List[int]) -> Any:\n        {body}\n",
    "List only": "class Solution:\n    def work(self, a: List[int]):\n        {body}\n",
    "names": "class Solution:\n    def work(self, a):\n        d = defaultdict(int)\n        q = deque(a)\n"
    "        {body}\n",
    "inf": "class Solution:\n    def work(self, a):\n        low = inf\n        {body}\n",
    "wrong": "class Solution:\n    def work(self, a):\n        return -1\n",
    "none": "class Solution:\n    def work(self, a):\n        pass\n",
    "tuple": "class Solution:\n    def inner(self, a):\n        {body}\n    def work(self, a):\n"
    "        r = self.inner(a)\n"
    "        return tuple(r) if isinstance(r, list) else r\n",
    "other name": "class Solution:\n    def job(self, a):\n        {body}\n",
    "text": "class Solution:\n    def inner(self, a):\n        {body}\n    def work(self, a):\n"
    "        return str(self.inner(a))\n",
    "float": "class Solution:\n    def inner(self, a):\n        {body}\n    def work(self, a):\n"
    "        r = self.inner(a)\n"
    "        return r if isinstance(r, list) else float(r)\n",
    "state": "class Solution:\n    def __init__(self):\n        self.calls = 0\n    def work(self, a):\n"
    "        self.calls += 1\n        if self.calls > 1:\n            return None\n        {body}\n",
    "prints": "class Solution:\n    def work(self, a):\n        print(a)\n        {body}\n",
    "crash": "class Solution:\n    def work(self, a):\n        1 / 0\n",
    "exits": "class Solution:\n    def work(self, a):\n        exit()\n",
    "exits on top": "class Solution:\n    def work(self, a):\n        {body}\nexit()\n",
    "tests on top": "class Solution:\n    def work(self, a):\n        {body}\nprint(Solution().work([1]))\n",
    "wrong assert on top": "class Solution:\n    def work(self, a):\n        {body}\n"
    "assert Solution().work([1]) == 'x'\n",
    "mentions the class": "# as in class Solution\ndef work(a):\n    {body}\n",
    "recursion 900": "class Solution:\n    def work(self, a):\n        down = lambda k: k and down(k - 1)\n"
    "        down(900)\n        {body}\n",
    "recursion 3,000": "class Solution:\n    def work(self, a):\n        down = lambda k: k and down(k - 1)\n"
    "        down(3000)\n        {body}\n",
    "syntax error": "class Solution:\n    def work(self, a)\n        {body}\n",
    "future import": "from __future__ import annotations\nclass Solution:\n    def work(self, a):\n        {body}\n",
    "endless loop": "class Solution:\n    def work(self, a):\n        while True:\n            pass\n",
}  # fmt: skip

# Where we mean to differ, by harness and habit. Programs are built and ended as in the harness; standard input is real
# here, and theirs is a stand-in that lacks some of what files have.
_STAND_IN = "their stand-in for standard input cannot do that"
MEANT: dict[tuple[str, str], str] = {
    ("livecodebench", "sys.stdin loop"): _STAND_IN,
    ("livecodebench", "open(0)"): _STAND_IN,
    ("apps", "buffer"): _STAND_IN,
    ("apps", "exit()"): "its guard sets exit to None, so that right programs fail",
    **{
        ("apps", habit): "it runs nothing below this condition, so that right programs fail"
        for habit in ("guard", "guard, double quotes", "guard, not last", "guard with else")
    },
}


@dataclass(frozen=True)
class Case:
    habit: str
    problem: str
    function: bool
    program: str


def cases() -> Iterator[Case]:
    """Every problem in every habit."""
    for name, (body, _) in PROBLEMS.items():
        for function, habits in ((False, SCRIPTS), (True, FUNCTIONS)):
            for habit, program in habits.items():
                yield Case(habit, name, function, program.replace("{body}", body))


def compare(python: str, harness: str, checkout: Path) -> Tally:
    """Compare with one harness, and tell each difference."""
    every = list(cases())
    benchmark = replace(evaluation.load_benchmark(harness), seconds=4.0)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "given.jsonl", Path(folder) / "out.jsonl"
        given.write_text("".join(json.dumps(_for_them(case, harness)) + "\n" for case in every))
        command = [
            python,
            str(Path(__file__).with_name("theirs_contests.py")),
            harness,
            str(checkout),
            str(given),
            str(out),
        ]
        subprocess.run(command, check=True)
        theirs = [json.loads(line) for line in out.read_text().splitlines()]
    there = time.monotonic() - began
    if not any(other["passed"] for case, other in zip(every, theirs, strict=True) if case.habit == "plain"):
        raise SystemExit(
            f"{harness} in {checkout} fails its plain programs: {theirs[0]['said']}; is it another version?"
        )
    began = time.monotonic()
    with Executor() as executor, ThreadPoolExecutor(executor.workers + 1) as pool:
        judge = evaluation.Judge(benchmark, executor)
        ours = list(pool.map(lambda case: judge(_problem(case), case.program).passed, every))
    habits = len({(case.function, case.habit) for case in every})
    tally = Tally(harness, "its run_test", len(every), habits, sum(ours), seconds=(time.monotonic() - began, there))
    for case, mine, other in zip(every, ours, theirs, strict=True):
        if mine == other["passed"]:
            tally.equal += 1
            continue
        why = MEANT.get((harness, case.habit), "")
        kind = "call" if case.function else "script"
        said = f"{case.problem:<8} {kind:<6} {case.habit:<22} ours {mine!s:<5} theirs {other['said']}"
        print(f"{said}: {why or '?'}")
        if why:
            tally.explained[why] += 1
        else:
            tally.open.append(said)
    print(tally.line(), flush=True)
    return tally


def _tests(case: Case) -> list[tuple[Any, Any]]:
    rows = PROBLEMS[case.problem][1]
    if case.function:
        return [([list(a)], r) for a, r in rows]
    return [(" ".join(map(str, a)) + "\n", " ".join(map(str, r)) if isinstance(r, list) else str(r)) for a, r in rows]


def _problem(case: Case) -> Problem:
    trials = tuple(Trial(given, expected) for given, expected in _tests(case))
    return Problem(id=case.problem, fields={}, trials=trials, function="work" if case.function else "")


def _for_them(case: Case, harness: str) -> dict[str, Any]:
    tests = _tests(case)
    inputs: list[Any] = [given for given, _ in tests]
    outputs: list[Any] = [expected for _, expected in tests]
    if case.function and harness == "livecodebench":  # one JSON value a line
        inputs = ["\n".join(json.dumps(value) for value in given) for given in inputs]
        outputs = [json.dumps(value) for value in outputs]
    row: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    return {"tests": row | ({"fn_name": "work"} if case.function else {}), "program": case.program}
