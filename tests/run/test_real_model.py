"""The whole walk on a real language model from a folder: plan, train, kill, resume, evaluate, export, use elsewhere.

`AZR_SMALL_MODEL` names the folder: SmolLM2-135M-Instruct, or another small instruct model. A command is what a person
types. docs/prompts.md says what the figures of that model look like.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.evaluation import DataMissing, find_rows, load_benchmark
from azr_mlx.run.folder import RunFolder
from azr_mlx.run.held_out import HeldOutScore

ROOT = Path(__file__).resolve().parents[2]
MODEL = os.environ.get("AZR_SMALL_MODEL", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not (Path(MODEL) / "config.json").is_file() if MODEL else True,
        reason="AZR_SMALL_MODEL names no folder of a small instruct model",
    ),
]

STEPS = 2
SETS = (
    f"model.id={MODEL}", f"steps={STEPS}", "batch.proposals=4", "batch.attempts=4", "batch.solves=2",
    "batch.solve_group=4", "buffer.seed_size=6", "buffer.seed_rounds=1", "evaluation.probe_tasks=12",
    "evaluation.samples=2", "evaluation.every=0", "checkpoint.every=1", "sampling.max_rows=32",
)  # fmt: skip


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "azr_mlx", *words]


def said(*words: str) -> str:
    """What a command prints when somebody types it in the clone."""
    done = subprocess.run(
        command(*words),
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sets() -> list[str]:
    return [part for word in SETS for part in ("--set", word)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A run that is killed without a warning after its first step, and goes on to its end; with its last screen."""
    folder = RunFolder(tmp_path_factory.mktemp("walk") / "smollm2")
    begin = command("train", "--config", "benchmarks/learning/smollm2.yaml", *sets(), "--run-dir", str(folder.path))
    with (folder.path.parent / "first.log").open("w") as log:
        first = subprocess.Popen(begin, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        waited = time.monotonic() + 1800
        while not folder.checkpoint(1).is_dir() and first.poll() is None and time.monotonic() < waited:
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert folder.latest() is not None, (folder.path.parent / "first.log").read_text()
    assert not folder.held_out.exists()  # killed before its end
    return folder, said("train", "--resume", str(folder.path))


def test_the_plan_knows_the_model_and_says_what_a_step_costs() -> None:
    planned = said("plan", "--config", "benchmarks/learning/smollm2.yaml", "--set", f"model.id={MODEL}")
    assert "fits" in planned
    assert " s" in planned


def test_a_killed_run_goes_on_and_ends_with_the_table_by_bands(run: tuple[RunFolder, str]) -> None:
    folder, screen = run
    rows = folder.rows()
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert "held-out tasks" in screen
    assert all(re.search(rf"^│ +{band} │", screen, re.MULTILINE) for band in (1, 2))
    found = json.loads(folder.held_out.read_text())
    before, after = (HeldOutScore.from_state(found[when]) for when in ("before", "after"))
    for score in (before, after):
        assert {str(kind): len(rates) for kind, rates in score.sampled.items()} == {"deduction": 12, "abduction": 12}
    assert set(found["guesses"]) == {"copying", "commonest"}
    assert max(found["guesses"]["copying"].values()) == 0  # nothing that is solved is a copy


def test_there_is_something_to_learn_from(run: tuple[RunFolder, str]) -> None:
    """Replies have their form from the first step on: that is the wording, not training."""
    folder, _ = run
    rows = [json.loads(line) for _, path in folder.rollout_files() for line in path.read_text().splitlines()]
    solved = [row for row in rows if row["role"] == "solve"]
    assert sum(row["why"] != "no answer block" for row in solved) > 0.5 * len(solved)
    assert {row["role"] for row in rows} == {"propose", "solve"}
    assert all(math.isfinite(row["grad_norm"]) for row in folder.rows())


def test_a_benchmark_is_scored_with_the_adapter(run: tuple[RunFolder, str], tmp_path: Path) -> None:
    try:
        find_rows(load_benchmark("humaneval"))
    except DataMissing as error:
        pytest.skip(str(error))
    words = ["--bench", "humaneval", "--limit", "2", "--tokens", "48", "--bits", "8", "--logs", str(tmp_path), "--json"]
    found = json.loads(said("eval", *words, "--model", MODEL, "--adapter", str(run[0].path)))
    assert found


def test_what_was_learned_is_used_by_other_tools(run: tuple[RunFolder, str], tmp_path: Path) -> None:
    folder, _ = run
    out = tmp_path / "export"
    told = said("export", str(folder.path), "--format", "mlx,peft,hf", "--out", str(out))
    assert len(told.splitlines()) >= 3
    prompt = "What does `f` return?"
    generated = subprocess.run(
        [sys.executable, "-m", "mlx_lm", "generate", "--model", MODEL, "--adapter-path", str(out / "mlx"),
         "--prompt", prompt, "--max-tokens", "8"],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert generated.returncode == 0, generated.stderr
    assert "=====" in generated.stdout
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(out / "hf")
    ids = tokenizer(prompt, return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids["input_ids"].shape[1]


def test_the_run_is_that_of_the_shipped_configuration(run: tuple[RunFolder, str]) -> None:
    settings = run[0].settings()
    assert settings is not None
    assert settings.model.style == "chat-direct"
    assert settings == config.load(ROOT / "benchmarks/learning/smollm2.yaml", [*SETS, f"name={settings.name}"])
