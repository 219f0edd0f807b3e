"""The verbs that score: `azr eval` and `azr data`. What their options mean together is in evaluation/request.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("eval")
@click.option("--bench", "benches", metavar="NAME[,NAME]", help="Benchmarks of benchmarks/, or YAML files.")
@click.option(
    "--model", default="", metavar="M", help="Repository or folder; else the adapter's, else the embedded one."
)
@click.option("--revision", default="", metavar="REV", help="Branch, tag or commit of the model's repository.")
@click.option("--adapter", type=click.Path(path_type=Path), metavar="A", help="MLX adapter, step folder or run.")
@click.option("--prompt", default="", metavar="VARIANT", help="Prompt variant, as base, chat or chat-plain.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Samples of each problem.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--top-p", type=click.FloatRange(min=0, max=1, min_open=True), default=1.0, show_default=True, help="Nucleus mass."
)
@click.option("--k", "ks", metavar="K[,K]", help="The k of pass@k; else those of 1, 5, 10, 100 that samples allow.")
@click.option("--tokens", type=click.IntRange(min=1), help="Longest completion; else the variant's.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of sampling.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N problems.")
@click.option("--split", default="", help="Split of the benchmark, as test or all.")
@click.option("--level", default="", help="Only the problems of this level.")
@click.option("--data", type=click.Path(path_type=Path), metavar="PATH", help="The rows: .jsonl, .jsonl.gz or .json.")
@click.option("--completions", type=click.Path(path_type=Path), metavar="FILE", help="Judge these; no model is loaded.")
@click.option("--extract", is_flag=True, help="The completions are raw replies: find the answer in each.")
@click.option("--endpoint", default="", metavar="URL", help="Score what a server has, as http://localhost:8080/v1.")
@click.option(
    "--compare",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Base against adapter; with --completions, FILE against those.",
)
@click.option("--partial", is_flag=True, help="Judge completions although problems are missing.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Where samples go; else under logs/.")
@click.option("--logs", type=click.Path(path_type=Path), metavar="DIR", help="Where results go; else logs/.")
@click.option("--fresh", is_flag=True, help="Write samples anew instead of going on from those in the file.")
@click.option("--thinking", is_flag=True, help="Let the chat template open a think section.")
@click.option(
    "--bits",
    type=click.Choice(["2", "3", "4", "5", "6", "8"]),
    default="4",
    show_default=True,
    help="Precision to which full-precision weights are quantized, as in training.",
)
@click.option(
    "--rows", type=click.IntRange(min=1), help="Completions written together; else 64, of an endpoint 8 requests."
)
@click.option(
    "--sandbox",
    type=click.Choice(["strict", "standard", "off"]),
    default="standard",
    show_default=True,
    help="Level of confinement.",
)
@click.option("--explain", is_flag=True, help="Show the first prompt and reply, and how the answer was cut.")
@click.option("--list", "listed", is_flag=True, help="The benchmarks and their prompt variants.")
@click.option("--json", "as_json", is_flag=True, help="The results as JSON instead of a table.")
def eval_(listed: bool, **words: Any) -> int:
    """Score a model on a benchmark, alone or against itself with an adapter.

    Samples are written to disk as they come, and the same command goes on where an interrupted one stopped.
    Every result is appended to logs/evaluation_results.json. docs/benchmarks.md says what each number means.

    \b
    Examples:
      azr eval --bench humaneval                                   the embedded model, nothing to download
      azr eval --bench humaneval --model Qwen/Qwen2.5-Coder-3B --adapter checkpoints/run --compare
      azr eval --bench mbpp+ --data MbppPlus.jsonl.gz --model Qwen/Qwen2.5-Coder-3B-Instruct
      azr eval --bench humaneval --samples 20 --temperature 0.2 --k 1,10
      azr eval --bench humaneval --completions samples.jsonl       judge what another tool wrote
      azr eval --bench humaneval --endpoint http://localhost:8080/v1 --model NAME      what a server has
      azr eval --bench azr --model Qwen/Qwen2.5-Coder-3B           what the paper reports, and its rows beside
      azr eval --bench humaneval --explain                         one prompt and reply, and how the answer was cut
      azr eval --list
    """
    from azr_mlx import evaluation
    from azr_mlx.evaluation.suites import SUITES

    if listed:
        for name in evaluation.benchmark_names():
            benchmark = evaluation.load_benchmark(name)
            click.echo(f"{name:<23} {benchmark.about}; prompts {', '.join(benchmark.prompts)}")
        for name, suite in SUITES.items():
            click.echo(f"{name:<23} {suite.about}; {', '.join(one.bench for one in suite.members)}")
        return 0
    from azr_mlx.evaluation.request import read_options

    options = read_options(**words)
    from azr_mlx.evaluation.command import eval_command
    from azr_mlx.versions import result_versions

    return eval_command(options, result_versions())


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def data(names: tuple[str, ...]) -> None:
    """Fetch the rows of benchmarks, or list which are here.

    Rows come from the Hugging Face hub or from where their authors put them, with a progress bar, and are verified.

    \b
    Examples:
      azr data                     every benchmark: here or not, problems, size, licence
      azr data mbpp mbpp+
    """
    from rich.console import Console

    from azr_mlx.evaluation import fetching

    console = Console(highlight=False)
    if not names:
        fetching.show_data(console)
    for name in names:
        fetching.fetch_named(name, console)
