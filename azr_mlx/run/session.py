"""A run from its configuration to its last screen: evaluate, prepare, step, log, keep, end.

The order of the start matters: the executor is started before MLX is imported, because a process must not fork once
Metal is in use and because MLX lowers the limits that the executor's children inherit.
"""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from azr_mlx import config, paths, planner
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.executor import Executor, ExecutorFailed
from azr_mlx.model.metal import Relief
from azr_mlx.run import forecast, supervisor
from azr_mlx.run.executors import start_executor
from azr_mlx.run.folder import RunFolder, choose
from azr_mlx.run.interrupt import Interrupt, Interrupted
from azr_mlx.run.wakefulness import SleepWatch, awake
from azr_mlx.selfplay.prompts import check_style
from azr_mlx.terminal import never_refuse
from azr_mlx.versions import result_versions

if TYPE_CHECKING:  # importing these imports MLX
    from azr_mlx.cluster.coordinator import Coordinator
    from azr_mlx.cluster.sharing import Sharing
    from azr_mlx.model.policy import Policy
    from azr_mlx.run.held_out import HeldOut, HeldOutScore
    from azr_mlx.run.tracker import Tracker
    from azr_mlx.trainer import Trainer
    from azr_mlx.types import Step

UPDATES_LOST = 3  # steps in a row whose gradient is not finite after which a run ends


def train(
    settings: config.Config,
    *,
    run_dir: Path | None = None,
    resume: str | None = None,
    quiet: bool = False,
    keep_awake: bool = True,
    sharing: Sharing | None = None,
) -> int:
    """Run self-play to its end, or until it is interrupted; returns the exit code (0, or 130 when interrupted).

    sharing: how other machines take part in the run's work; None is a run of this process alone.
    """
    never_refuse()
    check_style(settings.model.style)
    folder = choose(settings, run_dir, resume)
    supervisor.announce(folder.path)
    with ExitStack() as stack:
        stack.enter_context(folder.lock())
        saved = folder.settings()
        settings = folder.with_own_style(settings)
        start = folder.latest() if resume is not None else None
        if saved is not None and resume is not None:
            _check_changes(saved, settings, folder)
        executor = stack.enter_context(start_executor(settings))
        held = stack.enter_context(awake(keep_awake))
        machine = None
        if start is None and not quiet:
            machine = planner.here(0.1)  # imports MLX, except on a Mac
            sys.stdout.write("\n".join(forecast.screen(settings, machine)[0]) + "\n")
            sys.stdout.flush()
        session = Session.open(settings, folder, executor, start, quiet=quiet)
        session.machine = machine
        if held:
            session.tracker.print("note: this Mac is held awake while the run lasts (--no-awake lets it sleep)")
        if sharing is not None:
            from azr_mlx.cluster.hosting import share

            session.machines = stack.enter_context(share(session.policy, settings, sharing, session.tracker.print))
        return session.run()


@dataclass
class RunState:
    """What a run knows beside its policy and its environments. Travels in a checkpoint's state.json."""

    SINCE: ClassVar = ("held_out_each", "best_held_out", "without_better", "without_form")  # saved unless empty

    step: int = 0  # steps that are done
    seconds: float = 0.0  # of training, in all processes
    best: dict[str, Any] | None = None  # step and held-out score of the best policy so far
    before: dict[str, Any] | None = None  # the held-out score before the first step
    wandb: str | None = None  # identity of the W&B run
    held_out_each: int = 0  # held-out tasks of each kind that evaluation.minutes allows; 0 is all
    best_held_out: dict[str, Any] | None = None  # the held-out score of the best policy, task by task
    without_better: int = 0  # evaluations in a row that were not better than the best
    without_form: int = 0  # steps in a row without a reply of the required form

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps beside its step."""
        saved = {"seconds": self.seconds, "best": self.best, "before": self.before, "wandb": self.wandb}
        return saved | {name: value for name in self.SINCE if (value := getattr(self, name))}

    def restore(self, saved: dict[str, Any]) -> None:
        self.step = int(saved["step"])
        for name in {*self.saved(), *self.SINCE}:
            setattr(self, name, saved.get(name, getattr(self, name)))


@dataclass
class Session:
    """One process's part of a run: everybody who takes part, and what happens from the first step to the last."""

    settings: config.Config
    folder: RunFolder
    policy: Policy
    trainer: Trainer
    held_out: HeldOut
    executor: Executor
    tracker: Tracker
    interrupt: Interrupt
    state: RunState
    resumed: bool
    relief: Relief  # what answers memory pressure
    machines: Coordinator | None = None  # who shares the work of the run
    sleep: SleepWatch = field(default_factory=SleepWatch)
    clock: Callable[[], float] = time.monotonic  # seconds, of which none passes while the machine sleeps
    updates_lost: int = 0  # steps in a row whose gradient was not finite
    kept_at: float = 0.0  # seconds of training at the newest checkpoint of this process
    loaded_at: float = 0.0  # when the policy was there, by the clock
    machine: planner.Machine | None = None  # what it runs on, where that is known
    ended: str = ""  # why the run ends before its time

    # The start --------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls, settings: config.Config, folder: RunFolder, executor: Executor, start: Path | None, *, quiet: bool
    ) -> Session:
        """Load the policy, build everybody else around it, and put a checkpoint back if there is one (`start`)."""
        from azr_mlx.model import device
        from azr_mlx.model.policy import Policy
        from azr_mlx.rows.environment import material
        from azr_mlx.run import checkpoint, environments
        from azr_mlx.run.held_out import HeldOut, tasks_for
        from azr_mlx.run.tracker import Tracker
        from azr_mlx.trainer import Trainer

        found = material(settings) if settings.uses_rows else None  # before the model: what is wrong is said at once
        interrupt = Interrupt()
        tracker = Tracker(folder, settings, quiet=quiet, stop=interrupt.check)
        policy = Policy.load(
            settings.model, settings.lora, settings.optim, settings.sampling, settings.loss,
            seed=settings.seed, total_steps=settings.steps,
        )  # fmt: skip
        profile = device.prepare()
        solver = environments.solver(settings, policy, executor)
        rows = environments.rows(settings, found, policy, executor, tracker.print, tracker.phase)
        held_out = HeldOut(tasks_for(settings, policy.folder), policy, solver, settings, tracker.phase, rows)
        playing = environments.playing(settings, policy, solver, rows, held_out.programs(), tracker.phase)
        trainer = Trainer(settings, policy, playing, tracker.phase)
        state = RunState()
        if start is not None:
            state.restore(checkpoint.load(start, policy, trainer.environments))
            held_out = held_out.limited_to(state.held_out_each)
            tracker.print(f"resuming {folder} after step {state.step}")
        name = folder.name if config.is_name(folder.name) else settings.name
        versions = result_versions() | {"device": profile.device_name}
        changed = folder.write_settings(replace(settings, name=name), versions, state.step)
        if changed:
            tracker.print(f"note: this run goes on with other versions than it was begun with: {changed}")
        tracker.rewind(state.step)
        tracker.print(
            f"run {paths.display_path(folder.path)}   model {settings.model.id}   {profile.name}: {profile.device_name}"
        )
        tracker.print(f"sandbox {executor.layers.level}: {', '.join(executor.layers.active) or 'none'}")
        for note in profile.notes:
            tracker.print(f"note: {note}")
        state.wandb = tracker.open_sinks(config.flatten(settings), state.wandb)
        session = cls(
            settings, folder, policy, trainer, held_out, executor, tracker, interrupt, state, start is not None,
            Relief(policy.shrink),
        )  # fmt: skip
        session.remember()
        session.kept_at, session.loaded_at = state.seconds, session.clock()
        return session

    # The run, as it is read -------------------------------------------------------------------------------------

    def run(self) -> int:
        """Evaluate, prepare, step, log, keep, end; returns the exit code."""
        try:
            with self.interrupt.installed(), self.saved_on_error():
                if not self.resumed:
                    self.evaluate_before()
                    self.prepare()
                    self.keep()
                while not self.over():
                    scores = self.evaluate()
                    if self.ended:
                        break
                    with self.training_time():
                        self.log(self.trainer.train_step(self.state.step), scores)
                    if self.checkpoint_due():
                        self.keep()
                kept = self.keep()
        except KeyboardInterrupt:  # asked twice: what is half done may not be saved
            self.tracker.print(f"stopped at once; the newest checkpoint is {self.folder.latest() or 'none'}")
            return 130
        except Interrupted:
            self.stop()
            return 130
        except ExecutorFailed as error:  # the step at hand cannot be judged; those before it are whole
            self.tracker.print(f"stopped: {error}")
            self.stop()
            return error.exit_code
        finally:
            self.tracker.close()
        self.end(kept)
        return 0

    def prepare(self) -> None:
        """What the environments do before the first step, such as collecting seed tasks."""
        from azr_mlx.run import metrics

        refused = self.trainer.prepare(self.tracker.print)
        self.tracker.seconds.clear()
        share = refused.get("cut off", 0) / max(1, sum(refused.values()))
        if share > metrics.CUT_OFF:
            self.tracker.print(
                f"note: {100 * share:.0f} % of what was refused was cut off: {metrics.PROPOSALS_CUT_OFF}"
            )
        self.remember()

    def evaluate_before(self) -> None:
        """The held-out score that everything later is compared with; where it takes long, a first look before it."""
        if not self.held_out.size:
            return
        counts: Counter[str] = Counter(task.kind for task in self.held_out.tasks)
        few = forecast.first_look(self.settings, counts, self.machine)
        if few:
            score, seconds = self.held_out.first_look(few)
            since = forecast.spoken_time(self.clock() - self.loaded_at)
            width = f" ± {100 * score.half_width:.1f}" if score.half_width else ""  # of tasks that all went alike, none
            self.tracker.print(
                f"first held-out number, {since} after the model was loaded: {100 * score.mean:.1f} %{width} at "
                f"temperature 1 on {few} tasks of each kind"
            )
            self.state.held_out_each, words = self.held_out.affordable(seconds)
            self.held_out = self.held_out.limited_to(self.state.held_out_each)
            if words:
                self.tracker.print(words)
            self.tell_form(score)
        score = self.held_out.measure()
        self.state.before = score.state()
        self.tracker.print(score.line("before"))
        if not few:
            self.tell_form(score)

    def tell_form(self, score: HeldOutScore) -> None:
        """Say what is wrong with the form of the replies, if much is, before an hour is spent on them."""
        for line in score.form_advice():
            self.tracker.print(f"note: {line}")

    def over(self) -> bool:
        limit = 60.0 * self.settings.minutes
        return bool(self.ended) or self.state.step >= self.settings.steps or bool(limit and self.state.seconds >= limit)

    def evaluate(self) -> dict[str, float]:
        """In-run evaluation of the policy before the next step, when it is due; its metrics. Keeps the best policy."""
        settings, step, scores = self.settings.evaluation, self.state.step, dict[str, float]()
        if not (settings.every and step and step % settings.every == 0):
            return scores
        if self.held_out.size:
            score = self.held_out.measure()
            scores |= score.row()
            self.tracker.print(score.line(f"after {step} steps"))
        if settings.bench:
            from azr_mlx.evaluation.run import evaluate_slice

            model = self.settings.model.id
            scores |= evaluate_slice(self.policy, self.executor, settings.bench, settings.bench_limit, model=model)
        if self.held_out.size:
            self.keep_best(score)
            self.ended = self.ended_by(score)
        return scores

    def ended_by(self, score: HeldOutScore) -> str:
        """Why the run ends after an evaluation, in words; empty when it goes on."""
        from azr_mlx.run.held_out import HeldOutScore
        from azr_mlx.run.stopping import ended_by

        before, best = self.state.before, self.state.best_held_out
        if before is None or best is None:  # a run of an earlier version, or one that was begun without held-out tasks
            return ""
        return ended_by(
            self.settings.stop, HeldOutScore.from_state(before), HeldOutScore.from_state(best), score,
            self.state.without_better,
        )  # fmt: skip

    def log(self, step: Step, scores: dict[str, float]) -> None:
        """A step is over: its metrics, its line on the console, and what is remembered of it.

        Raises AzrError when the gradient was not finite in several steps in a row: nothing is learned any more.
        """
        from azr_mlx.model import device
        from azr_mlx.run import metrics
        from azr_mlx.run.stopping import unreadable

        sizes = {kind: len(tasks) for kind, tasks in self.trainer.tasks().items()}
        row = metrics.row(step, self.known_programs, sizes)
        memory = device.memory()
        held = {"active": memory.active, "peak": step.update.peak_memory, "cache": memory.cache}
        device.clear_cache()
        self.tracker.log_step(step, row | scores, held, self.machines.lines() if self.machines else ())
        for message in self.executor.take_messages():
            self.tracker.print(f"executor, mended: {message}")
        for note in (self.relief.look(), self.sleep.note()):
            if note:
                self.tracker.print(f"note: {note}")
        self.state.step += 1
        self.remember()
        self.state.without_form = self.state.without_form + 1 if unreadable(row) else 0
        if 0 < self.settings.stop.malformed <= self.state.without_form:
            self.ended = (
                f"no reply of the last {self.state.without_form} steps had the required form, so that nothing can be "
                "learned: the alarms above say what to turn (stop.malformed)"
            )
        self.updates_lost = 0 if math.isfinite(step.update.grad_norm) else self.updates_lost + 1
        if self.updates_lost >= UPDATES_LOST:
            raise AzrError(
                f"the gradient was not finite in {UPDATES_LOST} steps in a row, which were skipped: go on from an "
                "earlier checkpoint with a lower optim.lr, or with model.dtype=float32"
            )

    # What is kept -----------------------------------------------------------------------------------------------

    def remember(self) -> None:
        """What is saved when a later step is given up, and what is known before the next one."""
        from azr_mlx.run import metrics

        self.remembered = self.trainer.snapshot()
        self.updates = self.policy.updates
        self.known_programs = metrics.programs(task for tasks in self.trainer.tasks().values() for task in tasks)

    def keep(self) -> Path:
        """Write a checkpoint of the steps that are done, and delete those that are not wanted any more."""
        from azr_mlx.run import checkpoint

        where = checkpoint.save(
            self.folder, self.state.step, self.policy, self.trainer.environments, self.state.saved()
        )
        self.kept_at = self.state.seconds
        self.folder.prune(self.settings.checkpoint.keep, self.state.best["step"] if self.state.best else None)
        return where

    def checkpoint_due(self) -> bool:
        """Whether so many steps or so many minutes are over."""
        wanted = self.settings.checkpoint
        by_steps = bool(wanted.every) and self.state.step % wanted.every == 0
        return by_steps or 0 < 60.0 * wanted.minutes <= self.state.seconds - self.kept_at

    def keep_best(self, score: HeldOutScore) -> None:
        """Keep the policy of this step if it is the best so far."""
        better = self.state.best is None or score.mean > self.state.best["score"]
        self.state.without_better = 0 if better else self.state.without_better + 1
        if better:
            self.state.best = {"step": self.state.step, "score": score.mean}
            self.state.best_held_out = score.state()
            self.keep()

    @contextmanager
    def training_time(self) -> Iterator[None]:
        """Count a step's seconds: `minutes` are of training, evaluations come on top."""
        began = self.clock()
        yield
        self.state.seconds += self.clock() - began

    @contextmanager
    def saved_on_error(self) -> Iterator[None]:
        """Whatever goes wrong, the steps that are done are saved, unless the policy is half updated already."""
        try:
            yield
        except (Interrupted, ExecutorFailed):
            raise  # `stop` saves
        except Exception:
            latest = self.folder.latest()
            seeded = self.resumed or latest is not None
            if seeded and latest != self.folder.checkpoint(self.state.step) and self.policy.updates == self.updates:
                self.give_up_step()
                with suppress(AzrError):  # such as a full disk, which may be what went wrong
                    self.tracker.print(f"saved {self.keep()}; go on with: {self.how_to_go_on()}")
            raise

    # The end ----------------------------------------------------------------------------------------------------

    def give_up_step(self) -> None:
        """Forget what the environments remember of the step under way."""
        self.trainer.restore(self.remembered)

    def stop(self) -> None:
        """Give up the step under way, save those before it, say how to go on."""
        self.give_up_step()
        if not self.resumed and self.state.step == 0 and self.folder.latest() is None:
            self.tracker.print("stopped before the first step: nothing to save")
            return
        kept = self.keep()
        self.tracker.rewind(self.state.step)
        self.tracker.print(f"saved {kept}; go on with: {self.how_to_go_on()}")

    def how_to_go_on(self) -> str:
        return f"{program('azr')} train --resume {paths.typed(self.folder.path)}"

    def end(self, kept: Path) -> None:
        """The last screen: curves, the table before and after, the report, what to do next."""
        tracker, minutes = self.tracker, self.state.seconds / 60
        if self.ended:
            tracker.print(f"ended: {self.ended}")
            tracker.print(f"the best checkpoint is {self.best_checkpoint()}")
        tracker.print(f"{self.state.step} steps in {minutes:.1f} minutes; {paths.display_path(kept)}")
        tracker.print_curves()
        self.evaluate_after()
        report = None
        if self.settings.tracking.report:
            from azr_mlx.report import write

            report = write(self.folder.path)
            tracker.print(f"look:     open {paths.display_path(report)} in a browser")
        self.print_next_steps()
        tracker.publish(report)

    def best_checkpoint(self) -> str:
        """The checkpoint with the best held-out score, in words."""
        from azr_mlx.run.held_out import HeldOutScore

        best, before = self.state.best, self.state.before
        where = self.folder.checkpoint(best["step"]) if best is not None else None
        if best is None or where is None or not where.is_dir():
            return "not known: no evaluation came before the end (evaluation.every)"
        words = f"{paths.display_path(where)}, {100 * best['score']:.1f} % of the held-out tasks at temperature 1"
        if before is not None and HeldOutScore.from_state(before).mean >= best["score"]:
            words += "; the model was not worse before training"
        return words

    def evaluate_after(self) -> None:
        """The held-out score after the run beside the one before it."""
        if not self.held_out.size or self.state.before is None:
            return
        from azr_mlx.run.held_out import HeldOutScore, compare, compare_bands

        before, after = HeldOutScore.from_state(self.state.before), self.held_out.measure()
        guesses = self.held_out.guess_rates()
        samples = self.settings.evaluation.samples
        self.tracker.print_table(compare(before, after), f"{self.held_out.size} held-out tasks, {samples} samples each")
        self.tracker.print_bands(compare_bands(before, after), guesses)
        result = {"before": before.state(), "after": after.state(), "seconds": self.state.seconds}
        result["guesses"] = {name: {str(kind): rate for kind, rate in part.items()} for name, part in guesses.items()}
        self.folder.write_held_out(result | {"versions": result_versions()})

    def print_next_steps(self) -> None:
        latest = self.folder.latest()
        if self.ended and self.state.best is not None and self.folder.checkpoint(self.state.best["step"]).is_dir():
            latest = self.folder.checkpoint(self.state.best["step"])
        azr, model, newest = program("azr"), shlex.quote(self.settings.model.id), paths.typed(latest) if latest else ""
        prompt = (
            "def f(a):"
            if not config.load_style(self.settings.model.style).chat
            else "Write a Python function that adds two numbers."
        )
        # azr finds a model that comes with it by its name, mlx_lm needs the path.
        there = paths.typed(self.settings.model.id)
        generate = f"{program('mlx_lm.generate')} --model {there} --adapter-path {newest}"
        self.tracker.print(f"evaluate: {azr} eval --bench humaneval --model {model} --adapter {newest} --compare")
        exported = newest if self.ended else paths.typed(self.folder.path)
        self.tracker.print(f"export:   {azr} export {exported}")
        self.tracker.print(f"use it:   {generate} --prompt {shlex.quote(prompt)}")


def program(name: str) -> str:
    """How to call a program of this environment from here: by its name where PATH finds it (uv and pipx put a link
    there), else by its path."""
    mine, found = Path(sys.executable).parent / name, shutil.which(name)
    return name if found and Path(found).resolve() == mine.resolve() else paths.typed(mine)


def _check_changes(saved: config.Config, settings: config.Config, folder: RunFolder) -> None:
    """Say what a resumed run changes. Raises UsageError for what would make it another run."""
    changed = [(key, old, new) for key, old, new in config.diff(saved, settings) if key != "name"]
    fixed = [f"{key} ({old!r}, now {new!r})" for key, old, new in changed if key not in config.RESUMABLE]
    if fixed:
        raise UsageError(
            f"{folder} cannot go on with another {'; '.join(fixed)}: start a new run, or leave it as it was"
        )
    for key, old, new in changed:
        sys.stderr.write(f"resuming with {key} = {new!r} (it was {old!r})\n")
