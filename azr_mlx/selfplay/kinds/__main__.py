"""Prints docs/kinds.md: `python -m azr_mlx.selfplay.kinds`."""

from __future__ import annotations

import sys

from azr_mlx import config
from azr_mlx.selfplay.kinds import KINDS


def document() -> str:
    """The table of all task kinds, as Markdown: docs/kinds.md is this text."""
    default = config.TasksConfig().kinds
    lines = [
        "# Task kinds",
        "",
        "<!-- Written by `python -m azr_mlx.selfplay.kinds`; edit the modules of azr_mlx/selfplay/kinds instead. -->",
        "",
        "`tasks.kinds` names the kinds that a run plays: `azr train --set tasks.kinds=deduction,induction`. Each is",
        "one module of `azr_mlx/selfplay/kinds`; [the method](method.md#adding-a-task-kind) says how to add one.",
        "",
        "| kind | short | hidden | the proposer writes | the solver is shown | an answer is right when | default |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, one in KINDS.items():
        on = "on" if kind in default else "off"
        row = f"`{kind}`", one.short, one.hides, one.proposed, one.shown, one.right, on
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
