"""The command line: `azr VERB`. Each verb imports its room when it runs, so that help is instant.

A failure is one line on stderr: exit 2 when the command was wrong, 1 when the work failed, 130 on Ctrl-C.
AZR_DEBUG=1 adds the traceback. Nothing here imports MLX: `launch` starts the executor first and MLX after it.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from azr_mlx import __version__
from azr_mlx.errors import AzrError, UsageError

if TYPE_CHECKING:
    from azr_mlx.config import Config

DEBUG_VARIABLE = "AZR_DEBUG"


class OneLineErrors(click.Group):
    """A group whose every failure and warning is one line, also under click's test runner."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
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


@click.group(
    cls=OneLineErrors,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="azr", message="%(prog)s %(version)s")
@click.pass_context
def azr(context: click.Context) -> None:
    """A language model teaches itself to reason about code, by self-play on this machine.

    \b
    Examples:
      azr train --config nano          ten minutes of self-play, nothing to download
      azr config                       the presets
      azr VERB --help                  examples of each verb
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


# -- train --------------------------------------------------------------------------------------------------


@azr.command()
@click.option("--config", "source", metavar="NAME|FILE", help="A preset of configs/, or a YAML file.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Turn one dial; may be given again.")
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="The same as --set steps=N.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="auto",
    metavar="[RUN|auto]",
    help="Go on from a run's newest checkpoint; auto takes the configuration's own run, or the newest one.",
)
@click.option("--run-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where the run is kept.")
@click.option("--quiet", is_flag=True, help="Say only what went wrong.")
def train(
    source: str | None, sets: tuple[str, ...], steps: int | None, resume: str | None, run_dir: Path | None, quiet: bool
) -> int:
    """Teach a model by self-play.

    It proposes tasks, Python checks them, it solves them, and both roles are trained on the outcome. The run
    folder is checkpoints/NAME, with the resolved configuration, metrics, rollouts and checkpoints. Ctrl-C saves.

    \b
    Examples:
      azr train --config nano
      azr train --config qwen2.5-coder-3b --steps 50 --set optim.lr=1e-5
      azr train --config my.yaml --set tasks.kinds=deduction,abduction
      azr train --resume                       the newest run
      azr train --resume checkpoints/nano --set minutes=30
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
    settings = config.load(source, words)
    _caution(settings)

    from azr_mlx import launch

    code: int = launch.train(settings, run_dir=run_dir, resume=resume, quiet=quiet)
    return code


def newest_run() -> Path:
    """The run folder under checkpoints/ that was written to last. Raises UsageError when there is none."""
    from azr_mlx import places

    folder = places.checkpoints()
    runs = [path.parent for path in folder.glob("*/config.yaml")]
    if not runs:
        raise UsageError(f"there is no run in {folder}: start one with azr train --config nano")
    return max(runs, key=lambda run: max(path.stat().st_mtime for path in run.iterdir()))


def _caution(settings: Config) -> None:
    from azr_mlx.config import cautions

    for line in cautions(settings):
        _note(line)


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
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Turn one dial; may be given again.")
@click.option("--changed", is_flag=True, help="Only the dials that differ from their default.")
def config_(source: str | None, sets: tuple[str, ...], changed: bool) -> None:
    """Print a configuration as a run would use it, or list the presets.

    \b
    Examples:
      azr config                                the presets, a line each
      azr config nano > my.yaml                 a copy to edit
      azr config my.yaml --set optim.lr=1e-5    checks it, too
      azr config checkpoints/nano --changed     what a run was started with
    """
    from azr_mlx import config, places

    if source is None and not sets:
        width = max(map(len, config.presets()), default=0)
        for name in config.presets():
            first = (places.configs() / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
            click.echo(f"{name:<{width}}  {first.lstrip('# ').removeprefix(f'{name}: ')}")
        return
    settings = config.load(source, sets)
    _caution(settings)
    if changed:
        for key, default, value in config.diff(config.Config(), settings):
            click.echo(f"{key}: {config.written(value)}  # default {config.written(default)}")
    else:
        click.echo(config.dump(settings), nl=False)


def main() -> None:
    """The console script."""
    azr(prog_name="azr")
