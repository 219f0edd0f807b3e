"""Deliberately imperfect programs: reference solutions with one fault each, the same ones for the same seed."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

_SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Div, ast.Div: ast.FloorDiv,
    ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

# Whole bodies, or lines in front of the right body. `{right}` is the right body.
TEXTS: dict[str, str] = {
    "infinite loop": "    while True:\n        pass\n",
    "exception": "    raise ValueError('no')\n{right}",
    "exception of exit": "    raise SystemExit(0)\n{right}",
    "sys.exit": "    import sys\n    sys.exit(0)\n",
    "exit()": "    exit()\n{right}",
    "os._exit": "    import os\n    os._exit(0)\n{right}",
    "prints": "    print('hello', {{1: 2}})\n{right}",
    "prints much": "    for _ in range(2000):\n        print('hello world')\n{right}",
    "prints to stderr": "    import sys\n    print('hello', file=sys.stderr)\n{right}",
    "missing import": "    statistics.mean([1, 2])\n{right}",
    "own import": "    import statistics\n    statistics.mean([1, 2])\n{right}",
    "unknown module": "    import no_such_module_at_all\n{right}",
    "returns nothing": "    pass\n",
    "returns not implemented": "    return NotImplemented\n",
    "returns a constant": "    return {constant}\n",
    "always equal": (
        "    class Any:\n        def __eq__(self, other):\n            return True\n"
        "        def __ne__(self, other):\n            return False\n"
        "        def __lt__(self, other):\n            return True\n        __le__ = __gt__ = __ge__ = __lt__\n"
        "        def __sub__(self, other):\n            return self\n        __rsub__ = __abs__ = __sub__\n"
        "    return Any()\n"
    ),
    "never ends in recursion": "    def deep(n):\n        return deep(n + 1)\n    return deep(0)\n",
    "syntax error": "    return (1, 2\n",
    "wrong indentation": "   x = 1\n{right}",
    "reads input": "    input()\n{right}",
    "reads input, careful": "    try:\n        input()\n    except Exception:\n        pass\n{right}",
    "text after the function": "{right}\nprint('done')\n",
    "example after the function": "{right}\nif __name__ == '__main__':\n    raise SystemExit(1)\n",
    "faulty text after the function": "{right}\nThis function returns the result.\n",
    "test of its own": "{right}\nassert True\n",
    "failing test of its own": "{right}\nassert False\n",
    "own check": "{right}\ndef check(candidate):\n    return None\n",
    "tabs": "\tpass\n",
    "deletes its argument": "{right}\ndel {name}\n",
    "lambda instead": "    pass\n\n{name} = lambda *args: None\n",
    "generator": "    yield None\n",
    "catches everything": "    try:\n        raise KeyError(1)\n    except BaseException:\n        pass\n{right}",
    "stops early": "    return None\n{right}",
    "doctest at the end": "{right}\nimport doctest\ndoctest.testmod()\n",
    "unittest at the end": (
        "{right}\nimport unittest\nclass T(unittest.TestCase):\n    def test(self):\n        pass\n"
        "if __name__ == '__main__':\n    unittest.main()\n"
    ),
    "sleeps": "    import time\n    time.sleep(60)\n{right}",
    "sleeps a moment": "    import time\n    time.sleep(0.02)\n{right}",
    "logs": "    import logging\n    logging.warning('x')\n{right}",
    "recursion 900": "    down = lambda k: k and down(k - 1)\n    down(900)\n{right}",
    "own recursion limit": "    import sys\n    sys.setrecursionlimit(20000)\n{right}",
    "random, seeded": "    import random\n    random.seed(0)\n    random.random()\n{right}",
    "thread": "    import threading\n    t = threading.Thread(target=int)\n    t.start()\n    t.join()\n{right}",
    "dataclass": "    import dataclasses\n    P = dataclasses.make_dataclass('P', ['x'])\n    P(1)\n{right}",
    "named tuple": "    from collections import namedtuple\n    namedtuple('P', 'x')(1)\n{right}",
    "looks at its frame": "    import sys\n    sys._getframe(0).f_code\n{right}",
    "warns": "    import warnings\n    warnings.warn('x')\n{right}",
}  # fmt: skip

_CONSTANTS = ("None", "True", "0", "1", "[]", "''", "(1, 2)", "float('nan')", "{1}", "object()")


def mutants(stub: str, right: str, name: str, seed: int, edits: int = 8, texts: int = 6) -> Iterator[tuple[str, str]]:
    """(kind of fault, completion) of one problem: up to `edits` faulty edits, and `texts` of TEXTS or all."""
    draw = random.Random(seed)
    yield "reference", right
    program = ast.parse(stub + right)
    function = _function(program, name)
    open_stub = any(isinstance(node, ast.FunctionDef) and node.name == name for node in _tree(stub).body)

    def completion(body: str) -> str:
        """The body alone where the stub has the function's head, else the program with the body in its place."""
        if open_stub:
            return body
        others = [ast.unparse(node) for node in program.body if node is not function and not isinstance(node, ast.Expr)]
        return "\n".join([*others, f"def {name}({ast.unparse(function.args)}):", body])

    seen = {right}
    places = list(_edits(function))
    draw.shuffle(places)
    for kind, edit in places[:edits]:
        changed = copy.deepcopy(function)
        edit(changed)
        text = completion(_body(changed))
        if text not in seen:
            seen.add(text)
            yield kind, text
    whole = (right if right.endswith("\n") else right + "\n") if open_stub else _body(function)
    for kind in draw.sample(sorted(TEXTS), min(texts, len(TEXTS))):
        text = TEXTS[kind].replace("{right}", whole).replace("{name}", name)
        text = text.replace("{constant}", draw.choice(_CONSTANTS)).replace("{{", "{").replace("}}", "}")
        yield kind, completion(text)


def _tree(stub: str) -> ast.Module:
    try:
        return ast.parse(stub)
    except SyntaxError:  # a head without a docstring
        return ast.parse(stub + "    pass\n")


def _function(program: ast.Module, name: str) -> ast.FunctionDef:
    """The definition that counts: the last one. Raises LookupError when there is none."""
    for node in reversed(program.body):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise LookupError(f"no function {name}")


def _body(function: ast.FunctionDef) -> str:
    """The statements of a function as the text of its body."""
    statements = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    text = ast.unparse(ast.Module(statements or [ast.Pass()], []))
    return "".join(f"    {line}\n" for line in text.splitlines())


def _edits(function: ast.FunctionDef) -> Iterator[tuple[str, Callable[[ast.FunctionDef], None]]]:
    """Every single edit of a function; each is applied to a copy, where it finds its node by number."""
    for number, node in enumerate(ast.walk(function)):
        if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in _SWAPS:
            yield "wrong operator", _at(number, lambda n: setattr(n, "op", _SWAPS[type(n.op)]()))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
            yield "wrong comparison", _at(number, lambda n: n.ops.__setitem__(0, _SWAPS[type(n.ops[0])]()))
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield "off by one", _at(number, lambda n: setattr(n, "value", n.value + 1))
        elif isinstance(node, ast.If):
            yield "condition turned", _at(number, lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)))
        elif isinstance(node, ast.Return) and node.value is not None:
            yield "returns a pair", _at(number, lambda n: setattr(n, "value", ast.Tuple([n.value], ast.Load())))
        elif isinstance(node, ast.For):
            yield "loop left at once", _at(number, lambda n: n.body.append(ast.Break()))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and number % 3 == 0:
            yield "unknown name", _at(number, lambda n: setattr(n, "id", n.id + "_"))


def _at(number: int, change: Callable[[Any], object]) -> Callable[[ast.FunctionDef], None]:
    def edit(function: ast.FunctionDef) -> None:
        change(list(ast.walk(function))[number])

    return edit
