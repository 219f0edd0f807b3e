"""A session of the embedded model in this process: what it keeps, when it gives up, what it hands over at the end."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.executor import Executor
from azr_mlx.export import find_source
from azr_mlx.run.folder import RunFolder
from azr_mlx.run.session import Session

NANO = Path(__file__).resolve().parents[2] / "checkpoints" / "qwen3-nano"
pytestmark = pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="the embedded model is not built yet")

SMALL = (
    "steps=3", "minutes=0", "tasks.kinds=deduction", "batch.proposals=2", "batch.attempts=2", "batch.solves=1",
    "batch.solve_group=2", "buffer.seed_size=4", "buffer.seed_rounds=1", "sampling.propose_tokens=48",
    "sampling.solve_tokens=24", "evaluation.samples=1", "evaluation.probe_tasks=2", "evaluation.every=0",
    "checkpoint.every=100", "tracking.report=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=2) as running:
        yield running


def opened(folder: Path, executor: Executor, *words: str) -> Session:
    settings = config.load("nano", [*SMALL, *words])
    return Session.open(settings, RunFolder(folder), executor, None, quiet=True)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps_saved(folder: Path) -> list[int]:
    return [step for step, _ in RunFolder(folder).checkpoints()]


def without_gradient(session: Session, steps: set[int]) -> None:
    """The gradients of these steps come out as nan."""
    update = session.policy.update

    def spoiled(rollouts, advantages):
        if session.state.step in steps:
            before = session.policy.loss
            session.policy.loss = replace(before, entropy=math.nan)
            try:
                return update(rollouts, advantages)
            finally:
                session.policy.loss = before
        return update(rollouts, advantages)

    session.policy.update = spoiled


def test_a_step_whose_gradient_is_not_finite_is_skipped_and_shown(tmp_path, executor):
    session = opened(tmp_path, executor)
    without_gradient(session, {1})
    assert session.run() == 0
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert ["grad_norm" in row for row in rows] == [True, False, True]
    assert session.policy.updates == 2


def test_gradients_that_stay_infinite_end_the_run_with_its_steps_saved(tmp_path, executor):
    session = opened(tmp_path, executor, "steps=9")
    without_gradient(session, set(range(1, 9)))
    with pytest.raises(AzrError, match="not finite in 3 steps in a row"):
        session.run()
    assert steps_saved(tmp_path) == [0, 4]
    assert len(metrics(tmp_path)) == 4


def test_whatever_goes_wrong_the_steps_before_it_are_saved(tmp_path, executor):
    session = opened(tmp_path, executor)
    train_step = session.trainer.train_step

    def fails_at_two(step):
        if step == 2:
            session.trainer.environments[0].buffer.load([])  # the step under way has spoiled the memory
            raise RuntimeError("a fault of ours")
        return train_step(step)

    session.trainer.train_step = fails_at_two
    with pytest.raises(RuntimeError, match="a fault of ours"):
        session.run()
    assert steps_saved(tmp_path) == [0, 2]
    assert len((tmp_path / "step-000002" / "buffer.jsonl").read_text().splitlines()) >= 4


def test_a_run_in_a_folder_of_any_name_goes_on_and_says_how(tmp_path, executor):
    """A name with a blank is none that a configuration may have: the run's own would not be readable again."""
    folder = tmp_path / "my run, it's new"
    folder.mkdir()
    session = opened(folder, executor, "steps=1")
    assert config.load(folder).name == "nano"
    assert find_source(session.keep()).settings.name == "nano"
    *_, said = shlex.split(session.how_to_go_on())
    assert said == str(folder)


def test_the_best_policy_by_held_out_score_is_kept(tmp_path, executor, monkeypatch):
    session = opened(tmp_path, executor, "evaluation.every=1", "steps=5", "checkpoint.keep=1")
    measure = session.held_out.measure
    scores = iter([0.1, 0.2, 0.9, 0.3, 0.4, 0.5])

    def scripted(self):
        share = next(scores)
        score = measure()
        return replace(score, sampled={kind: [share] * len(rates) for kind, rates in score.sampled.items()})

    monkeypatch.setattr(type(session.held_out), "measure", scripted)
    session.run()
    assert session.state.best == {"step": 2, "score": pytest.approx(0.9)}
    assert steps_saved(tmp_path) == [2, 5]


def scripted_scores(session: Session, monkeypatch: pytest.MonkeyPatch, *shares: float, tasks: int = 2) -> None:
    """Held-out scores one after the other, the same for each of so many tasks of a kind."""
    measure, scores = session.held_out.measure, iter(shares)

    def scripted(self):
        share = next(scores)
        score = measure()
        return replace(score, sampled={kind: [share] * tasks for kind in score.sampled})

    monkeypatch.setattr(type(session.held_out), "measure", scripted)


def test_a_run_that_gets_worse_ends_and_names_its_best_checkpoint(tmp_path, executor, monkeypatch, capsys):
    settings = config.load("nano", [*SMALL, "evaluation.every=1", "steps=9", "checkpoint.keep=1"])
    session = Session.open(settings, RunFolder(tmp_path), executor, None, quiet=False)
    scripted_scores(session, monkeypatch, 0.2, 0.5, 0.1, 0.1, tasks=40)  # before; after 1 and 2 steps; table
    assert session.run() == 0
    said = capsys.readouterr().out
    assert "ended: the held-out score is lower than before training: -10.0 points" in said
    assert f"the best checkpoint is {tmp_path}/step-000001, 50.0 %" in said
    assert f"--adapter-path {tmp_path}/step-000001" in said  # what is offered next is the best, not the last
    assert steps_saved(tmp_path) == [1, 2]
    assert (tmp_path / "probe.json").exists()  # the run has its table all the same


def test_a_plateau_outlasts_a_resume(tmp_path, executor, monkeypatch):
    session = opened(tmp_path, executor, "evaluation.every=1", "steps=3", "stop.plateau=2")
    scripted_scores(session, monkeypatch, 0.2, 0.5, 0.4, 0.5, 0.5, 0.5)  # two of them after the resume
    session.run()
    assert (session.ended, session.state.without_better) == ("", 1)
    settings = config.load("nano", [*SMALL, "evaluation.every=1", "steps=9", "stop.plateau=2"])
    again = Session.open(settings, RunFolder(tmp_path), executor, RunFolder(tmp_path).latest(), quiet=True)
    again.run()
    assert "no longer improves: 2 evaluations in a row" in again.ended
    assert again.state.step == 3


def test_a_run_whose_replies_all_lack_their_form_ends(tmp_path, executor):
    """As those of a model in a style that it does not know: no reply differs in its reward, so nothing is learned."""
    words = ("steps=9", "stop.malformed=2", "sampling.solve_tokens=1", "sampling.propose_tokens=1")
    session = opened(tmp_path, executor, *words)
    assert session.run() == 0
    assert len(metrics(tmp_path)) == 2
    assert session.ended.startswith("no reply of the last 2 steps had the required form")


def test_the_report_is_handed_to_the_tracker_at_the_end(tmp_path, executor, monkeypatch):
    session = opened(tmp_path, executor, "tracking.report=true", "steps=1")
    published = []
    monkeypatch.setattr(session.tracker, "publish", published.append)
    session.run()
    assert published == [tmp_path / "report.html"]


def test_a_run_counts_its_training_time_and_not_its_evaluations(tmp_path, executor, monkeypatch):
    now = [0.0]
    session = opened(tmp_path, executor, "evaluation.every=1", "steps=2")
    session.clock = lambda: now[0]
    measure, train_step = session.held_out.measure, session.trainer.train_step

    def slow_measure(self):
        now[0] += 100.0
        return measure()

    def step_of_five_seconds(step):
        now[0] += 5.0
        return train_step(step)

    monkeypatch.setattr(type(session.held_out), "measure", slow_measure)
    session.trainer.train_step = step_of_five_seconds
    session.run()
    assert session.state.seconds == pytest.approx(10.0)


def test_checkpoints_come_by_the_clock_where_they_are_asked_for_in_minutes(tmp_path, executor):
    session = opened(tmp_path, executor, "steps=5", "checkpoint.every=0", "checkpoint.minutes=1", "checkpoint.keep=9")
    times = iter(range(0, 10_000, 25))  # a step takes 25 seconds
    session.clock = lambda: float(next(times))
    assert session.run() == 0
    assert steps_saved(tmp_path) == [0, 3, 5]  # 75 seconds are over; the end


def test_pressure_and_sleep_are_told_between_steps(tmp_path, executor, capsys):
    """Under memory pressure rows are halved and that is said; so is what the machine slept."""
    from azr_mlx.model import metal
    from azr_mlx.run.wakefulness import SleepWatch

    session = Session.open(config.load("nano", [*SMALL, "steps=2"]), RunFolder(tmp_path), executor, None, quiet=False)
    rows = session.policy.sampling.max_rows
    levels = iter([metal.CRITICAL, metal.NORMAL])
    session.relief = metal.Relief(session.policy.shrink, lambda: next(levels))
    clocks = iter([(0.0, 0.0), (2580.0, 60.0), (2600.0, 80.0)])
    session.sleep = SleepWatch(lambda: next(clocks))
    assert session.run() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert session.policy.sampling.max_rows == rows // 2
    assert f"note: memory pressure is critical: {rows // 2} rows at a time" in said
    assert "note: the machine slept for 42 minutes; no step counts them" in said


def test_a_run_keeps_the_prompt_style_that_it_was_begun_with(tmp_path: Path) -> None:
    """Its own copy counts, wherever the folder is moved to; another text is another run."""
    mine, folder = tmp_path / "mine.yaml", RunFolder(tmp_path / "run")
    mine.write_text("turns: {question: '{text}'}\nopening: not yet\n")
    folder.path.mkdir()
    folder.with_own_style(config.load(None, [f"model.style={mine}"]))  # a start that came to nothing
    mine.write_text("turns: {question: '{text}'}\nopening: a\n")
    settings = folder.with_own_style(config.load(None, [f"model.style={mine}"]))
    folder.write_settings(settings, {})
    moved = RunFolder(folder.path.rename(tmp_path / "moved"))
    mine.write_text("turns: {question: '{text}'}\nopening: b\n")
    kept = moved.settings()
    assert kept is not None
    assert config.load_style(kept.model.style).opening == "a"
    assert moved.with_own_style(kept) == kept
    with pytest.raises(UsageError, match=r"another prompt style: .*mine\.yaml has changed"):
        moved.with_own_style(config.load(None, [f"model.style={mine}"]))


def test_a_resume_under_other_versions_keeps_those_before_and_says_the_difference(tmp_path, executor, capsys):
    session = opened(tmp_path, executor, "steps=1")
    session.run()
    folder = RunFolder(tmp_path)
    now, earlier = folder.read_versions()
    assert earlier == []
    old = {**now, "mlx": "0.0.1"}
    folder.versions.write_text(json.dumps(old))  # as an older package left it
    settings = config.load("nano", [*SMALL, "steps=2"])
    capsys.readouterr()
    again = Session.open(settings, folder, executor, folder.latest(), quiet=False)
    again.tracker.close()
    assert f"goes on with other versions than it was begun with: mlx 0.0.1 to {now['mlx']}" in capsys.readouterr().out
    assert folder.read_versions() == (now, [{"until_step": 1, **old}])
    # The same versions once more add nothing.
    Session.open(settings, folder, executor, folder.latest(), quiet=True).tracker.close()
    assert folder.read_versions() == (now, [{"until_step": 1, **old}])
