"""Two machines from nothing to a shared run, as two homes on loopback: what is typed, and what is said.

`python -m tests.cluster.transcript docs/cluster.md` writes it into the page; `test_transcript.py` plays it again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = (
    "<!-- transcript: made by python -m tests.cluster.transcript docs/cluster.md -->",
    "<!-- end of transcript -->",
)
QUICK = ["--config", "nano", "--steps", "2", "--set", "buffer.seed_size=12", "--set", "evaluation.probe=none"]
HANG = 240.0  # seconds after which nothing will come any more
STUDIO = "192.168.1.20:8786"  # what the page says in place of loopback


def home(folder: Path, name: str) -> dict[str, str]:
    """The environment of a machine of its own."""
    place = folder / name
    (place / ".azr" / "cluster").mkdir(parents=True)
    return {**os.environ, "HOME": str(place), "AZR_HOME": str(place), "COLUMNS": "118", "PYTHONPATH": str(ROOT)}


def azr(words: Sequence[str], where: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "azr_mlx", *words], env=where, cwd=where["HOME"], stdin=subprocess.DEVNULL,
            stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip


def play() -> str:
    """Run the four commands; returns the transcript, with addresses and paths as on two machines."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        studio, mini = home(folder, "studio"), home(folder, "mini")
        logs = [folder / f"{i}.log" for i in range(3)]
        assert azr(["cluster", "init"], studio, logs[0]).wait(HANG) == 0, logs[0].read_text()
        shutil.copy(Path(studio["HOME"]) / ".azr/cluster/worker.pem", Path(mini["HOME"]) / ".azr/cluster/worker.pem")
        train = azr(["train", *QUICK, "--workers", "tls://127.0.0.1:0", "--no-restart"], studio, logs[1])
        worker = None
        try:
            found, until = None, time.monotonic() + HANG
            while found is None:
                assert train.poll() is None, logs[1].read_text()
                assert time.monotonic() < until, logs[1].read_text()
                time.sleep(0.1)
                found = re.search(r"azr worker (tls://127.0.0.1:\d+) --fingerprint ([0-9a-f]+)", logs[1].read_text())
            address, fingerprint = found.groups()
            worker = azr(["worker", address, "--fingerprint", fingerprint, "--name", "mini"], mini, logs[2])
            assert train.wait(HANG) == 0, logs[1].read_text()
            assert worker.wait(HANG) == 0, logs[2].read_text()
        finally:
            for process in (train, worker):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()

        def said(log: Path) -> str:
            text = log.read_text(encoding="utf-8").replace(address.removeprefix("tls://"), STUDIO)
            for where in (studio, mini):
                text = text.replace(where["HOME"] + "/", "~/").replace(where["HOME"], "~")
            text = text.replace("coordinator: .azr", "coordinator: ~/.azr").replace("copy .azr", "copy ~/.azr")
            lines = text.splitlines()
            # What a run says first, of the machine and the time it will take, is told elsewhere (README.md).
            start = next((i for i, line in enumerate(lines) if re.match(r"run \S+   model", line)), 0)
            end = next((i for i, line in enumerate(lines) if line.startswith("evaluate:")), len(lines))
            return "\n".join(line.rstrip() for line in lines[start:end] if not re.match(r"  \w+(/\w+)* +[0-9.]", line))

        return "\n".join([
            "```", "studio$ azr cluster init", said(logs[0]),
            "studio$ scp ~/.azr/cluster/worker.pem mini:.azr/cluster/",
            f"studio$ azr train {' '.join(QUICK)} --workers tls://{STUDIO}", said(logs[1]), "```", "",
            "The fourth is typed on `mini` while the run seeds:", "",
            "```", f"mini$ azr worker tls://{STUDIO} --fingerprint {fingerprint}", said(logs[2]), "```",
        ])  # fmt: skip


def form(transcript: str) -> list[str]:
    """The lines of a transcript without what changes from run to run: numbers, names of processors, loaded files."""
    lines = []
    for line in transcript.splitlines():
        masked = re.sub(r"[0-9a-f]{32}", "#", line)
        masked = re.sub(r"\d+([.,e+-]+\d+)*%?|nan", "#", masked)
        masked = re.sub(r"(cpu|metal): .*", r"\1", re.sub(r"refused: .*", "refused", masked))
        lines.append(re.sub(r"[ \-]+", " ", masked).strip())
    return [line for line in lines if line]


def written(page: str, transcript: str) -> str:
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{transcript}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written(file.read_text(encoding="utf-8"), play()), encoding="utf-8")
