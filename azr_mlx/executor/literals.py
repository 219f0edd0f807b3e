"""Answers given as text become values here, without anything of them ever being executed.

The grammar is that of Python literals plus constant arithmetic ("0.1+0.2", "2**10", "-1", "[0]*3"), with every size
bounded before it is computed. A few names that `repr` writes are known as well: inf, nan, set(), frozenset(...),
Counter(...), OrderedDict(...), dict(a=1), float('inf').

What is bounded is what a text *means*, not how it is built: `[[0]*6000]*6000` is a list of two objects in memory and
thirty-six million cells to everybody who reads it. Every text has MAX_CELLS to spend, and each value that it makes is
paid for, kept or not, with as many cells as it holds: one for itself, one for each item at every depth as often as it
stands there, one for each eight bytes of a text or a number, more for the product of two large numbers.

The text is parsed by `ast.parse`, which builds a tree and runs nothing; its length is bounded first, and its own
guards against nesting (SyntaxError, RecursionError, MemoryError) end as LiteralError like every other fault.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from azr_mlx.executor import syntax, values

MAX_CHARS = 1 << 14  # ast.parse takes about a millisecond for each thousand
MAX_CELLS = 1 << 16
MAX_BITS = 1 << 14  # of an int that arithmetic makes; the limit of int's own digits is a little lower
_FILE = "<azr literal>"

# A model may write "\d" as often as it likes; the trainer's log need not say so each time.
warnings.filterwarnings("ignore", category=SyntaxWarning, module=r"<azr ")
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"<azr ")


class LiteralError(ValueError):
    """The text is not a literal (or argument list) within the bounds. Its message is one clear line."""


def parse_value(text: str) -> Any:
    """The value that a literal stands for. Raises LiteralError, and nothing else, for every other text."""
    body = _parse(text.strip(), text).body
    return _guard(lambda: _Reader().value(body, 0))


def parse_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of one call, all literals: "1, x=[2], *(3, 4), **{'y': 5}". Empty text is no arguments.

    Raises LiteralError, and nothing else, for every other text, "5) or (True" among them.
    """
    call = _call(text, MAX_CHARS)

    def evaluate() -> tuple[tuple[Any, ...], dict[str, Any]]:
        reader = _Reader()
        args = reader.sequence(call.args, 0)
        keywords: dict[str, Any] = {}
        for keyword in call.keywords:
            value = reader.value(keyword.value, 0)
            if keyword.arg is not None:
                pairs = {keyword.arg: value}
            elif type(value) is dict and all(type(name) is str for name in value):
                pairs = value
            else:
                raise LiteralError("** needs a dict with text keys")
            for name, item in pairs.items():
                if name in keywords:
                    raise LiteralError(f"argument {_short(name)} is given twice")
                keywords[name] = item
        return tuple(args), keywords

    found: tuple[tuple[Any, ...], dict[str, Any]] = _guard(evaluate)
    return found


def check_arguments(text: str, max_chars: int = MAX_CHARS) -> None:
    """Accept the text of exactly one call's arguments, whatever expressions they are. Raises LiteralError otherwise."""
    _call(text, max_chars)


def _call(text: str, max_chars: int) -> ast.Call:
    # The line break ends a trailing comment; the name `_` must be what the parentheses call.
    body = _parse(f"_({text}\n)", text, max_chars).body
    if isinstance(body, ast.Call) and isinstance(body.func, ast.Name) and body.func.id == "_" and body.col_offset == 0:
        names = [keyword.arg for keyword in body.keywords if keyword.arg is not None]
        if len(names) != len(set(names)):
            raise LiteralError("an argument is given twice")
        return body
    raise LiteralError("not the arguments of exactly one call")


def _parse(source: str, text: str, max_chars: int = MAX_CHARS) -> ast.Expression:
    if len(text) > max_chars:
        raise LiteralError(f"longer than {max_chars} characters")
    if not source:
        raise LiteralError("empty")
    try:
        return syntax.parse(source, _FILE, "eval")
    except SyntaxError as error:
        raise LiteralError(f"not a literal: {_short(str(error.msg))}") from None
    except (RecursionError, MemoryError):
        raise LiteralError("nested too deep") from None
    except ValueError as error:  # null bytes, lone surrogates, ints of too many digits
        raise LiteralError(f"not a literal: {_short(str(error))}") from None


def _guard(evaluate: Callable[[], Any]) -> Any:
    try:
        return evaluate()
    except LiteralError:
        raise
    except RecursionError:
        raise LiteralError("nested too deep") from None
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise LiteralError(f"no value: {_short(str(error) or type(error).__name__)}") from None


def _short(text: str) -> str:
    return " ".join(text.split())[:100]


_NAMES = {"inf": float("inf"), "nan": float("nan"), "Ellipsis": Ellipsis}
_CALLS = {"set", "frozenset", "Counter", "OrderedDict", "dict", "list", "tuple", "float"}
_NUMBERS = (bool, int, float, complex)
_SEQUENCES = (str, bytes, list, tuple)
_ITERABLES = (list, tuple, set, frozenset, dict, str, bytes)


class _Reader:
    """Evaluates the tree of one text, and pays for all that it makes out of one purse.

    `left` falls by at least the cells of a value while the value is made; so the difference of `left` before and after
    is a bound on what the value means.
    """

    def __init__(self) -> None:
        self.left = MAX_CELLS

    def pay(self, cells: int) -> None:
        self.left -= cells
        if self.left < 0:
            raise LiteralError(f"too large: over {MAX_CELLS} cells")

    def pay_number(self, value: Any) -> Any:
        if type(value) is int:
            self.pay(value.bit_length() >> 6)
        return value

    def value(self, node: ast.expr, depth: int) -> Any:
        if depth > values.MAX_DEPTH:
            raise LiteralError("nested too deep")
        if type(node) is ast.Constant:  # most of what stands in an answer
            constant = node.value
            if type(constant) is int:
                self.pay(1 + (constant.bit_length() >> 6))
            else:
                self.pay(1 + (len(constant) >> 3) if type(constant) is str or type(constant) is bytes else 1)
            return constant
        self.pay(1)
        if isinstance(node, ast.List):
            return self.sequence(node.elts, depth)
        if isinstance(node, ast.Tuple):
            return tuple(self.sequence(node.elts, depth))
        if isinstance(node, ast.Set):
            return self.group(self.sequence(node.elts, depth))
        if isinstance(node, ast.Dict):
            return self.mapping(node, depth)
        if isinstance(node, ast.UnaryOp):
            return self.pay_number(_unary(node.op, self.value(node.operand, depth + 1)))
        if isinstance(node, ast.BinOp):
            return self.binary(node, depth)
        name = _name(node)
        if name in _NAMES:
            return _NAMES[name]
        if isinstance(node, ast.Call):
            return self.known_call(node, depth)
        raise LiteralError(f"not a literal: {type(node).__name__}" + (f" {_short(name)}" if name else ""))

    def sequence(self, nodes: list[ast.expr], depth: int) -> list[Any]:
        items: list[Any] = []
        for node in nodes:
            if type(node) is not ast.Starred:
                items.append(self.value(node, depth + 1))
                continue
            value = self.value(node.value, depth + 1)
            if type(value) not in _ITERABLES:
                raise LiteralError("* needs a sequence")
            self.pay(len(value))
            items.extend(value)
        return items

    def group(self, items: Sequence[Any]) -> set[Any]:
        """A set of items, of which some may be equal."""
        try:
            return values.make_set(items)
        except values.CrowdedError:
            # Equal items share a hash by right; different ones have different encodings.
            return values.make_set(list({values.encode(item): item for item in items}.values()))

    def mapping(self, node: ast.Dict, depth: int) -> dict[Any, Any]:
        keys: list[Any] = []
        items: list[Any] = []
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.value(item, depth + 1)
            if key is not None:
                keys.append(self.value(key, depth + 1))
                items.append(value)
            elif type(value) is dict:
                self.pay(len(value))
                keys.extend(value)
                items.extend(value.values())
            else:
                raise LiteralError("** needs a dict")
        return self.pairs(keys, items)

    def pairs(self, keys: list[Any], items: list[Any]) -> dict[Any, Any]:
        """The dict of keys, of which some may be equal, and items."""
        try:
            return values.make_dict(keys, items)
        except values.CrowdedError:
            first = {values.encode(key): key for key in reversed(keys)}
            values.make_set(list(first.values()))
            return dict(zip(keys, items, strict=True))

    def known_call(self, node: ast.Call, depth: int) -> Any:
        name = _name(node.func)
        if name not in _CALLS or len(node.args) > 1 or any(isinstance(item, ast.Starred) for item in node.args):
            raise LiteralError(f"not a literal: a call{' of ' + _short(name) if name else ''}")
        args = [self.value(item, depth + 1) for item in node.args]
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None or name not in ("dict", "OrderedDict", "Counter"):
                raise LiteralError(f"not a literal: keywords of {name}")
            keywords[keyword.arg] = self.value(keyword.value, depth + 1)
        if name == "float":
            if len(args) != 1 or type(args[0]) not in (int, float, str, bool):
                raise LiteralError("float needs a number or a text")
            return float(args[0])
        given = args[0] if args else ()
        if type(given) not in _ITERABLES:
            raise LiteralError(f"{name} needs a sequence")
        self.pay(len(given))
        if name == "list" or name == "tuple":
            return list(given) if name == "list" else tuple(given)
        if name == "set" or name == "frozenset":
            group = self.group(list(given))
            return group if name == "set" else frozenset(group)
        if type(given) is dict:
            keys, items = list(given), list(given.values())
        elif name == "Counter":
            keys, items = list(given), []
            counts = self.pairs(keys, [0] * len(keys))
            for key in keys:
                counts[key] += 1
            keys, items = list(counts), list(counts.values())
        else:
            pairs = [tuple(pair) for pair in given if type(pair) in _ITERABLES and len(pair) == 2]
            if len(pairs) != len(given):
                raise LiteralError(f"{name} needs pairs")
            keys, items = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return self.pairs([*keys, *keywords], [*items, *keywords.values()])

    def binary(self, node: ast.BinOp, depth: int) -> Any:
        start = self.left
        left = self.value(node.left, depth + 1)
        middle = self.left
        right = self.value(node.right, depth + 1)
        if type(left) in _NUMBERS and type(right) in _NUMBERS:
            if type(left) in (bool, int) and type(right) in (bool, int):
                return self.pay_number(self.whole(node.op, left, right))
            return _inexact(node.op, left, right)
        return self.repeat_or_join(node.op, left, right, start - middle, middle - self.left)

    def whole(self, operator: ast.operator, left: int, right: int) -> Any:
        """Arithmetic of two ints. Anything that costs the product of their lengths is paid for by that product."""
        first, second = left.bit_length(), right.bit_length()
        if isinstance(operator, ast.Mult | ast.FloorDiv | ast.Mod | ast.Div):
            if isinstance(operator, ast.Mult) and first + second > MAX_BITS:
                raise LiteralError("too large a number")
            self.pay(first * second >> 16)
        elif isinstance(operator, ast.Pow):
            if first * abs(right) > MAX_BITS:
                raise LiteralError("too large a number")
            self.pay((first * abs(right)) ** 2 >> 16)
        elif isinstance(operator, ast.LShift):
            if not 0 <= right <= MAX_BITS or first + right > MAX_BITS:
                raise LiteralError("too large a number")
            return left << right
        elif isinstance(operator, ast.RShift):
            return left >> right
        elif isinstance(operator, ast.BitAnd):
            return left & right
        elif isinstance(operator, ast.BitOr):
            return left | right
        elif isinstance(operator, ast.BitXor):
            return left ^ right
        return _inexact(operator, left, right)

    def repeat_or_join(self, operator: ast.operator, left: Any, right: Any, left_cost: int, right_cost: int) -> Any:
        """`+` and `*` of sequences. The costs are what was paid for the two."""
        if isinstance(operator, ast.Add) and type(left) is type(right) and type(left) in _SEQUENCES:
            self.pay(left_cost + right_cost)
            return left + right
        if isinstance(operator, ast.Mult):
            if type(left) in (int, bool):
                left, right, left_cost = right, left, right_cost
            if type(left) in _SEQUENCES and type(right) in (int, bool):
                flat = type(left) in (str, bytes)
                self.pay((len(left) + 7 >> 3 if flat else left_cost) * max(0, int(right)))
                return left * right
        # `%` on text is formatting, which can make a gigabyte of spaces from nine characters.
        raise LiteralError(f"not constant arithmetic: {type(operator).__name__} of {type(left).__name__}")


def _name(node: ast.expr) -> str:
    """The plain name that a node is: inf, math.inf, collections.Counter; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("math", "collections")
    ):
        return node.attr
    return ""


def _unary(operator: ast.unaryop, value: Any) -> Any:
    if isinstance(operator, ast.Not):
        return not value
    if type(value) not in _NUMBERS:
        raise LiteralError("arithmetic on what is no number")
    if isinstance(operator, ast.USub):
        return -value
    if isinstance(operator, ast.UAdd):
        return +value
    if type(value) is bool:
        return ~int(value)  # as Python does, without its deprecation warning
    return ~value


def _inexact(operator: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(operator, ast.Add):
        return left + right
    if isinstance(operator, ast.Sub):
        return left - right
    if isinstance(operator, ast.Mult):
        return left * right
    if isinstance(operator, ast.Div):
        return left / right
    if isinstance(operator, ast.FloorDiv):
        return left // right
    if isinstance(operator, ast.Mod):
        return left % right
    if isinstance(operator, ast.Pow):
        return left**right
    raise LiteralError(f"not constant arithmetic: {type(operator).__name__}")
