"""Where metrics go besides the run folder: Weights & Biases, TensorBoard, Trackio, a log in TRL's names.

`tracking.sinks` chooses them; metrics.jsonl and timings.jsonl are always written (`azr_mlx.run.folder`). Every sink
gets the names of docs/metrics.md, except the one that exists to translate them, and every `EVERY` steps a sample of
rollouts. A library is imported when its sink is chosen. All work without a network: W&B with WANDB_MODE=offline.

A sink that fails while a run goes on is dropped with a warning: no dashboard is worth a run.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

from azr_mlx.config import TrackingConfig
from azr_mlx.errors import AzrError
from azr_mlx.files import plain_errors, write_text
from azr_mlx.run.folder import RunFolder, read_rows

Row = Mapping[str, Any]
Rollouts = Sequence[Row]  # rows of `metrics.rollout_row`

COLUMNS = ("step", "role", "kind", "correct", "why", "reward", "solve_rate", "prompt", "reply")
EVERY = 10  # steps between samples of rollouts
ROLLOUTS = 24  # in a sample


class Sink(Protocol):
    """What takes the rows of a run as they come. Any exception but AzrError drops it."""

    where: str  # how a person looks at it

    def log(self, row: Row, rollouts: Rollouts) -> None:
        """A step: its metrics (numbers, and dictionaries of counts) and all of its rollouts."""
        ...

    def finish(self, report: Path | None) -> None:
        """The run has ended and its report is written, if there is one."""
        ...


def flat(row: Row) -> dict[str, float]:
    """Metrics as numbers by name: dictionaries and lists of counts become one metric for each key or position."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{key}": count for key, count in value.items()}
        elif isinstance(value, list | tuple):
            found |= {f"{name}/{i}": count for i, count in enumerate(value)}
        elif isinstance(value, int | float):
            found[name] = value
    return found


def sample(rollouts: Rollouts) -> list[Row]:
    """COLUMNS of at most ROLLOUTS of them, evenly spaced; what is no Unicode (half of a pair) is replaced."""
    chosen = rollouts[:: max(1, len(rollouts) // ROLLOUTS)][:ROLLOUTS]
    return [{name: _encodable(one[name]) for name in COLUMNS} for one in chosen]


def _encodable(value: Any) -> Any:
    return str(value).encode("utf-8", "replace").decode() if isinstance(value, str) else value


def as_code(text: str) -> str:
    """Text of a model as a Markdown code block: dashboards render what they are given, links and images included."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    "


# Weights & Biases ---------------------------------------------------------------------------------------------------


class WandbSink:
    """One open W&B run. `identity` is what a resumed run passes to go on in the same place.

    W&B cannot go on with a run that it keeps offline: it begins a second folder with the same identity, of which only
    the first would reach the server. So a resumed offline run is told again from its own rows, and the folders before
    it, which hold nothing else, are deleted, unless they were sent to the server already.
    """

    def __init__(self, folder: RunFolder, project: str, resolved: Mapping[str, Any], identity: str | None) -> None:
        run = folder.path
        try:
            import wandb
        except ImportError:
            raise _missing("wandb", "wandb") from None
        self._wandb = wandb
        # console off: wandb would wrap the terminal that the panel draws on.
        self._run = wandb.init(
            project=project, name=run.name, config=dict(resolved), id=identity, resume="allow", dir=str(run),
            settings=wandb.Settings(console="off"),
        )  # fmt: skip
        # The step is a metric of its own: a resumed run tells some steps again, and W&B's own counter only grows.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.where = f"W&B: {self._run.url or run / 'wandb'}"
        if identity is not None and self._run.offline:
            self._tell_again(folder, identity)

    def _tell_again(self, folder: RunFolder, identity: str) -> None:
        own = Path(self._run.dir).parent
        earlier = [path for path in (folder.path / "wandb").glob(f"offline-run-*-{identity}*") if path != own]
        if any(True for path in earlier for _ in path.glob("*.synced")):
            self.where += " (its first part is on the server: send this one with wandb sync --append)"
            return
        rollouts = dict(folder.rollout_files())
        for row in folder.rows():
            wanted = row["step"] % EVERY == 0 and row["step"] in rollouts
            self.log(row, read_rows(rollouts[row["step"]]) if wanted else [])
        for path in earlier:
            shutil.rmtree(path, ignore_errors=True)

    @property
    def identity(self) -> str:
        return str(self._run.id)

    def log(self, row: Row, rollouts: Rollouts) -> None:
        metrics: dict[str, Any] = flat(row)
        if row["step"] % EVERY == 0 and rollouts:
            metrics["rollouts"] = self._wandb.Table(
                columns=list(COLUMNS), data=[[one[name] for name in COLUMNS] for one in sample(rollouts)]
            )
        self._run.log(metrics)

    def finish(self, report: Path | None) -> None:
        if report is not None and report.is_file():
            artifact = self._wandb.Artifact(f"report-{self._run.id}", type="report")
            artifact.add_file(str(report))
            self._run.log_artifact(artifact)
        self._run.finish()


# TensorBoard --------------------------------------------------------------------------------------------------------


class TensorBoardSink:
    """Event files in RUN/tensorboard, through tensorboardX. Rollouts are text: TensorBoard has no tables."""

    def __init__(self, run: Path, step: int) -> None:
        try:
            import tensorboardX
            from tensorboardX.proto import event_pb2, summary_pb2
        except ImportError:
            raise _missing("tensorboard", "azr-mlx[tensorboard]") from None
        self._summary, self._text = summary_pb2.Summary, tensorboardX.summary.text
        folder = run / "tensorboard"
        self._writer = tensorboardX.FileWriter(str(folder))
        # A resumed run writes a second file: readers forget what the first one said of this step and later ones.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(event_pb2.Event(session_log=start), step=step)
        self.where = f"TensorBoard: tensorboard --logdir {folder}"

    def log(self, row: Row, rollouts: Rollouts) -> None:
        step = int(row["step"])
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in flat(row).items()]
        self._writer.add_summary(self._summary(value=values), step)
        if step % EVERY == 0 and rollouts:
            self._writer.add_summary(self._text("rollouts", "\n\n".join(map(_as_markdown, sample(rollouts)))), step)
        self._writer.flush()

    def finish(self, report: Path | None) -> None:
        self._writer.close()


def _as_markdown(rollout: Row) -> str:
    facts = ", ".join(f"{name} {rollout[name]}" for name in COLUMNS if name not in ("step", "prompt", "reply", "why"))
    return f"**{facts}**\n\n{as_code(rollout['prompt'])}\n\n*reply*\n\n{as_code(rollout['reply'])}"


# Trackio ------------------------------------------------------------------------------------------------------------


class TrackioSink:
    """A run of Trackio's local database (TRACKIO_DIR, or its own folder); its environment variables may send it on."""

    def __init__(self, run: Path, project: str, resolved: Mapping[str, Any]) -> None:
        try:
            import trackio
        except ImportError:
            raise _missing("trackio", "azr-mlx[trackio]") from None
        self._trackio = trackio
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            self._run = trackio.init(
                project=project, name=run.name, config=dict(resolved), resume="allow", embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        self.where = f'Trackio: trackio show --project "{project}"'

    def log(self, row: Row, rollouts: Rollouts) -> None:
        metrics: dict[str, Any] = flat(row)
        step = int(metrics.pop("step"))
        if step % EVERY == 0 and rollouts:
            import pandas

            # Trackio renders strings as Markdown.
            rows = [
                [as_code(one[name]) if name in ("prompt", "reply", "why") else one[name] for name in COLUMNS]
                for one in sample(rollouts)
            ]
            metrics["rollouts"] = self._trackio.Table(dataframe=pandas.DataFrame(rows, columns=list(COLUMNS)))
        self._run.log(metrics, step=step)

    def finish(self, report: Path | None) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


# A log in TRL's names -----------------------------------------------------------------------------------------------

# Our name -> the one that TRL's GRPOTrainer logs the same quantity under.
TRL_NAMES = {
    "step": "step", "entropy": "entropy", "kl": "kl", "loss": "loss", "grad_norm": "grad_norm",
    "learning_rate": "learning_rate", "clipped": "clip_ratio/region_mean", "zero_signal": "frac_reward_zero_std",
    "seconds/step": "step_time", "delta_logp_mean": "sampling/sampling_logp_difference/mean",
    "delta_logp_max": "sampling/sampling_logp_difference/max", "probe/mean": "eval_reward",
}  # fmt: skip


class TrlSink:
    """RUN/trl.jsonl: a row a step in the names of TRL's GRPOTrainer, for tools that look for those.

    Reward and lengths are those of the solver, whose reward is what a GRPO run would log. The held-out solve rate
    stands as `eval_reward`.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._path = run / "trl.jsonl"
        with plain_errors(f"{self._path}"):
            kept = [json.dumps(row) + "\n" for row in read_rows(self._path) if row["step"] < step]
            write_text(self._path, "".join(kept))
        self.where = f"TRL's names: {self._path}"

    def log(self, row: Row, rollouts: Rollouts) -> None:
        with plain_errors(f"{self._path}"), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(in_trl_names(row, rollouts)) + "\n")

    def finish(self, report: Path | None) -> None:
        """Every row is on disk already."""


def in_trl_names(row: Row, rollouts: Rollouts) -> dict[str, float]:
    """The metrics of a step under TRL's names; those of the solver are taken from its rollouts."""
    found = {theirs: row[ours] for ours, theirs in TRL_NAMES.items() if ours in row}
    solver = [one for one in rollouts if one["role"] == "solve" and one["reward"] is not None]
    if solver:
        groups = defaultdict(list)
        for one in solver:
            groups[one["prompt"]].append(one["reward"])
        lengths = [one["tokens"] for one in solver]
        found |= {
            "reward": fmean(one["reward"] for one in solver),
            "reward_std": fmean(stdev(group) if len(group) > 1 else 0.0 for group in groups.values()),
            "completions/mean_length": fmean(lengths), "completions/min_length": min(lengths),
            "completions/max_length": max(lengths),
            "completions/clipped_ratio": fmean(one["stop"] == "length" for one in solver),
            "num_generations": max(map(len, groups.values())),
        }  # fmt: skip
        for kind in dict.fromkeys(str(one["kind"]) for one in solver):
            found[f"rewards/{kind}/mean"] = fmean(one["reward"] for one in solver if one["kind"] == kind)
    return found


# All of a run's -----------------------------------------------------------------------------------------------------


class Sinks:
    """The sinks of one run. `identity` is the W&B run's, for a resumed run to go on with; None without one."""

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self.open = list(sinks)

    @property
    def identity(self) -> str | None:
        return next((sink.identity for sink in self.open if isinstance(sink, WandbSink)), None)

    def log(self, row: Row, rollouts: Iterable[Row]) -> None:
        if self.open:
            rows = list(rollouts)
            self._each(lambda sink: sink.log(row, rows))

    def finish(self, report: Path | None) -> None:
        self._each(lambda sink: sink.finish(report))
        self.open.clear()

    def _each(self, call: Any) -> None:
        for sink in list(self.open):
            try:
                call(sink)
            except AzrError:
                raise
            except Exception as error:
                self.open.remove(sink)
                what = " ".join(f"{type(error).__name__}: {error}".split())
                warnings.warn(f"no more metrics go to {sink.where}: {what}; the run goes on", stacklevel=2)


def open_sinks(
    run: RunFolder, tracking: TrackingConfig, resolved: Mapping[str, Any], step: int, identity: str | None
) -> Sinks:
    """The sinks that `tracking.sinks` names, for a run that goes on at `step`.

    resolved: every option by its dotted key. identity: the W&B run to go on with. Raises AzrError, one line, for a
    library that is not installed.
    """
    makers: dict[str, Callable[[], Sink]] = {
        "wandb": lambda: WandbSink(run, tracking.wandb_project, resolved, identity),
        "tensorboard": lambda: TensorBoardSink(run.path, step),
        "trackio": lambda: TrackioSink(run.path, tracking.wandb_project, resolved),
        "trl": lambda: TrlSink(run.path, step),
    }
    return Sinks(makers[name]() for name in tracking.all_sinks())


def _missing(sink: str, package: str) -> AzrError:
    return AzrError(f"tracking.sinks names {sink}, which is not installed: pip install '{package}'")
