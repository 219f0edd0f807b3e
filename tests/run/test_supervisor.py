"""A run that the system ends goes on by itself, and stops trying when that leads nowhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azr_mlx.run import supervisor

# Writes a checkpoint for each start, and ends each time as the arguments say: a signal's number or an exit code.
RUN = """
import os, pathlib, signal, sys
run, ends, progress = pathlib.Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3] == "yes"
run.mkdir(exist_ok=True)
pathlib.Path(os.environ["AZR_RUN_FOLDER_FILE"]).write_text(str(run))
starts = run / "starts"
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
(run / "words").write_text(" ".join(sys.argv[4:]))
if progress or not count:
    (run / f"step-{count + 1}").mkdir()
end = int(ends[min(count, len(ends) - 1)])
if end < 0:
    os.kill(os.getpid(), -end)
sys.exit(end)
"""


class Watched:
    """One supervised run of the script above."""

    def __init__(self, folder: Path, ends: str, progress: str = "yes") -> None:
        self.run, self.ends, self.progress = folder / "run-folder", ends, progress
        self.said: list[str] = []
        self.code = supervisor.supervise(self.command, self.newest, self.said.append, scratch=folder)

    def command(self, run: Path | None) -> list[str]:
        more = [] if run is None else ["--resume", str(run)]
        return [sys.executable, "-c", RUN, str(self.run), self.ends, self.progress, *more]

    def newest(self, run: Path) -> str:
        assert run == self.run
        return max((path.name for path in run.glob("step-*")), default="")

    @property
    def starts(self) -> int:
        return len((self.run / "starts").read_text())


@pytest.mark.parametrize("end", [signal.SIGABRT, signal.SIGKILL])
def test_a_run_that_the_system_ended_goes_on_from_its_checkpoint(tmp_path: Path, end: int) -> None:
    watched = Watched(tmp_path, f"-{int(end)},-{int(end)},0")
    assert (watched.code, watched.starts) == (0, 3)
    assert (watched.run / "words").read_text() == f"--resume {watched.run}"
    assert [line.split(";")[1].split("(")[0].strip() for line in watched.said] == [
        "going on from step-1",
        "going on from step-2",
    ]


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_an_end_of_the_runs_own_is_the_end(tmp_path: Path, code: int) -> None:
    watched = Watched(tmp_path, str(code))
    assert (watched.code, watched.starts, watched.said) == (code, 1, [])


def test_a_signal_that_somebody_sent_is_the_end(tmp_path: Path) -> None:
    watched = Watched(tmp_path, f"-{int(signal.SIGTERM)}")
    assert (watched.code, watched.starts) == (128 + signal.SIGTERM, 1)


def test_it_gives_up_where_the_run_gets_no_further(tmp_path: Path) -> None:
    watched = Watched(tmp_path, f"-{int(signal.SIGABRT)}", progress="no")
    assert watched.code == 128 + signal.SIGABRT
    assert watched.starts == supervisor.TRIES + 1
    assert "3 times in a row at step-1" in watched.said[-1]


def test_many_ends_with_progress_between_them_are_no_reason_to_give_up(tmp_path: Path) -> None:
    watched = Watched(tmp_path, ",".join(["-6"] * 6 + ["0"]))
    assert (watched.code, watched.starts) == (0, 7)


def test_an_end_before_the_first_checkpoint_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    words = [sys.executable, "-c", "import os; os.abort()"]
    code = supervisor.supervise(lambda run: words, lambda run: "", said.append, scratch=tmp_path)
    assert code == 128 + signal.SIGABRT
    assert "before its first checkpoint" in said[0]


def test_sigterm_reaches_the_run(tmp_path: Path) -> None:
    """The run saves and ends with 130, and so does the supervisor."""
    source = (
        "import sys, pathlib\nfrom azr_mlx.run import supervisor\n"
        "inner = 'import signal, sys, time\\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\\n'\n"
        "inner += 'print(\"up\", flush=True)\\ntime.sleep(60)'\n"
        "words = [sys.executable, '-c', inner]\n"
        "sys.exit(supervisor.supervise(lambda run: words, lambda run: '', print, scratch=pathlib.Path(sys.argv[1])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    process.stdout.close()


def test_a_run_says_where_it_is_only_when_it_is_supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(supervisor.VARIABLE, raising=False)
    supervisor.announce(tmp_path)
    assert not supervisor.supervised()
    monkeypatch.setenv(supervisor.VARIABLE, str(tmp_path / "note"))
    supervisor.announce(tmp_path)
    assert supervisor.supervised()
    assert (tmp_path / "note").read_text() == str(tmp_path.resolve())
    assert os.listdir(tmp_path) == ["note"]
