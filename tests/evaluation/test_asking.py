"""What a model is asked, where its text ends, and how its text becomes a completion."""

from __future__ import annotations

import re

import pytest

from azr_mlx import evaluation
from azr_mlx.errors import UsageError
from azr_mlx.evaluation import Asker, cut, is_chat, joined
from azr_mlx.evaluation.asking import fenced, fill


def test_text_is_cut_at_the_first_stop_even_inside_a_token() -> None:
    assert cut("    return 1\n\ndef g():\n# x", ["\n#", "\ndef"]) == "    return 1\n"
    assert cut("    return 1", ["\ndef"]) == "    return 1"


def test_a_template_fills_known_fields_once() -> None:
    assert fill("{a} {b} {{}}", {"a": "{b}", "c": "x"}) == "{b} {b} {{}}"


def test_a_base_model_goes_on_where_the_stub_ends(bench) -> None:
    benchmark, problems = bench("humaneval")
    problem = problems["Own/0"]
    asker = Asker(benchmark, "base", list(problems.values()))
    question = asker.ask(problem)
    assert question.text == problem.stub.rstrip()  # a line break at the end would hurt tokenization
    text = "\n    return math.pi * radius ** 2\n\ndef other():"
    assert asker.completion(problem, question, text) == "\n    return math.pi * radius ** 2\n"


def test_a_chat_model_gets_its_template_and_a_begun_reply(bench, judge) -> None:
    benchmark, problems = bench("humaneval")
    problem = problems["Own/1"]
    asker = Asker(benchmark, "chat", list(problems.values()), lambda user, prefill: f"<u>{user}<a>{prefill}")
    question = asker.ask(problem)
    assert question.text.endswith("<a>Sure:\n```python\n")
    assert question.opening == "Sure:\n```python\n"
    # The reply uses `twice`, which only the stub defines: the completion must keep it.
    completion = asker.completion(problem, question, "def four_times(x):\n    return twice(twice(x))\n```\nI hope so.")
    assert judge("humaneval")("Own/1", completion).passed


def test_a_chat_variant_without_a_chat_template_is_refused(bench) -> None:
    benchmark, problems = bench("humaneval")
    with pytest.raises(UsageError, match="needs a model with a chat template"):
        Asker(benchmark, "chat", ()).ask(problems["Own/0"])


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("text ```python\nno fence", None),
        ("```python\na = 1\n```\n", "a = 1\n"),
        ("```\na = 1\n```\nand\n```py\nb = 2\n```", "b = 2\n"),
        ("```python\ndef f(x):\n    pass\n```\nExample:\n```python\nf(1)\n```", "def f(x):\n    pass\n"),
        ("```python\ndef f(x):\n    retu", "def f(x):\n    retu"),  # cut off: what there is counts
        ("Sure:\n  ```python\nx = '```'\n```", "x = '```'\n"),
    ],
)
def test_the_last_block_that_defines_the_function_counts(reply: str, code: str | None) -> None:
    assert fenced(reply, "f") == code


def test_a_block_without_the_function_is_its_body(bench) -> None:
    _, problems = bench("humaneval")
    assert joined(problems["Own/0"], "```python\nreturn 3\n```") == "    return 3\n"
    assert joined(problems["Own/0"], "def area(radius):\n    return 3") == "\ndef area(radius):\n    return 3\n"


def test_few_shot_examples_stand_before_the_question(bench) -> None:
    shown = {"examples": ["2"], "example": "Q: {prompt}\n{solution}\n"}
    prompts = {"base": {"text": "Q: {prompt}\n", "answer": "program", **shown}}
    benchmark, problems = bench("mbpp", prompts=prompts, default_chat="base")
    asker = Asker(benchmark, "base", list(problems.values()))
    wanted = (
        "Q: Write a function to add two numbers.\ndef add(a, b):\n    return a + b\nQ: Write a function to give the"
    )
    assert asker.ask(problems["12"]).text.startswith(wanted)
    with pytest.raises(UsageError, match="lack problem 2"):
        Asker(benchmark, "base", [problems["12"]])


@pytest.mark.parametrize(
    ("scorer", "text", "completion"),
    [
        ("output", "[ANSWER]\nassert f([3, 1]) == [1, 3]\n", "[1, 3]"),
        ("output", "so [ANSWER] 1 [/ANSWER] no, [ANSWER][1, 3]", "[1, 3]"),
        ("input", "assert f([1, 3]) == [1, 3]", "f([1, 3])"),
        ("input", "f([1, 3])", "f([1, 3])"),
    ],
)
def test_an_answer_between_tags_may_be_a_whole_assertion(bench, scorer: str, text: str, completion: str) -> None:
    prompts = {"base": {"text": "{code}", "stop": ["[/ANSWER]"], "answer": "tag"}}
    benchmark, problems = bench(scorer, prompts=prompts, default_chat="base")
    asker = Asker(benchmark, "base", ())
    problem = problems["sample_0"]
    if "no," in text:  # the stop text ends a reply; what the model wrote after it is not read
        completion = "1"
    assert asker.completion(problem, asker.ask(problem), text) == completion


@pytest.mark.parametrize(("scorer", "text", "completion"), [
    ("output", "```output\n[1, 3]\n```\n", "[1, 3]"), ("output", "```output\n[1, 3]", "[1, 3]"),
    ("output", "2 + 1 = 3\n```output\n[1, 3]\n```", "[1, 3]"), ("output", "[1, 3]", "[1, 3]"),
    ("input", "[1, 3]\n```", "f([1, 3])"), ("input", "[1, 3]", "f([1, 3])"),
])  # fmt: skip
def test_cruxeval_can_be_asked_as_in_self_play(bench, scorer: str, text: str, completion: str) -> None:
    prompts = {"base": {"style": "compact", "answer": "training"}}
    benchmark, problems = bench(scorer, prompts=prompts, default_chat="base")
    asker = Asker(benchmark, "base", ())
    question = asker.ask(problems["sample_0"])
    assert question.text.startswith("deduction\n" if scorer == "output" else "abduction\n")
    assert problems["sample_0"].fields[scorer] not in question.text
    assert "[1, 3]" in cut(text, question.stop)  # what ends a reply does not end it before its answer
    assert asker.completion(problems["sample_0"], question, text) == completion


@pytest.mark.parametrize(
    ("model", "chat"),
    [
        ("Qwen/Qwen2.5-Coder-3B", False),
        ("Qwen/Qwen2.5-Coder-3B-Instruct", True),
        ("mlx-community/Qwen2.5-Coder-3B-Instruct-4bit", True),
        ("Qwen/Qwen1.5-4B-Chat", True),
        ("google/gemma-2-2b-it", True),
        ("Qwen/Qwen3-4B", True),
        ("Qwen/Qwen3-4B-Base", False),
        ("checkpoints/qwen3-nano", False),
        ("/models/instruct/opt-125m", False),
    ],
)
def test_a_chat_model_is_known_by_its_name(model: str, chat: bool) -> None:
    assert is_chat(model) is chat


@pytest.mark.parametrize("name", evaluation.benchmark_names())
def test_every_shipped_variant_fills_all_its_fields(name: str) -> None:
    fields = {
        "humaneval": "prompt entry_point", "evalplus": "prompt entry_point", "mbpp": "prompt tests first_test solution",
        "apps": "question starter format", "cruxeval": "code input output", "livecodebench": "question starter format",
    }  # fmt: skip
    benchmark = evaluation.load_benchmark(name)
    known = dict.fromkeys(fields[benchmark.format].split(), "x")
    for wording in (one for one in benchmark.prompts.values() if not one.style):
        for template in (wording.text, wording.prefill, wording.example):
            assert not re.search(r"\{[a-z_]+\}", fill(template, known))
