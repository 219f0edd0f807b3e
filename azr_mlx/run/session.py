"""From a configuration to a run: where it lives, what it resumes, who takes part, and how it ends.

The order matters: the executor is started before MLX is imported, because a process must not fork once Metal is in use
and because MLX lowers the limits that the executor's children inherit.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from azr_mlx import __version__, config, paths
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.executor import Executor, ExecutorFailed, Limits, SandboxUnavailable
from azr_mlx.executor.rules import ALLOWED_MODULES
from azr_mlx.run import checkpoint


class Interrupt:
    """Ctrl-C and SIGTERM as a flag: the first one stops the run at the next safe place, the second one at once."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("\nstopping: the step under way is given up, everything before it is saved ...\n")

    def check(self) -> None:
        from azr_mlx.run.tracker import Interrupted

        if self.asked:
            raise Interrupted


def train(
    settings: config.Config, *, run_dir: Path | None = None, resume: str | None = None, quiet: bool = False
) -> int:
    """Run self-play to its end, or until it is interrupted; returns the exit code (0, or 130 when interrupted)."""
    run = choose_run(settings, run_dir, resume)
    with ExitStack() as stack:
        stack.enter_context(checkpoint.lock(run))
        saved = _saved_config(run)
        start = checkpoint.latest(run) if resume is not None else None
        if saved is not None and resume is not None:
            _check_changes(saved, settings, run)
        executor = stack.enter_context(_executor(settings))
        return _play(settings, run, start, executor, quiet)


def choose_run(settings: config.Config, run_dir: Path | None, resume: str | None) -> Path:
    """The folder of a run. A fresh run never touches an older one: it takes the next free name. Raises UsageError."""
    folder = run_dir or paths.checkpoints() / settings.name
    if resume is None:
        number = 2
        while folder.exists() and any(folder.glob("*.jsonl")) | any(folder.glob("step-*")):
            if run_dir is not None:
                raise UsageError(
                    f"{run_dir} holds a run already: go on with --resume {run_dir}, or name another folder"
                )
            folder = paths.checkpoints() / f"{settings.name}-{number}"
            number += 1
        return folder
    if resume != "auto":
        folder = Path(resume)
        if checkpoint.STEP.fullmatch(folder.name):
            raise UsageError(f"resume from the run folder {folder.parent}, not from one of its checkpoints")
        if not folder.is_dir():
            raise UsageError(f"--resume {resume}: there is no such run folder")
    elif run_dir is None:
        family = [path for path in paths.checkpoints().glob(f"{settings.name}*") if (path / "config.yaml").is_file()]
        family = [
            path for path in family if path.name.removeprefix(settings.name).lstrip("-").isdigit() or path == folder
        ]
        folder = max(family, key=lambda path: (path / "config.yaml").stat().st_mtime, default=folder)
        return folder
    if checkpoint.latest(folder) is None and not (folder / "config.yaml").is_file():
        raise UsageError(f"{folder} has no checkpoint to resume from")
    return folder


def _saved_config(run: Path) -> config.Config | None:
    return config.load(run / "config.yaml") if (run / "config.yaml").is_file() else None


def _check_changes(saved: config.Config, settings: config.Config, run: Path) -> None:
    """Say what a resumed run changes. Raises UsageError for what would make it another run."""
    changed = [(key, old, new) for key, old, new in config.diff(saved, settings) if key != "name"]
    fixed = [f"{key} ({old!r}, now {new!r})" for key, old, new in changed if key not in config.RESUMABLE]
    if fixed:
        raise UsageError(f"{run} cannot go on with another {'; '.join(fixed)}: start a new run, or leave it as it was")
    for key, old, new in changed:
        sys.stderr.write(f"resuming with {key} = {new!r} (it was {old!r})\n")


def _executor(settings: config.Config) -> Executor:
    dials = settings.executor
    limits = Limits(wall_seconds=dials.wall_seconds, cpu_seconds=dials.cpu_seconds, memory_mb=dials.memory_mb)
    try:
        return Executor(dials.level, limits, workers=dials.workers)
    except SandboxUnavailable as error:
        raise AzrError(str(error)) from None


def versions() -> dict[str, str]:
    """What a result depends on."""
    found = {"azr_mlx": __version__, "python": sys.version.split()[0]}
    for package in ("mlx", "mlx-lm", "numpy", "transformers", "scipy-openblas32"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _play(settings: config.Config, run: Path, start: Path | None, executor: Executor, quiet: bool) -> int:
    from azr_mlx import trainer
    from azr_mlx.model import device
    from azr_mlx.model.policy import Policy
    from azr_mlx.run import held_out, metrics
    from azr_mlx.run.tracker import Interrupted, Tracker
    from azr_mlx.selfplay.prompts import make_style
    from azr_mlx.selfplay.proposer import Proposer
    from azr_mlx.selfplay.solver import Solver
    from azr_mlx.selfplay.task_buffer import Buffer
    from azr_mlx.types import Kind

    interrupt = Interrupt()
    tracker = Tracker(run, settings, quiet=quiet, stop=interrupt.check)
    policy = Policy.load(
        settings.model, settings.lora, settings.optim, settings.sampling, settings.loss,
        seed=settings.seed, total_steps=settings.steps,
    )  # fmt: skip
    profile = device.prepare()
    style = make_style(
        settings.model.style, seconds=settings.executor.wall_seconds, modules=sorted(ALLOWED_MODULES),
        render=policy.render_chat,
    )  # fmt: skip
    tasks = held_out.tasks_for(settings, policy.folder)
    buffer = Buffer(settings.buffer.capacity, held_out.programs(tasks), settings.buffer.per_program)
    solver = Solver(style, executor)
    game = trainer.Game(
        settings, policy, Proposer(style, executor, settings.tasks), solver, buffer, phase=tracker.phase
    )
    state: dict[str, Any] = {"seconds": 0.0, "best": None, "before": None, "wandb": None}
    if start is not None:
        state |= checkpoint.load(start, policy, buffer, game.running)
        tracker.say(f"resuming {run} after step {state['step']}")
    with checkpoint.plain_errors(f"run folder {run}"):
        checkpoint.write_text(run / "config.yaml", config.dump(replace(settings, name=run.name)))
        checkpoint.write_text(run / "versions.json", json.dumps(versions() | {"device": profile.device_name}, indent=1))
    first = int(state.get("step", 0))
    tracker.rewind(first)
    tracker.say(f"run {paths.shown(run)}   model {settings.model.id}   {profile.name}: {profile.device_name}")
    tracker.say(f"sandbox {executor.layers.level}: {', '.join(executor.layers.active) or 'none'}")
    for note in profile.notes:
        tracker.say(f"note: {note}")
    state["wandb"] = tracker.start_wandb(config.flatten(settings), state["wandb"])

    def keep(step: int) -> Path:
        where = checkpoint.save(
            run, step, policy, buffer, game.running, {k: v for k, v in state.items() if k != "step"}
        )
        best = state["best"]["step"] if state["best"] else None
        checkpoint.prune(run, settings.checkpoint.keep, best)
        return where

    old_handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    done, spent = first, float(state["seconds"])
    remembered = buffer.snapshot(), game.running.snapshot()
    try:
        if start is None:
            tracker.say("seeding: the model proposes, nothing is learned yet")
            refused = game.seed()
            sizes = ", ".join(f"{len(buffer.tasks(kind))} {kind}" for kind in game.kinds)
            common = ", ".join(f"{why} {n}" for why, n in sorted(refused.items(), key=lambda item: -item[1])[:4])
            tracker.say(f"seeds: {sizes}" + (f"   refused: {common}" if common else ""))
            if tasks:
                state["before"] = held_out.measure(policy, solver, tasks, settings, tracker.phase).state()
                tracker.say(_probe_line("before", held_out.Score.from_state(state["before"])))
            remembered = buffer.snapshot(), game.running.snapshot()
            keep(0)
            tracker.seconds.clear()
        limit = 60.0 * settings.minutes
        for step in range(first, settings.steps):
            if limit and spent >= limit:
                break
            scores: dict[str, float] = {}
            if tasks and settings.evaluation.every and step and step % settings.evaluation.every == 0:
                score = held_out.measure(
                    policy, solver, tasks, settings, tracker.phase
                )  # of the policy before this step
                scores = score.row()
                tracker.say(_probe_line(f"after {step} steps", score))
                if settings.evaluation.bench:
                    from azr_mlx.evaluation.command import evaluate_slice

                    bench, few = settings.evaluation.bench, settings.evaluation.bench_limit
                    scores |= evaluate_slice(policy, executor, bench, few, model=settings.model.id)
                if state["best"] is None or score.mean > state["best"]["score"]:
                    state["best"] = {"step": step, "score": score.mean}
                    keep(step)
            began = time.monotonic()  # `minutes` are of training: evaluations come on top
            known = metrics.programs(task for kind in Kind for task in buffer.tasks(kind))
            happened = game.play(step)
            row = metrics.row(happened, known, {kind: len(buffer.tasks(kind)) for kind in game.kinds})
            memory = device.memory()
            sizes_now = {"active": memory.active, "peak": happened.update.peak_memory, "cache": memory.cache}
            device.clear_cache()
            tracker.tell(happened, row | scores, sizes_now)
            for message in executor.take_messages():
                tracker.say(f"executor, mended: {message}")
            done, remembered = step + 1, (buffer.snapshot(), game.running.snapshot())
            spent += time.monotonic() - began
            state["seconds"] = spent
            if done % settings.checkpoint.every == 0:
                keep(done)
        kept = keep(done)
    except KeyboardInterrupt:  # asked twice: what is half done may not be saved
        tracker.say(f"stopped at once; the newest checkpoint is {checkpoint.latest(run) or 'none'}")
        return 130
    except (Interrupted, ExecutorFailed) as stop:
        code = 130
        if isinstance(stop, ExecutorFailed):  # the step at hand cannot be judged; those before it are whole
            tracker.say(f"stopped: {stop}")
            code = stop.exit_code
        buffer.restore(remembered[0])
        game.running.restore(remembered[1])
        if start is None and done == 0 and checkpoint.latest(run) is None:
            tracker.say("stopped before the first step: nothing to save")
            return code
        kept = keep(done)
        tracker.rewind(done)
        tracker.say(f"saved {kept}; go on with: {program('azr')} train --resume {paths.shown(run)}")
        return code
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        tracker.close()
    tracker.say(f"{done} steps in {spent / 60:.1f} minutes; {paths.shown(kept)}")
    _finish(settings, run, policy, solver, tasks, tracker, state)
    return 0


def _finish(settings: config.Config, run: Path, policy: Any, solver: Any, tasks: Any, tracker: Any, state: Any) -> None:
    """The last screen: curves, the table before and after, what to do next."""
    from azr_mlx.run import held_out

    tracker.curves()
    if tasks and state["before"] is not None:
        before = held_out.Score.from_state(state["before"])
        after = held_out.measure(policy, solver, tasks, settings, tracker.phase)
        tracker.table(
            held_out.compare(before, after), f"{len(tasks)} held-out tasks, {settings.evaluation.samples} samples each"
        )
        result = {"before": before.state(), "after": after.state(), "seconds": state["seconds"], "versions": versions()}
        with checkpoint.plain_errors(f"result of {run}"):
            checkpoint.write_text(run / "probe.json", json.dumps(result) + "\n")
    if settings.tracking.report:
        from azr_mlx import report

        tracker.say(f"look:     open {paths.shown(report.write(run))} in a browser")
    latest = checkpoint.latest(run)
    azr, model, newest = program("azr"), settings.model.id, paths.shown(latest) if latest else ""
    prompt = "def f(a):" if settings.model.style != "chat" else "Write a Python function that adds two numbers."
    tracker.say(f"evaluate: {azr} eval --bench humaneval --model {model} --adapter {newest} --compare")
    tracker.say(f"export:   {azr} export {paths.shown(run)}")
    tracker.say(
        f"use it:   {program('mlx_lm.generate')} --model {model} --adapter-path {newest} --prompt {shlex.quote(prompt)}"
    )


def program(name: str) -> str:
    """How to call a program of this environment from here: by its name where PATH finds it, else by its path."""
    mine = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(mine) else paths.shown(mine)


def _probe_line(label: str, score: Any) -> str:
    kinds = ", ".join(f"{kind} {100 * sum(rates) / len(rates):.1f} %" for kind, rates in score.sampled.items())
    return f"probe {label}: {100 * score.mean:.1f} % at temperature 1 ({kinds}); greedy {100 * score.greedy_mean:.1f} %"
