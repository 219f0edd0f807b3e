"""The school of the nano model: a grammar of small Python functions, and worked examples about them.

Programs take one or two arguments (integers, strings of capitals, lists of integers), combine one to four operations,
and may hold a local variable, a conditional or a loop. From each program the generator makes examples in exactly the
prompts that self-play uses (`azr_mlx.selfplay.prompts`, style `compact`): deduction, abduction and induction to solve,
and proposals to write. Most deductions are answered at once, some (`worked`) are worked out first, one operation a
line: as in a corpus written by people, who seldom show their work. Self-play may find out which is the better habit.

One program in sixteen, chosen by a hash of its text, never appears: the held-out probe tasks are drawn from those.
"""

from __future__ import annotations

import ast
import random
import zlib
from dataclasses import dataclass
from typing import Any

from azr_mlx.selfplay.prompts import Compact
from azr_mlx.types import Case, Kind, Role, Task

COMPACT = Compact()
KINDS = (Kind.DEDUCTION, Kind.ABDUCTION, Kind.INDUCTION)  # what is taught; self-play may know more
HELD_OUT_ONE_IN = 16
MAX_TEXT = 24  # longest argument or result text

NAMES = {"int": ("a", "b"), "str": ("s", "t"), "list": ("x", "y")}
LOCALS = {"int": "n", "str": "u", "list": "z"}

# result type -> (weight, template, operand types, word for the message). Operand types: int, str, list are expressions;
# k is a constant 1..9, m a constant 2..5, i an index 0 or 1, ch a capital. A template that starts with "(" is a binary
# operation, whose parentheses are dropped where nothing needs them.
OPERATIONS: dict[str, list[tuple[float, str, tuple[str, ...], str]]] = {
    "int": [
        (2, "({} + {})", ("int", "int"), "add"),
        (2, "({} + {})", ("int", "k"), "add"),
        (1, "({} - {})", ("int", "int"), "subtract"),
        (1, "({} - {})", ("int", "k"), "subtract"),
        (1, "({} * {})", ("int", "m"), "multiply"),
        (1, "max({}, {})", ("int", "int"), "larger"),
        (1, "min({}, {})", ("int", "int"), "smaller"),
        (2, "len({})", ("list",), "length"),
        (1.5, "len({})", ("str",), "length"),
        (1.5, "sum({})", ("list",), "sum"),
        (1.5, "max({})", ("list",), "largest"),
        (1.5, "min({})", ("list",), "smallest"),
        (1.5, "{}[{}]", ("list", "i"), "element"),
        (1, "{}[-1]", ("list",), "last"),
    ],
    "str": [
        (3, "{}[::-1]", ("str",), "reverse"),
        (2, "({} + {})", ("str", "str"), "join"),
        (1.5, "({} + {})", ("str", "ch"), "join"),
        (1.5, "({} + {})", ("ch", "str"), "join"),
        (1.5, "{}[1:]", ("str",), "drop"),
        (1.5, "{}[:-1]", ("str",), "drop"),
        (1, "{}[{}]", ("str", "i"), "letter"),
    ],
    "list": [
        (2.5, "{}[::-1]", ("list",), "reverse"),
        (2, "sorted({})", ("list",), "sort"),
        (2, "({} + [{}])", ("list", "int"), "append"),
        (1.5, "([{}] + {})", ("int", "list"), "prepend"),
        (1.5, "{}[1:]", ("list",), "drop"),
        (1.5, "{}[:-1]", ("list",), "drop"),
        (1, "({} + {})", ("list", "list"), "join"),
        (1, "[{}, {}]", ("int", "int"), "pair"),
        (1, "[v + {1} for v in {0}]", ("list", "m"), "each add"),
        (1, "[v for v in {0} if v > {1}]", ("list", "k"), "keep larger"),
    ],
}
SMALL = ("k", "m", "i", "ch")  # operand types that are constants
WEIGHTS = {kind: [row[0] for row in rows] for kind, rows in OPERATIONS.items()}
CONDITIONS = ("{} > {}", "{} < {}", "{} == {}", "{} != {}")


@dataclass(frozen=True)
class Program:
    """A function of the grammar: its source, the types of its arguments, and one word for each operation."""

    source: str
    parameters: tuple[str, ...]
    words: tuple[str, ...]


def held_out(source: str) -> bool:
    """Whether a program belongs to the probe and must never be shown in pre-training."""
    return zlib.crc32(source.encode()) % HELD_OUT_ONE_IN == 0


def constant(rng: random.Random, kind: str) -> str:
    if kind == "k":
        return str(rng.randint(1, 9))
    if kind == "m":
        return str(rng.choice((2, 2, 3)))
    if kind == "i":
        return str(rng.choice((0, 1)))
    if kind == "ch":
        return repr(rng.choice("ABCDE"))
    return value_text(rng, kind)


def value_text(rng: random.Random, kind: str) -> str:
    """The text of a random argument of type int, str or list."""
    if kind == "int":
        return str(rng.randint(0, 9))
    if kind == "str":
        return repr("".join(rng.choice("ABCDE") for _ in range(rng.choice((2, 3, 3)))))
    return repr([rng.randint(0, 9) for _ in range(rng.choice((2, 3, 3)))])


class Writer:
    """Writes one random program; collects the words of the operations it used."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words: list[str] = []
        self.read: list[str] = []

    def expression(self, kind: str, depth: int, scope: dict[str, str]) -> str:
        """An expression of type `kind` with about `depth` operations over the variables of `scope`."""
        rng = self.rng
        if kind in ("k", "m", "i", "ch"):
            return constant(rng, kind)
        names = [name for name, of in scope.items() if of == kind]
        if depth <= 0 and names:
            fresh = [name for name in names if name not in self.read] or names
            self.read.append(rng.choice(fresh if rng.random() < 0.7 else names))
            return self.read[-1]
        if depth <= 0:
            return {"int": constant(rng, "k"), "str": constant(rng, "ch"), "list": f"[{constant(rng, 'k')}]"}[kind]
        rows, weights = OPERATIONS[kind], WEIGHTS[kind]
        if not names:
            known = {*scope.values(), *SMALL}
            keep = [i for i, row in enumerate(rows) if known.issuperset(row[2])]
            rows, weights = [rows[i] for i in keep], [weights[i] for i in keep]
        if not rows:
            return self.expression(kind, 0, scope)
        _, template, operands, word = rng.choices(rows, weights)[0]
        self.words.append(word)
        deep = [i for i, operand in enumerate(operands) if operand in OPERATIONS]
        lucky = rng.choice(deep) if deep else -1
        texts = [self.expression(operand, depth - 1 if i == lucky else 0, scope) for i, operand in enumerate(operands)]
        if not template.startswith(("(", "{}")):
            texts = [bare(text) for text in texts]
        return template.format(*texts)

    def condition(self, scope: dict[str, str]) -> str:
        if "int" in scope.values() and self.rng.random() < 0.7:
            left = self.rng.choice([name for name, of in scope.items() if of == "int"])
        else:
            left = self.expression("int", 1, scope)
        others = [name for name, of in scope.items() if of == "int" and name != left]
        right = self.rng.choice(others) if others and self.rng.random() < 0.4 else constant(self.rng, "k")
        return self.rng.choice(CONDITIONS).format(bare(left), right)

    def depth(self) -> int:
        return self.rng.choices((0, 1, 2, 3), (0.06, 0.66, 0.22, 0.06))[0]

    def program(self) -> Program:
        rng = self.rng
        kinds = rng.choices(("int", "str", "list"), (0.45, 0.22, 0.33), k=rng.choice((1, 1, 2)))
        scope: dict[str, str] = {}
        for kind in kinds:
            scope[NAMES[kind][list(scope.values()).count(kind)]] = kind
        head = f"def f({', '.join(scope)}):"
        parameters = tuple(scope.values())
        result = rng.choices(("int", "str", "list"), (0.45, 0.22, 0.33))[0]
        if result not in kinds and (result == "str" or rng.random() < 0.8):  # what has a source of its type is richer
            result = rng.choice(("int", *kinds))
        shape = rng.choices(("return", "local", "if", "loop"), (0.64, 0.12, 0.12, 0.12))[0]
        if shape == "loop" and "list" not in kinds and "str" not in kinds:
            shape = "local"
        lines = getattr(self, f"body_{shape}" if shape != "return" else "body_plain")(scope, result)
        return Program("\n".join([head, *("    " + line for line in lines)]), parameters, tuple(self.words))

    def body_plain(self, scope: dict[str, str], result: str) -> list[str]:
        return ["return " + bare(self.expression(result, self.depth(), scope))]

    def body_local(self, scope: dict[str, str], result: str) -> list[str]:
        kind = self.rng.choice(list(scope.values()))
        name = LOCALS[kind]
        first = f"{name} = " + bare(self.expression(kind, 1, scope))
        return [first, "return " + bare(self.expression(result, self.depth(), {**scope, name: kind}))]

    def body_if(self, scope: dict[str, str], result: str) -> list[str]:
        test = self.condition(scope)
        return [
            f"if {test}:",
            "    return " + bare(self.expression(result, 1, scope)),
            "return " + bare(self.expression(result, self.rng.choice((0, 1)), scope)),
        ]

    def body_loop(self, scope: dict[str, str], result: str) -> list[str]:
        rng = self.rng
        over = rng.choice([name for name, of in scope.items() if of in ("list", "str")])
        if scope[over] == "str":
            name, step = "u", rng.choice(("c + u", "u + c", "u + c + c"))
            self.words.append("loop")
            if rng.random() < 0.4:
                letter = constant(rng, "ch")
                return ["u = ''", f"for c in {over}:", f"    if c != {letter}:", f"        u = {step}", "return u"]
            return ["u = ''", f"for c in {over}:", f"    u = {step}", "return u"]
        self.words.append("loop")
        inner = {**{n: of for n, of in scope.items() if of == "int"}, "v": "int"}
        if result == "list":
            item = bare(self.expression("int", rng.choice((0, 1)), inner))
            first, step = "z = []", rng.choice((f"z = z + [{item}]", f"z = [{item}] + z"))
            name = "z"
        else:
            first = f"n = {rng.choice((0, 0, 0, 1))}"
            step, name = rng.choice(("n = n + v", "n = n + 1", "n = n - v", "n = max(n, v)", "n = n + v * 2")), "n"
        if rng.random() < 0.5:
            return [first, f"for v in {over}:", f"    if {self.condition(inner)}:", f"        {step}", f"return {name}"]
        return [first, f"for v in {over}:", f"    {step}", f"return {name}"]


def bare(text: str) -> str:
    """Drop the parentheses of an outermost binary operation."""
    if not text.startswith("("):
        return text
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if position == len(text) - 1 else text
    return text


def run(function: Any, arguments: str) -> str | None:
    """`repr(f(arguments))` of a program of the grammar, or None if it raises or says too much. Own text only."""
    try:
        result = repr(eval(f"f({arguments})", {"f": function}))
    except Exception:
        return None
    return result if len(result) <= MAX_TEXT else None


def compile_program(source: str) -> Any:
    space: dict[str, Any] = {}
    exec(source, space)
    return space["f"]


def arguments_for(rng: random.Random, program: Program) -> str:
    return ", ".join(value_text(rng, kind) for kind in program.parameters)


def draw(rng: random.Random, pairs: int, *, probe: bool = False) -> tuple[Program, list[Case]]:
    """A program whose arguments matter, with `pairs` distinct cases of at least two different outputs."""
    while True:
        program = Writer(rng).program()
        body = program.source.split("\n", 1)[1]
        names = program.source[len("def f(") : program.source.index(")")].split(", ")
        if held_out(program.source) is not probe or (probe and not program.words):
            continue
        names += [line.split()[0] for line in body.split("\n") if line[4:6] in ("n ", "u ", "z ")]
        if any(not uses(body.replace(f"{name} =", "="), name) for name in names) or len(program.source) > 160:
            continue
        function = compile_program(program.source)
        cases: dict[str, str] = {}
        for _ in range(3 * pairs):
            text = arguments_for(rng, program)
            output = run(function, text)
            if output is None:
                break
            cases[text] = output
            if len(cases) == pairs:
                break
        if len(cases) == pairs and len(set(cases.values())) > min(pairs - 1, 2) - 1 + (pairs > 4):
            return program, [Case(*case) for case in cases.items()]


def uses(body: str, name: str) -> bool:
    """Whether the variable `name` (one letter) is read in `body`."""
    padded = f" {body} "
    return any(
        padded[i] == name and not (padded[i - 1].isalnum() or padded[i - 1] in "'_") and not padded[i + 1].isalnum()
        for i in range(1, len(padded) - 1)
    )


def message(rng: random.Random, program: Program) -> str:
    """A hint: some of the operations' words, in no order."""
    words = [word for word in dict.fromkeys(program.words) if rng.random() < 0.75] or list(program.words[:1])
    rng.shuffle(words)
    return " ".join(words) or "same"


def work_out(source: str, arguments: str) -> str:
    """The steps of `f(arguments)`, a line each: one operation on values, and what it gives.

        def f(x):
            return [4] + x[1:]        # f([3, 6, 8])
    gives
        [3, 6, 8][1:] = [6, 8]
        [4] + [6, 8] = [4, 6, 8]
    """
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    names = [argument.arg for argument in function.args.args]
    reader = Reader(dict(zip(names, eval(f"({arguments},)"), strict=True)))
    reader.follow(function.body)
    return "".join(f"{line}\n" for line in reader.lines)


class Reader:
    """Runs a program of the grammar on paper: `lines` are the operations in the order in which Python does them.

    `result` is what it returned.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.lines: list[str] = []
        self.result: Any = None

    def follow(self, body: list[ast.stmt]) -> bool:
        """Go through statements; whether they returned."""
        for statement in body:
            match statement:
                case ast.Return(value=ast.expr() as result):
                    self.result = self.value(result)
                    return True
                case ast.Assign(targets=[ast.Name(id=name)], value=result):
                    self.names[name] = self.value(result)
                case ast.If(test=test, body=branch):
                    if self.value(test) and self.follow(branch):
                        return True
                case ast.For(target=ast.Name(id=name), iter=series, body=branch):
                    for item in self.value(series):
                        self.names[name] = item
                        self.follow(branch)
        return False

    def value(self, node: ast.expr) -> Any:
        """The value of an expression; an operation leaves a line."""
        match node:
            case ast.Constant(value=known):
                return known
            case ast.Name(id=name):
                return self.names[name]
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.BinOp(left=left, op=op, right=right):
                return self.line(ast.BinOp(self.known(left), op, self.known(right)))
            case ast.Compare(left=left, ops=ops, comparators=[right]):
                return self.line(ast.Compare(self.known(left), ops, [self.known(right)]))
            case ast.Call(func=function, args=arguments):
                return self.line(ast.Call(function, [self.known(argument) for argument in arguments], []))
            case ast.Subscript(value=series, slice=place):
                return self.line(ast.Subscript(self.known(series), place))
            case ast.ListComp(elt=item, generators=[loop]):
                first = ast.comprehension(loop.target, self.known(loop.iter), loop.ifs, 0)
                return self.line(ast.ListComp(item, [first]))
        raise TypeError(f"{ast.dump(node)} is not of the grammar")

    def known(self, node: ast.expr) -> ast.expr:
        return ast.parse(repr(self.value(node)), mode="eval").body

    def line(self, operation: ast.expr) -> Any:
        text = ast.unparse(operation)
        result = eval(text)
        self.lines.append(f"{text} = {result!r}")
        return result


@dataclass(frozen=True)
class Example:
    """One lesson: text read, and the replies written after it. `turns` alternates read and written text.

    The end token follows every written text; a lesson with several turns asks the same question of other inputs.
    """

    role: Role
    kind: Kind
    turns: tuple[tuple[str, str], ...]


def example(rng: random.Random, role: Role, kind: Kind, *, pairs: int, references: int, worked: float) -> Example:
    """One lesson of a role and kind. A share `worked` of deduction answers is worked out before it is given."""
    if role is Role.SOLVE and kind is not Kind.INDUCTION:
        program, cases = draw(rng, 4)
        steps = kind is Kind.DEDUCTION and rng.random() < worked
        turns: list[tuple[str, str]] = []
        for case in cases[: 2 if steps else 4]:
            task = Task(kind, program.source, (case,))
            answer = case.output if kind is Kind.DEDUCTION else case.input
            prompt = COMPACT.solve(task)
            text = prompt.text if not turns else prompt.text[prompt.text.index("```\n```") + 4 :]
            turns.append(
                (text, (work_out(program.source, case.input) if steps else "") + COMPACT.reply(prompt, answer))
            )
        return Example(role, kind, tuple(turns))
    program, cases = draw(rng, pairs)
    task = Task(Kind.INDUCTION, program.source, tuple(cases), message(rng, program))
    if role is Role.SOLVE:
        prompt = COMPACT.solve(task)
        return Example(role, kind, ((prompt.text, COMPACT.reply(prompt, program.source)),))
    if kind is Kind.INDUCTION:
        prompt = COMPACT.propose(kind, source=task, cases=pairs)
        return Example(
            role, kind, ((prompt.text, COMPACT.reply(prompt, task.message, *(case.input for case in cases))),)
        )
    shown = []
    for _ in range(references):
        other, other_cases = draw(rng, 4)
        shown.append(Task(kind, other.source, (other_cases[0],)))
    prompt = COMPACT.propose(kind, tuple(shown))
    return Example(role, kind, ((prompt.text, COMPACT.reply(prompt, program.source, cases[0].input)),))


def tokenizer_text(rng: random.Random, count: int) -> list[str]:
    """Texts to train the tokenizer on: every role and kind."""
    plan = [(role, kind) for role in Role for kind in KINDS]
    return [
        "".join(read + written for read, written in example(rng, *plan[i % 6], pairs=6, references=2, worked=0).turns)
        for i in range(count)
    ]


def probe_tasks(seed: int, per_kind: int, pairs: int) -> list[Task]:
    """The held-out tasks: programs that pre-training never shows, without repeats."""
    rng, seen = random.Random(seed), set[str]()
    tasks: list[Task] = []
    for kind in KINDS:
        while sum(task.kind is kind for task in tasks) < per_kind:
            program, cases = draw(rng, pairs if kind is Kind.INDUCTION else 4, probe=True)
            if program.source in seen:
                continue
            seen.add(program.source)
            if kind is Kind.INDUCTION:
                tasks.append(Task(kind, program.source, tuple(cases), message(rng, program)))
            else:
                tasks.append(Task(kind, program.source, (cases[0],)))
    return tasks
