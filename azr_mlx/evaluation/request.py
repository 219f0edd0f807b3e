"""What `azr eval` was asked for: its options, checked against each other before anything happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_mlx.errors import UsageError
from azr_mlx.evaluation.benchmark import benchmark_names
from azr_mlx.evaluation.plan import Choice
from azr_mlx.evaluation.suites import SUITES, suite_choices


@dataclass(frozen=True)
class EvalOptions:
    """What `azr eval` was asked for, beside the choices of each benchmark."""

    choices: tuple[Choice, ...]
    model: str = ""  # empty: the adapter's model, else the embedded one; of an endpoint, the only one it serves
    revision: str = ""
    adapter: Path | None = None
    completions: Path | None = None
    extract: bool = False  # the completions are raw replies
    other: Path | None = None  # completions to compare with
    compare: bool = False  # base against adapter
    endpoint: str = ""  # the address of a server that has the model
    partial: bool = False
    output: Path | None = None
    logs: Path | None = None
    fresh: bool = False
    thinking: bool = False
    explain: bool = False  # show one problem instead of scoring all
    bits: int = 4  # of weights that come in full precision
    rows: int = 0  # completions written together; 0 is 64 here and 8 requests of an endpoint
    level: str = "standard"  # of the sandbox
    suite: str = ""  # the suite that the choices are of
    as_json: bool = False


def read_options(benches: str | None, ks: str | None, compare: str | None, **words: Any) -> EvalOptions:
    """The options of a command line. Raises UsageError for those that do not go together."""
    if not benches:
        raise UsageError(
            f"eval: say what to evaluate with --bench; there are {', '.join([*benchmark_names(), *SUITES])}"
        )
    try:
        k = tuple(sorted({int(word) for word in ks.split(",")})) if ks else ()
    except ValueError:
        k = (0,)
    if any(one < 1 for one in k):
        raise UsageError(f"eval: --k {ks} must be whole numbers above 0, as in --k 1,10")
    chosen = [name.strip() for name in benches.split(",") if name.strip()]
    if len(chosen) > 1 and (words["data"] or words["output"] or words["completions"]):
        raise UsageError("eval: --data, --output and --completions go with one benchmark at a time")
    _check_sides(words, compare)
    suite = next((name for name in chosen if name in SUITES), "")
    if suite and (len(chosen) > 1 or words["data"] or words["output"] or words["completions"] or words["explain"]):
        raise UsageError(f"eval: --bench {suite} is several benchmarks: no others, --data, --output, --completions")
    choices = tuple(
        Choice(
            name, data=words["data"], split=words["split"], level=words["level"], limit=words["limit"] or 0,
            prompt=words["prompt"], samples=words["samples"], temperature=words["temperature"], top_p=words["top_p"],
            tokens=words["tokens"] or 0, seed=words["seed"], k=k,
        )
        for name in chosen
    )  # fmt: skip
    if suite:
        choices = suite_choices(suite, choices[0])
    same = (
        "model", "revision", "adapter", "completions", "extract", "endpoint", "partial", "output", "logs", "fresh",
        "thinking", "explain", "as_json",
    )  # fmt: skip
    return EvalOptions(
        choices,
        other=Path(compare) if compare else None,
        compare=compare == "",
        bits=int(words["bits"]),
        rows=words["rows"] or 0,
        level=words["sandbox"],
        suite=suite,
        **{name: words[name] for name in same},
    )


def _check_sides(words: dict[str, Any], compare: str | None) -> None:
    """Who writes: a model here, one behind an endpoint, or nobody. Raises UsageError."""
    adapter, completions, endpoint = words["adapter"], words["completions"], words["endpoint"]
    if completions and (adapter or words["samples"] > 1 or words["temperature"]):
        raise UsageError("eval: --completions are judged as they are: no --adapter, --samples or --temperature")
    if words["extract"] and not completions:
        raise UsageError("eval: --extract reads raw replies of --completions FILE")
    if endpoint and (completions or adapter or compare is not None or words["thinking"]):
        raise UsageError(
            "eval: --endpoint scores the model that is served: no --adapter, --compare, --completions or --thinking"
        )
    if compare == "" and (adapter is None or completions):
        raise UsageError("eval: --compare needs --adapter, or --completions and a second file: --compare FILE")
    if compare and not completions:
        raise UsageError("eval: --compare FILE goes with --completions; base against adapter is --compare alone")
    if compare is not None and words["output"]:
        raise UsageError("eval: --compare writes two files of samples: leave --output away")
