"""Versions of what a result depends on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib import metadata

from azr_mlx import __version__


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed, by name, in the order given."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def result_versions() -> dict[str, str]:
    """What the numbers of a run or an evaluation depend on: kept with them."""
    own = {"azr_mlx": __version__, "python": sys.version.split()[0]}
    return own | package_versions(("mlx", "mlx-lm", "numpy", "transformers", "scipy-openblas32"))


def changed_versions(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which packages have other versions, as a note says it; empty when none has."""
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return ", ".join(f"{name} {then.get(name)} to {now.get(name)}" for name in names)
