"""Verdicts on completions, format by format."""

from __future__ import annotations

import json
import sys
import time

import pytest

from azr_mlx.evaluation import calls
from azr_mlx.evaluation.scripts import script


@pytest.mark.parametrize(
    ("completion", "result"),
    [
        ("    return math.pi * radius ** 2\n", "passed"),
        ("    print('x')\n    return math.pi * radius ** 2\n", "passed"),
        ("    return 3 * radius ** 2\n", "failed: failed"),
        ("    return math.pi * radius ** 2 +\n", "failed: exception: program: SyntaxError"),
        ("    while True:\n        pass\n", "timed out"),
        ("    raise SystemExit(0)\n", "failed: exited-early"),
        ("    import os\n    os._exit(0)\n", "failed: exited-early"),
        ("    import numpy\n", "failed: exception: test: ModuleNotFoundError: No module named 'numpy'"),
        ("    class Any:\n        __eq__ = __sub__ = lambda self, other: 0\n    return Any()", "failed: failed"),
    ],
)
def test_humaneval_passes_what_its_test_passes(judge, completion: str, result: str) -> None:
    score = judge("humaneval")("Own/0", completion)
    assert score.result.startswith(result)
    assert score.passed is (result == "passed")
    assert score.missing_module == ("numpy" if "numpy" in completion else "")


# Frames that a process may send in place of its results: nothing, too few, too many, and what is no result at all.
FORGED = {
    "an empty frame": "b'o'",
    "one value that is no list": "b'o' + struct.pack('<I', 1) + b'T'",
    "an empty list": "b'o' + struct.pack('<I', 5) + b'l' + bytes(4)",
    "two values": "b'o' + 2 * (struct.pack('<I', 5) + b'l' + bytes(4))",
    "right rows and more": "b'o' + struct.pack('<I', 5 + 4 * ROW) + b'l' + struct.pack('<I', 4) + two + 3 * row",
    "a detail that has no text": "b'o' + struct.pack('<I', 5 + len(odd)) + b'l' + struct.pack('<I', 1) + odd",
    "noise": "b'\\xff' * 40",
}
_FORGE = """\
    import os, struct
    double = b'f' + struct.pack('<d', 0.5)
    row = b't' + struct.pack('<I', 3) + b's' + struct.pack('<I', 2) + b'ok' + double + double
    two = row[:-18] + b'f' + struct.pack('<d', 2.0) + double
    ROW = len(row)
    number = b'i' + struct.pack('<I', 3000) + b'\\x7f' * 3000
    odd = b't' + struct.pack('<I', 3) + b's' + struct.pack('<I', 4) + b'oops' + number + double
    body = {body}
    os.write(3, struct.pack('<I', len(body)) + body)
    os._exit(0)
"""


@pytest.mark.parametrize("title", FORGED, ids=lambda title: title.replace(" ", "-"))
def test_a_forged_frame_is_wrong_and_counted(judge, title: str) -> None:
    completion = _FORGE.replace("{body}", FORGED[title])
    score = judge("evalplus")("Own/0", completion)
    assert not score.passed
    assert not score.harness
    assert score.result.startswith("failed: ")
    assert not judge("livecodebench")("b", "class Solution:\n  def join(self, a, b):\n" + completion).passed


def test_a_verdict_says_in_which_mode_it_was_found(judge) -> None:
    plain = judge("mbpp")("2", "def add(a, b):\n    return a + b")
    assert (plain.passed, plain.mode) == (True, "two-process")
    # The setup of this problem makes an object of a class of the solution.
    needs = "class Node:\n    def __init__(self, v):\n        self.v = v\n\ndef value(n):\n    return n.v"
    found = judge("mbpp")("12", needs)
    assert (found.passed, found.mode) == (True, "in-process")


def test_a_helper_of_the_stub_that_a_completion_replaces_decides_nothing(judge) -> None:
    fooled = "    return 0\n\ndef twice(x):\n    return 0\n"
    row = {
        "task_id": "Own/9",
        "prompt": "def twice(x):\n    return 2 * x\n\n\ndef same(x):\n",
        "entry_point": "same",
        "canonical_solution": "    return twice(x)\n",
        "test": "def check(candidate):\n    assert candidate(3) == twice(3)\n",
    }
    score = judge("humaneval", rows_given=[row])
    assert score("Own/9", "    return x + x\n").passed
    assert not score("Own/9", fooled).passed


def test_a_solution_with_the_name_of_a_builtin_is_the_one_that_is_tested(judge) -> None:
    row = {
        "text": "Sum of divisors.", "code": "def sum(a, b):\n    return a * b", "task_id": 126,
        "test_setup_code": "", "test_list": ["assert sum(3, 4) == 12"], "challenge_test_list": [],
    }  # fmt: skip
    score = judge("mbpp", rows_given=[row])("126", "def sum(a, b):\n    return a * b")
    assert (score.passed, score.mode) == (True, "two-process")


@pytest.mark.parametrize("where", ["    import time\n    time.sleep(60)\n", "    pass\nimport time\ntime.sleep(60)\n"])
def test_a_program_that_sleeps_is_late_as_in_the_harness(judge, where: str) -> None:
    """Processor time is limited to one second here. A program that only waits for a processor gets more wall time."""
    started = time.monotonic()
    assert judge("humaneval")("Own/0", where).result == "timed out"
    assert time.monotonic() - started < 30, "it was given the time of a program that waits for its turn"


def test_a_call_that_sleeps_is_late_as_in_evalplus(judge) -> None:
    started = time.monotonic()
    assert judge("evalplus")("Own/0", "    import time\n    time.sleep(60)\n").result == "timed out (base)"
    assert time.monotonic() - started < 30


def test_helpers_of_the_stub_are_there_for_program_and_test(judge) -> None:
    assert judge("humaneval")("Own/1", "    return twice(x) + twice(x)\n").passed


def test_mbpp_runs_setup_code_after_the_program(judge) -> None:
    score = judge("mbpp")
    assert score("2", "def add(a, b):\r\n    return a + b").passed
    assert not score("2", "def add(a, b):\n    return a").passed
    assert score(
        "12", "class Node:\n    def __init__(self, v):\n        self.v = v\n\ndef value(n):\n    return n.v"
    ).passed


@pytest.mark.parametrize(
    ("completion", "base", "plus"),
    [
        ("    return x / 2\n", True, True),
        ("    return x * 0.5\n", True, True),
        ("    return x / 2 + 1e-9\n", True, True),  # floats within 1e-6
        ("    return abs(x) / 2\n", True, False),
        ("    return x // 2\n", False, False),
        ("    if x > 1e9:\n        while True:\n            pass\n    return x / 2\n", True, False),
        ("    raise KeyError\n", False, False),
        ("    class Half(float):\n        __eq__ = lambda a, b: True\n    return Half(7)\n", False, False),
        ("    import os\n    os._exit(0)\n", False, False),
        ("    return __azr_calls\n", False, False),
    ],
)
def test_plus_counts_only_when_base_holds(judge, completion: str, base: bool, plus: bool) -> None:
    score = judge("evalplus")("Own/0", completion)
    assert dict(score.parts) == {"base": base, "plus": plus}
    assert score.passed is plus


@pytest.mark.parametrize(
    ("body", "passed"),
    [
        ("set(a) & set(b)", True),
        ("sorted(set(a) & set(b), reverse=True)", True),  # order is free in this task
        ("(x for x in a if x in b)", True),  # as in EvalPlus, any iterable will do
        ("a", False),
        ("a + b", False),
        ("5 if type(a) is tuple else (4, 5)", False),  # what a call gets is a tuple, which JSON has not
    ],
)
def test_plus_tasks_with_free_order_compare_sets(judge, body: str, passed: bool) -> None:
    assert judge("evalplus")("Mbpp/2", f"def shared(a, b):\n    return {body}\n").passed is passed


def test_results_too_large_to_send_are_compared_by_hash_and_then_by_value(judge) -> None:
    row = {
        "task_id": "Own/2", "prompt": "def count(n):\n", "entry_point": "count", "atol": 0,
        "canonical_solution": "    return [float(i) for i in range(n)]\n", "base_input": [[100_000]],
        "plus_input": [[3]],
    }  # fmt: skip
    score = judge("evalplus", rows_given=[row])
    assert score("Own/2", "    return [i * 1.0 for i in range(n)]\n").passed
    assert score("Own/2", "    return list(range(n))\n").passed  # another hash, equal values
    assert not score("Own/2", "    return [float(i) for i in range(n - 1)] + [0.5]\n").passed


def test_many_results_that_are_too_large_together_are_compared_so_too(judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_ROOM", 1_000)  # there are ten results of 400 characters
    monkeypatch.setattr(calls, "_RESULT_BYTES", 3_500)
    row = {
        "task_id": "Own/2", "prompt": "def many(n):\n", "entry_point": "many", "atol": 0,
        "canonical_solution": "    return 'ab' * n\n", "base_input": [[200 + n] for n in range(10)], "plus_input": [],
    }  # fmt: skip
    score = judge("evalplus", rows_given=[row])
    assert score("Own/2", "    return ''.join(['ab'] * n)\n").passed
    assert not score("Own/2", "    return 'ab' * n if n < 209 else 'ab' * n + 'a'\n").passed


def test_a_later_change_of_what_was_returned_changes_nothing(judge) -> None:
    row = {
        "task_id": "Own/3", "prompt": "def keep(x):\n", "entry_point": "keep", "canonical_solution": "    return [x]\n",
        "base_input": [[1], [2]], "plus_input": [], "atol": 0,
    }  # fmt: skip
    same_list = "    keep.a[:] = [x]\n    return keep.a\nkeep.a = []\n"
    assert judge("evalplus", rows_given=[row])("Own/3", same_list).passed


def test_imports_of_a_test_do_not_push_those_from_the_future_down(judge) -> None:
    """MBPP's test_imports stand before the program, where nothing may stand before `from __future__`."""
    row = {"task_id": 3, "prompt": "Give the root.", "code": "", "test_imports": ["import math"],
           "test_list": ["assert root(4) == math.sqrt(4)"]}  # fmt: skip
    score = judge("mbpp", rows_given=[row], split="")
    program = "from __future__ import annotations, division\nimport os\ndef root(x: int) -> Any:\n    return {}\n"
    assert score("3", program.format("math.sqrt(x)")).passed
    assert not score("3", program.format("x")).passed


def test_apps_reads_standard_input(judge) -> None:
    score = judge("apps")
    right = score("0", "n = int(input())\nprint(sum(map(int, input().split())))")
    assert (right.passed, right.tests, dict(right.parts)) == (True, "++", {"official": True, "strict": True})
    assert score("0", "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split()[1:])))").passed
    half = score("0", "print(7)")
    assert (half.passed, half.tests, half.result) == (False, "+-", "failed: wrong output")
    assert score("0", "input()\nwhile True: pass").tests == "t."
    assert score("0", "print(1 / 0)").tests == "!!"
    assert score("0", "print(7) if input() == '2' else print(9)\nexit()").passed


def test_apps_calls_functions_and_methods(judge) -> None:
    score = judge("apps")
    assert score("1", "class Solution:\n    def turn(self, a: List[int]):\n        return tuple(reversed(a))").passed
    assert score("1", "def turn(a):\n    return a[::-1]").passed
    assert not score("1", "def turn(a):\n    return a").passed
    assert score("1", "def other(a):\n    return a").tests == "!!"


def test_a_problem_without_tests_is_never_solved(judge) -> None:
    score = judge("apps")("2", "print(1)")
    assert (score.passed, score.result) == (False, "failed: no tests")


RETURNS = "print(9 if input() == '1' else 7)\nreturn"
NONLOCAL = "x = 7\ndef g():\n    nonlocal x\n    x = 9\nif input() == '1': g()\nprint(x)"


@pytest.mark.parametrize("program", [RETURNS, NONLOCAL])
def test_apps_scripts_may_be_bodies_of_a_function(judge, program: str) -> None:
    assert judge("apps")("0", program).passed


def test_a_form_of_scripts_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no form 'other'"):
        script("", "", "other")


@pytest.mark.parametrize(
    ("task", "answer", "passed"),
    [
        ("sample_0", "[1, 3]", True),
        ("sample_0", "[1, 2 + 1]", True),
        ("sample_0", "(1, 3)", False),
        ("sample_0", "f([3, 1])", False),  # the question is no answer
        ("sample_0", "[1, 3] or True", False),
        ("sample_0", "__import__('os').getpid()", False),
        ("sample_0", "", False),
        ("sample_1", "{'k': 1.5}", True),
    ],
)
def test_an_output_is_a_literal(judge, task: str, answer: str, passed: bool) -> None:
    assert judge("output")(task, answer).passed is passed


@pytest.mark.parametrize(
    ("task", "answer", "passed"),
    [
        ("sample_0", "f([1, 3])", True),  # not the input of the data set, but right
        ("sample_0", "f((3, 1))", True),
        ("sample_0", "[3, 1]", False),
        ("sample_0", "f([3, 1]) or f([1])", False),
        ("sample_0", "f(__import__('os').listdir())", False),
        ("sample_0", "f(sorted([3, 1]))", False),  # an expression, not a literal
        ("sample_0", "f(globals().update(sorted=lambda _: [1, 3]))", False),
        ("sample_0", "f(type('S', (), {'__iter__': lambda s: iter([1, 3])})())", False),
        ("sample_0", "f([1] * 10**9)", False),
        ("sample_0", "f(1)", False),
        ("sample_1", "f('k', n=3)", True),
    ],
)
def test_any_literal_input_that_gives_the_output_is_right(judge, task: str, answer: str, passed: bool) -> None:
    assert judge("input")(task, answer).passed is passed


def test_livecodebench_runs_scripts_and_methods(judge) -> None:
    score = judge("livecodebench")
    assert score("a", "print(int(input()) / 2)").passed
    assert score(
        "b", "class Solution:\n    def join(self, a: List[int], b: List[int]):\n        return (*a, *b)"
    ).passed
    assert not score("b", "class Solution:\n    def join(self, a, b):\n        return a").passed


# Programs that print half of a number, or return two lists joined, in the habits of models: right or not, as the
# official harness says (python -m benchmarks.verdicts contests).
HALF = "n = int(input())\n"
DEEP = "def down(k):\n    return 0 if k == 0 else 1 + down(k - 1)\n"
CACHED = "from functools import lru_cache\n@lru_cache(None)\n" + DEEP


@pytest.mark.parametrize(
    ("program", "livecodebench", "apps"),
    [
        (HALF + "print(n / 2)\nreturn", True, True),
        (HALF + "if n:\n    print(n / 2)\n    return\nprint(0)", True, True),
        (HALF + "print(n / 2)\nsys.exit(1)", True, True),
        (HALF + "print(n / 2)\nexit()", True, True),
        (HALF + "print(n / 2)\nraise SystemExit('done')", True, True),
        (HALF + "print(n / 2)\nraise ValueError", False, False),
        (HALF + "d = defaultdict(int)\nd[0] = n\nprint(d[0] / 2)", True, True),
        (HALF + "print(deque([n / 2])[0])", True, True),
        (HALF + "print(min(inf, n / 2))", True, False),
        (HALF + "print(bisect_left([1, 2, 3], n) * 0.75)", True, False),
        (HALF + "print(math.sqrt(n * n) / 2)", True, True),
        (HALF + "print(reduce(add, [n]) / 2)", True, False),
        (HALF + "x: List[int] = [n]\nprint(x[0] / 2)", True, True),
        (HALF + DEEP + "print(n / 2 + 0 * down(3000))", True, False),
        (HALF + DEEP + "print(n / 2 + 0 * down(20000))", True, False),
        pytest.param(
            HALF + CACHED + "print(n / 2 + 0 * down(9000))",
            True,
            False,
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12),
                reason="from Python 3.12 on calls of C code have a limit that no program sets",
            ),
        ),
        ("def main():\n    print(int(input()) / 2)\nif __name__ == '__main__':\n    main()", True, True),
        ('def main():\n    print(int(input()) / 2)\nif __name__ == "__main__":\n    main()', True, True),
        ("if __name__ == '__main__':\n    print(int(input()) / 2)\nx = 1", False, True),
        ("x = 0\ndef f():\n    global x\n    x = 1.5\nf()\nint(input())\nprint(x)", False, False),
        ("x = 0\ndef f():\n    nonlocal x\n    x = 1.5\nf()\nint(input())\nprint(x)", True, True),
        ("from __future__ import annotations\nprint(int(input()) / 2)", False, False),
        ("print(int(input()) / 2", False, False),
        ("print(int(sys.stdin.buffer.readline()) / 2)", True, True),
        ("class Solution:\n    def f(self, n):\n        return n / 2\nprint(Solution().f(int(input())))", False, True),
        ("", False, False),
    ],
)
def test_scripts_end_and_know_names_as_in_the_official_harnesses(
    judge, program: str, livecodebench: bool, apps: bool
) -> None:
    assert judge("livecodebench")("a", program).passed is livecodebench
    row = {"problem_id": 0, "question": "", "solutions": "", "difficulty": "interview", "starter_code": "",
           "input_output": '{"inputs": ["3\\n"], "outputs": ["1.5\\n"]}'}  # fmt: skip
    assert judge("apps", rows_given=[row])("0", program).passed is apps


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("class Solution:\n  def join(self, a, b):\n    return list(chain(a, b))", "++"),
        ("class Solution:\n  def join(self, a: List[int], b: Optional[List[int]]):\n    return a + b", "++"),
        (
            "class Solution:\n  def join(self, a, b):\n    down = lambda k: k and down(k - 1)\n    down(9000)\n"
            "    return a + b",
            "++",
        ),
        ("def join(a, b):\n    return a + b", "++"),
        ("def join(a, b):\n    return a + b  # as in class Solution", "!."),
        # One instance for all tests: what the first leaves behind, the second sees.
        ("class Solution:\n  had = []\n  def join(self, a, b):\n    self.had += a + b\n    return self.had", "+-"),
        ("class Solution:\n  def join(self, a, b):\n    return a + b if a[0] == 1 else 1 / 0", "+!"),
        ("class Solution:\n  def join(self, a, b):\n    return a + b if a[0] == 1 else exit()", "+!"),
        ("import os\nclass Solution:\n  def join(self, a, b):\n    return a + b if a[0] == 1 else os._exit(0)", "+!"),
    ],
)
def test_functions_share_names_depth_and_an_instance_as_in_the_official_harness(
    judge, program: str, tests: str
) -> None:
    given = [{"input": f"[{i}]\n[2]", "output": f"[{i}, 2]", "testtype": "functional"} for i in (1, 3)]
    row = {"question_title": "Join", "question_content": "", "question_id": "b", "difficulty": "hard", "metadata": "{}",
           "starter_code": "class Solution:\n    def join(self, a: List[int], b: List[int]) -> List[int]:\n        ",
           "public_test_cases": json.dumps(given), "private_test_cases": ""}  # fmt: skip
    assert judge("livecodebench", rows_given=[row])("b", program).tests == tests
