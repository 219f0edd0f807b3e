"""Tests that need the program in their own process: hardened, but no proof. two_process.py is what most tests get.

A program that wants to look right without being so has to get past these, in order:

1. A pass is a secret token that is written after the last statement of the test. The token waits in a pipe until then;
   no variable of the test's holds it while the program runs.
2. What the program defines is called in a thread of its own, so that walking up its frames ends before the test's.
   `sys._getframe` and trace functions work in that thread and see its frames only; `sys._current_frames` and the gc's
   object lists are empty.
3. What a call returns must be data whose `==` is Python's own: an instance of a class that defines `__eq__` (or
   `__bool__`, `__lt__`, ...) itself is refused with an assertion error before the test can compare it.
4. The test runs with the built-in functions and the `math` module of before the program, in a namespace of its own.

All of this can be undone from within, and without much art: a class handed out as the function, a replaced `exec`, the
token's pipe read by its number, frames walked from an `__init__`. benchmarks/verdicts/hostile_set.py has such programs.
So no reward ever depends on this mode, and a score names the problems that needed it.
"""

from __future__ import annotations

import _thread
import builtins
import gc
import os
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement (or behaves as if)
COMPARING: tuple[str, ...] = (
    "__eq__",
    "__ne__",
    "__bool__",
    "__len__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__contains__",
)
COMPARING += ("__sub__", "__rsub__", "__abs__", "__round__", "__getattribute__", "__getattr__", "__iter__", "__hash__")
mro_of = type.__dict__["__mro__"].__get__
dict_of = type.__dict__["__dict__"].__get__
flags_of = type.__dict__["__flags__"].__get__
_type, _any, _zip = type, any, zip
_KNOWN = (Counter, OrderedDict, defaultdict, deque)  # of the standard library, whose comparison is honest


class Untrusted(AssertionError):
    """The program returned an object that decides for itself what it equals."""


def trusted(value: Any, depth: int = 50) -> bool:
    """Whether comparing `value` runs no code of the program's."""
    kind = _type(value)
    for base in mro_of(kind):
        # By identity: a metaclass may say that its class equals another.
        if not flags_of(base) & HEAP or _any(base is known for known in _KNOWN):
            continue
        own = dict_of(base)
        if _any(name in own for name in COMPARING):
            return False
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return all(trusted(item, depth - 1) for item in _iterate(value))
    if depth and isinstance(value, dict):
        return all(trusted(key, depth - 1) and trusted(item, depth - 1) for key, item in dict.items(value))
    return depth > 0


def _iterate(value: Any) -> Any:
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return kind.__iter__(value)  # type: ignore[arg-type]
    return ()


class Caller:
    """Calls functions in a thread of its own: the frames above a call are this loop's, not the test's."""

    def __init__(self) -> None:
        """Raises RuntimeError when there can be no thread."""
        _thread.stack_size(64 << 20)
        self.todo, self.done = _thread.allocate_lock(), _thread.allocate_lock()
        self.todo.acquire()
        self.done.acquire()
        self.box: list[Any] = []
        _thread.start_new_thread(_serve, (self.todo, self.done, self.box))

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        self.box[:] = (function, args, keywords)
        self.todo.release()
        self.done.acquire()
        result, error = self.box
        self.box.clear()
        if error is not None:
            raise error
        return result


def _serve(todo: Any, done: Any, box: list[Any]) -> None:
    while True:
        todo.acquire()
        try:
            box[:] = (box[0](*box[1], **box[2]), None)
        except BaseException as error:
            box[:] = (None, error)
        done.release()


def _guard(function: Callable[..., Any], caller: Caller) -> Callable[..., Any]:
    def guarded(*args: Any, **keywords: Any) -> Any:
        result = caller.call(function, args, keywords)
        if not trusted(result):
            raise Untrusted(f"the result is an object of the program's class {_type(result).__qualname__!r:.60}")
        return result

    guarded.__name__ = getattr(function, "__name__", "candidate")
    return guarded


def _narrow() -> None:
    """Leave the program of `sys` and `gc` what honest programs use (doctest, logging), and nothing of the test's.

    Called in the test's thread; the program's is another one.
    """
    mine, here = _thread.get_ident(), _thread.get_ident
    frame_at, trace, profile = sys._getframe, sys.settrace, sys.setprofile

    def frame(depth: int = 0) -> Any:
        if here() == mine:
            raise ValueError("call stack is not deep enough")
        return frame_at(depth + 1)

    def elsewhere(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda hook: None if here() == mine else function(hook)

    changed: Any = sys
    changed._getframe = frame
    changed.settrace, changed.setprofile = elsewhere(trace), elsewhere(profile)
    changed._current_frames = changed._current_exceptions = dict
    if hasattr(sys, "_getframemodulename"):  # its users fall back on _getframe
        del changed._getframemodulename
    collector: Any = gc
    collector.get_objects = collector.get_referrers = collector.get_referents = lambda *args, **keywords: []


def _names(code: types.CodeType) -> set[str]:
    """Every global name that a test may use."""
    found, waiting = set(code.co_names), [code]
    while waiting:
        for constant in waiting.pop().co_consts:
            if isinstance(constant, types.CodeType):
                found.update(constant.co_names)
                waiting.append(constant)
    return found


def run(
    program: str, test: str, token: bytes, fresh: Callable[[str], dict[str, Any]], caller: Caller
) -> tuple[str, BaseException | None]:
    """Run both. (the token in hex, None) when the test reached its end, else ("program" or "test", the exception)."""
    waiting, entry = os.pipe()
    os.write(entry, token)
    os.close(entry)
    del token
    genuine = dict(builtins.__dict__)
    modules: dict[str, Any] = {}
    for name in ("math", "cmath", "copy", "re", "collections"):
        if name in sys.modules:
            modules[name] = types.ModuleType(name)
            modules[name].__dict__.update(sys.modules[name].__dict__)
    check = compile(test, "<test>", "exec", dont_inherit=True)
    wanted = _names(check)
    _narrow()
    namespace = fresh("program")
    try:
        caller.call(exec, (compile(program, "<program>", "exec", dont_inherit=True), namespace), {})
    except BaseException as error:
        return "program", error
    importer = genuine["__import__"]

    def genuine_import(name: str, *rest: Any) -> Any:
        return modules[name] if name in modules else importer(name, *rest)

    genuine["__import__"] = genuine_import
    space: dict[str, Any] = dict(namespace)
    space["__builtins__"] = genuine
    space["__name__"] = "test"
    for name in wanted & set(space):
        # Classes stay as they are: tests make instances of them to hand in.
        if isinstance(space[name], (types.FunctionType, types.BuiltinFunctionType)) or (
            callable(space[name]) and not isinstance(space[name], (type, types.ModuleType))
        ):
            space[name] = _guard(space[name], caller)
        elif isinstance(space[name], types.ModuleType) and space[name].__name__ in modules:
            space[name] = modules[space[name].__name__]
    try:
        exec(check, space)
    except BaseException as error:
        return "test", error
    os.set_inheritable(waiting, False)
    space["__builtins__"] = {}
    return os.read(waiting, 64).hex(), None
