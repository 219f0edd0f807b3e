"""What a model is asked, where its text ends, and how its text becomes a completion."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx import evaluation
from azr_mlx.errors import UsageError
from azr_mlx.evaluation import Asker, Judge, Problem, cut, is_chat, joined
from azr_mlx.evaluation.asking import fill
from azr_mlx.evaluation.replies import program as fenced
from azr_mlx.evaluation.replies import thinking


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
    # A line break at the end would hurt tokenization; EvalPlus and bigcode take those at the beginning away as well.
    assert question.text == problem.stub.strip()
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


CHAT = {
    "chat": {"chat": True, "text": "{prompt}", "prefill": "Sure:\n```python\n", "answer": "block"},
    "free": {"chat": True, "text": "{prompt}", "answer": "block"},
    "base": {"text": "{prompt}"},
}


def test_a_model_thinks_where_its_reply_is_its_own_and_the_answer_comes_after(bench, judge) -> None:
    benchmark, problems = bench("humaneval", prompts=CHAT)
    problem = problems["Own/0"]
    for template, begun in (("<u>{}<a>{}", "<think>"), ("<u>{}<a><think>\n{}", "")):
        render = template.format
        asker = Asker(benchmark, "free", (), render, thinking=True)
        question = asker.ask(problem)
        thought = begun + f"\n```python\n{WRONG}# a long draft of what it is not\n```\n"
        answer = f"</think>\n\n```python\n{AREA}```"
        assert judge("humaneval")("Own/0", asker.completion(problem, question, thought + answer)).passed
        # What was cut off while the model thought is no answer, though there is a block in it.
        unfinished = begun + f"\n```python\n{AREA}```\n"
        assert not judge("humaneval")("Own/0", asker.completion(problem, question, unfinished)).passed
        assert thinking(question.opening + unfinished)
        assert not thinking(question.opening + thought + answer)


def test_thinking_is_refused_where_the_reply_is_begun_or_is_none(bench) -> None:
    benchmark, _ = bench("humaneval", prompts=CHAT)
    for name in ("chat", "base"):
        with pytest.raises(UsageError, match=f"--thinking needs .*, unlike prompt {name}: take --prompt free$"):
            Asker(benchmark, name, (), "<u>{}<a>{}".format, thinking=True)
    with pytest.raises(UsageError, match=r"begins with <think>, needs .*: take --prompt free$"):
        Asker(benchmark, "chat", (), "<u>{}<a><think>\n{}".format)
    Asker(benchmark, "base", (), "<u>{}<a><think>\n{}".format)  # the template is not used


def test_a_tokenizer_without_a_template_is_one_line(bench) -> None:
    def render(text: str, prefill: str) -> str:
        raise ValueError("me/base has no chat template")

    benchmark, _ = bench("humaneval", prompts=CHAT)
    with pytest.raises(UsageError, match="me/base has no chat template"):
        Asker(benchmark, "free", (), render)


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


AREA = "def area(radius):\n    return math.pi * radius ** 2\n"
WRONG = "def area(radius):\n    return 3\n"
QUOTED = 'def area(radius):\n    """As in\n    ```\n    area(1)\n    ```\n    """\n    return math.pi * radius ** 2\n'
STRING = "def area(radius):\n    s = '''\n```\n'''\n    return math.pi * radius ** 2\n"


def indented(text: str, blanks: str) -> str:
    return "".join(blanks + line for line in text.splitlines(keepends=True))


@pytest.mark.parametrize(
    "reply",
    [
        f"Here:\n```python\n{AREA}```\n",
        f"```py\n{AREA}```",
        f"```Python3\n{AREA}```",
        f"```\n{AREA}```",
        f'```python title="a.py"\n{AREA}```',
        f"```{{python}}\n{AREA}```",
        f"```{{.python .numberLines}}\n{AREA}```",
        f"```python:src/area.py\n{AREA}```",
        f"~~~python\n{AREA}~~~\n",
        f"````python\n{AREA}````\n",
        f"Here:\n```python\n{AREA}```\n".replace("\n", "\r\n"),
        f"1. Solution:\n\n   ```python\n{indented(AREA, '   ')}   ```\n",
        f"1. x\n   ```python\n{AREA}   ```\n",
        f"- ```python\n{indented(AREA, '  ')}  ```\n",
        "```python def area(radius): return math.pi * radius ** 2```",
        f"Sure! Here it is:\n\n{AREA}",
        f"Sure! Here it is:\n\nimport math\n\n{AREA}\nIt uses the number pi of the module.",
        AREA,
        "```python\nclass Solution:\n    def area(self, radius):\n        return math.pi * radius ** 2\n```",
        f"```python\n{AREA}```\nUsage:\n```python\nprint(area(3.5))\n```",
        f"```python\n{AREA}```\nTest:\n```python\nassert area(0) == 0\n```",
        f"```bash\npip install nothing\n```\n```python\n{AREA}```",
        f"```python\n{AREA}```\nIt prints\n```\n3.14159\n```",
        f"<think>```python\n{WRONG}# longer: a draft, thought about for a while\n```</think>\n```python\n{AREA}```",
        f"```python\n{AREA}```\nA naive one would be\n```python\n{WRONG}```",
        f"A naive one would be\n```python\n{WRONG}```\nRight is\n```python\n{AREA}```",
        "```python\n    return math.pi * radius ** 2\n```",
        "```python\nreturn math.pi * radius ** 2\n```",
        "```python\narea = lambda radius: math.pi * radius ** 2\n```",
        f"```python\nfrom functools import lru_cache\n@lru_cache(None)\n{AREA}```",
        f"```python\n{STRING}```",
        f"```python\n{QUOTED}```",
        f"```python\n{QUOTED}```\nand\n```python\nprint(area(1))\n```",
        "```python\n>>> def area(radius):\n...     return math.pi * radius ** 2\n>>> area(0)\n0.0\n```",
        "```python\ndef square(x):\n    return x * x\n```\nand\n```python\ndef area(radius):\n"
        "    return math.pi * square(radius)\n```",
        "```python\nfrom math import pi as number\n```\nthen\n```python\ndef area(r):\n    return number * r * r\n```",
        f"```python\n{AREA}",
    ],
)
def test_a_reply_whose_solution_is_right_is_right(bench, executor, reply: str) -> None:
    benchmark, problems = bench("humaneval")
    completion = joined(problems["Own/0"], reply)
    assert Judge(benchmark, executor)(problems["Own/0"], completion).passed, completion


@given(st.lists(st.sampled_from(
    ["```", "```python", "~~~", "````", "def f(x):", "    return 1", '"""', "'''", ">>> f(1)", "text", "", "x = 1",
     "class Solution:", "    def f(self): pass", "<think>", "</think>", "```python f(1)```", "- ```", "\r", "#"]
), max_size=12).map("\n".join) | st.text(max_size=60))  # fmt: skip
def test_any_reply_becomes_a_completion(reply: str) -> None:
    problem = Problem("a", {}, stub="def f(x):\n", entry_point="f")
    assert isinstance(joined(problem, reply), str)


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
        ("output", "The list is sorted, so assert f([3, 1]) == [1, 3]", "[1, 3]"),
        ("output", "That gives == [1, 3]\n", "[1, 3]"),
        ("input", "```python\nassert f([1, 3]) == [1, 3]\n```", "f([1, 3])"),
        ("input", "One such input:\nassert f([1, 3]) == [1, 3]\n", "f([1, 3])"),
        ("input", "assert f([1, 3]) == [1, 3]\nassert f([3]) == [1, 3]", "f([1, 3])"),
        ("output", "[THOUGHT]\n1 == 1, so\n[/THOUGHT]\n[ANSWER]\nassert f([3, 1]) == [1, 3]\n", "[1, 3]"),
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


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("so</think>\n<answer>```python\na = 1\n```\nor\n```python\nb = 1\n```", "b = 1\n"),
        ("so</think>\n<answer>print(1)", "print(1)"),
        ("```python\nnever = 'closed'\n```\nand on it thinks", "never = 'closed'\n"),
    ],
)
def test_the_azr_prompt_of_livecodebench_is_read_as_the_official_evaluation_does(text: str, program: str) -> None:
    benchmark = evaluation.load_benchmark("livecodebench-v5")
    assert len(benchmark.source.hub_file.split()) == 5
    assert benchmark.prelude == evaluation.load_benchmark("livecodebench").prelude
    fields = {"question": "Q", "official_format": "F "}
    problem = evaluation.Problem("a", fields)
    asker = Asker(benchmark, "azr", ())
    question = asker.ask(problem)
    assert question.text.endswith("Question: Q\n\nF Assistant: <think>")
    assert asker.completion(problem, question, text + "</answer> more") == program


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
        ("Qwen/Qwen3.5-4B", True),
        ("Qwen/Qwen3.5-4B-Base", False),
        ("mlx-community/Qwen3-30B-A3B-4bit", True),
        ("Qwen/Qwen3-4B-Thinking-2507", True),
        ("HuggingFaceTB/SmolLM3-3B", True),
        ("HuggingFaceTB/SmolLM3-3B-Base", False),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", True),
        ("microsoft/phi-4", True),
        ("microsoft/phi-2", False),
        ("openai/gpt-oss-20b", True),
        ("Qwen/Qwen2.5-Coder-7B", False),
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
        "apps": "question starter format", "cruxeval": "code input output",
        "livecodebench": "question starter format official_format", "livecodebench-execution": "code input output",
        "self-play": "",
    }  # fmt: skip
    benchmark = evaluation.load_benchmark(name)
    known = dict.fromkeys(fields[benchmark.format].split(), "x")
    for wording in (one for one in benchmark.prompts.values() if not one.style):
        for template in (wording.text, wording.prefill, wording.example):
            assert not re.search(r"\{[a-z_]+\}", fill(template, known))
