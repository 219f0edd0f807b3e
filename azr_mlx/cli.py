"""The command line: `azr VERB`. Each verb imports what it needs when it runs, so that help is instant.

A failure is one line on stderr: exit 2 when the command was wrong, 1 when the work failed, 130 on Ctrl-C.
AZR_DEBUG=1 adds the traceback. Nothing here imports MLX: `run.session` starts the executor first and MLX after it.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from azr_mlx import __version__, cli_eval
from azr_mlx.errors import AzrError, UsageError

if TYPE_CHECKING:
    from azr_mlx.config import Config

DEBUG_VARIABLE = "AZR_DEBUG"


class OneLineErrors(click.Group):
    """A group whose every failure and warning is one line, also under click's test runner."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        from azr_mlx.terminal import never_refuse

        never_refuse()
        invoke: Any = super().main
        if not kwargs.pop("standalone_mode", True):
            return invoke(*args, standalone_mode=False, **kwargs)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _note_of(warnings.showwarning)
                code = invoke(*args, standalone_mode=False, **kwargs)
        except click.ClickException as error:
            _leave(_click_line(error), error.exit_code)
        except AzrError as error:
            _leave(str(error), error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            _leave("interrupted", 130)
        except BrokenPipeError:  # the reader has seen enough, as in `azr config nano | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except Exception as error:
            what = " ".join(str(error).split()) or "no message"
            _leave(f"{type(error).__name__}: {what} ({DEBUG_VARIABLE}=1 shows where)", 1)
        sys.exit(code if isinstance(code, int) else 0)


def _note_of(others: Any) -> Any:
    """What shows a warning: one line when this package gives it, `others` for the rest."""

    def show(message: Any, category: Any, filename: str, *rest: Any) -> None:
        if Path(filename).is_relative_to(Path(__file__).parent):
            _note(str(message))
        else:
            others(message, category, filename, *rest)

    return show


def _note(line: str) -> None:
    click.echo(f"azr: note: {line}", err=True)


def _leave(line: str, code: int) -> NoReturn:
    """Say one line on stderr and exit; called while an exception is handled."""
    if os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
        import traceback

        traceback.print_exc()
    click.echo(f"azr: {' '.join(line.split())}", err=True)
    sys.exit(code)


def _click_line(error: click.ClickException) -> str:
    """Click's message without its usage block, led by the verb and ending in where the help is."""
    context = getattr(error, "ctx", None)
    if context is None:
        return error.format_message()
    verb = context.command_path.partition(" ")[2]
    message = error.format_message().rstrip(".")
    return f"{verb + ': ' if verb else ''}{message} (see {context.command_path} --help)"


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """One line to paste into a report: version, MLX, mlx-lm, Python, platform. MLX is asked of its metadata only."""
    if not wanted or context.resilient_parsing:
        return
    import platform

    from azr_mlx.versions import package_versions

    found = package_versions(("mlx", "mlx-lm"))
    parts = [f"{name} {found.get(name, 'missing')}" for name in ("mlx", "mlx-lm")]
    click.echo(f"azr {__version__} ({', '.join(parts)}, Python {platform.python_version()}, {platform.platform()})")
    context.exit()


@click.group(
    cls=OneLineErrors,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="What is installed."
)
@click.pass_context
def azr(context: click.Context) -> None:
    """A language model teaches itself to reason about code, by self-play on this machine.

    \b
    Examples:
      azr demo                         how it works, in a minute
      azr train --config nano          ten minutes of self-play, nothing to download
      azr config                       the presets
      azr VERB --help                  examples of each verb
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


# -- train --------------------------------------------------------------------------------------------------


@azr.command()
@click.option("--config", "source", metavar="NAME|FILE", help="A preset of configs/, or a YAML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set one field; may be given again.")
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="The same as --set steps=N.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="auto",
    metavar="[RUN|auto]",
    help="Go on from a run's newest checkpoint; auto takes the configuration's own run, or the newest one.",
)
@click.option("--run-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where the run is kept.")
@click.option("--dry-run", is_flag=True, help="Say what the run would take, and stop: nothing is fetched or written.")
@click.option("--quiet", is_flag=True, help="Say only what went wrong.")
@click.option(
    "--restart/--no-restart",
    default=sys.platform == "darwin",
    help="Go on from the newest checkpoint when the system ends the run; the default on a Mac.",
)
@click.option("--awake/--no-awake", "keep_awake", default=True, help="Hold a Mac awake while the run lasts.")
@click.option(
    "--workers", metavar="tls://HOST:PORT", help="Let other machines join this run at an address of this one."
)
@click.option(
    "--local-workers", type=click.IntRange(0, 16), default=0, metavar="N", help="Start workers here, to try it."
)
@click.option(
    "--certificate", type=click.Path(path_type=Path), metavar="FILE", help="The coordinator's file of azr cluster init."
)
def train(
    source: str | None,
    sets: tuple[str, ...],
    steps: int | None,
    resume: str | None,
    run_dir: Path | None,
    dry_run: bool,
    quiet: bool,
    restart: bool,
    keep_awake: bool,
    workers: str | None,
    local_workers: int,
    certificate: Path | None,
) -> int:
    """Teach a model by self-play.

    It proposes tasks, Python checks them, it solves them, and both roles are trained on the outcome. The run
    folder is checkpoints/NAME, with the resolved configuration, metrics, rollouts and checkpoints. Ctrl-C saves.
    Before anything is downloaded one screen says what the run takes and when what comes; --dry-run stops there, with
    exit 1 where memory or disk are too small.

    \b
    Examples:
      azr train --config nano
      azr train --config auto                  the rung of azr presets to begin with here
      azr train --config auto --dry-run        what it would take: disk, memory, when what comes
      azr train --config qwen2.5-coder-3b --steps 50 --set optim.lr=1e-5
      azr train --config my.yaml --set tasks.kinds=deduction,abduction
      azr train --resume                       the newest run
      azr train --resume checkpoints/nano --set minutes=30
      azr train --config nano --workers tls://192.168.1.20:8786     other Macs may join (docs/cluster.md)
    """
    from azr_mlx import config

    if resume is not None and source is None:
        run_dir = run_dir or (newest_run() if resume == "auto" else Path(resume))
        if not (run_dir / "config.yaml").is_file():
            raise UsageError(f"{run_dir} is not a run: it has no config.yaml")
        source = str(run_dir)
    if source is None:
        raise UsageError(f"train: say what to train with --config; the presets are {', '.join(config.presets())}")
    words = [*sets, *([f"steps={steps}"] if steps is not None else [])]
    settings = config.load(_chosen(source), words)
    sharing = None
    if workers is not None or local_workers:
        from azr_mlx.cluster.sharing import Sharing, cut_into_items

        sharing = Sharing(workers, certificate, local_workers).checked()
        settings = cut_into_items(settings)
    _caution(settings)
    if dry_run:
        if resume is not None:
            raise UsageError("train: --dry-run is about a run that begins; leave --resume away")
        from azr_mlx import planner
        from azr_mlx.run import forecast
        from azr_mlx.selfplay.prompts import check_style

        check_style(settings.model.style)

        lines, fits = forecast.screen(settings, planner.here())
        click.echo("\n".join(lines))
        return 0 if fits else 1

    from azr_mlx.run import session, supervisor

    if restart and not supervisor.supervised():
        options = [part for word in words for part in ("--set", word)]
        options += ["--quiet"] * quiet + ["--no-awake"] * (not keep_awake)
        options += sharing.options() if sharing else []
        begin = ["--config", source, *(["--run-dir", str(run_dir)] if run_dir else [])]
        begin += ["--resume", resume] if resume is not None else []
        return supervisor.supervise_training(begin, options, lambda line: click.echo(f"azr: {line}", err=True))
    code: int = session.train(
        settings, run_dir=run_dir, resume=resume, quiet=quiet, keep_awake=keep_awake, sharing=sharing
    )
    return code


def _chosen(source: str) -> str:
    """The preset that `auto` stands for on this machine, said aloud; anything else as it is."""
    if source != "auto" or Path(source).exists():
        return source
    from azr_mlx import planner

    choice = planner.choose_here()
    _note(f"auto is {choice.preset}: {choice.why}")
    if choice.then:
        _note(f"the next rung is {choice.then}: azr train --config {choice.then}")
    return choice.preset


def newest_run() -> Path:
    """The run folder under checkpoints/ that was written to last. Raises UsageError when there is none."""
    from azr_mlx import paths

    folder = paths.checkpoints()
    runs = [path.parent for path in folder.glob("*/config.yaml")]
    if not runs:
        raise UsageError(f"there is no run in {folder}: start one with azr train --config nano")
    return max(runs, key=lambda run: max(path.stat().st_mtime for path in run.iterdir()))


def _caution(settings: Config) -> None:
    from azr_mlx.config import cautions

    for line in cautions(settings):
        _note(line)


# -- several machines ---------------------------------------------------------------------------------------


@azr.command()
@click.argument("address", metavar="tls://HOST:PORT")
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="worker.pem of azr cluster init; else the one in ~/.azr/cluster.",
)
@click.option("--fingerprint", metavar="HEX", help="The cluster that is meant, as azr train prints it.")
@click.option(
    "--model", default="", metavar="FOLDER", help="Where the run's model is here, if not under the same name."
)
@click.option("--name", default="", metavar="NAME", help="How the coordinator shows this machine; else its host name.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    metavar="MINUTES",
    help="How long a coordinator that is away is waited for.",
)
@click.option("--awake/--no-awake", "keep_awake", default=True, help="Hold a Mac awake while it works.")
@click.option(
    "--slowdown",
    type=click.FloatRange(min=1),
    default=1.0,
    metavar="TIMES",
    help="Take so many times as long, to try a slow one.",
)
def worker(
    address: str,
    certificate: Path | None,
    fingerprint: str | None,
    model: str,
    name: str,
    wait: float,
    keep_awake: bool,
    slowdown: float,
) -> int:
    """Compute for a run on another machine.

    The coordinator is there with azr train --workers; it prints this command. Ctrl-C leaves: others do what this
    machine has begun. Nothing is written here, and no program of the model runs here.

    \b
    Example:
      azr worker tls://192.168.1.20:8786 --fingerprint 9f0c...
    """
    from azr_mlx.cluster.sharing import work_for
    from azr_mlx.run.wakefulness import awake

    with awake(keep_awake):
        return work_for(
            address, certificate=certificate, fingerprint=fingerprint, model=model, name=name, patience=60 * wait,
            slowdown=slowdown, say=lambda line: click.echo(f"azr: {line}", err=True),
        )  # fmt: skip


@azr.group()
def cluster() -> None:
    """Set up several machines for one run (docs/cluster.md).

    \b
    Example:
      azr cluster init
    """


@cluster.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), metavar="DIR", help="Where the files go; else ~/.azr/cluster."
)
@click.option("--replace", is_flag=True, help="Make a new cluster where there is one: its files open nothing any more.")
def init(folder: Path | None, replace: bool) -> int:
    """Make the certificates of a cluster: one file for the coordinator, one for the workers.

    \b
    Example:
      azr cluster init
    """
    from azr_mlx import paths
    from azr_mlx.cluster import certificates

    mine, theirs = certificates.write(folder or certificates.default_folder(), replace=replace)
    click.echo(f"coordinator: {paths.display_path(mine)} stays on this machine")
    click.echo(f"workers:     copy {paths.display_path(theirs)} to ~/.azr/cluster/ on each of them; keep it secret")
    click.echo(f"fingerprint: {certificates.load(mine).fingerprint}")
    return 0


# -- demo ---------------------------------------------------------------------------------------------------


@azr.command()
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything that is drawn.")
@click.option("--steps", type=click.IntRange(min=0), default=6, show_default=True, help="Steps after the one told.")
def demo(seed: int, steps: int) -> None:
    """Show how the method works: one real step of self-play, told in words, in about a minute.

    The embedded model proposes a task and attempts it, Python judges, and one update follows. Nothing is downloaded
    and nothing is written.

    \b
    Examples:
      azr demo
      azr demo --seed 3 --steps 0
    """
    from azr_mlx.run.demo import demo as tell

    tell(click.echo, seed, steps)


# -- eval, data ---------------------------------------------------------------------------------------------

azr.add_command(cli_eval.eval_)
azr.add_command(cli_eval.data)

# -- export -------------------------------------------------------------------------------------------------


@azr.command()
@click.argument("source", required=False, metavar="[RUN|CHECKPOINT]")
@click.option(
    "--format", "formats", default="mlx,peft,hf", show_default=True, metavar="LIST", help="mlx, peft, hf, base, gguf."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="A new folder; exports/RUN-STEP otherwise.")
@click.option("--dtype", type=click.Choice(["f32", "f16", "bf16"]), help="Of fused weights; else f32, in GGUF f16.")
@click.option("--base", default="", metavar="MODEL", help="Name of the full-precision model, for cards and PEFT.")
@click.option("--push", metavar="OWNER/NAME", help="Upload to the Hugging Face hub, as a private repository.")
@click.option("--public", is_flag=True, help="With --push: as a public one.")
@click.option("--dry-run", is_flag=True, help="Say what would be written and uploaded.")
def export(
    source: str | None,
    formats: str,
    out: Path | None,
    dtype: str | None,
    base: str,
    push: str | None,
    public: bool,
    dry_run: bool,
) -> None:
    """Write a run's newest checkpoint, or the one that is named, for other tools.

    Formats: mlx is an adapter for mlx_lm, peft one for PEFT, hf a whole model with the adapter added, base the model
    that the adapter was trained on, gguf a whole model, the adapter and a Modelfile for llama.cpp, Ollama and LM
    Studio. What was written is loaded again and compared with the policy, and refused when
    it lost the adapter's effect. Nothing that exists is overwritten.

    \b
    Examples:
      azr export                                   the newest run, all formats
      azr export checkpoints/nano --format mlx,peft --out adapters
      azr export checkpoints/nano/step-000020 --format hf --dtype f16
      azr export nano --push me/nano-azr --dry-run
    """
    from azr_mlx import export as exporter

    wanted = tuple(dict.fromkeys(word.strip() for word in formats.split(",") if word.strip()))
    if not wanted:
        raise UsageError(f"export: --format takes some of {', '.join(exporter.FORMATS)}")
    repositories = exporter.repositories(push, wanted) if push else {}
    if push and not dry_run:
        exporter.check_hub()
    found = exporter.find_source(source if source is not None else newest_run())
    target = out or exporter.default_target(found)
    written = exporter.export_checkpoint(found, wanted, target, dtype or "", base=base, dry_run=dry_run, say=click.echo)
    for one in written:
        click.echo(f"{one.format:<5} {one.check.words()}")
    if dry_run:
        for name, repository in repositories.items():
            click.echo(f"{name:<5} would go to {'public' if public else 'private'} {repository}")
        click.echo("nothing was written")
    elif push:
        exporter.push(written, push, public=public, say=click.echo)


# -- run ----------------------------------------------------------------------------------------------------


@azr.command()
@click.argument("file", type=click.Path())
@click.option("--input", "arguments", metavar="ARGS", help="Call the function with these arguments, twice.")
@click.option("--function", default="f", show_default=True, help="The function that --input calls.")
@click.option("--stdin", "stdin", default="", metavar="TEXT", help="What a script without --input may read.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Limit of wall and processor time.")
@click.option("--memory-mb", type=click.IntRange(min=32), help="Limit of memory.")
@click.option(
    "--level", type=click.Choice(["strict", "standard", "off"]), default="standard", show_default=True, help="Sandbox."
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON instead of text.")
def run(
    file: str,
    arguments: str | None,
    function: str,
    stdin: str,
    seconds: float | None,
    memory_mb: int | None,
    level: str,
    as_json: bool,
) -> int:
    """Run one Python program in the sandbox and say what came of it.

    FILE is a program (- reads it from standard input). With --input its function is called twice and has to agree
    with itself, as for a proposal; without, it runs as a script. Exit 0 when it ended well, 1 otherwise.

    \b
    Examples:
      azr run program.py --input '[3, 1, 2], 5'
      azr run script.py --stdin '4 5' --seconds 2 --json
      echo 'def f(a): return a[::-1]' | azr run - --input '"abc"'
    """
    from azr_mlx.executor import Limits, cli_run

    usual = Limits()
    limits = Limits(
        wall_seconds=seconds or usual.wall_seconds,
        cpu_seconds=seconds or usual.cpu_seconds,
        memory_mb=memory_mb or usual.memory_mb,
    )
    path = "/dev/stdin" if file == "-" else file
    return cli_run.run_file(path, arguments, as_json, level, limits, function=function, stdin_text=stdin)


# -- config -------------------------------------------------------------------------------------------------


@azr.command("config")
@click.argument("source", required=False, metavar="[NAME|FILE|RUN]")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set one field; may be given again.")
@click.option("--changed", is_flag=True, help="Only the fields that differ from their default.")
def config_(source: str | None, sets: tuple[str, ...], changed: bool) -> None:
    """Print a configuration as a run would use it, or list the presets.

    \b
    Examples:
      azr config                                the presets, a line each
      azr config nano > my.yaml                 a copy to edit
      azr config my.yaml --set optim.lr=1e-5    checks it, too
      azr config checkpoints/nano --changed     what a run was started with
    """
    from azr_mlx import config, paths

    if source is None and not sets:
        width = max(map(len, config.presets()), default=0)
        for name in config.presets():
            first = (paths.configs() / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
            click.echo(f"{name:<{width}}  {first.lstrip('# ').removeprefix(f'{name}: ')}")
        return
    settings = config.load(source, sets)
    _caution(settings)
    if changed:
        for key, default, value in config.diff(config.Config(), settings):
            click.echo(f"{key}: {config.written(value)}  # default {config.written(default)}")
    else:
        click.echo(config.dump(settings), nl=False)


# -- report -------------------------------------------------------------------------------------------------


@azr.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Where to write the page.")
@click.option("--follow", is_flag=True, help="Write it again while the run goes on; an open page reloads itself.")
def report(runs: tuple[Path, ...], output: Path | None, follow: bool) -> None:
    """Write a run as one HTML page, or several runs side by side.

    The page needs no network and can be sent around. It has the headline, the curves, the curriculum, the proposed
    tasks, reasons for rejection, and every setting. Without RUN it is the newest one.

    \b
    Examples:
      azr report                                      checkpoints/RUN/report.html of the newest run
      azr report checkpoints/nano --follow            watch it in a browser while it trains
      azr report checkpoints/nano checkpoints/nano-2  report-compare.html
    """
    import time

    from azr_mlx import report as pages

    folders = [_run_folder(run) for run in runs] or [newest_run()]
    written = pages.write(folders, output, refresh=15 if follow else 0)
    click.echo(f"{written}  ({written.stat().st_size / 1e6:.1f} MB)")
    if not follow:
        return
    click.echo("open it in a browser; it is written again as the run goes on. Ctrl-C ends that.", err=True)
    seen = _moments(folders)
    try:
        while True:
            time.sleep(3)
            if (now := _moments(folders)) != seen:
                seen = now
                pages.write(folders, output, refresh=15)
    except KeyboardInterrupt:
        pages.write(folders, output)


def _run_folder(run: Path) -> Path:
    """A run by its path, or by its name under checkpoints/."""
    from azr_mlx import paths

    if run.is_dir() or len(run.parts) != 1:
        return run
    named = paths.checkpoints() / run
    return named if named.is_dir() else run


def _moments(folders: list[Path]) -> list[float]:
    """When each run last wrote something."""
    written = [folder / name for folder in folders for name in ("metrics.jsonl", "probe.json")]
    return [path.stat().st_mtime if path.exists() else 0.0 for path in written]


# -- metrics ------------------------------------------------------------------------------------------------


@azr.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--alarms", is_flag=True, help="What raises an alarm, and what to do then.")
def metrics(words: tuple[str, ...], alarms: bool) -> None:
    """Say what the numbers of a run mean.

    With WORDs, only the metrics whose name or meaning holds one of them. docs/metrics.md is the same as a page.

    \b
    Examples:
      azr metrics
      azr metrics entropy delta_logp
      azr metrics --alarms
    """
    from azr_mlx.run import metrics as numbers

    if alarms:
        for one in numbers.ALARMS:
            click.echo(f"{one.name}\n  when   {one.when}\n  do     {one.todo}")
        return
    found = 0
    for title, rows in numbers.listing():
        wanted = [row for row in rows if not words or any(word.lower() in f"{row[0]} {row[3]}" for word in words)]
        if wanted:
            click.echo(f"{title}")
        for name, unit, arrow, meaning, formula in wanted:
            click.echo(f"  {name:<26} {arrow or ' '} {unit:<9}  {meaning}\n{'':41}{formula}")
        found += len(wanted)
    if not found:
        raise UsageError(f"no metric is about {', '.join(words)}: azr metrics lists them all")


# -- presets ------------------------------------------------------------------------------------------------


@azr.command()
@click.option("--memory", default="", metavar="SIZE", help="For a Mac with this much memory, as 48GB.")
@click.option("--chip", default="", metavar="NAME", help="That Mac's chip, as 'M3 Max'.")
def presets(memory: str, chip: str) -> None:
    """The presets for real models, smallest first: memory, time of a step, what to expect, where to begin.

    Figures are derived from the models' shapes and the machine's rates; whom an expectation is from stands below it.
    Without --memory it is about this machine.

    \b
    Examples:
      azr presets
      azr presets --memory 48GB --chip "M3 Max"
    """
    from azr_mlx import planner

    if chip and not memory:
        raise UsageError("presets: --chip describes another machine: say how much memory it has with --memory 48GB")
    machine = planner.mac(planner.size(memory), chip) if memory else planner.here()
    click.echo("\n".join(planner.table(machine)))


# -- plan ---------------------------------------------------------------------------------------------------


@azr.command()
@click.option("--config", "source", metavar="NAME|FILE", required=True, help="A preset of configs/, or a YAML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set one field; may be given again.")
@click.option("--memory", default="", metavar="SIZE", help="Plan for a Mac with this much memory, as 48GB.")
@click.option("--chip", default="", metavar="NAME", help="That Mac's chip, as 'M3 Max'.")
@click.option("--bandwidth", type=click.FloatRange(min=0, min_open=True), metavar="GB/S", help="Of memory.")
@click.option("--flops", type=click.FloatRange(min=0, min_open=True), metavar="TFLOP/S", help="Of matrix products.")
@click.option("--calibrate", type=click.Path(path_type=Path), metavar="FILE", help="What azr bench measured.")
@click.option("--workers", default="", metavar="CHIPS", help="Machines that share the work, as 'M3 Max, M1 16GB'.")
@click.option("--lengths", type=click.Path(path_type=Path), metavar="RUN", help="Take lengths from this run's steps.")
def plan(
    source: str,
    sets: tuple[str, ...],
    memory: str,
    chip: str,
    bandwidth: float | None,
    flops: float | None,
    calibrate: Path | None,
    workers: str,
    lengths: Path | None,
) -> int:
    """Say whether a configuration fits into memory and how long a step takes.

    Nothing is downloaded or trained. Memory is what the code holds when every row is as long as it may be; when it is
    too much, the fields to change are named with their values, and the exit code is 1. Time is a roofline, the least
    that bandwidth and flops allow, at the mean lengths of a simulated step or, with --lengths, of a run. Without
    --memory it is about this machine.

    \b
    Examples:
      azr plan --config nano
      azr plan --config qwen2.5-coder-3b --memory 48GB --chip "M3 Max"
      azr plan --config qwen2.5-coder-7b --memory 24GB --set sampling.max_rows=16
      azr plan --config qwen3-4b --memory 64GB --bandwidth 546 --flops 17
      azr plan --config qwen2.5-coder-3b --memory 48GB --chip "M3 Max" --workers "M3 Max, M1 16GB"
      azr plan --config qwen2.5-coder-3b --calibrate azr-bench.json
    """
    from azr_mlx import config, planner
    from azr_mlx.run.folder import RunFolder

    settings = config.load(_chosen(source), sets)
    rows = None if lengths is None else RunFolder(lengths).rows()
    lines, fits = planner.plan_command(settings, memory, chip, bandwidth or 0.0, flops or 0.0, calibrate, workers, rows)
    click.echo("\n".join(lines))
    return 0 if fits else 1


# -- prompts ------------------------------------------------------------------------------------------------


@azr.command()
@click.option("--show", metavar="STYLE", help="Print a style as a file to copy, with every wording; measure nothing.")
@click.option("--model", default="", metavar="M", help="Repository or folder; the same as --set model.id=M.")
@click.option("--config", "source", metavar="NAME|FILE", help="A preset of configs/, or a YAML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set one field; may be given again.")
@click.option("--style", "styles", metavar="A[,B]", help="Names or YAML files; else the configuration's.")
@click.option("--tasks", type=click.IntRange(min=1), default=20, show_default=True, help="Tasks of each kind.")
@click.option("--band", type=click.IntRange(min=0), default=1, show_default=True, help="Of difficulty; 0 is all.")
@click.option("--samples", type=click.IntRange(min=1), default=8, show_default=True, help="Of each task: k of pass@k.")
@click.option("--proposals", type=click.IntRange(min=0), default=24, show_default=True, help="Of each kind.")
@click.option("--tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest reply.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there as well.")
def prompts(
    show: str | None,
    model: str,
    source: str | None,
    sets: tuple[str, ...],
    styles: str | None,
    tasks: int,
    band: int,
    samples: int,
    proposals: int,
    tokens: int,
    out: Path | None,
) -> None:
    """Measure what a model makes of prompt styles, before anything is trained.

    For each style, role and kind: replies that are well formed, solved at temperature 1, in one of k samples and
    greedily, tokens, replies that were cut off, valid and new proposals, each with its interval, and what guessing
    would get. A style that gets no well-formed reply gives nothing to learn from. docs/prompts.md has the format.

    \b
    Examples:
      azr prompts --config nano --tasks 8 --samples 4
      azr prompts --model Qwen/Qwen2.5-Coder-0.5B-Instruct --style chat,chat-direct --json styles.json
      azr prompts --show chat-direct > mine.yaml
      azr prompts --model my/folder --set model.bits=8 --style chat-direct,mine.yaml
    """
    from azr_mlx import config

    if show is not None:
        from azr_mlx.selfplay.prompts import style_file

        click.echo(style_file(show), nl=False)
        return
    words = [*sets, *([f"model.id={model}"] if model else [])]
    if source is None and not words:
        raise UsageError(
            f"prompts: say whom to ask with --model or --config; the styles are {', '.join(config.style_names())}"
        )
    settings = config.load(_chosen(source) if source else None, words)
    named = tuple(dict.fromkeys(word.strip() for word in (styles or settings.model.style).split(",") if word.strip()))

    from azr_mlx.bench.prompt_styles import StudyPlan, study_command

    plan = StudyPlan(named, tasks, band, samples, proposals, tokens)
    lines = study_command(settings, plan, out, say=lambda line: click.echo(f"... {line}", err=True))
    click.echo("\n".join(lines))


# -- bench --------------------------------------------------------------------------------------------------


@azr.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("azr-bench.json"),
    show_default=True,
    metavar="FILE",
    help="Where the numbers go.",
)
@click.option("--seconds", type=click.FloatRange(min=5), default=150.0, show_default=True, help="About how long.")
@click.option("--model", default="", metavar="M", help="Repository or folder; else one with random weights.")
def bench(out: Path, seconds: float, model: str) -> int:
    """Measure this machine in three minutes and write one file.

    Decoding by width, prefill, update, executor, how far sampler and trainer are apart, and whether the products of
    this build of MLX are right. The file holds no personal data; azr plan --calibrate reads it, and a report of how
    azr_mlx runs on a Mac should have it. Exit 1 when products are wrong.

    \b
    Examples:
      azr bench
      azr bench --seconds 60 --out m3-max.json
      azr plan --config qwen2.5-coder-3b --calibrate azr-bench.json
    """
    from azr_mlx.bench import bench_command, bench_lines

    found = bench_command(out, seconds=seconds, model=model, say=lambda line: click.echo(f"... {line}", err=True))
    click.echo("\n".join(bench_lines(found)))
    click.echo(f"wrote     {out}")
    return 0 if found["numerics"]["right"] else 1


# -- doctor -------------------------------------------------------------------------------------------------


@azr.command()
@click.option("--offline", is_flag=True, help="Do not look whether models can be downloaded.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON, without personal data.")
def doctor(offline: bool, as_json: bool) -> int:
    """Look whether this machine is fit for a run, and say what to fix.

    Python, packages, sandbox, disk, device and memory, then a self-test of a few seconds on the embedded model: does
    the trainer give the sampler's log-probabilities, and is a text the same alone and in a batch? Exit 1 if a run
    would fail.

    \b
    Examples:
      azr doctor
      azr doctor --offline
      azr doctor --json --offline      for a report
    """
    from azr_mlx import doctor as checks

    if as_json:
        record = checks.record(list(checks.examine(network=not offline)))
        click.echo(checks.as_text(record))
        return 0 if record["fit"] else 1
    marks = {checks.FINE: ("ok   ", "green"), checks.NOTE: ("note ", "yellow"), checks.WRONG: ("WRONG", "red")}
    findings = []
    for one in checks.examine(network=not offline):
        findings.append(one)
        mark, colour = marks[one.state]
        click.echo(f"{click.style(mark, fg=colour)}  {one.name:<9} {one.found}")
    todo = checks.advice(findings)
    wrong = any(one.state == checks.WRONG for one in findings)
    click.echo("\nto fix, in this order:" if todo else "\nall is well: azr train --config nano")
    for number, line in enumerate(todo, 1):
        click.echo(f"  {number}. {line}")
    if todo and not wrong:
        click.echo("nothing of it stops a run: azr train --config nano")
    return 1 if wrong else 0


def main() -> None:
    """The console script."""
    azr(prog_name="azr")
