"""What an evaluation asks for, with its problems at hand: checked before anything expensive happens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from azr_mlx.errors import UsageError
from azr_mlx.evaluation.benchmark import Benchmark, is_chat, load_benchmark
from azr_mlx.evaluation.data import Rows
from azr_mlx.evaluation.fetching import find_rows
from azr_mlx.evaluation.problems import Problem, problems_of

DEMONSTRATION = "qwen3-nano"  # the embedded model
USUAL_K = (1, 5, 10, 100)


@dataclass(frozen=True)
class Choice:
    """What is evaluated, and how. The defaults are one greedy sample of every problem of the usual split."""

    bench: str
    data: Path | None = None
    split: str = ""
    level: str = ""
    limit: int = 0  # the first so many problems; 0 is all
    prompt: str = ""  # the prompt variant; empty is the benchmark's own for such a model
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    tokens: int = 0  # longest completion; 0 is the variant's own
    seed: int = 0
    k: tuple[int, ...] = ()  # of pass@k; empty is those of USUAL_K that the samples allow
    seconds: float = 0.0  # of one program or input; 0 is the benchmark's own
    factor: float = 0.0  # of the reference's time; 0 is the benchmark's own


@dataclass(frozen=True)
class Plan:
    """A benchmark with its rows at hand: `everything` may be quoted in prompts, `problems` are asked."""

    choice: Choice
    benchmark: Benchmark
    rows: Rows
    everything: tuple[Problem, ...]
    problems: tuple[Problem, ...]
    k: tuple[int, ...]
    whole: int  # problems of the split


def make_plan(choice: Choice, *, given: bool = False) -> Plan:
    """Find the rows and check the choice before anything expensive happens. Raises UsageError and DataMissing.

    given: the completions are there already, so that only they say how many samples there are.
    """
    benchmark = load_benchmark(choice.bench)
    benchmark = replace(
        benchmark, seconds=choice.seconds or benchmark.seconds, factor=choice.factor or benchmark.factor
    )
    if choice.prompt and choice.prompt not in benchmark.prompts:
        raise UsageError(f"{benchmark.name} has no prompt {choice.prompt!r}; there are {', '.join(benchmark.prompts)}")
    if choice.samples > 1 and choice.temperature == 0.0 and not given:
        raise UsageError("greedy samples are all alike: add --temperature (usual are 0.2 for pass@1, 0.8 for pass@100)")
    too_large = [k for k in choice.k if k > choice.samples]
    if too_large and not given:
        raise UsageError(f"pass@{too_large[0]} needs --samples {too_large[0]} or more, not {choice.samples}")
    rows = find_rows(benchmark, choice.data)
    wanted = problems_of(benchmark, rows, choice.split)
    whole = len(wanted)
    everything = tuple(wanted if not benchmark.splits else problems_of(replace(benchmark, split="", splits={}), rows))
    if choice.level:
        levels = sorted({problem.level for problem in wanted} - {""})
        wanted = [problem for problem in wanted if problem.level == choice.level]
        if not wanted:
            raise UsageError(f"{benchmark.name} has no level {choice.level!r}; there are {', '.join(levels) or 'none'}")
    k = choice.k or tuple(k for k in USUAL_K if k <= choice.samples)
    return Plan(choice, benchmark, rows, everything, tuple(wanted[: choice.limit or None]), k, whole)


def variant(benchmark: Benchmark, choice: Choice, model: str) -> str:
    """The prompt variant: the chosen one, else the chat one for models that are named as chat models.

    The embedded model knows no words; where a benchmark can be asked as in its training, it is.
    """
    if not choice.prompt and Path(model).name == DEMONSTRATION and "compact" in benchmark.prompts:
        return "compact"
    return choice.prompt or (benchmark.default_chat if is_chat(model) else benchmark.default)
