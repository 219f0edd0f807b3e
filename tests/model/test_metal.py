"""What a Mac's GPU is given before MLX is imported, and the answer to memory pressure."""

from __future__ import annotations

import subprocess
import sys

import pytest

from azr_mlx.model import metal


def test_the_watchdog_is_relaxed_on_a_mac_and_that_is_said() -> None:
    environment: dict[str, str] = {}
    notes = metal.relax_watchdog(environment, darwin=True, loaded=False)
    assert environment == {metal.RELAX: "1"}
    assert notes == (f"{metal.RELAX}=1, so that macOS does not end the run for its kernels while the display is on",)


def test_a_choice_of_the_user_is_left() -> None:
    environment = {metal.RELAX: "0"}
    assert "as the environment says" in metal.relax_watchdog(environment, darwin=True, loaded=False)[0]
    assert environment == {metal.RELAX: "0"}
    assert metal.relax_watchdog({metal.RELAX: "1"}, darwin=True, loaded=False) == ()


def test_setting_it_after_mlx_is_said_to_be_too_late() -> None:
    assert "too late" in metal.relax_watchdog({}, darwin=True, loaded=True)[0]


def test_elsewhere_nothing_is_set() -> None:
    environment: dict[str, str] = {}
    assert metal.relax_watchdog(environment, darwin=False) == ()
    assert environment == {}


def test_it_is_set_when_mlx_is_first_imported() -> None:
    """`device.prepare` on a pretended Mac: at the moment of the import of mlx.core the variable is there."""
    code = """
import importlib.abc, os, sys
os.environ.pop("AGX_RELAX_CDM_CTXSTORE_TIMEOUT", None)
seen = []
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core" and not seen:
            seen.append(os.environ.get("AGX_RELAX_CDM_CTXSTORE_TIMEOUT"))
            sys.platform = "linux"
sys.meta_path.insert(0, Finder())
from azr_mlx.model import device
sys.platform = "darwin"
device.prepare()
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().splitlines()[-1:] == ["['1']"], done.stderr[-2000:]


def test_importing_it_imports_no_mlx() -> None:
    code = "import sys, azr_mlx.model.metal; print('mlx.core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_pressure_halves_the_rows_and_says_so() -> None:
    rows = [64]
    levels = iter([metal.NORMAL, metal.WARNING, metal.NORMAL, metal.CRITICAL, None])

    def shrink() -> str:
        rows[0] //= 2
        return f"{rows[0]} rows at a time from now on"

    relief = metal.Relief(shrink, lambda: next(levels))
    assert [relief.look() for _ in range(5)] == [
        "",
        "memory pressure is high: 32 rows at a time from now on",
        "",
        "memory pressure is critical: 16 rows at a time from now on",
        "",
    ]


def test_what_cannot_be_halved_is_said_once() -> None:
    relief = metal.Relief(lambda: "", lambda: metal.CRITICAL)
    assert "nothing left to halve" in relief.look()
    assert relief.look() == ""


@pytest.mark.skipif(sys.platform == "darwin", reason="is about the other systems")
def test_elsewhere_pressure_is_unknown() -> None:
    assert metal.memory_pressure() is None
    assert metal.sysctl("kern.memorystatus_vm_pressure_level") is None


@pytest.mark.skipif(sys.platform != "darwin", reason="asks the kernel of a Mac")
def test_a_mac_says_how_short_of_memory_it_is() -> None:
    assert metal.memory_pressure() in (metal.NORMAL, metal.WARNING, metal.CRITICAL)
