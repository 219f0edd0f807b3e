"""A test and the program it is about run in two processes: a verdict is out of the program's reach."""

# ruff: noqa: E501  a program stays on one line

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_mlx.executor import Executor, Limits, Outcome, Status, TestJob, remote, two_process
from azr_mlx.executor.jobs import CallsJob, HalfJob
from benchmarks.verdicts import hostile_set

LIMITS = Limits(wall_seconds=10, cpu_seconds=1)


def ended(executor: Executor, program: str, test: str, entry_point: str = "", **more) -> Outcome:
    outcome = executor.submit(TestJob(program, test, entry_point, LIMITS, **more)).result()
    assert outcome.status is not Status.SANDBOX_ERROR, outcome.detail
    return outcome


# ------------------------------------------------------------------------------------- who passes without being right


@pytest.mark.parametrize("title", hostile_set.PROGRAMS, ids=lambda title: re.sub(r"\W+", "-", title))
def test_no_program_of_the_hostile_set_passes(executor: Executor, title: str) -> None:
    outcome = ended(executor, hostile_set.PROGRAMS[title], hostile_set.TEST, hostile_set.NAME)
    assert not outcome.ok
    assert outcome.mode == "two-process"


# The same test with a loop, so that it is not decided from its text but played in a process of its own.
LOOPED = hostile_set.TEST.replace(
    "def check(candidate):\n", "def check(candidate):\n    for _ in range(1):\n        pass\n"
)


@pytest.mark.parametrize("title", hostile_set.PROGRAMS, ids=lambda title: re.sub(r"\W+", "-", title))
def test_nor_does_one_pass_a_test_that_is_played(executor: Executor, title: str) -> None:
    outcome = ended(executor, hostile_set.PROGRAMS[title], LOOPED, hostile_set.NAME)
    assert not outcome.ok
    assert outcome.mode == "two-process"


@pytest.mark.parametrize("test", [hostile_set.TEST, LOOPED], ids=["plain", "played"])
def test_the_right_program_passes_and_a_wrong_one_does_not(executor: Executor, test: str) -> None:
    assert ended(executor, hostile_set.RIGHT, test, hostile_set.NAME).ok
    assert ended(executor, hostile_set.WRONG, test, hostile_set.NAME).status is Status.FAILED


def test_the_candidates_process_is_told_no_expected_value(executor: Executor) -> None:
    """The program looks at everything it has, its interpreter's objects too, for a number that only the test knows."""
    source = (
        "import gc, sys\ndef g(x):\n    wanted = 7 * 11 * 13 * 1009\n"
        "    for one in gc.get_objects():\n"
        "        if any(each is not wanted and type(each) is int and each == wanted for each in gc.get_referents(one)):\n"
        "            return wanted\n    return 0"
    )
    for test in ("assert g(1) == 1010009", "for i in range(1):\n    assert g(1) == 1010009"):
        assert ended(executor, source, test).status is Status.FAILED


def test_a_helper_of_the_task_is_not_taken_from_the_program(executor: Executor) -> None:
    """HumanEval's problems 38 and 50 encode with a function of the prompt: who redefines it could decode anything."""
    stub = "def encode(s):\n    return s[::-1]\n\ndef decode(s):\n"
    test = "def check(candidate):\n    for s in ('ab', 'abc'):\n        assert candidate(encode(s)) == s\n"
    given = {"helpers": stub, "functions": ("decode",)}
    assert ended(executor, stub + "    return s[::-1]\n", test, "decode", **given).ok
    both = stub + "    return s\n\ndef encode(s):\n    return s\n"
    assert ended(executor, both, test, "decode", **given).status is Status.FAILED


def test_a_program_cannot_take_over_a_name_of_the_tests_own(executor: Executor) -> None:
    yes = "def set(x): return 0\ndef sorted(x): return 0\nisclose = lambda *a, **k: True\ndef g(x): return [x]\n"
    for test in ("assert set(g(1)) == {2}", "for i in (1,):\n    assert sorted(g(i)) == [2]"):
        assert ended(executor, yes, test).status is Status.FAILED
    fake = "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef g(x): return 0\n"
    assert not ended(executor, fake, "for i in (1,):\n    assert math.isclose(g(i), 2)").ok


@pytest.mark.parametrize(
    "program",
    [
        "def g(x): return lambda y: y",  # what would need the program's process, had the test asked for it
        "class C: pass\ndef g(x): return C()",
        "def g(x): return object()",
    ],
)
def test_no_program_leads_to_the_mode_that_proves_nothing(executor: Executor, program: str) -> None:
    outcome = ended(executor, program, "for i in (1,):\n    assert g(i).real == 1")
    assert not outcome.ok
    assert outcome.mode == "two-process"


# ------------------------------------------------------------------------- what honest programs return, raise and print

RETURNED = {
    "a generator": ("def g(x):\n    yield from x", "assert list(g([1, 2])) == [1, 2]"),
    "a generator is no list": ("def g(x):\n    yield from x", "assert g([1]) != [1]"),
    "a map": ("def g(x):\n    return map(str, x)", "assert tuple(g([1, 2])) == ('1', '2')"),
    "a generator that never ends": (
        "def g(x):\n    while True:\n        yield x",
        "import itertools\nassert list(itertools.islice(g(1), 3)) == [1, 1, 1]",
    ),
    "a generator that raises": (
        "def g(x):\n    yield 1\n    raise KeyError('k')",
        "found = g(0)\nassert next(found) == 1\ntry:\n    next(found)\n    assert False\nexcept KeyError:\n    pass",
    ),
    "a range": ("def g(x):\n    return range(x)", "assert g(3) == range(3) and list(g(2)) == [0, 1]"),
    "keys": ("def g(x):\n    return {x: 1}.keys()", "assert g('a') == {'a'}"),
    "values": ("def g(x):\n    return {1: x}.values()", "assert list(g('a')) == ['a']"),
    "items": ("def g(x):\n    return {1: x}.items()", "assert dict(g('a')) == {1: 'a'}"),
    "a Counter": ("from collections import Counter\ndef g(x):\n    return Counter(x)", "assert g('aab') == {'a': 2, 'b': 1}"),
    "a deque": ("from collections import deque\ndef g(x):\n    return deque(x)", "assert g([1]) != [1] and list(g([1])) == [1]"),
    "a named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'a b')\ndef g(x):\n    return P(x, 2)",
        "assert g(1) == (1, 2)",
    ),
    "an IntEnum": ("import enum\nclass E(enum.IntEnum):\n    A = 3\ndef g():\n    return E.A", "assert g() == 3"),
    "a Fraction": ("from fractions import Fraction\ndef g(x):\n    return Fraction(x, 2)", "assert g(1) == 0.5"),
    "a Decimal": ("from decimal import Decimal\ndef g(x):\n    return Decimal(x)", "assert g('1.5') == 1.5"),
    "a date": ("import datetime\ndef g(y):\n    return datetime.date(y, 1, 2)", "import datetime\nassert g(2020) == datetime.date(2020, 1, 2)"),
    "a match": ("import re\ndef g(x):\n    return re.match('a', x)", "assert g('abc')\nassert not g('b')"),
    "a bytearray": ("def g(x):\n    return bytearray(x)", "assert g(2) == b'\\0\\0'"),
    "a plain object": ("class C: pass\ndef g(x):\n    return C()", "assert g(1)\nassert g(1) != g(1)"),
    "generators in a list": ("def g(x):\n    return [iter(x), x]", "a, b = g([1])\nassert list(a) == b == [1]"),
    "nothing": ("def g(x):\n    x.append(1)", "assert g([]) is None"),
    "the sign of nought, inf": ("def g(x):\n    return [-0.0, float('inf'), x]", "assert str(g(1)) == '[-0.0, inf, 1]'"),
    "an int of 5,000 digits": ("def g(x):\n    return 10**5000", "assert g(1) == 10**5000"),
    "an argument changed in place": ("def g(x):\n    x.sort()", "a = [3, 1]\ng(a)\nassert a == [1, 3]"),
    "a nested argument changed": ("def g(x):\n    x[0]['k'].add(2)", "a = [{'k': {1}}]\nb = a[0]['k']\ng(a)\nassert b == {1, 2}"),
    "an argument that is used again": ("def g(x):\n    x.append(1)\n    return len(x)", "a = []\nassert g(a) == 1\nassert g(a) == 2"),
    "state between calls": ("n = []\ndef g():\n    n.append(1)\n    return len(n)", "assert g() == 1\nassert g() == 2"),
    "keyword arguments": ("def g(a, *, b=1, **c):\n    return a, b, c", "assert g(1, b=2, z=[3]) == (1, 2, {'z': [3]})"),
    "an exception that the test wants": (
        "def g(x):\n    if x: raise ValueError('no')\n    return 2",
        "try:\n    g(1)\n    raise SystemExit(1)\nexcept ValueError as error:\n    assert str(error) == 'no'\nassert g(0) == 2",
    ),
    "an exception class of its own": (
        "class E(KeyError): pass\ndef g(x):\n    raise E(x)",
        "try:\n    g(1)\n    assert False\nexcept KeyError as error:\n    assert error.args == (1,)",
    ),
    "a call that depends on a result": ("def g(x):\n    return x", "if g(1) == 1:\n    assert g(5) == 5\nelse:\n    assert False"),
    "drawn inputs": ("def g(x):\n    return x + 1", "import random\nfor _ in range(20):\n    x = random.random()\n    assert g(x) == x + 1"),
    "a helper passed to map": ("def g(x):\n    return x + 1", "assert list(map(g, [1, 2])) == [2, 3]"),
    "a module that the program imports": ("import sys\ndef g(x):\n    return sys.getsizeof(x)", "assert g('a') == sys.getsizeof('a')"),
    "a constant of the program": ("LIMIT = 7\ndef g(x):\n    return x", "assert g(7) == LIMIT"),
    "output": ("print('at import')\ndef g(x):\n    print(x)\n    return x", "assert g(1) == 1"),
}  # fmt: skip


@pytest.mark.parametrize("title", RETURNED, ids=lambda title: title.replace(" ", "-"))
def test_what_honest_programs_do_gives_the_verdict_of_one_process(executor: Executor, title: str) -> None:
    program, test = RETURNED[title]
    outcome = ended(executor, program, test)
    assert (outcome.status, outcome.detail) == (Status.OK, "")
    assert outcome.mode == "two-process"


def test_what_a_program_prints_is_kept(executor: Executor) -> None:
    assert ended(executor, "print('one')\ndef g(x):\n    print('two')", "assert g(1) is None").stdout == "one\ntwo\n"


@pytest.mark.parametrize(
    ("program", "status", "detail"),
    [
        ("def g(x):\n    return 1 / 0", Status.EXCEPTION, "test: ZeroDivisionError: division by zero (line 2)"),
        ("1 / 0", Status.EXCEPTION, "program: ZeroDivisionError: division by zero (line 1)"),
        ("def g(x:\n", Status.EXCEPTION, "program: SyntaxError"),
        ("def other(x): pass", Status.EXCEPTION, "test: NameError: name 'g' is not defined"),
        ("def g(x): exit()", Status.EXITED_EARLY, "test: SystemExit(None)"),
        ("def g(x): return 'a' * 10**10", Status.MEMORY, "test: MemoryError"),
        ("def g(x):\n    while True: pass", Status.TIMEOUT, ""),
        ("def g(x): return x + 1", Status.FAILED, "line 1: assert g(1) == 1: AssertionError"),
        ("def g(x): assert x > 1, 'small'", Status.FAILED, ""),
    ],
)
def test_how_a_program_fails_is_told(executor: Executor, program: str, status: Status, detail: str) -> None:
    outcome = ended(executor, program, "assert g(1) == 1")
    assert (outcome.status, outcome.mode) == (status, "two-process")
    assert detail in outcome.detail


def test_an_assertion_before_the_fault_is_told_first(executor: Executor) -> None:
    source = "def g(x):\n    return 0 if x < 2 else 1 / 0"
    assert ended(executor, source, "assert g(1) == 1, 'first'\nassert g(2) == 2").detail.endswith(
        "AssertionError: first"
    )


def test_doctests_at_the_end_of_a_program_run(executor: Executor) -> None:
    """A program that tests itself with doctest, which needs sys.settrace, is as right as one that does not."""
    source = 'def g(x):\n    """\n    >>> g(1)\n    1\n    """\n    return x\n\nimport doctest\ndoctest.testmod()\n'
    assert ended(executor, source, "assert g(1) == 1").ok


# --------------------------------------------------------------------------------------------- tests that need more

NEEDS = {
    "objects of the program's classes": "class Pair:\n    pass\n---\nassert g([Pair()]) == 1",
    "attributes of such objects": "class Node:\n    pass\n---\nn = Node()\nn.left = 1\nassert g(n) == 1",
    "a function as an argument": "---\nassert g(lambda: 1) == 1",
    "a type as an argument": "---\nassert g(int) == 1",
    "what the program returned is called": "def h():\n    return lambda: 1\n---\nassert h()() == g(0)",
    "a result goes back in": "---\nassert g(g(1)) == 1",
    "identity": "---\na = []\nassert (g(a) is a) is False",
    "the function is looked at": "---\nassert g.__name__ == 'g' and g(0) == 1",
    "eval": "---\nassert eval('g(0)') == 1",
    "standard output": "---\nimport io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n    assert g(0) == 1",
    "isinstance of a class of the program": "class C: pass\n---\nassert not isinstance(g(0), C)",
    "an exception of the program": "class E(Exception): pass\n---\ntry:\n    assert g(0) == 1\nexcept E:\n    raise",
}  # fmt: skip


@pytest.mark.parametrize("title", NEEDS, ids=lambda title: re.sub(r"\W+", "-", title))
def test_a_test_that_needs_the_program_beside_it_says_so(executor: Executor, title: str) -> None:
    more, test = NEEDS[title].split("---\n")
    before = executor.counters["tests-in-process"]
    outcome = ended(executor, more + "def g(x):\n    return 1", test)
    assert (outcome.status, outcome.mode) == (Status.OK, "in-process")
    assert executor.counters["tests-in-process"] == before + 1


def test_a_test_that_a_program_leads_to_more_than_plain_data_fails(executor: Executor) -> None:
    """Only with an object as its result does the test pass an object on: that is the program's doing."""
    test = "h = g(1)\nif not h == 1:\n    g(h)\nassert h == 1 or h != 2"
    outcome = ended(executor, "def g(x): return object()", test)
    assert (outcome.status, outcome.mode) == (Status.FAILED, "two-process")
    assert "not plain data" in outcome.detail


def test_the_mode_is_chosen_by_the_test_alone(executor: Executor) -> None:
    """Whatever program comes first, it cannot choose for those after it, since plans are kept."""
    test = "for i in (1, 2):\n    assert g(i) == i, 'kept'"
    for program in ("import os\nos._exit(0)", "def g(x): return print", "while True: pass", "def g(x): return x"):
        assert ended(executor, program, test).mode == "two-process"
    assert ended(executor, "def g(x): return x", test).ok


def test_who_runs_tests_of_programs_is_known() -> None:
    package = Path(two_process.__file__).parents[1]
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "TestJob" in path.read_text(encoding="utf-8") and "executor" not in path.parts
    }
    # Of these the second gives rewards: it pays for verdicts of two processes alone (tests/rows/test_ready.py).
    assert users == {"evaluation/judging.py", "rows/ready.py"}


# --------------------------------------------------------------------------------------- bytes that a program chooses


def frames() -> st.SearchStrategy:
    """What a process may claim its answers are: near the shape and far from it."""
    leaf = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.just("value"), st.just("tree"), st.just("error"))
    tree = st.recursive(
        leaf,
        lambda inner: st.one_of(st.lists(inner, max_size=5), st.lists(inner, max_size=5).map(tuple)),
        max_leaves=12,
    )
    whole = st.tuples(st.dictionaries(st.text(max_size=3), tree, max_size=2), st.lists(tree, max_size=3))
    return st.one_of(tree, whole)


@settings(max_examples=300, deadline=None)
@given(frames())
def test_any_answers_give_a_verdict_and_no_exception(claimed: object) -> None:
    """The conversation, with processes that say what they like."""
    from collections import Counter
    from concurrent.futures import Future

    def send(part: object) -> Future[Outcome]:
        done: Future[Outcome] = Future()
        if isinstance(part, CallsJob):
            done.set_result(Outcome(Status.OK, (claimed,)))
        else:
            assert isinstance(part, HalfJob)
            done.set_result(Outcome(Status.FAILED, detail="played"))
        return done

    job = TestJob("", "assert g(1) == 1\nassert abs(g(2) - 2.5) < 1e-6\nassert sorted(g(3)) == [3]")
    outcome = two_process.submit(job, LIMITS, send, Counter()).result(timeout=10)
    assert not outcome.ok
    assert outcome.status in (Status.FAILED, Status.BAD_RESULT)


@pytest.mark.parametrize("tree", [("set", [("v", [1])]), ("range", 5), ("fraction", 1, 0), ("unheard of", 1), ("v",)])
def test_a_forged_tree_is_a_failed_test(executor: Executor, tree: object) -> None:
    forged = f"import marshal, os, struct\nfrom collections import namedtuple\nTREE = {tree!r}\n" + (
        "def enc(v):\n"
        "    if v is None: return b'N'\n"
        "    if type(v) is int: return b'i' + struct.pack('<I', 1) + bytes((v,))\n"
        "    if type(v) is str: return b's' + struct.pack('<I', len(v)) + v.encode()\n"
        "    if type(v) is dict: return b'd' + struct.pack('<I', 0)\n"
        "    return (b'l' if type(v) is list else b't') + struct.pack('<I', len(v)) + b''.join(map(enc, v))\n"
        "def g(x):\n"
        "    body = enc(({}, [('tree', TREE, None)]))\n"
        "    frame = b'o' + struct.pack('<I', len(body)) + body\n"
        "    os.write(3, struct.pack('<I', len(frame)) + frame)\n    os._exit(0)\n"
    )
    outcome = ended(executor, forged, "for i in (1,):\n    assert g(i) == 1")
    assert not outcome.ok
    assert outcome.mode == "two-process"


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=3),
    ),
    max_leaves=10,
)


@given(VALUES)
def test_packing_keeps_values(value: object) -> None:
    assert remote.unpack(remote.pack(value, [1000])) == value


@given(VALUES, VALUES)
def test_a_changed_argument_becomes_what_the_call_made_of_it(old: object, new: object) -> None:
    before, after = [old], [new]
    remote.apply(before, after)
    assert before == after


# ------------------------------------------------------------------------------------------------- the real tests


def _rows(path: Path) -> list[dict]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_every_test_of_humaneval_can_be_taken_apart(executor: Executor, shared: Path) -> None:
    rows = _rows(shared / "data/humaneval/HumanEval.jsonl.gz")
    jobs = [
        TestJob(
            row["prompt"] + row["canonical_solution"], row["test"], row["entry_point"], Limits(20, 20),
            row["prompt"], (row["entry_point"],),
        )
        for row in rows
    ]  # fmt: skip
    outcomes = executor.run(jobs)
    assert [row["task_id"] for row, one in zip(rows, outcomes, strict=True) if not one.ok] == []
    assert {one.mode for one in outcomes} == {"two-process"}
