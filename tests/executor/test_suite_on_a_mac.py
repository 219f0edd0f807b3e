"""The executor's own tests once more, on an emulated Mac: without any layer, and with Seatbelt as its language says.

What needs a layer or a file of Linux skips itself there, as it does on a Mac.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "AZR_TEST_MAC" in os.environ, reason="emulates a Mac on Linux"
)
NO_LAYER: dict[str, Any] = {"refuse": "Operation not permitted"}


def run(root: Path, files: list[str], options: dict[str, Any], *more: str) -> int:
    """How many tests passed; fails with pytest's own words when one did not."""
    words = [f"tests/executor/{name}.py" for name in files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *words, *more],
        cwd=root, env={**os.environ, "AZR_TEST_MAC": json.dumps(options)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    return int(passed.group(1))


def test_without_a_layer_programs_run_and_are_judged_right(root: Path) -> None:
    assert run(root, ["test_outcomes"], NO_LAYER) > 40


@pytest.mark.slow
def test_without_a_layer_pool_and_tests_in_the_child_work(root: Path) -> None:
    assert run(root, ["test_pool", "test_in_child_tests", "test_doors"], NO_LAYER) > 30


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_with_seatbelt_the_attacks_are_contained(root: Path) -> None:
    assert run(root, ["test_outcomes", "test_pool", "test_attacks"], {}) > 150
