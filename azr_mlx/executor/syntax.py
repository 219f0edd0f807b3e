"""Parsing Python source from any thread."""

from __future__ import annotations

import ast
import threading
from typing import Literal, overload

# CPython 3.11 and 3.12 keep the depth of the tree that is being built in the interpreter, not in the thread: when the
# garbage collector lets another thread parse in the middle of a tree, one of the two ends in "SystemError: AST
# constructor recursion depth mismatch".
_ONE_AT_A_TIME = threading.RLock()


@overload
def parse(source: str, filename: str = ..., mode: Literal["exec"] = ...) -> ast.Module: ...
@overload
def parse(source: str, filename: str, mode: Literal["eval"]) -> ast.Expression: ...
def parse(source: str, filename: str = "<unknown>", mode: Literal["exec", "eval"] = "exec") -> ast.AST:
    """`ast.parse`, one thread at a time. Raises what it raises."""
    with _ONE_AT_A_TIME:
        found: ast.AST = ast.parse(source, filename, mode)
        return found
