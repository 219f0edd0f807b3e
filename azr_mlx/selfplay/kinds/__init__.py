"""The registry of task kinds: one module of this folder for each, in the order of `Kind`.

    KINDS[task.kind].verify(task, answer, executor)

A new kind is a new module here that defines `KIND`, an instance of its own subclass of `TaskKind`; its name is the
module's. Nothing else is edited: `Kind` and the choices of `tasks.kinds` are read from the names of the modules.
docs/kinds.md is made from them (`python -m azr_mlx.selfplay.kinds`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping

from azr_mlx.selfplay.task_kind import TaskKind
from azr_mlx.types import Kind, Prompt


def _load(kind: Kind) -> TaskKind:
    found = getattr(importlib.import_module(f"{__name__}.{kind}"), "KIND", None)
    if not isinstance(found, TaskKind) or found.kind is not kind:
        raise TypeError(f"azr_mlx/selfplay/kinds/{kind}.py must define KIND, a TaskKind whose kind is {kind}")
    return found


KINDS: Mapping[Kind, TaskKind] = {kind: _load(kind) for kind in Kind}


def kind_of(prompt: Prompt) -> TaskKind:
    """The kind that a prompt of self-play is about. Raises ValueError for a prompt of the user's own."""
    if prompt.kind is None:
        raise ValueError("this prompt belongs to no kind")
    return KINDS[prompt.kind]


def hiding(part: str) -> Kind:
    """The first kind that hides this part: "output", "input" or "program". Raises ValueError when none does."""
    for kind, one in KINDS.items():
        if one.hides == part:
            return kind
    raise ValueError(f"no kind hides the {part}")


def choosing() -> tuple[Kind, ...]:
    """The kinds whose proposers write the program of a task themselves."""
    return tuple(kind for kind, one in KINDS.items() if one.chooses_program)


def twins(kind: Kind, among: Iterable[Kind]) -> list[Kind]:
    """Those of the kinds that a task of `kind` could also be of: one triplet can hide its output or its input."""
    same = KINDS[kind].one_case_of_own_program
    return [other for other in among if other is kind or (same and KINDS[other].one_case_of_own_program)]
