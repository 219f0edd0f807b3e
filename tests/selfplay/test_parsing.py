"""What is read out of a reply, and what is refused."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.selfplay import parsing

F = "def f(a):\n    return a"


def fenced(label: str, text: str) -> str:
    return f"```{label}\n{text}\n```\n"


@pytest.mark.parametrize(
    ("reply", "good"),
    [
        ("<think>a</think><answer>b</answer>", True),
        ("<think>a</think>\n\n<answer>b</answer> and more", True),
        ("<think>a</think> so <answer>b</answer>", False),
        ("first <think>a</think><answer>b</answer>", False),
        ("<think>a</think><answer>b", False),
        ("<answer>b</answer>", False),
    ],
)
def test_a_reply_thinks_first_and_then_answers(reply, good):
    assert parsing.well_formed(reply) is good


def test_the_last_answer_section_counts():
    assert parsing.answer_section("<answer>1</answer> no, <answer>2</answer>") == "2"


def test_a_proposal_takes_the_first_input_and_a_solution_the_last():
    two = fenced("python", F) + fenced("input", "1") + fenced("input", "2")
    assert parsing.proposal(two) == parsing.Proposal(F, "1")
    assert parsing.solver_value(two, "input") == "2"


def test_an_input_block_in_front_is_not_taken_for_the_program():
    with pytest.raises(parsing.ParseError, match="no python block"):
        parsing.proposal(fenced("input", "1") + fenced("python", F))


def test_a_function_of_another_name_becomes_f_where_it_is_defined_and_called():
    program = "def solve(n):\n    return 1 if n < 2 else n * solve(n - 1) + x.solve(3)"
    expected = "def f(n):\n    return 1 if n < 2 else n * f(n - 1) + x.solve(3)"
    assert parsing.name_f(program) == expected


def test_helpers_are_welcome():
    program = "def g(x):\n    return x\ndef f(a):\n    return g(a)"
    assert parsing.name_f(program) == program


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("no code at all", "no python block"),
        (fenced("python", "x = 1") + fenced("input", "1"), "no function"),
        (fenced("python", F), "no input block"),
        ("```python\n" + F, "no python block"),  # cut off before the fence closed
    ],
)
def test_what_is_missing_has_a_name(reply, reason):
    with pytest.raises(parsing.ParseError, match=reason):
        parsing.proposal(reply)


def test_of_several_inputs_the_last_are_kept_in_order_and_of_messages_the_first():
    reply = "".join(fenced("input", str(i)) for i in range(12)) + fenced("message", "hint") + fenced("message", "other")
    assert parsing.last_inputs(reply, 10) == tuple(map(str, range(2, 12)))
    assert parsing.message(reply) == "hint"


@pytest.mark.parametrize("reply", ["# Output: 7", "output(7)", "<output>7", "<output>7</output>", "The output is 7."])
def test_an_answer_without_a_fence_is_still_found(reply):
    assert parsing.solver_value(reply, "output") == "7"


def test_a_solver_program_needs_a_fence():
    assert parsing.solver_program(F) is None
    assert parsing.solver_program(fenced("python", "old") + fenced("", F)) == F


def test_the_imports_of_a_program_can_be_lent():
    assert (
        parsing.import_lines("import math\nfrom re import sub\ndef f(a):\n    return a")
        == "import math\nfrom re import sub\n"
    )
    assert parsing.import_lines("def f(") == ""


@given(st.text(alphabet="`abc\n input<>/answer", max_size=300))
def test_any_text_is_parsed_or_refused(text):
    for parse in (parsing.proposal, parsing.message, lambda t: parsing.last_inputs(t, 2)):
        with contextlib.suppress(parsing.ParseError):
            parse(text)
    parsing.solver_value(text, "input")
    parsing.solver_program(parsing.answer_section(text))


# What the searches mean, said as single patterns; those take a time quadratic in the text, and for some the cube of it.
BLOCK = re.compile(r"```[ \t]*([\w+.-]*)[ \t]*\r?\n(.*?)(?:\r?\n)?[ \t]*```(?!\w)", re.DOTALL)
FORM = re.compile(r"<think>(.*?)</think>\s*<answer>(.*?)</answer>", re.DOTALL)
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<input>"]
PIECES = ["```", "`", "python", "input", "\n", "\r\n", "\r", " ", "\t", "x", "+", ")", "input(", "# input:", *TAGS]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_blocks_and_sections_are_those_of_the_patterns_that_define_them(text):
    assert parsing.blocks(text) == [body.strip() for _, body in BLOCK.findall(text)]
    assert parsing.blocks(text, "input") == [body.strip() for label, body in BLOCK.findall(text) if label == "input"]
    assert parsing.well_formed(text) is (FORM.match(text.strip()) is not None)


FENCES = ["```a\n", "```\n x", "``` ", "```a", "`", "x\n```"]
WORDS = [
    "# input ",
    "#input: ",
    "the input is ",
    "input(",
    "<message>",
    "def f(",
    "def f",
    "def ",
    "f ",
    "(",
    " ",
    "\n",
]


@pytest.mark.parametrize("piece", [*FENCES, *TAGS, *WORDS, "</think> ", "<think></think><answer>"])
def test_no_text_takes_more_than_linear_time(piece):
    """Of these texts a search that is quadratic takes hours: the test ends in a second or at the limit of the suite."""
    for text in (piece * (1_000_000 // len(piece)), "<think>" + piece * 100_000, "```python\n" + piece * 100_000):
        parsing.well_formed(text)
        parsing.solver_value(parsing.answer_section(text), "input")
        parsing.solver_program(text)
        for parse in (parsing.proposal, parsing.message, lambda t: parsing.last_inputs(t, 2), parsing.name_f):
            with contextlib.suppress(parsing.ParseError):
                parse(text)
