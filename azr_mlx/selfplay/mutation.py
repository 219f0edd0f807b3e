"""New programs from old ones by edits of the syntax tree: no tokens are spent, and the executor gives the truth.

A mutation of a program that is solved sometimes lies near it, so it is likely to be solved sometimes as well; and where
a proposer has run dry, it still makes something new. Four edits:

- *constant*: one literal gets another value of its type;
- *operator*: an operator or a comparison becomes another;
- *graft*: an expression becomes one of another program;
- *compose*: an expression is put into one of another program, in place of a variable: f(x) becomes g(f(x)).

Whether the result is a task at all is for the proposer's judge to find out, as with any other program: many grafts mix
types and raise.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Sequence

from azr_mlx.executor import syntax

ATTEMPTS = 4  # edits that may fail, or leave a program as it was, before it is given up
MOST_NODES = 4000  # that an expression put into another may have, counted before it is made
_OPERATORS: tuple[type[ast.operator], ...] = (ast.Add, ast.Sub, ast.Mult)
_COMPARISONS: tuple[type[ast.cmpop], ...] = (ast.Gt, ast.Lt, ast.Eq, ast.NotEq)


def mutate(source: str, others: Sequence[str], rng: random.Random) -> str | None:
    """The program with one edit, or None when none could be made. `others` are programs to take expressions from.

    Sources that do not parse, or are nested too deep to walk, give None.
    """
    try:
        tree = syntax.parse(source)
        plain = ast.unparse(tree)
        for _ in range(ATTEMPTS):
            changed = copy.deepcopy(tree)
            if rng.choice(_EDITS)(changed, others, rng):
                text = ast.unparse(ast.fix_missing_locations(changed))
                if text != plain:
                    return text
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None


def _change_constant(tree: ast.Module, others: Sequence[str], rng: random.Random) -> bool:
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    if not literals:
        return False
    chosen = rng.choice(literals)
    match chosen.value:
        case bool(value):
            chosen.value = not value
        case int(value):
            chosen.value = max(0, value + rng.choice((-2, -1, 1, 2)))
        case str(value) if value:
            letters = sorted(value)
            chosen.value = value[::-1] if value != value[::-1] else chr(ord(letters[0]) + 1) + value[1:]
        case _:
            return False
    return True


def _change_operator(tree: ast.Module, others: Sequence[str], rng: random.Random) -> bool:
    chosen = _any_of(tree, lambda node: isinstance(node, ast.BinOp | ast.Compare), rng)
    if isinstance(chosen, ast.BinOp):
        chosen.op = rng.choice(_OPERATORS)()
    elif isinstance(chosen, ast.Compare):
        chosen.ops = [rng.choice(_COMPARISONS)(), *chosen.ops[1:]]
    return chosen is not None


def _graft(tree: ast.Module, others: Sequence[str], rng: random.Random) -> bool:
    """An expression becomes another program's, whose variables become variables of this one."""
    donated = _donated(others, rng)
    names = _arguments(tree)
    if donated is None or not names:
        return False
    variables = _variables(donated)
    for node in ast.walk(donated):
        if isinstance(node, ast.Name) and node.id in variables:
            node.id = rng.choice(names)
    return _replace(tree, lambda old: donated, rng)


def _compose(tree: ast.Module, others: Sequence[str], rng: random.Random) -> bool:
    """An expression E becomes another program's expression with E in place of each of its variables."""
    donated = _donated(others, rng)
    if donated is None:
        return False
    variables = _variables(donated)
    places = sum(isinstance(node, ast.Name) and node.id in variables for node in ast.walk(donated))
    if not places or places * sum(1 for _ in ast.walk(tree)) > MOST_NODES:
        return False

    def wrapped(old: ast.expr) -> ast.expr:
        class Put(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.expr:
                return copy.deepcopy(old) if node.id in variables else node

        result: ast.expr = Put().visit(donated)
        return result

    return _replace(tree, wrapped, rng)


_EDITS: tuple[Callable[[ast.Module, Sequence[str], random.Random], bool], ...] = (
    _change_constant, _change_operator, _graft, _compose,
)  # fmt: skip


def _arguments(tree: ast.Module) -> list[str]:
    """The positional parameters of the entry function."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "f":
            return [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
    return []


def _variables(expression: ast.expr) -> set[str]:
    """The variables that an expression reads and does not bind itself; functions that it calls by name are none."""
    called = {
        node.func.id for node in ast.walk(expression) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    bound = {n.id for n in ast.walk(expression) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(expression) if isinstance(node, ast.arg)}
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)} - called - bound


def _donated(others: Sequence[str], rng: random.Random) -> ast.expr | None:
    """A copy of what one of the other programs returns somewhere."""
    if not others:
        return None
    returns = [
        node.value
        for node in ast.walk(syntax.parse(rng.choice(others)))
        if isinstance(node, ast.Return)
        and node.value is not None
        and not isinstance(node.value, ast.Name | ast.Constant)
    ]
    return rng.choice(returns) if returns else None


def _any_of(tree: ast.AST, wanted: Callable[[ast.AST], bool], rng: random.Random) -> ast.AST | None:
    found = [node for node in ast.walk(tree) if wanted(node)]
    return rng.choice(found) if found else None


def _replace(tree: ast.Module, new: Callable[[ast.expr], ast.expr], rng: random.Random) -> bool:
    """Put `new(old)` in the place of one expression that a statement holds: a returned, assigned or tested value."""
    places = [
        (node, name)
        for node in ast.walk(tree)
        for name in (("value",) if isinstance(node, ast.Return | ast.Assign) else ())
        if isinstance(getattr(node, name), ast.expr)
    ]
    places += [(node, name) for node in ast.walk(tree) if isinstance(node, ast.BinOp) for name in ("left", "right")]
    if not places:
        return False
    node, name = rng.choice(places)
    setattr(node, name, new(getattr(node, name)))
    return True
