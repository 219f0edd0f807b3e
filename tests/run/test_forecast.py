"""The first screen: what a run takes, from shapes alone, before anything is fetched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from azr_mlx import config, planner
from azr_mlx.cli import azr
from azr_mlx.model import weights
from azr_mlx.run import forecast
from azr_mlx.types import Kind

M3_MAX = planner.mac(48e9, "M3 Max")
MANY = Counter(dict.fromkeys((Kind.DEDUCTION, Kind.ABDUCTION), 128))


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has downloaded nothing."""
    from huggingface_hub import constants

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(tmp_path / "hub"))
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "azr"))
    return tmp_path / "hub"


def shown(preset: str, *words: str, machine: planner.Machine = M3_MAX) -> tuple[str, bool]:
    lines, fits = forecast.screen(config.load(preset, words), machine, now=0.0)
    assert max(map(len, lines)) <= 80
    return "\n".join(lines), fits


@pytest.mark.parametrize("name", config.presets())
def test_every_preset_has_its_screen_in_eighty_columns(name: str) -> None:
    text, fits = shown(name)
    for word in ("model", "disk", "memory", "a step", "first number", "evaluations", "the end", "derived"):
        assert word in text
    assert fits is (name != "paper")


def test_it_says_what_is_downloaded_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "free_bytes", lambda path: 100 * 10**9)
    text, _ = shown("qwen2.5-coder-1.5b-instruct")
    assert "3.1 GB to download once, 0.9 GB packed to keep; 100.0 GB free" in text
    assert "1.7 GB to download once; 100" in shown("qwen2.5-coder-3b-instruct")[0]  # comes in 4 bits
    assert "nothing to download" in shown("nano")[0]


def test_a_model_in_the_cache_is_not_downloaded_again(empty_hub_cache: Path) -> None:
    model = config.load("qwen2.5-coder-0.5b-instruct").model
    snapshot = empty_hub_cache / f"models--{model.id.replace('/', '--')}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    assert forecast.local_folder(model) is None  # the weights are missing still
    (snapshot / "model.safetensors").write_text("")
    assert forecast.local_folder(model) == snapshot


def test_too_little_memory_or_disk_is_said_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    text, fits = shown("qwen2.5-coder-7b", machine=planner.mac(16e9, "M3"))
    assert not fits
    assert "DOES NOT FIT" in text
    assert "azr plan --config qwen2.5-coder-7b says what to turn" in text
    monkeypatch.setattr(weights, "free_bytes", lambda path: 10**9)
    text, fits = shown("qwen2.5-coder-1.5b-instruct")
    assert not fits
    assert "NOT ENOUGH" in text


def test_the_end_is_by_the_clock_or_by_the_steps() -> None:
    text, _ = shown("qwen2.5-coder-1.5b-instruct")
    assert "(minutes=60)" in text
    two, _ = shown("qwen2.5-coder-1.5b-instruct", "steps=2")
    assert "after some 2 steps:" in two


def test_the_parts_add_up_to_the_end() -> None:
    found = forecast.forecast(config.load("qwen2.5-coder-3b"), M3_MAX)
    assert found.seconds == found.seeding + found.training + found.evaluations * found.evaluation
    assert found.evaluations == 2 + (found.steps - 1) // config.load("qwen2.5-coder-3b").evaluation.every
    assert found.training == found.steps * found.step


def test_a_model_of_unknown_shapes_has_a_screen_that_says_how_to_get_them() -> None:
    lines, fits = forecast.screen(config.load("nano", ["model.id=someone/new-model"]), M3_MAX)
    assert fits
    assert "hf download someone/new-model config.json" in lines[-1]


@pytest.mark.parametrize("rung", planner.LADDER, ids=lambda rung: rung.preset)
def test_on_the_ladder_the_first_number_comes_within_three_minutes(rung: planner.Rung) -> None:
    """By the plan, on a Mac that the preset fits: after loading, before anything else."""
    found = forecast.forecast(config.load(rung.preset), M3_MAX)
    assert 0 < found.first.seconds <= forecast.FIRST_NUMBER
    assert found.first.each in (0, forecast.FIRST_LOOK, forecast.LEAST_LOOK)


def test_a_first_look_is_taken_only_where_all_tasks_would_take_too_long() -> None:
    nano, slow = config.load("nano"), config.load("qwen2.5-coder-7b", ["evaluation.minutes=0"])
    assert forecast.first_look(nano, MANY, M3_MAX) == 0
    assert forecast.first_look(slow, MANY, M3_MAX) == forecast.FIRST_LOOK
    assert forecast.first_look(slow, Counter({Kind.DEDUCTION: 5}), M3_MAX) == 0  # they are few
    assert forecast.first_look(slow, Counter(), M3_MAX) == 0
    assert forecast.first_look(config.load("nano", ["model.id=a/b"]), MANY, M3_MAX) == forecast.FIRST_LOOK
    assert forecast.first_look(nano, MANY, None) == 0
    assert forecast.first_look(config.load("qwen3-0.6b"), MANY, None) == forecast.FIRST_LOOK  # by evaluation.minutes


def test_a_dry_run_stops_after_the_screen_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "here", lambda seconds=0.2: M3_MAX)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(azr, ["train", "--config", "nano", "--dry-run"])
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "run       nano on Apple M3 Max with 40 GPU cores")
    assert list(tmp_path.iterdir()) == []
    small = CliRunner().invoke(azr, ["train", "--config", "paper", "--dry-run"])
    assert (small.exit_code, "DOES NOT FIT" in small.output) == (1, True)
    wrong = CliRunner().invoke(azr, ["train", "--config", "nano", "--dry-run", "--resume", "auto"])
    assert wrong.exit_code == 2
