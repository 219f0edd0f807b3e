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

Imports the standard library only and nothing of the package: it is loaded in the child as well.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, defaultdict
from typing import Any

MAX_DEPTH = 100  # of nested containers; repr() and == of the decoded value recurse once for each
MAX_BYTES = 1 << 20

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


def decode(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value whose encoding is exactly `data`.

    Raises DecodeError, and only that, for every other byte string. The memory used is bounded by a multiple of
    `len(data)`: each item of a container takes at least one byte.
    """
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes, over the limit of {max_bytes}")
    data = bytes(data)
    try:
        value, end = _read(data, 0, max_depth)
    except (struct.error, IndexError):
        raise DecodeError("truncated") from None
    except RecursionError:
        raise DecodeError("nested too deep") from None
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes left over")
    return value


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
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
    if tag == 0x64:  # d
        mapping: dict[Any, Any] = {}
        for _ in range(length):
            key, at = _read(data, at, depth - 1)
            item, at = _read(data, at, depth - 1)
            try:
                mapping[key] = item
            except TypeError:
                raise DecodeError("an unhashable dict key") from None
        # Only nan keys may repeat, and each of those is an own object, hence an own entry.
        if len(mapping) != length:
            raise DecodeError("a repeated dict key")
        return mapping, at
    items: list[Any] = []
    for _ in range(length):
        item, at = _read(data, at, depth - 1)
        items.append(item)
    if tag == 0x6C:  # l
        return items, at
    if tag == 0x74:  # t
        return tuple(items), at
    try:
        group: Any = set(items) if tag == 0x53 else frozenset(items)
    except TypeError:
        raise DecodeError("an unhashable set item") from None
    if len(group) != length:
        raise DecodeError("a repeated set item")
    return group, at


def canonical(value: Any) -> bytes:
    """Bytes that are equal exactly when two values are the same for determinism.

    Stricter than `==` in that types count (1, 1.0 and True differ, 0.0 and -0.0 too), looser in that every nan is
    the same nan. Sets and dicts count as unordered, since that is how every later comparison reads them.
    """
    kind = type(value)
    if kind is float:
        return b"f" + (b"nan" if value != value else _FLOAT.pack(value))
    if kind is complex:
        return b"c" + canonical(value.real) + canonical(value.imag)
    if kind is list or kind is tuple:
        return (b"l" if kind is list else b"t") + _LENGTH.pack(len(value)) + b"".join(canonical(item) for item in value)
    if kind is set or kind is frozenset:
        parts = sorted(canonical(item) for item in value)
        return (b"S" if kind is set else b"Z") + _LENGTH.pack(len(value)) + b"".join(parts)
    if _is_dict(kind):
        parts = sorted(canonical(key) + b":" + canonical(item) for key, item in dict.items(value))
        return b"d" + _LENGTH.pack(len(value)) + b"".join(parts)
    return encode(value)


def equal(first: Any, second: Any) -> bool:
    """Python's `==` on plain data: 1 == 1.0 == True, sets and dicts unordered, a list is no tuple, nan is never equal.

    False when either is not plain data, so that no `__eq__` other than the built-in ones ever runs. The nan rule
    holds inside containers too, where `[x] == [x]` would let the same nan object pass.
    """
    try:
        if _has_nan(first) or _has_nan(second):
            return False
        encode(first, 1 << 26)
        encode(second, 1 << 26)
        return bool(first == second)
    except (EncodeError, RecursionError):
        return False


def has_nan(value: Any) -> bool:
    """Whether a float or complex nan stands anywhere in plain data. False beyond the depth cap."""
    try:
        return _has_nan(value)
    except RecursionError:
        return False


def _has_nan(value: Any) -> bool:
    kind = type(value)
    if kind is float or kind is complex:
        return bool(value != value)
    if _is_group(kind):
        return any(_has_nan(item) for item in value)
    if _is_dict(kind):
        return any(_has_nan(key) or _has_nan(item) for key, item in dict.items(value))
    return False
