"""Answers given as text become values here, without anything of them ever being executed.

The grammar is that of Python literals plus constant arithmetic ("0.1+0.2", "2**10", "-1", "[0]*3"), with every size
bounded before it is computed. A few names that `repr` writes are known as well: inf, nan, set(), frozenset(...),
Counter(...), OrderedDict(...), dict(a=1), float('inf').

The text is parsed by `ast.parse`, which builds a tree and runs nothing; its length is bounded first, and its own
guards against nesting (SyntaxError, RecursionError, MemoryError) end as LiteralError like every other fault.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from typing import Any

from azr_mlx.executor import values

MAX_CHARS = 100_000
MAX_BITS = 1 << 16  # of an int that arithmetic makes
MAX_ITEMS = 1 << 17  # of a str, bytes, list or tuple that arithmetic makes
_FILE = "<azr literal>"

# A model may write "\d" as often as it likes; the trainer's log need not say so each time.
warnings.filterwarnings("ignore", category=SyntaxWarning, module=r"<azr ")
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"<azr ")


class LiteralError(ValueError):
    """The text is not a literal (or argument list) within the bounds. Its message is one clear line."""


def parse_value(text: str) -> Any:
    """The value that a literal stands for. Raises LiteralError, and nothing else, for every other text."""
    body = _parse(text.strip(), text).body
    return _guard(lambda: _value(body, 0))


def parse_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of one call, all literals: "1, x=[2], *(3, 4), **{'y': 5}". Empty text is no arguments.

    Raises LiteralError, and nothing else, for every other text, "5) or (True" among them.
    """
    call = _call(text)

    def evaluate() -> tuple[tuple[Any, ...], dict[str, Any]]:
        args = _sequence(call.args, 0)
        keywords: dict[str, Any] = {}
        for keyword in call.keywords:
            value = _value(keyword.value, 0)
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


def check_arguments(text: str) -> None:
    """Accept the text of exactly one call's arguments, whatever expressions they are. Raises LiteralError otherwise."""
    _call(text)


def _call(text: str) -> ast.Call:
    # The line break ends a trailing comment; the name `_` must be what the parentheses call.
    body = _parse(f"_({text}\n)", text).body
    if isinstance(body, ast.Call) and isinstance(body.func, ast.Name) and body.func.id == "_" and body.col_offset == 0:
        names = [keyword.arg for keyword in body.keywords if keyword.arg is not None]
        if len(names) != len(set(names)):
            raise LiteralError("an argument is given twice")
        return body
    raise LiteralError("not the arguments of exactly one call")


def _parse(source: str, text: str) -> ast.Expression:
    if len(text) > MAX_CHARS:
        raise LiteralError(f"longer than {MAX_CHARS} characters")
    if not text.strip() and source == text.strip():
        raise LiteralError("empty")
    try:
        return ast.parse(source, _FILE, "eval")
    except SyntaxError as error:
        raise LiteralError(f"not a literal: {_short(error.msg)}") from None
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


def _value(node: ast.expr, depth: int) -> Any:
    if depth > values.MAX_DEPTH:
        raise LiteralError("nested too deep")
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return _sequence(node.elts, depth)
    if isinstance(node, ast.Tuple):
        return tuple(_sequence(node.elts, depth))
    if isinstance(node, ast.Set):
        return set(_sequence(node.elts, depth))
    if isinstance(node, ast.Dict):
        result: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            value = _value(item, depth + 1)
            if key is not None:
                result[_value(key, depth + 1)] = value
            elif type(value) is dict:
                result.update(value)
            else:
                raise LiteralError("** needs a dict")
        return result
    if isinstance(node, ast.UnaryOp):
        return _unary(node.op, _value(node.operand, depth + 1))
    if isinstance(node, ast.BinOp):
        return _binary(node.op, _value(node.left, depth + 1), _value(node.right, depth + 1))
    name = _name(node)
    if name in _NAMES:
        return _NAMES[name]
    if isinstance(node, ast.Call):
        return _known_call(node, depth)
    raise LiteralError(f"not a literal: {type(node).__name__}" + (f" {_short(name)}" if name else ""))


def _sequence(nodes: list[ast.expr], depth: int) -> list[Any]:
    items: list[Any] = []
    for node in nodes:
        if isinstance(node, ast.Starred):
            value = _value(node.value, depth + 1)
            if type(value) not in (list, tuple, set, frozenset, dict, str, bytes):
                raise LiteralError("* needs a sequence")
            if len(items) + len(value) > MAX_ITEMS:
                raise LiteralError("too many items")
            items.extend(value)
        else:
            items.append(_value(node, depth + 1))
    return items


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


def _known_call(node: ast.Call, depth: int) -> Any:
    name = _name(node.func)
    if name not in _CALLS or len(node.args) > 1 or any(isinstance(item, ast.Starred) for item in node.args):
        raise LiteralError(f"not a literal: a call{' of ' + _short(name) if name else ''}")
    args = [_value(item, depth + 1) for item in node.args]
    keywords: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or name not in ("dict", "OrderedDict", "Counter"):
            raise LiteralError(f"not a literal: keywords of {name}")
        keywords[keyword.arg] = _value(keyword.value, depth + 1)
    if name == "float":
        if len(args) != 1 or type(args[0]) not in (int, float, str, bool):
            raise LiteralError("float needs a number or a text")
        return float(args[0])
    given = args[0] if args else ()
    if type(given) not in (list, tuple, set, frozenset, dict, str, bytes):
        raise LiteralError(f"{name} needs a sequence")
    if name in ("set", "frozenset", "list", "tuple"):
        return {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple}[name](given)
    if name == "Counter" and type(given) is not dict:
        counts: dict[Any, Any] = {}
        for item in given:
            counts[item] = counts.get(item, 0) + 1
        return {**counts, **keywords}
    result = dict(given)
    result.update(keywords)
    return result


_NUMBERS = (bool, int, float, complex)


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


def _binary(operator: ast.operator, left: Any, right: Any) -> Any:
    if type(left) not in _NUMBERS or type(right) not in _NUMBERS:
        return _repeat_or_join(operator, left, right)
    whole = type(left) in (bool, int) and type(right) in (bool, int)
    if isinstance(operator, ast.Add):
        return left + right
    if isinstance(operator, ast.Sub):
        return left - right
    if isinstance(operator, ast.Mult):
        if whole and int(left).bit_length() + int(right).bit_length() > MAX_BITS:
            raise LiteralError("too large a number")
        return left * right
    if isinstance(operator, ast.Div):
        return left / right
    if isinstance(operator, ast.FloorDiv):
        return left // right
    if isinstance(operator, ast.Mod):
        return left % right
    if isinstance(operator, ast.Pow):
        if whole and int(left).bit_length() * abs(int(right)) > MAX_BITS:
            raise LiteralError("too large a number")
        return left**right
    if whole and isinstance(operator, ast.LShift):
        if not 0 <= right <= MAX_BITS or int(left).bit_length() + right > MAX_BITS:
            raise LiteralError("too large a number")
        return left << right
    if whole and isinstance(operator, ast.RShift):
        return left >> right
    if whole and isinstance(operator, ast.BitAnd):
        return left & right
    if whole and isinstance(operator, ast.BitOr):
        return left | right
    if whole and isinstance(operator, ast.BitXor):
        return left ^ right
    raise LiteralError(f"not constant arithmetic: {type(operator).__name__}")


def _repeat_or_join(operator: ast.operator, left: Any, right: Any) -> Any:
    sequences = (str, bytes, list, tuple)
    if isinstance(operator, ast.Add) and type(left) is type(right) and type(left) in sequences:
        if len(left) + len(right) > MAX_ITEMS:
            raise LiteralError("too long a sequence")
        return left + right
    if isinstance(operator, ast.Mult):
        if type(left) in (int, bool):
            left, right = right, left
        if type(left) in sequences and type(right) in (int, bool):
            if right > 0 and len(left) * right > MAX_ITEMS:
                raise LiteralError("too long a sequence")
            return left * right
    # `%` on text is formatting, which can make a gigabyte of spaces from nine characters.
    raise LiteralError(f"not constant arithmetic: {type(operator).__name__} of {type(left).__name__}")
