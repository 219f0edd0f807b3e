"""Prints docs/configuration.md: `python -m azr_mlx.config`."""

from __future__ import annotations

import sys

from azr_mlx.config import RESUMABLE, options
from azr_mlx.config.option import written


def document() -> str:
    """The reference of every option, as Markdown: docs/configuration.md is this text."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by `python -m azr_mlx.config`; edit the dataclasses in azr_mlx/config/schema.py instead. -->",
        "",
        "`azr train --config NAME` takes a preset of `configs/` or a YAML file; `--set section.key=value` turns one.",
        "What a file leaves out keeps the default below. An option marked ↻ may change when a run is resumed.",
        "",
    ]
    section = None
    for key, one in options().items():
        owner, _, leaf = key.rpartition(".")
        if owner != section:
            section = owner
            lines += ["", f"## {owner}", ""] if owner else ["## The run", ""]
            lines += ["| option | default | allowed | meaning |", "|---|---|---|---|"]
        mark = " ↻" if key in RESUMABLE else ""
        allowed = one.explained or one.allowed
        lines.append(f"| `{leaf}`{mark} | `{written(one.default)}` | {allowed} | {one.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
