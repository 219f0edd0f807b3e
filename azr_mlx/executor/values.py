"""Plain Python values as bytes: a closed, typed, length-prefixed encoding.

This is the only language that the sandboxed child and the trainer share. It knows the types of plain data and
nothing else, so decoding it can build a value but can never run anything: that is the reason why it exists
instead of `pickle`, and why `repr` followed by `eval` is not used either.

    N None   T True   F False   E Ellipsis
    i int    length, then two's complement big-endian bytes (no decimal digits: 10**5000 has no `str`)
    f float  8 bytes IEEE 754 (nan payloads, inf and -0.0 survive)         c complex  two of them
    s str    length, then UTF-8 with lone surrogates passed through         b bytes    length, then bytes
    l t S Z  list, tuple, set, frozenset: count, then the items             d dict     count, then key, value, ...

Types are matched exactly (`type(x) is int`), so a subclass with its own `__eq__` is never taken for data. The
one exception are `Counter`, `OrderedDict` and `defaultdict` themselves, which become the `dict` they equal.

A value is what a stranger chose it to be, so no function here costs more than a multiple of what it is given: depth,
bytes and cells are counted before they are visited (a list that holds one list a thousand times counts as a thousand
lists), and sets and dicts are built only where their hashes spread.

Imports the standard library only and nothing of the package: it is loaded in the child as well.
"""

from __future__ import annotations

import operator
import struct
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

MAX_DEPTH = 100  # of nested containers; repr() and == of the decoded value recurse once for each
MAX_BYTES = 1 << 20
MAX_CELLS = 1 << 17  # values inside a value that is compared, counted as often as they stand there
MAX_SAME_HASH = 32  # different items of one set or dict that share a hash: each is compared with all before it
MEMORY_FACTOR = 12  # bytes of memory that containers may take for each byte of their encoding,
MEMORY_FLOOR = 32 << 20  # or this many if that is more: an empty set is 5 bytes in the encoding and 216 in memory

_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")


def _is_dict(kind: type) -> bool:
    # By identity: a metaclass may say that its class equals dict.
    return kind is dict or kind is Counter or kind is OrderedDict or kind is defaultdict


def _is_group(kind: type) -> bool:
    return kind is list or kind is tuple or kind is set or kind is frozenset


class EncodeError(ValueError):
    """The value is not plain data, too large or too deep. The text says which, and never calls the value's code."""


class DecodeError(ValueError):
    """The bytes are not the encoding of exactly one plain value within the caps."""


class CrowdedError(ValueError):
    """Items of a set or dict whose hashes were chosen so that looking them up takes long."""


def encode(value: Any, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> bytes:
    """The encoding of `value`, at most `max_bytes` long.

    Raises EncodeError for anything else than plain data, for cycles (they are too deep) and beyond the caps.
    """
    out: list[bytes] = []
    _write(value, out, [max_bytes], max_depth)
    return b"".join(out)


def _write(value: Any, out: list[bytes], left: list[int], depth: int) -> None:
    kind = type(value)
    if value is None:
        piece = b"N"
    elif kind is bool:
        piece = b"T" if value else b"F"
    elif kind is int:
        length = value.bit_length() // 8 + 1
        if length > left[0]:
            raise EncodeError(f"too large: an int of {length} bytes")
        piece = b"i" + _LENGTH.pack(length) + value.to_bytes(length, "big", signed=True)
    elif kind is str:
        if len(value) > left[0]:
            raise EncodeError(f"too large: a str of {len(value)} characters")
        data = value.encode("utf-8", "surrogatepass")
        piece = b"s" + _LENGTH.pack(len(data)) + data
    elif kind is float:
        piece = b"f" + _FLOAT.pack(value)
    elif kind is list or kind is tuple:
        _open(out, left, depth, b"l" if kind is list else b"t", len(value))
        for item in value:
            _write(item, out, left, depth - 1)
        return
    elif _is_dict(kind):
        _open(out, left, depth, b"d", dict.__len__(value))
        for key, item in dict.items(value):
            _write(key, out, left, depth - 1)
            _write(item, out, left, depth - 1)
        return
    elif kind is set or kind is frozenset:
        _open(out, left, depth, b"S" if kind is set else b"Z", len(value))
        for item in value:
            _write(item, out, left, depth - 1)
        return
    elif kind is bytes:
        if len(value) > left[0]:
            raise EncodeError(f"too large: {len(value)} bytes")
        piece = b"b" + _LENGTH.pack(len(value)) + value
    elif kind is complex:
        piece = b"c" + _COMPLEX.pack(value.real, value.imag)
    elif value is Ellipsis:
        piece = b"E"
    else:
        raise EncodeError(f"not plain data: {_name(kind)}")
    out.append(piece)
    left[0] -= len(piece)
    if left[0] < 0:
        raise EncodeError("too large: over the byte limit")


def _open(out: list[bytes], left: list[int], depth: int, tag: bytes, count: int) -> None:
    if depth <= 0:
        raise EncodeError("too deep: containers nested over the limit")
    if count > left[0]:
        raise EncodeError(f"too large: {count} items")
    out.append(tag + _LENGTH.pack(count))
    left[0] -= 5


def _name(kind: type) -> str:
    # type.__dict__ lookups only: a metaclass may define its own __name__ property.
    try:
        return str(type.__dict__["__name__"].__get__(kind))[:80]
    except Exception:
        return "object"


# ------------------------------------------------------------------------------------------------- sets and dicts

_CHUNK = 128
_BUILD_SECONDS, _ITEM_SECONDS = 0.02, 2e-6  # of processor time: for a large set or dict, and for each of its items


def _check_hashes(items: Sequence[Any]) -> None:
    if len(items) <= MAX_SAME_HASH:
        return
    # Sorted rather than counted: a table of the hashes would crowd where the set itself does.
    hashes = sorted(map(hash, items))
    if any(map(operator.eq, hashes, hashes[MAX_SAME_HASH:])):
        raise CrowdedError(f"more than {MAX_SAME_HASH} items of one hash")


def _build(made: Any, items: Sequence[Any]) -> Any:
    """`made.update(items)`, given up where it takes ten times longer than it should.

    Different hashes can be chosen to share their places in the table, too: at 60,000 items each such item costs half a
    millisecond. Up to a thousand items that is nothing to speak of; for more, processor time is the only measure that
    holds in every version of Python.
    """
    if len(items) <= 8 * _CHUNK:
        made.update(items)
        return made
    start = time.thread_time()
    for at in range(0, len(items), _CHUNK):
        made.update(items[at : at + _CHUNK])
        if time.thread_time() - start > _BUILD_SECONDS + _ITEM_SECONDS * at:
            raise CrowdedError("items whose hashes crowd")
    return made


def make_set(items: Sequence[Any]) -> set[Any]:
    """set(items) in a time linear in the items. Raises CrowdedError, or TypeError for what has no hash."""
    _check_hashes(items)
    made: set[Any] = _build(set(), items)
    return made


def make_dict(keys: Sequence[Any], items: Sequence[Any]) -> dict[Any, Any]:
    """dict(zip(keys, items)) in a time linear in the keys. Raises CrowdedError, or TypeError for what has no hash."""
    _check_hashes(keys)
    made: dict[Any, Any] = _build({}, list(zip(keys, items, strict=True)))
    return made


# ------------------------------------------------------------------------------------------------------- decoding


def decode(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value whose encoding is exactly `data`.

    Raises DecodeError, and only that, for every other byte string, for sets and dicts that crowd, and for containers
    that would take more memory than MEMORY_FACTOR and MEMORY_FLOOR allow. The time is linear in `len(data)`.
    """
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes, over the limit of {max_bytes}")
    data = bytes(data)
    try:
        value, end = _read(data, 0, max_depth, [max(MEMORY_FLOOR, MEMORY_FACTOR * len(data))])
    except (struct.error, IndexError):
        raise DecodeError("truncated") from None
    except RecursionError:
        raise DecodeError("nested too deep") from None
    except CrowdedError as error:
        raise DecodeError(str(error)) from None
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes left over")
    return value


def _read(data: bytes, at: int, depth: int, memory: list[int]) -> tuple[Any, int]:
    tag = data[at]
    at += 1
    if tag == 0x4E:  # N
        return None, at
    if tag == 0x54:  # T
        return True, at
    if tag == 0x46:  # F
        return False, at
    if tag == 0x45:  # E
        return Ellipsis, at
    if tag == 0x66:  # f
        return _FLOAT.unpack_from(data, at)[0], at + 8
    if tag == 0x63:  # c
        return complex(*_COMPLEX.unpack_from(data, at)), at + 16
    if tag not in b"isbltSZd":
        raise DecodeError(f"unknown tag {tag:#04x}")
    (length,) = _LENGTH.unpack_from(data, at)
    at += 4
    if length > len(data) - at:
        raise DecodeError("truncated")
    if tag in b"isb":
        chunk = data[at : at + length]
        at += length
        if tag == 0x69:  # i
            value: Any = int.from_bytes(chunk, "big", signed=True)
            if length != value.bit_length() // 8 + 1:
                raise DecodeError("an int in more bytes than it needs")
            return value, at
        if tag == 0x62:  # b
            return chunk, at
        try:
            return chunk.decode("utf-8", "surrogatepass"), at
        except UnicodeDecodeError:
            raise DecodeError("a str that is not UTF-8") from None
    if depth <= 0:
        raise DecodeError("nested too deep")
    # What the containers of a 64-bit CPython take, roughly: an object and 8 bytes an item, or a table of hashes.
    if tag == 0x6C or tag == 0x74:  # l, t
        memory[0] -= 80 + 8 * length
    elif length > 4 or tag == 0x64:
        memory[0] -= 232 + 64 * length
    else:
        memory[0] -= 232
    if memory[0] < 0:
        raise DecodeError("too large: containers over the memory limit")
    if tag == 0x64:  # d
        keys: list[Any] = []
        entries: list[Any] = []
        for _ in range(length):
            item, at = _read(data, at, depth - 1, memory)
            keys.append(item)
            item, at = _read(data, at, depth - 1, memory)
            entries.append(item)
        try:
            mapping = make_dict(keys, entries)
        except TypeError:
            raise DecodeError("an unhashable dict key") from None
        # Only nan keys may repeat, and each of those is an own object, hence an own entry.
        if len(mapping) != length:
            raise DecodeError("a repeated dict key")
        return mapping, at
    items: list[Any] = []
    for _ in range(length):
        item, at = _read(data, at, depth - 1, memory)
        items.append(item)
    if tag == 0x6C:  # l
        return items, at
    if tag == 0x74:  # t
        return tuple(items), at
    try:
        group: Any = make_set(items)
    except TypeError:
        raise DecodeError("an unhashable set item") from None
    if len(group) != length:
        raise DecodeError("a repeated set item")
    return group if tag == 0x53 else frozenset(group), at


# ------------------------------------------------------------------------------------------------------ comparing


def canonical(value: Any, max_bytes: int = 4 * MAX_BYTES) -> bytes:
    """Bytes that are equal exactly when two values are the same for determinism; at most about `max_bytes` of them.

    Stricter than `==` in that types count (1, 1.0 and True differ, 0.0 and -0.0 too), looser in that every nan is
    the same nan. Sets and dicts count as unordered, since that is how every later comparison reads them.
    Raises EncodeError for what is not plain data, too large or too deep.
    """
    return _canonical(value, [max_bytes], MAX_DEPTH)


def _canonical(value: Any, left: list[int], depth: int) -> bytes:
    kind = type(value)
    if kind is float:
        return b"f" + (b"nan" if value != value else _FLOAT.pack(value))
    if kind is complex:
        return b"c" + _canonical(value.real, left, depth) + _canonical(value.imag, left, depth)
    if _is_group(kind) or _is_dict(kind):
        if depth <= 0:
            raise EncodeError("too deep: containers nested over the limit")
        head = _LENGTH.pack(len(value))
        left[0] -= 5 + len(value)
        if left[0] < 0:
            raise EncodeError("too large: over the byte limit")
        depth -= 1
        if kind is list or kind is tuple:
            items = b"".join([_canonical(item, left, depth) for item in value])
            return (b"l" if kind is list else b"t") + head + items
        if kind is set or kind is frozenset:
            parts = sorted([_canonical(item, left, depth) for item in value])
            return (b"S" if kind is set else b"Z") + head + b"".join(parts)
        pairs = dict.items(value)
        parts = sorted([_canonical(key, left, depth) + b":" + _canonical(item, left, depth) for key, item in pairs])
        return b"d" + head + b"".join(parts)
    out: list[bytes] = []
    _write(value, out, left, depth)
    return out[0]


def same(first: Any, second: Any, max_bytes: int = 4 * MAX_BYTES) -> bool:
    """Whether `canonical` gives equal bytes for both, without making them where a glance is enough.

    Raises EncodeError as `canonical` does. It stops at the first difference outside of sets and dicts.
    """
    return _same(first, second, [max_bytes], MAX_DEPTH)


def _same(first: Any, second: Any, left: list[int], depth: int) -> bool:
    kind = type(first)
    if kind is int or kind is str or kind is bool or kind is bytes:
        return type(second) is kind and bool(first == second)
    if first is None or first is Ellipsis:
        return second is first
    if kind is float and type(second) is float:
        return bool(second != second) if first != first else _FLOAT.pack(first) == _FLOAT.pack(second)
    if kind is list or kind is tuple:
        if type(second) is not kind or len(first) != len(second):
            return False
        left[0] -= len(first)
        if depth <= 0 or left[0] < 0:
            raise EncodeError("too large or too deep to be compared")
        return all(_same(*pair, left, depth - 1) for pair in zip(first, second, strict=True))
    if kind is not type(second) and not (_is_dict(kind) and _is_dict(type(second))):
        return False
    if (_is_group(kind) or _is_dict(kind)) and len(first) != len(second):
        return False
    return _canonical(first, left, depth) == _canonical(second, [MAX_BYTES + left[0]], depth)


def equal(first: Any, second: Any, max_cells: int = MAX_CELLS) -> bool:
    """Python's `==` on plain data: 1 == 1.0 == True, sets and dicts unordered, a list is no tuple, nan is never equal.

    False when either is not plain data, so that no `__eq__` other than the built-in ones ever runs, and when `first`
    has more than `max_cells` values in it. The nan rule holds inside containers too, where `[x] == [x]` would let the
    same nan object pass. Never raises.
    """
    try:
        left = [max_cells]
        if not _comparable(first, left, MAX_DEPTH):
            return False
        # Equal values have equally many values in them, so the second need not be looked at further than the first.
        return _comparable(second, [max_cells - left[0]], MAX_DEPTH) and bool(first == second)
    except Exception:  # RecursionError; TypeError of an unhashable key; BytesWarning under -bb
        return False


def _comparable(value: Any, left: list[int], depth: int) -> bool:
    """Whether a value is plain data without nan, within the cells that are left, and quick to compare."""
    kind = type(value)
    if _is_group(kind):
        left[0] -= len(value)
        if depth <= 0 or left[0] < 0:
            return False
        if len(value) > MAX_SAME_HASH and (kind is set or kind is frozenset):
            _check_hashes(list(value))
        for item in value:
            kind = type(item)
            if kind is not int and kind is not str and not _comparable(item, left, depth - 1):
                return False
        return True
    if _is_dict(kind):
        left[0] -= 2 * dict.__len__(value)
        if depth <= 0 or left[0] < 0:
            return False
        if dict.__len__(value) > MAX_SAME_HASH:
            _check_hashes(list(dict.keys(value)))
        return all(
            _comparable(key, left, depth - 1) and _comparable(item, left, depth - 1) for key, item in dict.items(value)
        )
    if kind is float or kind is complex:
        return bool(value == value)
    return kind is int or kind is str or kind is bool or kind is bytes or value is None or value is Ellipsis


def has_nan(value: Any, max_cells: int = MAX_CELLS) -> bool:
    """Whether a float or complex nan stands anywhere in plain data. False where none is found within the caps."""
    try:
        return _has_nan(value, [max_cells], MAX_DEPTH)
    except EncodeError:
        return False


def _has_nan(value: Any, left: list[int], depth: int) -> bool:
    kind = type(value)
    if kind is float or kind is complex:
        return bool(value != value)
    if _is_group(kind) or _is_dict(kind):
        left[0] -= len(value)
        if depth <= 0 or left[0] < 0:
            raise EncodeError("too large or too deep")
        if _is_dict(kind):
            return any(_has_nan(part, left, depth - 1) for pair in dict.items(value) for part in pair)
        return any(_has_nan(item, left, depth - 1) for item in value)
    return False


def within(value: Any, max_cells: int) -> bool:
    """Whether plain data holds at most so many values, itself included, and is not nested too deep. Never raises."""
    return _within(value, [max_cells], MAX_DEPTH)


def _within(value: Any, left: list[int], depth: int) -> bool:
    left[0] -= 1
    if left[0] < 0:
        return False
    if _is_group(type(value)):
        return depth > 0 and len(value) <= left[0] and all(_within(item, left, depth - 1) for item in value)
    if _is_dict(type(value)):
        parts = (part for pair in dict.items(value) for part in pair)
        return depth > 0 and 2 * len(value) <= left[0] and all(_within(part, left, depth - 1) for part in parts)
    return True


def text(value: Any, max_bytes: int = 4 * MAX_BYTES) -> str:
    """`steady_repr` for which an int of more than 4300 digits is no fault: it is written in hexadecimal.

    Raises EncodeError for what is not plain data, is nested too deep, or takes more than `max_bytes` encoded.
    """
    try:
        return steady_repr(value, max_bytes)
    except EncodeError:
        raise
    except ValueError:  # the limit of sys.set_int_max_str_digits
        return _text(value)


def steady_repr(value: Any, max_bytes: int = 4 * MAX_BYTES) -> str:
    """`repr` of plain data, with the items of a set in an order that every process agrees on.

    The order of a set of texts follows this process's own random hashes, so that a run could not be repeated if `repr`
    decided what the model reads. Sets of numbers stay as `repr` writes them.
    Raises EncodeError as `encode` does, and ValueError for an int of more than 4300 digits.
    """
    encode(value, max_bytes)
    return _text(value, repr) if _unsteady(value) else repr(value)


def _unsteady(value: Any) -> bool:
    """Whether there is a set in plain data whose order differs between processes."""
    kind = type(value)
    if kind is set or kind is frozenset:
        return any(map(_randomly_hashed, value))
    if kind is list or kind is tuple:
        return any(map(_unsteady, value))
    return _is_dict(kind) and any(_unsteady(part) for pair in dict.items(value) for part in pair)


def _randomly_hashed(value: Any) -> bool:
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return any(map(_randomly_hashed, value))
    return kind is str or kind is bytes or value is None or value is Ellipsis  # the last two by their address


def _hexadecimal(value: int) -> str:
    return hex(value) if value.bit_length() > 2000 else repr(value)  # 602 digits; no limit may be set below 640


def _text(value: Any, whole: Callable[[int], str] = _hexadecimal) -> str:
    kind = type(value)
    if kind is int:
        return whole(value)
    if _is_dict(kind):
        pairs = [f"{_text(key, whole)}: {_text(item, whole)}" for key, item in dict.items(value)]
        return "{" + ", ".join(pairs) + "}"
    if _is_group(kind):
        steady = kind is list or kind is tuple or not any(map(_randomly_hashed, value))
        inner = ", ".join([_text(item, whole) for item in (value if steady else sorted(value, key=canonical))])
        if kind is list:
            return f"[{inner}]"
        if kind is tuple:
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        braces = f"{{{inner}}}" if value else ""
        return f"frozenset({braces})" if kind is frozenset else braces or "set()"
    return repr(value)
