"""Where the words of a model and the bytes of its programs become values: the only way into the trainer.

    answer = boundary.read_value(text)
    if isinstance(answer, boundary.Refused):
        ...                              # answer.why says it in a few fixed words

What comes in here is chosen by a stranger, by accident or on purpose, to be as awkward as it can be. So every function
of this module

- takes any text, any bytes, any value, and never raises: it gives what was asked for, or a `Refused` with the reason;
- never runs, unpickles or formats anything of what it is given, and calls no method that a program could have defined;
- costs a bounded amount of time and memory: characters before a text is parsed (literals.MAX_CHARS), cells before they
  are made (literals.MAX_CELLS), bytes before they are decoded (the job's `result_bytes`), depth, digits, and items of
  one hash (values.MAX_SAME_HASH) before they are compared.

The bounds themselves are enforced where the work is done, in literals.py and values.py, by exceptions of their own;
here they end. An exception that neither of them knows is a fault of ours: it is refused like the others, and counted in
`faults`, where the tests see it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from azr_mlx.executor import literals, values, wire
from azr_mlx.executor.jobs import Status
from azr_mlx.executor.literals import LiteralError

# A frame up to this size is decoded in a few milliseconds, whatever is in it: the thread that serves every slot may do
# that. Larger ones are decoded beside it.
INLINE_BYTES = 1 << 15
MAX_SHOWN_CHARS = 20_000

faults: Counter[str] = Counter()  # exceptions that nobody expected, by function and type


@dataclass(frozen=True, slots=True)
class Refused:
    """What came in is not taken. `why` is one of a few fixed reasons, to be counted; `detail` may quote the text."""

    why: str
    detail: str = ""


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _total(function: Callable[_P, _R]) -> Callable[_P, _R | Refused]:
    """The function, with every exception as a refusal."""

    @functools.wraps(function)
    def call(*args: _P.args, **keywords: _P.kwargs) -> _R | Refused:
        try:
            return function(*args, **keywords)
        except LiteralError as error:
            return Refused("not a literal", str(error))
        except (values.EncodeError, values.DecodeError, values.CrowdedError) as error:
            return Refused("too large", str(error))
        except Exception as error:
            faults[f"{function.__name__}: {type(error).__name__}"] += 1
            return Refused("not a literal", f"{type(error).__name__} while reading it")

    return call


# ------------------------------------------------------------------------------------------------ what a model writes


@_total
def read_value(text: str) -> Any:
    """The value of an answer: a literal with constant arithmetic, within the bounds of literals.py."""
    return literals.parse_value(text)


@_total
def read_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of exactly one call, all of them literals: what an answer may be that a program is called with."""
    return literals.parse_arguments(text)


@_total
def check_call(text: str) -> None:
    """Whether a text is the arguments of exactly one call, whatever expressions they are: None, or a refusal."""
    literals.check_arguments(text)


def encodable(*texts: str) -> bool:
    """Whether texts can leave the process: a tokenizer, a file or a terminal takes no lone surrogates."""
    try:
        for text in texts:
            text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# ------------------------------------------------------------------------------------------- what a program returned


@_total
def write_gold(value: object, max_chars: int) -> str | Refused:
    """The text of a task's output, if it can be one: neither None nor nan, short, and read back as an equal value."""
    if value is None:
        return Refused("returns None")  # HARDENED: the paper asks for a value
    if values.has_nan(value):
        return Refused("returns nan")  # HARDENED: nan equals nothing, so no answer could be right
    # Every value that a text shows takes at least one character.
    if not values.within(value, max_chars):
        return Refused("output too long")  # HARDENED: the official code cuts it and keeps the wrong gold answer
    try:
        text = values.steady_repr(value)
    except ValueError:  # integers of more than 4300 digits have no repr
        return Refused("output too long")
    if len(text) > max_chars:
        return Refused("output too long")
    # HARDENED: complex infinities and deep nests are values whose text no answer could be compared with.
    back = read_value(text)
    if isinstance(back, Refused) or not values.equal(back, value):
        return Refused("output is no literal", back.detail if isinstance(back, Refused) else "")
    return text


def check_gold(text: str) -> Refused | None:
    """Whether the text of a stored output still is one that answers can be compared with."""
    value = read_value(text)
    if isinstance(value, Refused):
        return Refused("output is no literal", value.detail)
    return None if values.equal(value, value) else Refused("output is no literal", "it does not equal itself")


def matches(gold: str, value: object) -> bool | Refused:
    """Whether a value equals the one that a gold text stands for; Refused when the gold text stands for none."""
    wanted = read_value(gold)
    if isinstance(wanted, Refused):
        return Refused("unreadable gold output", wanted.detail)
    return values.equal(wanted, value)


def all_match(golds: Sequence[str], found: Sequence[object]) -> bool | Refused:
    """Whether there are as many values as gold texts, and each equals its own."""
    right = len(golds) == len(found)
    for gold, value in zip(golds, found, strict=False):
        same = matches(gold, value)
        if isinstance(same, Refused):
            return same
        right = right and same
    return right


@_total
def agree(first: Sequence[object], second: Sequence[object], max_bytes: int) -> bool:
    """Whether two runs of up to `max_bytes` of encoded values returned the same: types count, every nan is one nan."""
    # Canonical bytes have a separator more for each entry of a dict, hence the factor.
    limit = 4 * max_bytes + 1024
    return len(first) == len(second) and all(values.same(*pair, limit) for pair in zip(first, second, strict=True))


def shown(value: object, max_chars: int = MAX_SHOWN_CHARS) -> str:
    """A value as text for a reader: `repr`, with long integers in hexadecimal, cut off where it gets too long."""
    text = _text(value)
    if isinstance(text, Refused):
        return f"<{text.detail or text.why}>"
    return text if len(text) <= max_chars else f"{text[:max_chars]}... ({len(text)} characters)"


_text = _total(values.text)


# ---------------------------------------------------------------------------------------- what a program's process says

_LETTERS = {
    wire.RESULT_EXCEPTION: Status.EXCEPTION,
    wire.RESULT_MEMORY: Status.MEMORY,
    wire.RESULT_EXITED: Status.EXITED_EARLY,
    wire.RESULT_FORBIDDEN: Status.FORBIDDEN,
    wire.RESULT_BAD: Status.BAD_RESULT,
    wire.RESULT_FAILED: Status.FAILED,
}


def read_frame(frame: bytes, max_bytes: int, count: int, token: bytes = b"") -> tuple[Status, str, tuple[object, ...]]:
    """What a child says, believing nothing of it but its values: a status, a detail, and with OK `count` values.

    A job has one value for each of its inputs; tests and scripts have none. `token` is the secret that only a test
    that ran to its end is given to send. Takes time and memory linear in the frame, and never raises.
    """
    letter, body = frame[0] if frame else -1, frame[1:]
    if letter in _LETTERS:
        return _LETTERS[letter], body[:2000].decode("utf-8", "replace")[:400], ()
    if letter != wire.RESULT_OK:
        return Status.BAD_RESULT, "bytes that are no result", ()
    if body[: len(token)] != token:
        return Status.EXITED_EARLY, "the test was left before its end", ()
    found = _values(body, len(token), max_bytes, count)
    if isinstance(found, Refused):
        return Status.BAD_RESULT, f"bytes that are no result: {found.detail}", ()
    return Status.OK, "", found


@_total
def _values(body: bytes, at: int, max_bytes: int, count: int) -> tuple[object, ...]:
    pieces: list[bytes] = []
    while at < len(body):
        if len(pieces) == count:
            raise values.DecodeError(f"more than {count} values")
        if len(body) - at < wire.HEADER.size:
            raise values.DecodeError("truncated")
        (length,) = wire.HEADER.unpack_from(body, at)
        at += wire.HEADER.size
        if length > len(body) - at:
            raise values.DecodeError("truncated")
        pieces.append(body[at : at + length])
        at += length
    if len(pieces) != count:
        raise values.DecodeError(f"{len(pieces)} values of {count}")
    if sum(map(len, pieces)) > max_bytes:
        raise values.DecodeError(f"values over {max_bytes} bytes")
    return tuple(values.decode(piece, max_bytes) for piece in pieces)
