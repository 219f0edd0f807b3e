"""The package's structure: two sides that never import each other, one module where they meet, no circle of imports.

A folder is a layer of `LAYERS` or stands alone in one; a new folder takes its place there, a new module needs nothing.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "azr_mlx"

# Folders and modules of one layer may import each other (without a circle) and everything in the layers before.
ENVIRONMENT = ("executor", "rows", "selfplay")
MODEL = ("model",)
CLUSTER = ("cluster",)  # who computes the model side's work
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "paths", "files", "terminal", "versions"),
    ("config", "generation"),
    ("environment",),  # what the trainer asks of each environment
    ENVIRONMENT,
    MODEL,
    CLUSTER,
    ("trainer",),  # where the two sides meet
    ("evaluation", "export", "planner", "report", "run"),
    ("bench", "doctor"),
    ("cli_eval",),
    ("cli",),
    ("__main__",),
)
# The one module of the evaluation that loads a policy; all others are given one, or need none.
EVALUATION_WITH_A_POLICY = "azr_mlx.evaluation.command"


def layer_of(module: str) -> int:
    top = module.split(".")[1]
    return next((i for i, layer in enumerate(LAYERS) if top in layer), len(LAYERS))


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a folder's name is its `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["azr_mlx", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__init__" and len(parts) > 2:
            parts.pop()
        found[".".join(parts)] = path
    del found["azr_mlx.__init__"]  # hands names on when they are asked for
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The dotted names that a file imports, wherever in the file it does so."""
    found: list[str] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: write the whole name"
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


@cache
def imported_by(module: str) -> frozenset[str]:
    """The modules of the package that a module imports: `from a.b import c` imports a.b.c if that is one, else a.b."""
    found = set()
    for name in imports(modules()[module]):
        while name and name not in modules():
            name = name.rpartition(".")[0]
        found.add(name)
    return frozenset(found - {"", module})


def side(*folders: str) -> list[str]:
    return [module for module in modules() if module.split(".")[1] in folders]


def test_every_folder_and_module_has_its_layer() -> None:
    tops = {module.split(".")[1] for module in modules()}
    assert tops == {top for layer in LAYERS for top in layer}


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_the_layers(module: str) -> None:
    above = {name for name in imported_by(module) if layer_of(name) > layer_of(module)}
    assert not above, f"{module} imports {sorted(above)}, which do not stand below it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        # a folder's `__init__` hands on names of its modules, which is no circle
        module: {name for name in imported_by(module) if not module.startswith(f"{name}.")}
        for module in modules()
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", [m for m in modules() if layer_of(m) <= LAYERS.index(ENVIRONMENT)])
def test_the_environment_never_imports_mlx(module: str) -> None:
    foreign = {name for name in imports(modules()[module]) if name.split(".")[0] in ("mlx", "mlx_lm", "transformers")}
    assert not foreign, f"{module} imports {sorted(foreign)}"


@pytest.mark.parametrize("module", side(*MODEL))
def test_the_model_side_never_imports_the_environment(module: str) -> None:
    assert not {name for name in imported_by(module) if name.split(".")[1] in ENVIRONMENT}


@pytest.mark.parametrize("module", side(*CLUSTER))
def test_machines_that_share_work_never_import_the_environment(module: str) -> None:
    assert not {name for name in imported_by(module) if name.split(".")[1] in ENVIRONMENT}


@pytest.mark.parametrize("module", [m for m in modules() if m.split(".")[1] not in (*CLUSTER, "run", "cli", "planner")])
def test_only_a_run_and_the_command_line_know_of_several_machines(module: str) -> None:
    assert not {name for name in imported_by(module) if name.split(".")[1] in CLUSTER}, "a policy is all they see"


@pytest.mark.parametrize("module", [m for m in side("evaluation") if m != EVALUATION_WITH_A_POLICY])
def test_benchmarks_and_verdicts_know_no_policy(module: str) -> None:
    assert not {name for name in imported_by(module) if name.split(".")[1] in (*MODEL, "trainer", "run")}


@pytest.mark.parametrize("folder", [m for m, path in modules().items() if path.name == "__init__.py"])
def test_no_folder_hands_on_a_name_that_hides_one_of_its_modules(folder: str) -> None:
    """`import a.b` would then find what was handed on as `b`."""
    handed_on = {name.rpartition(".")[2] for name in imports(modules()[folder])}
    assert not handed_on & {m.rpartition(".")[2] for m in modules() if m.rpartition(".")[0] == folder}


def test_nobody_imports_the_command_line() -> None:
    assert [module for module in modules() if "azr_mlx.cli" in imported_by(module)] == ["azr_mlx.__main__"]


def test_importing_the_environment_and_the_command_line_does_not_load_mlx() -> None:
    names = [m for m in modules() if layer_of(m) <= LAYERS.index(ENVIRONMENT) and not m.endswith("__main__")]
    names += ["azr_mlx.evaluation.judging", "azr_mlx.cli"]
    code = "import sys\n" + "".join(f"import {name}\n" for name in names) + "print('mlx' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.strip() == "False"


def test_no_file_is_named_for_what_it_is_not() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in vague]


def test_a_public_class_name_has_one_meaning() -> None:
    """A protocol may share its name with the class that fulfils it; a command's module with nothing."""
    where: dict[str, list[str]] = {}
    for module, path in modules().items():
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                protocol = any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
                where.setdefault(node.name, []).extend([] if protocol else [module])
    assert {name: places for name, places in where.items() if len(places) > 1} == {}
