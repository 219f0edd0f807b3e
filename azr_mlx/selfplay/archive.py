"""The archive of a run: every program that was proposed, by what it is made of and by what it does.

A run that compares a proposal only with the tasks in memory learns to vary names and constants, and ends in one family
of programs. The archive covers the whole run and counts a program twice, by signatures that are hard to vary cheaply:

- its *skeleton*: the syntax tree without names of variables, without the values of literals, and with commuting
  operands in one order. Renaming, reordering and other constants do not change it.
- its *behaviour*: what it returns for a few fixed inputs of the types that its own input has. A longer way to write the
  same function, or a branch that is never taken, does not change it.

A cell is a pair of both (after the archives of quality-diversity search, Mouret and Clune 2015). How crowded a proposal
is, is told by the fuller of its two signatures and not by its cell: a change of either one would leave the cell.

    archive = Archive(executor)
    crowding = archive.add(tasks)      # of each task, before any of them was counted
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from azr_mlx.executor import Executor, Job, Outcome, boundary, syntax
from azr_mlx.executor.boundary import Refused
from azr_mlx.types import Task

# The fixed inputs by type, as many of each. Of a list, the items are those of its first item's type.
VALUES: Mapping[type, tuple[Any, ...]] = {
    bool: (True, False, True, False, True, False),
    int: (0, 1, 2, 5, 9, -3),
    float: (0.0, 1.0, 2.5, -0.5, 9.0, 1e3),
    str: ("", "A", "BA", "ABC", "DAD", "ECABB"),
    bytes: (b"", b"A", b"BA", b"ABC", b"DAD", b"ECABB"),
    type(None): (None,) * 6,
}
LENGTHS = (0, 1, 2, 3, 4, 5)  # of the fixed lists, sets and dicts
DEEPEST = 4  # levels of containers that are told apart
# The program runs below this: an input on which it raises has the name of the exception as its result.
PROBE = """

def {name}(*arguments, **options):
    try:
        return True, f(*arguments, **options)
    except Exception as error:
        return False, type(error).__name__
"""
NAME = "probe_of_behaviour"
MAX_SHOWN = 400  # characters of a result that count


@dataclass(frozen=True, slots=True)
class Signature:
    """The two sides of a program, each as a short hash."""

    skeleton: str
    behaviour: str


@dataclass(slots=True)
class Cell:
    """One cell: how many programs fell into it, and the first of them with the step that proposed it."""

    count: int
    program: str
    step: int


class Archive:
    """Counts of signatures over a whole run. Of the programs, only the first of each cell is kept."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.cells: dict[Signature, Cell] = {}  # in the order in which they were first filled
        self._skeletons: Counter[str] = Counter()
        self._behaviours: Counter[str] = Counter()

    def __len__(self) -> int:
        """Filled cells."""
        return len(self.cells)

    def add(self, tasks: Sequence[Task]) -> list[float]:
        """Count the programs of the tasks; returns how crowded each was before any of them was counted."""
        signatures = self.signatures(tasks)
        crowding = [self.crowding(one) for one in signatures]
        for task, signature in zip(tasks, signatures, strict=True):
            cell = self.cells.setdefault(signature, Cell(0, task.program, task.step))
            cell.count += 1
            self._count(signature, 1)
        return crowding

    def crowding(self, signature: Signature) -> float:
        """How full the fuller one of a program's signatures is: 0 for a new one, 1/2 at the mean, towards 1.

        With n programs under the signature and m under each signature on average, n / (n + m).
        """
        found = []
        for counts, name in ((self._skeletons, signature.skeleton), (self._behaviours, signature.behaviour)):
            mean = counts.total() / len(counts) if counts else 1.0
            found.append(counts[name] / (counts[name] + mean))
        return max(found)

    def signatures(self, tasks: Sequence[Task]) -> list[Signature]:
        """Both sides of each program. All are run at once, each on its fixed inputs."""
        under_way = [self.executor.submit(behaviour_job(task)) for task in tasks]
        return [
            Signature(_hash(skeleton(task.program)), _hash(behaviour(future.result())))
            for task, future in zip(tasks, under_way, strict=True)
        ]

    def _count(self, signature: Signature, number: int) -> None:
        self._skeletons[signature.skeleton] += number
        self._behaviours[signature.behaviour] += number

    # State ------------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """Every cell as plain data for JSON, in the order in which they were filled."""
        return [
            {"skeleton": signature.skeleton, "behaviour": signature.behaviour, "count": cell.count, "step": cell.step,
             "program": cell.program}
            for signature, cell in self.cells.items()
        ]  # fmt: skip

    def load(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the content by saved rows. Raises ValueError for a row that is no cell."""
        cells: dict[Signature, Cell] = {}
        for row in rows:
            try:
                signature = Signature(str(row["skeleton"]), str(row["behaviour"]))
                cells[signature] = Cell(int(row["count"]), str(row["program"]), int(row["step"]))
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"not a cell of an archive: {json.dumps(row, default=str)[:80]}") from None
        self.restore(cells)

    def snapshot(self) -> dict[Signature, Cell]:
        """The content as it is now, for `restore`."""
        return {signature: Cell(cell.count, cell.program, cell.step) for signature, cell in self.cells.items()}

    def restore(self, cells: Mapping[Signature, Cell]) -> None:
        self.cells = dict(cells)
        self._skeletons, self._behaviours = Counter(), Counter()
        for signature, cell in self.cells.items():
            self._count(signature, cell.count)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


# What it is made of ---------------------------------------------------------------------------------------------

_COMMUTING = (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr, ast.BitXor)
_SYMMETRIC = (ast.Eq, ast.NotEq)
_MIRRORED = {"Gt": "Lt", "GtE": "LtE"}  # a > b is b < a
_ANY_ORDER = frozenset(("max", "min"))  # calls whose arguments commute


def skeleton(source: str) -> str:
    """The structure of a program as a text: no names of variables, no values, commuting operands in one order.

    Functions that the program does not define keep their names (`len` is not `sum`), and so do attributes and
    operators. A literal keeps its type, a list of literals is one literal. A source that does not parse, or that is
    nested too deep to walk, is its own skeleton.
    """
    try:
        tree = syntax.parse(source)
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        return _skeleton(tree, bound)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source


def _skeleton(node: ast.AST, bound: set[str]) -> str:
    literal = _literal(node)
    if literal:
        return literal
    kind = type(node).__name__
    match node:
        case ast.Name(id=name):
            return "_" if name in bound else name
        case ast.arg():
            return "_"
        case ast.BinOp(op=op) if isinstance(op, _COMMUTING):
            operands = sorted(_skeleton(operand, bound) for operand in _operands(node, type(op)))
            return f"{type(op).__name__}({','.join(operands)})"
        case ast.BoolOp(op=op, values=operands):
            return f"{type(op).__name__}({','.join(sorted(_skeleton(operand, bound) for operand in operands))})"
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            name, sides = type(op).__name__, [_skeleton(left, bound), _skeleton(right, bound)]
            if isinstance(op, _SYMMETRIC):
                sides.sort()
            if name in _MIRRORED:
                name, sides = _MIRRORED[name], sides[::-1]
            return f"{name}({','.join(sides)})"
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _ANY_ORDER and name not in bound:
            return f"{name}({','.join(sorted(_skeleton(argument, bound) for argument in arguments))})"
        case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef() | ast.Attribute():
            kind = f"{kind}:{node.attr}" if isinstance(node, ast.Attribute) else kind
    parts = []
    for _, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            parts.append(_skeleton(value, bound))
        elif isinstance(value, list):
            parts.append("[" + ",".join(_skeleton(item, bound) for item in value if isinstance(item, ast.AST)) + "]")
        elif value is None:
            parts.append("-")  # x[1:] is not x[:1]
        # What is left are names and numbers of the syntax, which is what a skeleton leaves out.
    return f"{kind}({','.join(parts)})"


def _literal(node: ast.AST) -> str:
    """The type of a literal, or nothing. A sign belongs to the number, literals in a list to the list."""
    match node:
        case ast.Constant(value=value):
            return f"<{type(value).__name__}>"
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=value)):
            return f"<{type(value).__name__}>"
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            if isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
                return ""
            inner = {_literal(item) for item in items}
            return "" if "" in inner else f"<{type(node).__name__}{''.join(sorted(inner))}>"
    return ""


def _operands(node: ast.AST, op: type[ast.operator]) -> list[ast.AST]:
    """The operands of a chain of one operator: those of a + b + c are three."""
    found, waiting = [], [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.BinOp) and type(one.op) is op:
            waiting += [one.right, one.left]
        else:
            found.append(one)
    return found


# What it does ---------------------------------------------------------------------------------------------------


def behaviour_job(task: Task) -> Job:
    """The program of a task on fixed inputs of the types that the input of its first case has."""
    return Job(task.program + PROBE.format(name=NAME), fixed_inputs(task.cases[0].input), function=NAME)


def fixed_inputs(example: str) -> tuple[str, ...]:
    """As many argument lists as `LENGTHS`, each of the types of `example`, which is none of them.

    Where the example is no list of literals, it is the only one.
    """
    read = boundary.read_arguments(example)
    if isinstance(read, Refused):
        return (example,)
    positional, named = read
    lists = []
    for number in range(len(LENGTHS)):
        texts = [repr(_value(value, number + place, DEEPEST)) for place, value in enumerate(positional)]
        texts += [f"{name}={_value(value, number + 1, DEEPEST)!r}" for name, value in named.items()]
        lists.append(", ".join(texts))
    return tuple(lists)


def _value(like: object, number: int, depth: int) -> object:
    """The fixed value of a number of the same type as `like`. Arguments beside each other have different numbers."""
    number %= len(LENGTHS)
    known = VALUES.get(type(like))
    if known is not None:
        return known[number]
    if depth == 0:
        return number
    length = LENGTHS[number]
    if isinstance(like, tuple):  # a record: as long as the example
        return tuple(_value(item, number + place, depth - 1) for place, item in enumerate(like))
    if isinstance(like, list):
        return [_value(like[0] if like else 0, number * place + 1, depth - 1) for place in range(length)]
    if isinstance(like, dict):
        first, second = next(iter(like.items())) if like else ("", 0)
        return {_value(first, place, depth - 1): _value(second, number + place, depth - 1) for place in range(length)}
    if isinstance(like, set | frozenset):
        first = min(like, key=lambda item: type(item).__name__, default=0)
        return {_value(first, place, depth - 1) for place in range(length)}
    return number


def behaviour(outcome: Outcome) -> str:
    """The results as a text; how the program ended, where it gave none."""
    if not outcome.ok:
        return str(outcome.status)
    return "\n".join(boundary.shown(value, MAX_SHOWN) for value in outcome.values)
