"""The ladder of presets: every rung is a preset, and the one to begin with fits and is fast enough."""

from __future__ import annotations

import itertools

import pytest
from click.testing import CliRunner

from azr_mlx import config, planner
from azr_mlx.cli import azr
from azr_mlx.planner import ladder, machine

MACS = [("M3", 16), ("M4 Pro", 24), ("M1 Max", 32), ("M3 Max", 48), ("M4 Max", 64), ("M3 Ultra", 128)]


def test_every_rung_is_a_preset_of_a_known_shape_with_held_out_tasks() -> None:
    for rung in planner.LADDER:
        settings = config.load(rung.preset)
        assert planner.shape_of(settings.model).parameters > 3e8
        assert settings.evaluation.probe != "none"
        assert settings.evaluation.minutes > 0
        assert settings.checkpoint.minutes > 0
        assert rung.expect
        assert rung.source
    real = {name for name in config.presets() if "nano" not in name and name != "paper"}
    assert {rung.preset for rung in planner.LADDER} == real


@pytest.mark.parametrize(("chip", "memory"), MACS)
def test_what_one_begins_with_fits_with_room_to_spare_and_is_fast_enough(chip: str, memory: int) -> None:
    mac = planner.mac(memory * 1e9, chip)
    taken = planner.estimate(planner.choose(mac).preset, mac)
    assert taken.memory <= ladder.SPARE * mac.room
    assert taken.steps_an_hour >= ladder.STEPS_TO_SEE
    assert f"({taken.steps_an_hour})" in planner.choose(mac).why


def test_a_better_machine_never_begins_lower() -> None:
    names = [rung.preset for rung in planner.LADDER]
    places = [names.index(planner.choose(planner.mac(memory * 1e9, "M3 Max")).preset) for memory in (36, 48, 64, 128)]
    assert all(a <= b for a, b in itertools.pairwise(places))


def test_the_first_hour_of_an_m3_max_is_the_one_and_a_half_billion_model() -> None:
    choice = planner.choose(planner.mac(48e9, "M3 Max"))
    assert (choice.preset, choice.then) == ("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-3b-instruct")


def test_too_small_a_machine_and_one_without_a_gpu_begin_with_the_embedded_model() -> None:
    assert planner.choose(planner.mac(8e9, "M1")).preset == "nano"
    cpu = machine.Machine("a CPU", "cpu", 64e9, 50e9, 2e10, 1e11, "given", 8)
    assert planner.choose(cpu).preset == "nano"


def test_auto_is_said_aloud_and_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked before the executor starts, so it may not import MLX: nothing is measured."""
    monkeypatch.setattr(machine, "_measured", lambda seconds: pytest.fail("measured"))
    monkeypatch.setattr(ladder, "mac_here", lambda: planner.mac(48e9, "M3 Max"))
    done = CliRunner().invoke(azr, ["plan", "--config", "auto", "--memory", "48GB", "--chip", "M3 Max"])
    assert done.exit_code == 0
    assert "auto is qwen2.5-coder-1.5b-instruct: the largest of the ladder" in done.stderr
    assert "the next rung is qwen2.5-coder-3b-instruct" in done.stderr
    monkeypatch.setattr(ladder, "mac_here", lambda: None)
    assert planner.choose_here().preset == "nano"


def test_a_mac_whose_chip_is_not_in_the_table_is_taken_for_a_lesser_one(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"hw.memsize": str(48 * 10**9), "machdep.cpu.brand_string": "Apple M99 Max"}
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(machine, "_sysctl", lambda name: facts.get(name, ""))
    monkeypatch.setattr(machine, "_gpu_cores", lambda: 0)
    found = machine.mac_here()
    assert found is not None
    assert found.name.startswith("Apple M3 Max")
    assert found.name.endswith(", assumed")


def test_the_table_names_every_rung_its_source_and_where_to_begin() -> None:
    done = CliRunner().invoke(azr, ["presets", "--memory", "48GB", "--chip", "M3 Max"])
    assert done.exit_code == 0
    for rung in planner.LADDER:
        assert rung.preset in done.stdout
        assert f"[{rung.source}]" in done.stdout
    assert "> begin with qwen2.5-coder-1.5b-instruct" in done.stdout
    wrong = CliRunner().invoke(azr, ["presets", "--chip", "M3 Max"])
    assert wrong.exit_code == 2
    assert "--memory 48GB" in wrong.stderr
