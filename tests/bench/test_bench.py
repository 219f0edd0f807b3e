"""`azr bench` writes one file about the machine and nobody's person, and the planner reads it."""

from __future__ import annotations

import getpass
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from azr_mlx import config, planner
from azr_mlx.bench import command, measure
from azr_mlx.cli import azr
from azr_mlx.errors import UsageError

# As a Mac would write it; the numbers are made up for the arithmetic of the tests.
M3_MAX: dict[str, Any] = {
    "format": 1, "azr_mlx": "0.1.0", "date": "2026-12-01",
    "machine": {"device": "metal", "name": "M3 Max", "memory": 48e9},
    "executor": {"one_worker": 400.0, "all_workers": 3000.0, "workers": 14, "layers": ["seatbelt"]},
    "numerics": {"right": True, "errors": []},
    "products": {"gb_per_second": 320.0, "quantized_tflops": 11.5, "tflops": 12.0, "launch_microseconds": 3.0},
}  # fmt: skip


def written(folder: Path, found: Any) -> Path:
    file = folder / "bench.json"
    file.write_text(found if isinstance(found, str) else json.dumps(found))
    return file


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One short measurement of this machine: the file and what the command printed."""
    file = tmp_path_factory.mktemp("bench") / "azr-bench.json"
    widths, measure.WIDTHS = measure.WIDTHS, (1, 2)
    try:
        done = CliRunner().invoke(azr, ["bench", "--seconds", "5", "--out", str(file)])
    finally:
        measure.WIDTHS = widths
    assert done.exit_code == 0, done.output
    return file, done.output


def test_every_part_is_measured(measured: tuple[Path, str]) -> None:
    found = json.loads(measured[0].read_text())
    assert found["numerics"]["right"] is True
    assert found["decode"].keys() == {"1", "2"}
    numbers = [*found["decode"].values(), *found["products"].values(), found["prefill"], *found["update"].values()]
    numbers += [found["executor"]["one_worker"], found["executor"]["all_workers"]]
    assert all(number > 0 for number in numbers)
    assert found["gap"]["max"] < 1e-3 or found["machine"]["device"] != "cpu"
    for word in ("machine", "reached", "decode", "prefill", "update", "gap", "executor", "wrote"):
        assert any(line.startswith(word) for line in measured[1].splitlines())


def test_the_file_is_about_a_machine_and_not_a_person(measured: tuple[Path, str]) -> None:
    found = json.loads(measured[0].read_text())
    del found["executor"]["layers"]  # one of them is called root
    text = json.dumps(found)
    personal = {socket.gethostname(), getpass.getuser(), os.path.expanduser("~"), str(measured[0].parent)}
    assert [word for word in personal if word in text] == []
    assert "/" not in text  # no path at all


def test_the_planner_takes_measured_rates_as_reached(tmp_path: Path) -> None:
    file = written(tmp_path, M3_MAX)
    machine = planner.calibrated(file)
    assert (machine.name, machine.kind, machine.cores) == ("M3 Max", "metal", 14)
    assert (machine.bandwidth, machine.flops) == (320e9, 11.5e12)
    assert machine.reached == (1.0, 1.0)
    assert machine.room == planner.mac(48e9, "M3 Max").room
    done = CliRunner().invoke(azr, ["plan", "--config", "qwen2.5-coder-3b", "--calibrate", str(file)])
    assert done.exit_code == 0
    assert "320 GB/s, 11.5 TFLOP/s (measured by azr bench on 2026-12-01)" in done.output
    assert "taken as reached" not in done.output


def test_slower_measurements_make_longer_steps(tmp_path: Path) -> None:
    settings = config.load("qwen2.5-coder-3b")
    shape = planner.shape_of(settings.model)

    def seconds(**rates: float) -> float:
        found = {**M3_MAX, "products": {**M3_MAX["products"], **rates}}
        machine = planner.calibrated(written(tmp_path, found))
        return sum(one.seconds for one in planner.step_costs(settings, shape, machine))

    assert seconds(quantized_tflops=5.75) > 1.5 * seconds()
    assert seconds(gb_per_second=20) > seconds()
    assert seconds(launch_microseconds=300) > seconds()


def test_the_measured_chip_with_other_memory(tmp_path: Path) -> None:
    lines, fits = planner.plan_command(config.load("qwen2.5-coder-3b"), "36GB", calibrate=written(tmp_path, M3_MAX))
    assert any("M3 Max, 36 GB" in line for line in lines)
    assert fits


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ("{", "is no file of azr bench"),
        ("[]", "is no file of azr bench"),
        ({"machine": {}}, "is no file of azr bench"),
        ({**M3_MAX, "format": 2}, "numbers that cannot be"),
        ({**M3_MAX, "products": {**M3_MAX["products"], "gb_per_second": 0}}, "numbers that cannot be"),
        ({**M3_MAX, "products": {**M3_MAX["products"], "quantized_tflops": "fast"}}, "is no file of azr bench"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, found: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        planner.calibrated(written(tmp_path, found))
    with pytest.raises(UsageError, match="No such file"):
        planner.calibrated(tmp_path / "nothing.json")


def test_a_chip_beside_a_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--chip says too much"):
        planner.plan_command(config.load("nano"), "", "M1", calibrate=written(tmp_path, M3_MAX))


def test_wrong_products_are_what_the_reader_sees_first() -> None:
    wrong = {"operation": "matmul", "dtype": "bfloat16", "rows": 9, "error": 0.9, "right": False}
    found = {**M3_MAX, "numerics": {"right": False, "errors": [wrong]}, "model": "m", "decode": {}, "prefill": 1.0}
    found |= {"update": {"tokens_per_second": 1.0, "peak_memory_bytes": 1.0}, "gap": {"mean": 0.0, "max": 0.0}}
    found |= {"seconds": 1.0, "machine": {**M3_MAX["machine"], "system": "macOS 26.1"}}
    lines = command.lines(found)
    assert "WRONG: matmul bfloat16 9 rows: this build of MLX must not train" in lines[1]
    assert "(the chip's table: 400 GB/s, 14.2 TFLOP/s)" in lines[2]
