"""The house: two wings, a hall, and imports that go down the stairs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "azr_mlx"

FOUNDATION = ("errors", "types", "places", "config")
WORLD = ("prompts", "parsing", "executor", "buffer", "rewards", "advantages", "proposer", "solver", "evaluation")
MODEL = ("blas", "linux_cpu", "device", "backbone", "weights", "sampler", "loss", "policy", "planner")
HALL = (
    *("metrics", "checkpoint", "trainer", "probe", "tracker", "report", "evaluation", "evaluator", "exporter"),
    *("doctor", "launch", "cli", "__main__"),
)

# A room may import what stands before it. A new room takes its place here.
STAIRS = FOUNDATION + WORLD + MODEL + HALL


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms() -> dict[str, list[Path]]:
    """Every room of the package with its files; a sub-package is one room."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if room_of(path) != "__init__":
            found.setdefault(room_of(path), []).append(path)
    return found


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: write the whole name"
            # `from azr_mlx import config` names a room, `from azr_mlx.config import load` has named it already.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported_by(room: str) -> set[str]:
    names = [name for path in rooms()[room] for name in imports(path)]
    return {name.split(".")[1] for name in names if name.startswith("azr_mlx.")} & set(rooms()) - {room}


@pytest.mark.parametrize("room", rooms())
def test_every_room_has_its_place_on_the_stairs(room: str) -> None:
    assert room in STAIRS, f"azr_mlx/{room} has no place in STAIRS of tests/test_house.py"


@pytest.mark.parametrize("room", rooms())
def test_imports_go_down_the_stairs(room: str) -> None:
    below = STAIRS[: STAIRS.index(room)]
    above = rooms_imported_by(room).difference(below)
    assert not above, f"{room} imports {sorted(above)}, which do not stand below it"


@pytest.mark.parametrize("room", [room for room in rooms() if room in FOUNDATION + WORLD])
def test_the_world_wing_never_imports_mlx(room: str) -> None:
    for path in rooms()[room]:
        foreign = {name for name in imports(path) if name.split(".")[0] in ("mlx", "mlx_lm", "transformers")}
        assert not foreign, f"{path} imports {sorted(foreign)}"
    assert not rooms_imported_by(room) & set(MODEL)


@pytest.mark.parametrize("room", [room for room in rooms() if room in MODEL])
def test_the_model_wing_never_imports_the_world(room: str) -> None:
    assert not rooms_imported_by(room) & set(WORLD)


def test_nobody_imports_the_command_line() -> None:
    assert [room for room in rooms() if "cli" in rooms_imported_by(room)] == ["__main__"]


def test_importing_the_world_wing_and_the_command_line_does_not_load_mlx() -> None:
    names = [room for room in rooms() if room in (*FOUNDATION, *WORLD, "cli")]
    code = "import sys\n" + "".join(f"import azr_mlx.{name}\n" for name in names) + "print('mlx' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "False"


def test_no_file_is_named_for_what_it_is_not() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in vague]
