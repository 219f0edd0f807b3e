"""Static rules for proposals: a cheap "no" with a clear reason, before a program is run.

They enforce the rules of the game (AZR section 3.4: no randomness, no time, no input or output), not safety. A program
that slips through them meets the sandbox; nothing relies on them.

Departs from AZR in being an allow-list: the official ban list has entries ("os.path", "sys.exit") that its own
matching can never meet, and does not see `__import__`, `open`, `eval` or `exec`.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from functools import lru_cache

from azr_mlx.executor import syntax

MAX_CHARS = 4000
MAX_NODES = 20_000
# Of nested nodes. Parsers end between 3,000 (Python 3.11) and 6,000 (3.13); a rule is the same in all.
MAX_DEPTH = 1_000
_FILE = "<azr program>"
warnings.filterwarnings("ignore", category=SyntaxWarning, module=r"<azr ")
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"<azr ")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED_MODULES = _words(
    "math cmath collections itertools functools heapq bisect string re operator fractions decimal statistics typing "
    "dataclasses copy enum abc numbers array json textwrap types contextlib graphlib unicodedata __future__"
)
# The list of AZR section 3.4: refused as any part of an imported name, even inside an allowed module.
FORBIDDEN_MODULES = _words(
    "logging random multiprocessing pebble subprocess threading datetime time hashlib hmac bcrypt calendar os sys "
    "environ exit"
)
FORBIDDEN_NAMES = _words(
    "exec eval open compile input globals locals vars breakpoint help exit quit memoryview id __import__ __builtins__ "
    "__loader__ __spec__ __build_class__ __file__ __debug__"
)
# What a class of an honest program may define or call by its dunder name.
ALLOWED_DUNDERS = _words(
    "__init__ __new__ __post_init__ __name__ __doc__ __len__ __iter__ __next__ __getitem__ __setitem__ __delitem__ "
    "__contains__ __call__ __repr__ __str__ __bool__ __int__ __float__ __index__ __hash__ __eq__ __ne__ __lt__ __le__ "
    "__gt__ __ge__ __add__ __radd__ __iadd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __floordiv__ __mod__ "
    "__pow__ __neg__ __pos__ __abs__ __invert__ __and__ __or__ __xor__ __lshift__ __rshift__ __enter__ __exit__ "
    "__slots__ __reversed__ __missing__ __format__ __round__ __matmul__ __copy__ __deepcopy__ __class_getitem__"
)
FORBIDDEN_ATTRIBUTES = _words(
    "tb_frame tb_next f_back f_globals f_locals f_builtins f_code gi_frame gi_code cr_frame ag_frame mro func_globals"
)


def check_program(source: str, max_chars: int = MAX_CHARS, function: str = "f") -> str | None:
    """Why a proposed program is refused ("forbidden module os", "no function f", ...), or None when it is not.

    The first words are fixed and few, so that reasons can be counted. Never raises and never runs the program.
    """
    if len(source) > max_chars:
        return "too long"
    tree = _parse(source)
    if isinstance(tree, str):
        return tree
    if not any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body):
        return f"no function {function}"
    return _forbidden(tree)


def forbidden_use(source: str) -> str | None:
    """Why the source breaks the rules on modules and names, or None. A source that does not parse breaks them too."""
    tree = _parse(source)
    return tree if isinstance(tree, str) else _forbidden(tree)


def reads_arguments(source: str, function: str = "f") -> bool:
    """Whether the entry function reads each of its parameters somewhere. False for a source that does not parse."""
    tree = _parse(source)
    if isinstance(tree, str):
        return False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            arguments = node.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            return all(one.arg in read for one in named if one is not None)
    return False


def _parse(source: str) -> ast.Module | str:
    try:
        tree = syntax.parse(source, _FILE)
    except (RecursionError, MemoryError):
        return "nested too deep"
    except (SyntaxError, ValueError):  # ValueError: null bytes, lone surrogates
        return "syntax error"
    nodes, level = 0, [*ast.iter_child_nodes(tree)]
    for _ in range(MAX_DEPTH):
        if not level:
            return tree
        nodes += len(level)
        if nodes > MAX_NODES:
            return "too long"
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return "nested too deep"


def _forbidden(tree: ast.Module) -> str | None:
    bound, class_names = _bound(tree), _class_names(tree)
    for node in ast.walk(tree):
        reason = None
        if isinstance(node, ast.Import):
            reason = next((why for alias in node.names if (why := _module(alias.name))), None)
        elif isinstance(node, ast.ImportFrom):
            reason = _module(node.module or "") if not node.level else "forbidden relative import"
            for alias in node.names:
                if reason is None and (alias.name in FORBIDDEN_MODULES or _bad_dunder(alias.name)):
                    reason = f"forbidden module {alias.name}"
        elif isinstance(node, ast.Name):
            if node.id in FORBIDDEN_NAMES and node.id not in bound:
                reason = f"forbidden name {node.id}"
        elif isinstance(node, ast.Attribute):
            if node.attr in FORBIDDEN_ATTRIBUTES or (_bad_dunder(node.attr) and node not in class_names):
                reason = f"forbidden attribute {node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            reason = None if _plain_attribute(node) else f"forbidden name {node.func.id}"
        if reason is not None:
            return reason[:120]
    return None


def _module(name: str) -> str | None:
    parts = name.split(".")
    for part in parts:
        if part in FORBIDDEN_MODULES:
            return f"forbidden module {part}"
    return None if parts[0] in ALLOWED_MODULES else f"forbidden module {parts[0]}"


def _bad_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in ALLOWED_DUNDERS


def _class_names(tree: ast.Module) -> set[ast.expr]:
    """The `x.__class__` of each `x.__class__.__name__`: a common and harmless way to tell types apart, where bare
    `__class__` is not."""
    return {
        outer.value
        for outer in ast.walk(tree)
        if isinstance(outer, ast.Attribute)
        and outer.attr == "__name__"
        and isinstance(outer.value, ast.Attribute)
        and outer.value.attr == "__class__"
    }


def _plain_attribute(call: ast.Call) -> bool:
    """Whether a call is none that reaches an attribute by a text which could spell a forbidden one."""
    if not isinstance(call.func, ast.Name) or call.func.id not in ("getattr", "setattr", "delattr", "hasattr"):
        return True
    if len(call.args) < 2:
        return False
    name = call.args[1]
    if not isinstance(name, ast.Constant):
        return False
    return type(name.value) is str and not _bad_dunder(name.value) and name.value not in FORBIDDEN_ATTRIBUTES


def _bound(tree: ast.Module) -> set[str]:
    """Names that the program itself gives a meaning to: `def f(input)` does not read standard input."""
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    return bound


@lru_cache(maxsize=2**14)  # a program is asked about again whenever a task about it comes or goes
def normalised_key(source: str) -> str:
    """A hash that programs share when they differ only in layout, comments, docstrings and names of local variables.

    Empty when the source does not parse. Names are renamed in the order of their appearance, consistently over the
    whole program, and only those that functions bind (parameters and assigned variables).
    """
    tree = _parse(source)
    if isinstance(tree, str):
        return ""
    try:
        _drop_docstrings(tree)
        _rename(tree)
        return hashlib.sha256(ast.dump(tree, annotate_fields=False).encode("utf-8", "surrogatepass")).hexdigest()
    except RecursionError:
        return ""


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]


def _rename(tree: ast.Module) -> None:
    names: dict[str, str] = {}
    kept: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            kept.update(node.names)
        elif isinstance(node, ast.Attribute):
            kept.add(node.attr)  # a field of a class and a variable may share a name
    scopes = (
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.Lambda,
        ast.GeneratorExp,
        ast.ListComp,
        ast.SetComp,
        ast.DictComp,
    )
    seen: set[ast.AST] = set()
    for scope in ast.walk(tree):
        if not isinstance(scope, scopes) or scope in seen:
            continue  # a scope inside another was walked with it
        for node in ast.walk(scope):
            seen.add(node)
            word = None
            if isinstance(node, ast.arg):
                word = node.arg
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                word = node.id
            if word is not None and word not in names and word not in kept:
                names[word] = f"v{len(names)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.arg = names.get(node.arg, node.arg)
        elif isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.keyword) and node.arg is not None:
            node.arg = names.get(node.arg, node.arg)
