"""Several benchmarks under one word: what a paper reports, asked as it asked, with its rows beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from azr_mlx.evaluation.plan import Choice
from azr_mlx.evaluation.record import Evaluation, bare_name


@dataclass(frozen=True)
class BenchmarkSuite:
    """Benchmarks with the settings of a paper.

    published: for a base model's bare name the paper's scores in percent, (base, trained) by benchmark.
    """

    about: str
    members: tuple[Choice, ...]
    published: Mapping[str, Mapping[str, tuple[float, float]]]
    source: str
    checked: str


def _rows(*rows: tuple[str, tuple[float, float], tuple[float, float], tuple[float, float]]) -> dict[str, Any]:
    names = ("humaneval+", "mbpp+", "livecodebench-v5")
    return {model: dict(zip(names, scores, strict=True)) for model, *scores in rows}


SUITES = {
    "azr": BenchmarkSuite(
        "what Absolute Zero Reasoner reports for code, and what it is validated on",
        (
            # EvalPlus asks every tokenizer with a chat template through it, Qwen's base models too.
            Choice("humaneval+", prompt="chat", seconds=10.0, factor=8.0),
            Choice("mbpp+", prompt="chat", seconds=10.0, factor=8.0),
            Choice("livecodebench-v5", prompt="azr", seconds=60.0),
            Choice("livecodebench-execution", prompt="r1"),
            Choice("cruxeval-i", prompt="r1"),
            Choice("cruxeval-o", prompt="r1"),
        ),
        _rows(
            ("qwen2.5-7b", (73.2, 71.3), (65.3, 69.1), (17.5, 25.3)),
            ("qwen2.5-coder-7b", (80.5, 83.5), (69.3, 69.6), (19.9, 31.7)),
            ("qwen2.5-coder-3b", (67.1, 71.3), (65.9, 69.0), (20.0, 24.4)),
            ("qwen2.5-coder-14b", (76.8, 80.5), (71.7, 71.2), (31.4, 39.0)),
            ("qwen2.5-14b", (78.0, 70.7), (66.7, 68.8), (21.7, 35.2)),
            ("llama-3.1-8b", (31.7, 35.4), (53.7, 50.8), (0.0, 8.5)),
        ),
        "Zhao et al. 2025 (arXiv 2505.03335), table of main and scaling results, greedy",
        "Checked against the official repository (master a82124e): EvalPlus is called greedily and without "
        "--force-base-prompt, so that base models are asked through their chat template with the begun reply, 768 "
        "tokens, with at least 10 s and 8 times the reference's time for an input; its MbppPlus.jsonl has the rows of "
        "v0.2.0 here. LiveCodeBench is release v5 with the prompt LMStyle.AZR, greedy, 8096 tokens, 60 s a test, and "
        "the last ```python block of the answer section. CRUXEval and LiveCodeBench execution are validation sets of "
        "the training, asked in the words of self-play; the paper has curves of them and no scores, and the released "
        "code asks for inputs where the paper speaks of outputs of LiveCodeBench: here it is outputs. Not checked: the "
        "weights' precision (theirs 16 bit, here 4 bit unless --bits says otherwise), and vLLM's numerics.",
    )
}


def suite_choices(name: str, given: Choice) -> tuple[Choice, ...]:
    """The members of a suite; a limit, a seed and the like of the command line go with each."""
    return tuple(
        replace(given, bench=one.bench, prompt=given.prompt or one.prompt, seconds=one.seconds, factor=one.factor)
        for one in SUITES[name].members
    )


def show_suite(console: Console, name: str, found: Sequence[Evaluation], left_out: Mapping[str, str]) -> None:
    """The suite's table: our scores, the paper's where the model is one of its, and what was checked."""
    suite = SUITES[name]
    table = Table(title=f"{name}: {suite.about}", title_justify="left")
    for title in ("benchmark", "model", "score", "95 % interval", "paper, base", "paper, trained"):
        table.add_column(title, justify="left" if title in ("benchmark", "model") else "right")
    for evaluation in found:
        record = evaluation.record
        score = next(iter(record["scores"].values()))
        theirs = suite.published.get(bare_name(record["model"]), {}).get(record["benchmark"])
        table.add_row(
            record["benchmark"], "with adapter" if record["adapter"] else "base", f"{100 * score['value']:.1f} %",
            f"{100 * score['low']:.1f} to {100 * score['high']:.1f}",
            *((f"{one:.1f} %" for one in theirs) if theirs else ("", "")),
        )  # fmt: skip
    console.print(table)
    for bench, why in left_out.items():
        console.print(f"left out, {bench}: {why}", markup=False, soft_wrap=True)
    console.print(f"paper: {suite.source}", markup=False, soft_wrap=True)
    console.print(suite.checked, markup=False, soft_wrap=True)
