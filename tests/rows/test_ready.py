"""The rewards that come with azr_mlx: what is right, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.rows.ready import FORMATS, answer_of, program_of, ready_rewards

TESTS = "assert double(2) == 4\nassert double('a') == 'aa'"
GOOD = "```python\ndef double(x):\n    return 2 * x\n```"
SCRIPT = "print(sum(map(int, input().split())))"


def score(executor, name, reply, **columns):
    return ready_rewards("think_answer")[name].start(reply, columns, executor)()


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (GOOD, 1.0),
        (f"First a try: ```python\nx\n```\nThen:\n{GOOD}", 1.0),
        ("def double(x):\n    return x + x", 1.0),
        ("```python\ndef double(x):\n    return x\n```", 0.0),
        ("```python\nclass Any:\n    def __eq__(self, o): return True\ndef double(x):\n    return Any()\n```", 0.0),
        ("```python\nimport os\nos._exit(0)\n```", 0.0),
        ("I cannot.", 0.0),
    ],
)
def test_python_tests_pays_for_programs_that_pass_and_for_no_trick(executor, reply, value):
    assert score(executor, "python_tests", reply, tests=TESTS) == value


def test_python_tests_takes_a_list_and_pays_nothing_beside_the_test(executor):
    assert score(executor, "python_tests", GOOD, tests=TESTS.split("\n")) == 1.0
    # A test that passes a function to the program shares a process with it, where a program could pass by a trick.
    assert score(executor, "python_tests", GOOD, tests="import inspect\nassert inspect.isfunction(double)") == 0.0


def test_python_tests_compares_what_a_script_prints(executor):
    columns = {"stdin": ["1 2", "3 4"], "stdout": ["3", "7\n"]}
    assert score(executor, "python_tests", f"```python\n{SCRIPT}\n```", **columns) == 1.0
    assert score(executor, "python_tests", "print(3)", **columns) == 0.0
    assert score(executor, "python_tests", SCRIPT, stdin=["1"], stdout=["1", "2"]) is None


@pytest.mark.parametrize(
    ("reply", "value"),
    [("<answer>2 * 21</answer>", 1.0), ("six() * 7", 1.0), ("[42", 0.0), ("42, 42", 0.0), ("x = 42", 0.0), ("43", 0.0)],
)
def test_python_output_is_the_value_of_an_expression(executor, reply, value):
    assert score(executor, "python_output", reply, answer="42", setup="def six():\n    return 6") == value


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("\\boxed{[1, 2]}", 1.0),
        ("<answer>[1,2]</answer>", 1.0),
        ("[1, 1 + 1]", 1.0),
        ("sorted([2, 1])", 0.0),
        ("", 0.0),
    ],
)
def test_literal_equal_compares_values_and_calls_nothing(executor, reply, value):
    assert score(executor, "literal_equal", reply, answer="[1, 2]") == value


def test_exact_compares_texts(executor):
    assert score(executor, "exact", "so <answer> Paris </answer>", answer="Paris") == 1.0
    assert score(executor, "exact", "Paris.", answer="Paris") == 0.0


def test_each_form_knows_its_own(executor):
    replies = {
        "think_answer": "<think>a</think><answer>b</answer>", "answer": "so <answer>b</answer>",
        "python": GOOD, "boxed": "is \\boxed{b}",
    }  # fmt: skip
    assert replies.keys() == FORMATS.keys()
    for form, reply in replies.items():
        assert ready_rewards(form)["format"].start(reply, {}, executor)() == 1.0
        assert ready_rewards(form)["format"].start("b", {}, executor)() == 0.0


def test_a_reward_applies_to_rows_with_its_columns_alone():
    rewards = ready_rewards("answer")
    assert not rewards["python_tests"].applies({"stdin": "1"})
    assert rewards["python_tests"].applies({"stdin": "1", "stdout": "1"})
    assert not rewards["exact"].applies({"answer": None})
    assert rewards["format"].applies({})


@given(st.text(alphabet="`{}<>answer/boxed\\\n a1[", max_size=200))
def test_no_reply_raises_where_it_is_cut(reply):
    assert isinstance(answer_of(reply), str)
    assert isinstance(program_of(reply), str)
    assert all(form(reply) in (True, False) for form in FORMATS.values())
