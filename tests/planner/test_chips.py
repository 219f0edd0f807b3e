"""The table of chips: every size of M1 to M5 plans, and a row beyond a tile costs a tile."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from azr_mlx import config, planner
from azr_mlx.cli import azr
from azr_mlx.errors import UsageError
from azr_mlx.model.limits import TILE_ROWS
from azr_mlx.planner import chips


@pytest.mark.parametrize("name", chips.names())
def test_a_plan_for_every_chip_in_every_size_and_memory(name: str) -> None:
    settings = config.load("qwen2.5-coder-3b")
    shape = planner.shape_of(settings.model)
    seconds = []
    for chip in (one for one in chips.CHIPS if one.name == name):
        for memory in chip.memory:
            machine = planner.mac(memory * 1e9, f"{name} {chip.gpu_cores}")
            assert machine.bandwidth == chip.bandwidth * 1e9
            assert machine.flops == pytest.approx(chip.gpu_cores * chips.CORE_TFLOPS[chip.generation] * 1e12)
        seconds.append(sum(cost.seconds for cost in planner.step_costs(settings, shape, machine)))
    assert seconds == sorted(seconds, reverse=True), "more GPU cores must not be slower"


def test_every_generation_has_every_size_that_apple_made_of_it() -> None:
    """There is no M4 Ultra."""
    assert set(chips.names()) == {
        f"M{n}{size}" for n in range(1, 6) for size in ("", " Pro", " Max", " Ultra") if (n, size) != (4, " Ultra")
    }


@pytest.mark.parametrize(
    ("text", "memory", "cores"),
    [
        ("M4 Max", 36, 32),  # the small one is the only one sold with 36 GB
        ("Apple M4 Max", 64, 40),
        ("m5 max 32", 128, 32),
        ("M5 Max (40-core GPU)", 36, 40),
        ("M3 Max, 30 cores", 0, 30),
        ("M1", 16, 8),
    ],
)
def test_a_size_is_known_by_its_cores_or_else_by_its_memory(text: str, memory: float, cores: int) -> None:
    assert chips.find(text, memory * 1e9).gpu_cores == cores


def test_the_cores_that_a_machine_reports_decide() -> None:
    assert chips.find("Apple M1 Max", 32e9, gpu_cores=24).gpu_cores == 24


def test_cores_that_do_not_exist_are_one_line_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="M4 Max comes with 32 or 40 GPU cores, not 38"):
        chips.find("M4 Max 38")


@pytest.mark.parametrize("text", ["M9", "A18 Pro", "M4 Ultra", ""])
def test_an_unknown_chip_is_one_line_that_lists_the_known_ones(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"is not in the table: give --bandwidth and --flops, or one of M1, .*M5 Ultra"
    ):
        chips.find(text)


def test_an_unknown_chip_plans_with_given_rates() -> None:
    words = ["plan", "--config", "qwen2.5-coder-3b", "--memory", "48GB", "--chip", "M9 Max"]
    said = CliRunner().invoke(azr, [*words, "--bandwidth", "900", "--flops", "90"])
    assert said.exit_code == 0
    assert "M9 Max" in said.output
    assert "900 GB/s, 90 TFLOP/s (given)" in said.output


# -- tiles


@pytest.mark.parametrize(
    ("chip", "rows", "padded"),
    [
        ("M3 Max", 1, 32),
        ("M3 Max", 32, 32),
        ("M3 Max", 33, 64),
        ("M5 Max", 32, 32),
        ("M5 Max", 33, 64),
        ("M5 Max", 65, 128),
    ],
)
def test_a_product_computes_whole_tiles(chip: str, rows: int, padded: int) -> None:
    assert planner.mac(64e9, chip).padded(rows) == padded


def decode_seconds(machine: planner.Machine, rows: int) -> float:
    """Time to write `rows` rows together, every row alike."""
    settings = config.load(
        "qwen2.5-coder-3b",
        [
            f"sampling.max_rows={rows}",
            "batch.proposals=0",
            "batch.solves=64",
            "sampling.kv_gb=0",
            "batch.solve_group=1",
        ],
    )
    settings = replace(settings, tasks=replace(settings.tasks, kinds=("deduction",)))
    settings = replace(settings, batch=replace(settings.batch, solves=rows))
    costs = planner.step_costs(settings, planner.shape_of(settings.model), machine)
    return next(cost.seconds for cost in costs if cost.name == "solve: decode")


def test_a_row_beyond_a_tile_costs_a_tile_and_a_few_rows_cost_less_than_one() -> None:
    machine = replace(planner.mac(48e9, "M3 Max"), launch=0)  # launches cost the same for any number of rows
    one, few, tile, more = (decode_seconds(machine, rows) for rows in (1, 16, TILE_ROWS, TILE_ROWS + 1))
    assert few == pytest.approx(tile, rel=0.05)
    assert more > 1.8 * tile
    assert one < tile / 2  # bound by the bandwidth of the weights


def test_a_processor_pays_for_every_row() -> None:
    cpu = planner.Machine("", "cpu", 1e11, 1e11, 1e11, 1e10, "", 1)
    assert decode_seconds(cpu, 33) == pytest.approx(33 / 32 * decode_seconds(cpu, 32), rel=0.01)


@pytest.mark.parametrize("name", ["qwen2.5-coder-3b", "qwen2.5-coder-7b", "qwen3-4b"])
def test_the_presets_for_a_mac_ask_for_whole_tiles(name: str) -> None:
    assert config.load(name).sampling.max_rows % TILE_ROWS == 0


def test_the_name_of_a_machine_says_its_size() -> None:
    said = CliRunner().invoke(azr, ["plan", "--config", "nano", "--memory", "36GB", "--chip", "M4 Max"]).output
    assert re.search(r"machine +Apple M4 Max with 32 GPU cores, 36 GB", said)
