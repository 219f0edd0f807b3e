"""The two halves of a test in two processes, both inside the sandbox: `answer` calls the program, `play` runs the test.

    candidate's process: the program, and a list of calls (function, plain arguments)   ->  one plain answer a call
    test's process:      the test, and those answers. It never loads a line of the program.

In the test's process a `Proxy` stands for each name that the test takes from the program. As long as the test makes the
calls that have answers, in their order and with the same arguments, each proxy returns (or raises) its answer. From the
first call without one on, `play` goes on with `Unknown` results, to see which calls may come, and says so: the trainer
asks a fresh candidate's process for all of them and starts the test again. Played with no answers at all it is thus the
recording that a conversation begins with. A test has passed only if all its calls had answers and its end was reached.

An answer is a tuple of plain values:

    ("value", value, changed)           what was returned
    ("tree", tree, changed)             the same where it is not plain data, see `pack`
    ("refused", reason)                 an object that decides itself what it equals, or too much data
    ("error", bases, arguments, letter, text)   an exception: names of its built-in classes, the letter of a frame
    changed: None, or (args, keywords) as the call left them, where the call changed an argument in place
"""

from __future__ import annotations

import builtins
import itertools
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from azr_mlx.executor.checks import COMPARING, HEAP, Untrusted, dict_of, flags_of, mro_of
from azr_mlx.executor.values import EncodeError, canonical, encode

_PLAIN = (int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
_DECIDING = tuple(name for name in COMPARING if name not in ("__getattribute__", "__hash__"))
_DEPTH = 40  # of containers around what is not plain; each costs two levels of the encoding
_ITEMS = 1 << 16  # of an iterator; one that goes on is told as endless
MAX_CALLS = 1 << 14  # of one test

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


# --------------------------------------------------------------------------------------- the candidate's process


def answer(
    namespace: dict[str, Any],
    calls: list[Call],
    names: tuple[str, ...],
    going_on: bool,
    track: bool,
    classify: Callable[[BaseException], tuple[int, str]],
    room: int,
) -> bytes:
    """The encoded ({name: what it is}, [answer, ...]) of a loaded program.

    going_on: whether calls go on after one that raised; otherwise its answer is the last.
    track: whether arguments that a call changed in place are sent back. room: bytes that all answers may take.
    """
    left = room
    parts: list[bytes] = []
    kinds = {name: _kind(namespace, name) for name in names}
    for name, args, keywords in calls:
        before = _look((args, keywords)) if track else b""
        try:
            if name not in namespace:
                raise NameError(f"name {name!r} is not defined")
            value = namespace[name](*args, **keywords)
            changed = (args, keywords) if track and _look((args, keywords)) != before else None
            piece = _returned(value, changed, left)
        except BaseException as error:
            piece = _raised(error, classify)
            if not going_on:
                parts.append(piece)
                break
        left -= len(piece)
        parts.append(piece)
    # What encode((kinds, [...])) would give, put together of what is encoded already.
    return b"".join((b"t\2\0\0\0", encode(kinds), b"l", len(parts).to_bytes(4, "little"), *parts))


def _look(arguments: Any) -> bytes:
    try:
        return canonical(arguments)
    except EncodeError:  # the call put an object of its own into them
        return b""


def _kind(namespace: dict[str, Any], name: str) -> Any:
    """("missing",), ("module", its name), ("value", plain data) or ("object",)."""
    if name not in namespace:
        return ("missing",)
    value = namespace[name]
    if isinstance(value, types.ModuleType):
        return ("module", str(value.__name__))
    try:
        return ("value", value) if encode(value, 1 << 16) else ()
    except EncodeError:
        return ("object",)


def _returned(value: Any, changed: Any, room: int) -> bytes:
    try:
        return encode(("value", value, changed), room)
    except EncodeError:
        pass
    try:
        return encode(("tree", pack(value, [_ITEMS]), pack(changed, [_ITEMS]) if changed else None), room)
    except EncodeError as error:
        return encode(("refused", f"the result is {error}"[:300]))


def _raised(error: BaseException, classify: Callable[[BaseException], tuple[int, str]]) -> bytes:
    letter, text = classify(error)
    bases = tuple(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
    try:
        arguments = error.args
        return encode(("error", bases, arguments, letter, text), 1 << 16)
    except BaseException:
        return encode(("error", bases, (), letter, text), 1 << 16)


def pack(value: Any, left: list[int], depth: int = _DEPTH) -> Any:
    """A tree of plain data for what `unpack` can build again: containers, iterators, and some classes of the library.

    An instance of a class that inherits the comparison of plain data becomes such data; another object becomes a name,
    equal to itself only, as objects are. Raises EncodeError where a class defines comparison itself.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes) or value is Ellipsis:
        return ("v", value)
    if depth <= 0:
        raise EncodeError("nested too deep")
    if kind in (list, tuple, set, frozenset):
        return (kind.__name__, [pack(item, left, depth - 1) for item in value])
    if kind is dict or kind in (Counter, OrderedDict, defaultdict):
        return ("dict", [(pack(k, left, depth - 1), pack(v, left, depth - 1)) for k, v in dict.items(value)])
    for base in _PLAIN:
        if isinstance(value, base) and all(_defined(kind, name) is _defined(base, name) for name in _DECIDING):
            plain: Callable[[Any], Any] = base
            return pack(plain(value), left, depth)
    if kind is range:
        return ("range", (value.start, value.stop, value.step))
    if kind is bytearray:
        return ("bytearray", bytes(value))
    if kind is deque:
        return ("deque", [pack(item, left, depth - 1) for item in value], value.maxlen)
    if kind in (type({}.keys()), type({}.values())):
        return (kind.__name__, [pack(item, left, depth - 1) for item in value])
    if kind is type({}.items()):
        return ("dict_items", [(pack(k, left, depth - 1), pack(v, left, depth - 1)) for k, v in value])
    made = (kind.__module__, kind.__name__)
    if made == ("fractions", "Fraction"):
        return ("fraction", int(value.numerator), int(value.denominator))
    if made == ("decimal", "Decimal"):
        return ("decimal", str(value))
    if made == ("datetime", "date"):
        return ("date", (value.year, value.month, value.day))
    if made == ("datetime", "timedelta"):
        return ("timedelta", (value.days, value.seconds, value.microseconds))
    if made == ("datetime", "datetime") and value.tzinfo is None:
        return ("datetime", (*value.timetuple()[:6], value.microsecond))
    for base in mro_of(kind):
        if flags_of(base) & HEAP and any(name in dict_of(base) for name in COMPARING if name != "__iter__"):
            raise EncodeError(f"an object of the class {kind.__qualname__:.60}, which defines its own comparison")
    if hasattr(kind, "__next__"):
        return _pack_iterator(value, left, depth)
    return ("object", str(kind.__name__)[:80])


def _defined(kind: type, name: str) -> Any:
    """What instances of a class have under a name, its metaclass's attributes left aside."""
    for base in mro_of(kind):
        if name in dict_of(base):
            return dict_of(base)[name]
    return None


def _pack_iterator(value: Any, left: list[int], depth: int) -> Any:
    items: list[Any] = []
    try:
        for item in value:
            left[0] -= 1
            if left[0] < 0:
                return ("iterator", items, ("RuntimeError",), "an iterator that goes on for ever")
            items.append(pack(item, left, depth - 1))
    except EncodeError:
        raise
    except Exception as error:
        bases = tuple(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        return ("iterator", items, bases, str(error)[:200])
    return ("iterator", items, (), "")


# -------------------------------------------------------------------------------------------- the test's process


class Opaque:
    """An object of the program's, of which nothing is known here. It equals itself only and is true, as objects are."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


class TestStopped(BaseException):
    """The test does what cannot be told to another process."""


class Remote(Exception):
    """The class of an exception of the program's that has no built-in class here."""


def unpack(tree: Any) -> Any:
    """The value of a tree of `pack`. Raises whatever a malformed tree leads to."""
    tag, body = tree[0], tree[1]
    if tag == "v":
        return body
    if tag in ("list", "tuple", "set", "frozenset"):
        items = [unpack(item) for item in body]
        return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[tag](items)
    if tag == "dict":
        return {unpack(key): unpack(item) for key, item in body}
    if tag == "range":
        return range(*body)
    if tag == "bytearray":
        return bytearray(body)
    if tag == "deque":
        return deque([unpack(item) for item in body], tree[2])
    if tag == "dict_keys":
        return dict.fromkeys([unpack(item) for item in body]).keys()
    if tag == "dict_values":
        return dict(enumerate(unpack(item) for item in body)).values()
    if tag == "dict_items":
        return {unpack(key): unpack(item) for key, item in body}.items()
    if tag == "iterator":
        return _iterate([unpack(item) for item in body], tree[2], tree[3])
    if tag in ("date", "timedelta", "datetime"):
        import datetime

        return getattr(datetime, tag)(*body)
    if tag == "fraction":
        from fractions import Fraction

        return Fraction(body, tree[2])
    if tag == "decimal":
        from decimal import Decimal

        return Decimal(body)
    return Opaque(str(body))


def _iterate(items: list[Any], bases: tuple[str, ...], text: str) -> Iterator[Any]:
    yield from items
    if bases:
        raise exception(bases, (text,))


def exception(bases: tuple[str, ...], arguments: tuple[Any, ...]) -> BaseException:
    """An exception of the nearest built-in class."""
    for name in bases:
        kind = vars(builtins).get(name)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            try:
                return kind(*arguments)
            except Exception:
                continue
    return Remote(*arguments)


class Proxy:
    """A name of the program in the test's process. All that can be done with it is to call it."""

    __slots__ = ("_name", "_talk")

    def __init__(self, name: str, talk: Talk) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_talk", talk)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self._talk.call(self._name, args, keywords)

    def __getattr__(self, name: str) -> Any:
        raise self._talk.stop(f"the test looks at {self._name}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise self._talk.stop(f"the test changes {self._name}.{name}")


class Talk:
    """The test's side of one run: which calls have been made, which had answers, and which are asked for."""

    def __init__(self, calls: list[Call], answers: list[Any]) -> None:
        self.calls = calls
        self.answers = answers
        self.at = 0
        self.more: list[Call] | None = None  # the calls without answers, once there is one
        self.reason = ""
        self.unknown = _unknown(self)

    def stop(self, reason: str) -> TestStopped:
        self.reason = self.reason or reason
        return TestStopped(reason)

    def failed(self, condition: Any) -> bool:
        """What an `assert` asks: whether it fails. With an unknown result behind us nothing fails any more."""
        return not condition and self.more is None

    def call(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.more is None and self.at < len(self.answers):
            try:
                same = canonical(self.calls[self.at]) == canonical((name, args, keywords))
            except EncodeError:
                same = False
            if same:
                found = self.answers[self.at]
                self.at += 1
                return self._give(found, args, keywords)
        try:
            encode((name, args, keywords))
            plain = exactly((args, keywords))
        except EncodeError:
            plain = False
        if not plain:
            raise self.stop(f"arguments of {name} are no plain data, or made of what the program returned")
        self.more = [] if self.more is None else self.more
        # A copy: the test may change the object after the call.
        self.more.append((name, copied(args), copied(keywords)))
        if len(self.more) + self.at > MAX_CALLS:
            raise self.stop("too many calls")
        return self.unknown

    def _give(self, found: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        word = found[0]
        if word == "refused":
            raise Untrusted(found[1])
        if word == "error":
            error = exception(found[1], found[2])
            try:  # noqa: SIM105  contextlib would cost every child some page faults
                error._azr_verdict = found[3:5]  # type: ignore[attr-defined]
            except Exception:
                pass
            raise error
        value, changed = found[1], found[2]
        if word == "tree":
            value, changed = unpack(value), unpack(changed) if changed is not None else None
        if changed is not None:
            apply(args, changed[0])
            apply(keywords, changed[1])
        return value


def exactly(value: Any) -> bool:
    """Whether plain data is of exact types, so that the other process gets what the test passed (a Counter is not)."""
    kind = type(value)
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return all(exactly(item) for item in value)
    if kind is dict:
        return all(exactly(key) and exactly(item) for key, item in value.items())
    return not isinstance(value, dict)


def copied(value: Any) -> Any:
    """A copy of plain data."""
    kind = type(value)
    if kind is list:
        return [copied(item) for item in value]
    if kind is tuple:
        return tuple(copied(item) for item in value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    return set(value) if kind is set else value


def apply(old: Any, new: Any) -> None:
    """Make the objects in `old` what a call made of them, in place, as the caller of a function sees it."""
    kind = type(old)
    if kind is not type(new):
        return
    if kind is list:
        old[:] = [_applied(old[i], item) if i < len(old) else item for i, item in enumerate(new)]
    elif kind is dict:
        merged = {key: _applied(old[key], item) if key in old else item for key, item in new.items()}
        old.clear()
        old.update(merged)
    elif kind is set:
        old.clear()
        old.update(new)
    elif kind is tuple:
        for one, other in zip(old, new, strict=False):
            apply(one, other)


def _applied(old: Any, new: Any) -> Any:
    if type(old) is type(new) and type(old) in (list, dict, set):
        apply(old, new)
        return old
    return new


_ABSORBED = """
eq ne lt le gt ge add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow and or xor rand ror
rxor neg pos abs invert round getitem lshift rshift iadd isub imul ior iand enter
""".split()  # noqa: SIM905


def _unknown(talk: Talk) -> Any:
    """A stand-in for a result that is not known yet: whatever is done with it gives itself, or the least there is."""

    class Unknown:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            if any(hasattr(kind, name) for kind in _PLAIN):
                return lambda *args, **keywords: self
            raise talk.stop(f"the test looks at the attribute {name} of what the program returned")

        def __setattr__(self, name: str, value: Any) -> None:
            raise talk.stop(f"the test changes the attribute {name} of what the program returned")

        def __call__(self, *args: Any, **keywords: Any) -> Any:
            raise talk.stop("the test calls what the program returned")

    def itself(self: Any, *args: Any, **keywords: Any) -> Any:
        return self

    for name in _ABSORBED:
        setattr(Unknown, f"__{name}__", itself)
    for name, least in {
        "hash": 0, "index": 0, "int": 0, "float": 0.0, "complex": 0j, "len": 0, "bool": True, "contains": True,
        "str": "", "repr": "", "format": "", "exit": None, "setitem": None, "delitem": None,
    }.items():  # fmt: skip
        setattr(Unknown, f"__{name}__", lambda *_, least=least: least)
    Unknown.__iter__ = lambda self: iter(())  # type: ignore[attr-defined]
    Unknown.__reversed__ = lambda self: iter(())  # type: ignore[attr-defined]
    return Unknown()


def play(
    test: types.CodeType,
    helpers: types.CodeType | None,
    names: dict[str, Any],
    seeded: bool,
    calls: list[Call],
    answers: list[Any],
    space: dict[str, Any],
) -> tuple[str, Any, BaseException | None]:
    """Run a test on the answers that there are.

    names: what each name of the program is, see `_kind`. helpers: the task's own code, run before.
    ("passed", None, None), ("more", calls, None), ("no", reason, None), or ("error", None, exception).
    """
    talk = Talk(calls, answers)
    if seeded:
        import random

        random.seed(0)  # the calls of a test that draws its inputs have to be the same each time
    try:
        if helpers is not None:
            exec(helpers, space)
        for name, kind in names.items():
            space.pop(name, None)
            if kind[0] == "module":
                # The genuine module, of this very name: the word of a program is not taken for more.
                if kind[1] == name and name in sys.stdlib_module_names:
                    space[name] = __import__(name)
            elif kind[0] == "value":
                space[name] = kind[1]
            elif kind[0] != "missing":
                space[name] = Proxy(name, talk)
        space["__azr_failed__"] = talk.failed
        exec(test, space)
    except BaseException as error:
        if not talk.reason and talk.more is None:
            return "error", None, error
    if talk.reason:
        return "no", talk.reason, None
    if talk.more is not None:
        return "more", list(itertools.chain(calls[: talk.at], talk.more)), None
    return "passed", None, None
