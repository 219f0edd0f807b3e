"""How hard a task is, counted: operations that its program executes, its size, and the band that follows from both.

Three numbers of a task, none of which depends on the machine or on the Python version:

    steps       operations executed on its input (the first input of an induction task): calls, arithmetic, comparisons,
                look-ups by index or key, items of a comprehension, turns of a loop, entries into a function
    nodes       nodes of the program's syntax tree, without contexts and operators' names
    operations  operations that stand in the program, executed or not

A task belongs to the first band whose two bounds hold: see `BANDS`.
"""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from typing import Any

# (most steps, most nodes) of each band.
BANDS = ((5, 26), (20, 55), (60, 100), (200, 160))

MOST_STEPS = 2000

_COUNTED = (ast.Call, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.JoinedStr)
_LOOPS = (ast.For, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp)
_OPERATIONS = (*_COUNTED, *_LOOPS, *_COMPREHENSIONS, ast.DictComp, ast.AugAssign)
_PLAIN = (ast.expr_context, ast.operator, ast.cmpop, ast.unaryop, ast.boolop, ast.Module)


class TooManySteps(Exception):
    """The program did more than any task may ask for."""


@dataclass(frozen=True)
class Measure:
    """What is stored with a task."""

    steps: int
    nodes: int
    operations: int

    @property
    def band(self) -> int | None:
        """1 to 4; None when the task is harder than any band allows."""
        for number, (steps, nodes) in enumerate(BANDS, 1):
            if self.steps <= steps and self.nodes <= nodes:
                return number
        return None


class _Counting(ast.NodeTransformer):
    """Rewrites a program so that every operation calls `_tick` once when it is executed."""

    def visit(self, node: ast.AST) -> ast.AST:
        node = super().visit(node)
        if isinstance(node, _COUNTED) and not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
                return node  # a negative number is written, not computed
            return _tick(node)
        if isinstance(node, _COMPREHENSIONS):
            node.elt = _tick(node.elt)
        elif isinstance(node, ast.DictComp):
            node.value = _tick(node.value)
        elif isinstance(node, (*_LOOPS, ast.FunctionDef)):
            node.body.insert(0, ast.Expr(_tick(ast.Constant(None))))
        elif isinstance(node, ast.AugAssign):
            node.value = _tick(node.value)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        for part in node.values:  # only what is inserted: the text between must stay a constant
            if isinstance(part, ast.FormattedValue):
                part.value = self.visit(part.value)  # type: ignore[assignment]
        return node


def _tick(value: ast.expr) -> ast.Call:
    return ast.Call(ast.Name("_tick", ast.Load()), [value], [])


class Counted:
    """A program whose calls are counted. It is run in this process, so it must be our own."""

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        self.nodes = sum(not isinstance(node, _PLAIN) for node in ast.walk(tree))
        self.operations = sum(isinstance(node, _OPERATIONS) for node in ast.walk(tree))
        self._count = 0
        self._space: dict[str, object] = {"_tick": self._tick}
        counting: Any = ast.fix_missing_locations(_Counting().visit(tree))
        exec(compile(counting, "<counted>", "exec"), self._space)

    def __call__(self, arguments: str) -> tuple[object, Measure]:
        """What `f` returns for the text of its arguments, and how hard that was. Raises what the program raises.

        Raises TooManySteps past `MOST_STEPS`, so that a loop without an end has one, the same on every machine.
        """
        self._count = 0
        value = eval(f"f({arguments})", self._space)
        return value, Measure(self._count, self.nodes, self.operations)

    def _tick(self, value: object) -> object:
        self._count += 1
        if self._count > MOST_STEPS:
            raise TooManySteps
        return value


_KEPT = frozenset(dir(builtins)) | {"f"}  # names that are not erased


def skeleton(program: str) -> str:
    """The shape of a program: names and constants are erased, so that near-duplicates share it."""
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value, node.kind = type(node.value).__name__, None
        elif isinstance(node, ast.Name) and node.id not in _KEPT:
            node.id = "_"
        elif isinstance(node, ast.arg):
            node.arg = "_"
    return ast.dump(tree, annotate_fields=False)
