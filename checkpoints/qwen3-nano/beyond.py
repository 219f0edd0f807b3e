"""Programs of nano's grammar beyond what its pre-training ever showed: more operations, in more statements.

A program that is taught has `MOST_TAUGHT` operations at most, because each body of `grammar.Writer` is bounded: an
expression has three, a local variable one more; a conditional four; a loop is one, its condition two, its step two.
Programs here chain up to four statements of the same forms and have more operations than that, so none of them can have
been a lesson, whatever its hash. They are sorted into `BANDS` by their operations.

What this does not say: the forms of statements and the operations are those of the lessons, so the bands ask for more
of the same and not for something else; and a program with many operations may still be easy, when a branch leaves it
early or an operation undoes another. Prompts are longer than most lessons, too.
"""

from __future__ import annotations

import ast
import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

import grammar
from grammar import KINDS, LOCALS, Program, Writer, bare

from azr_mlx.types import Case, Kind, Task

MOST_TAUGHT = 5  # operations of a program that pre-training shows
BANDS = {"6 to 7": (6, 7), "8 to 9": (8, 9), "10 to 12": (10, 12)}  # operations, both ends inclusive
MOST_CHARS = 300


def operations(source: str) -> int:
    """Operations as the grammar has them: operators, comparisons, calls, subscripts, loops; a comprehension is one."""
    counted = (ast.BinOp, ast.Compare, ast.Call, ast.Subscript, ast.ListComp, ast.For)
    number, waiting = 0, list[ast.AST](ast.parse(source).body)
    while waiting:
        node = waiting.pop()
        number += isinstance(node, counted)
        waiting += [node.generators[0].iter] if isinstance(node, ast.ListComp) else ast.iter_child_nodes(node)
    return number


class LongWriter(Writer):
    """Writes programs of several statements, each of a form that is taught."""

    def depth(self) -> int:
        return self.rng.choice((1, 1, 2, 2, 3))

    def program(self) -> Program:
        rng = self.rng
        kinds = rng.choices(("int", "str", "list"), (0.4, 0.22, 0.38), k=rng.choice((1, 2, 2)))
        scope: dict[str, str] = {}
        for kind in kinds:
            scope[grammar.NAMES[kind][list(scope.values()).count(kind)]] = kind
        head, parameters = f"def f({', '.join(scope)}):", tuple(scope.values())
        lines: list[str] = []
        for _ in range(rng.choice((1, 2, 2, 3))):
            form = rng.choices(("local", "loop", "if"), (0.6, 0.2, 0.2))[0]
            lines += getattr(self, f"statement_{form}")(scope, rng.choice(list(scope.values())))
        result = rng.choice(list(scope.values()))
        lines.append("return " + bare(self.expression(result, self.depth(), scope)))
        return Program("\n".join([head, *("    " + line for line in lines)]), parameters, tuple(self.words))

    def statement_local(self, scope: dict[str, str], kind: str) -> list[str]:
        """`z = ...`; a local that is there already gets a new value."""
        text = bare(self.expression(kind, self.depth(), scope))
        scope[LOCALS[kind]] = kind
        return [f"{LOCALS[kind]} = {text}"]

    def statement_if(self, scope: dict[str, str], kind: str) -> list[str]:
        return [f"if {self.condition(scope)}:", "    return " + bare(self.expression(kind, 1, scope))]

    def statement_loop(self, scope: dict[str, str], kind: str) -> list[str]:
        """The loop of a lesson without its return; a local otherwise when there is nothing to loop over."""
        lists = [name for name, of in scope.items() if of in ("list", "str") and name not in LOCALS.values()]
        if not lists:
            return self.statement_local(scope, kind)
        lines = self.body_loop({name: of for name, of in scope.items() if name not in LOCALS.values()}, kind)
        made = lines[-1].removeprefix("return ")
        scope[made] = next(of for of, name in LOCALS.items() if name == made)
        return lines[:-1]


def draw(rng: random.Random, pairs: int, low: int, high: int) -> tuple[Program, list[Case]]:
    """A program of `low` to `high` operations whose variables all matter, with `pairs` cases of different outputs."""
    while True:
        program = LongWriter(rng).program()
        if len(program.source) > MOST_CHARS or not low <= operations(program.source) <= high:
            continue
        body = program.source.split("\n", 1)[1]
        names = program.source[len("def f(") : program.source.index(")")].split(", ")
        names += [name for name in LOCALS.values() if f"{name} =" in body]
        if any(not grammar.uses(body.replace(f"{name} =", "="), name) for name in names):
            continue
        function = grammar.compile_program(program.source)
        cases: dict[str, str] = {}
        for _ in range(4 * pairs):
            text = grammar.arguments_for(rng, program)
            output = grammar.run(function, text)
            if output is not None:
                cases[text] = output
            if len(cases) == pairs:
                break
        if len(cases) == pairs and len(set(cases.values())) > 1 + (pairs > 4):
            return program, [Case(*case) for case in cases.items()]


def tasks(seed: int, band: str, per_kind: int, pairs: int = 6) -> list[Task]:
    """Held-out tasks of a band, `per_kind` of each kind; no program comes twice."""
    rng, seen = random.Random(f"beyond/{seed}/{band}"), set[str]()
    found: list[Task] = []
    for kind in KINDS:
        while sum(task.kind is kind for task in found) < per_kind:
            program, cases = draw(rng, pairs if kind is Kind.INDUCTION else 4, *BANDS[band])
            if program.source in seen:
                continue
            seen.add(program.source)
            if kind is Kind.INDUCTION:
                found.append(Task(kind, program.source, tuple(cases), grammar.message(rng, program)))
            else:
                found.append(Task(kind, program.source, (cases[0],)))
    return found
