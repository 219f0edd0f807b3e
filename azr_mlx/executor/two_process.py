"""Tests in two processes: the program answers calls in one, the test runs where no line of the program ever does.

A `TestJob` becomes a conversation of ordinary jobs, so that the same slots, limits and confinement hold for it:

1. Which calls does the test make? Read from the text where all its assertions are plain comparisons of calls with
   literals; otherwise the test is played in the sandbox with no program at all. Once for each test, then kept.
2. One fresh process loads the program and makes the calls (remote.answer). It is told arguments, never what is
   expected, and can only choose which plain values to send.
3. Plain comparisons are decided here, on plain values. Any other test is played on the answers in a second process
   (remote.play). If it asks for a call that has no answer, as a test whose inputs depend on results does, 2 and 3 are
   repeated with the calls known by then, in fresh processes.

Whether a test can be taken apart is decided by the test alone: nothing that a program does leads to the in-process
mode, where it would share the test's process.
"""

from __future__ import annotations

import ast
import builtins
import functools
import symtable
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from azr_mlx.executor import syntax
from azr_mlx.executor.jobs import CallsJob, HalfJob, Job, Limits, Outcome, Status, StdinJob, TestJob
from azr_mlx.executor.literals import LiteralError, parse_value

TWO_PROCESS, IN_PROCESS = "two-process", "in-process"
RESULT_BYTES = 4 << 20  # of all answers together, at least
_ROUNDS = 64
_MAX_TEST = 1 << 20  # characters
_SORTED = 500  # items of an answer that are sorted or made a set of here; more are left to the sandbox

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
_Send = Callable[[Job | TestJob | StdinJob | CallsJob | HalfJob], "Future[Outcome]"]
_MISSING: Any = object()


# ------------------------------------------------------------------------------------------- what a test asks for


@dataclass(frozen=True)
class PlainCheck:
    """One plain assertion: its line, its message, and its expression as a tree (see `_Reader.expression`)."""

    line: int
    message: str
    tree: tuple[Any, ...]


@dataclass
class TestPlan:
    """What is known of a test before any program is."""

    reason: str = ""  # why it needs the program in its own process; empty when it does not
    checks: tuple[PlainCheck, ...] = ()  # every assertion, where all are plain
    code: Any = None  # of the test, for the sandbox
    helpers: Any = None
    names: tuple[str, ...] = ()  # that the test takes from the program
    modules: frozenset[str] = frozenset()  # of these, names that seem to be modules of the standard library
    seeded: bool = False
    lines: tuple[str, ...] = ()
    calls: tuple[Call, ...] | None = None  # None until the test has been played once


def plan(job: TestJob) -> TestPlan:
    """The plan of a job's test. Kept, and shared by all jobs of the same test."""
    return _plan(job.test, job.entry_point, job.helpers, job.functions)


@functools.lru_cache(maxsize=4096)
def _plan(test: str, entry_point: str, helpers: str, functions: tuple[str, ...]) -> TestPlan:
    text = test + (f"\ncheck({entry_point})\n" if entry_point else "")
    functions = (*functions, entry_point) if entry_point else functions
    if len(text) + len(helpers) > _MAX_TEST:
        return TestPlan(reason=f"the test is longer than {_MAX_TEST} characters")
    try:
        tree = syntax.parse(text, "<test>")
        aid = _parsed(helpers) if helpers.strip() else None
        offered = frozenset(_defined(aid) - set(functions)) if aid is not None else frozenset()
        found = _Reader(functions, offered).read(tree)
        if found is not None:
            calls, checks = found
        else:
            calls, checks = None, ()
            reason = _needs_the_program(tree)
            if reason:
                return TestPlan(reason=reason)
        compiled = _compiled(text, aid, offered, functions)
        return TestPlan(checks=checks, calls=calls, lines=tuple(text.splitlines()), **compiled)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return TestPlan(reason=f"the test cannot be read: {type(error).__name__}")
    except _NeedsProgram as error:
        return TestPlan(reason=str(error))


class _NeedsProgram(Exception):
    """A test that cannot run in a process of its own; the text says why."""


def _compiled(text: str, aid: ast.Module | None, offered: frozenset[str], functions: tuple[str, ...]) -> dict[str, Any]:
    tree = syntax.parse(text, "<test>")
    own, free = _names(text)
    if not offered & free:
        aid = None
    names = {
        name
        for name in free
        if name in functions or (name not in offered and name not in own and not hasattr(builtins, name))
    }
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            if node.value.id not in sys.stdlib_module_names:
                raise _NeedsProgram(f"the test looks at {node.value.id}.{node.attr}")
            modules.add(node.value.id)
    for node in ast.walk(tree):
        bad: list[ast.expr] = []
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            bad = node.args[1:]
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            bad = [node.type]
        elif isinstance(node, ast.ClassDef):
            bad = node.bases
        for part in bad:
            for name in ast.walk(part):
                if isinstance(name, ast.Name) and name.id in names:
                    raise _NeedsProgram(f"the test uses {name.id} as a class")
    changed = ast.fix_missing_locations(_Asserts().visit(tree))
    whole = [node for part in (tree, aid) if part is not None for node in ast.walk(part)]
    return {
        "code": compile(changed, "<test>", "exec", dont_inherit=True),
        "helpers": compile(aid, "<helpers>", "exec", dont_inherit=True) if aid is not None else None,
        "names": tuple(sorted(names)),
        "modules": frozenset(modules),
        "seeded": any(_imports(node, "random") for node in whole),
    }


def _imports(node: ast.AST, module: str) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name == module for alias in node.names)
    return isinstance(node, ast.ImportFrom) and node.module == module


def _names(text: str) -> tuple[set[str], set[str]]:
    """The names that a test defines at top level, and those that it takes from elsewhere."""
    top = symtable.symtable(text, "<test>", "exec")
    own = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    free: set[str] = set()
    waiting = [top]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        for one in table.get_symbols():
            if one.is_referenced() and (table is top or one.is_global()) and one.get_name() not in own:
                free.add(one.get_name())
    return own, free


def _parsed(helpers: str) -> ast.Module | None:
    for text in (helpers, helpers + "    pass\n"):  # the stub of a prompt may end in the head of its function
        try:
            return syntax.parse(text, "<helpers>")
        except SyntaxError:
            continue
    return None


def _defined(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return found


class _Asserts(ast.NodeTransformer):
    """`assert X, M` becomes `if __azr_failed__(X): raise AssertionError(M)`, which is told when X is not known yet."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        test = ast.Call(ast.Name("__azr_failed__", ast.Load()), [node.test], [])
        error = ast.Call(ast.Name("AssertionError", ast.Load()), [node.msg] if node.msg else [], [])
        return ast.copy_location(ast.If(test, [ast.Raise(error, None)], []), node)


_INSPECTING = frozenset(
    ("eval", "exec", "compile", "__import__", "globals", "locals", "vars", "redirect_stdout", "breakpoint")
)
_STREAMS = frozenset(("stdout", "stderr", "stdin", "redirect_stdout", "redirect_stderr"))
_INSPECTORS = frozenset(("inspect", "builtins", "gc", "dis", "types", "unittest", "importlib", "weakref"))


def _needs_the_program(tree: ast.Module) -> str:
    """Why a test needs the program in its process, as far as its text says; empty otherwise."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _INSPECTING:
            return f"the test uses {node.id}"
        if isinstance(node, ast.Attribute) and node.attr in _STREAMS:
            return f"the test looks at {node.attr}"
        if any(_imports(node, module) for module in _INSPECTORS):
            return "the test imports a module that looks into programs"
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for i, operator in enumerate(node.ops):
                if isinstance(operator, ast.Is | ast.IsNot) and not any(_single(side) for side in sides[i : i + 2]):
                    return "the test compares identities"
    return ""


def _single(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None or isinstance(node.value, bool) or node.value is Ellipsis
    return isinstance(node, ast.Name) and isinstance(vars(builtins).get(node.id), type)


# --------------------------------------------------------------------------------------- plain tests, decided here


class _Other(Exception):
    """Not plain: the sandbox decides."""


_COMPARE: dict[type, str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: "is",
    ast.IsNot: "is not",
}  # fmt: skip
_LITERAL_CALLS = frozenset(("set", "frozenset", "tuple", "list", "dict", "float"))
_SHAPES = frozenset(("abs", "len", "sorted", "set", "tuple", "list", "int", "round"))


class _Reader:
    """Reads a test all of whose assertions are plain; its calls and their order are then known from the text."""

    def __init__(self, functions: tuple[str, ...], offered: frozenset[str]) -> None:
        self.functions = functions
        self.offered = offered  # names of the helpers, which only a process of the test's can call
        self.calls: list[Call] = []
        self.checks: list[PlainCheck] = []
        self.names: dict[str, str] = {}  # the parameter of `check`
        self.imported: set[str] = set()

    def read(self, tree: ast.Module) -> tuple[tuple[Call, ...], tuple[PlainCheck, ...]] | None:
        body = list(tree.body)
        try:
            check = next((node for node in body if isinstance(node, ast.FunctionDef)), None)
            if check is not None:
                self._whole_check(body, check)
            else:
                self.statements(body)
        except (_Other, LiteralError, RecursionError):
            return None
        return tuple(self.calls), tuple(self.checks)

    def _whole_check(self, body: list[ast.stmt], check: ast.FunctionDef) -> None:
        """`def check(candidate): ...` and at the end `check(name)`, as HumanEval has it."""
        body.remove(check)
        last = body.pop() if body else None
        if not (
            isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and isinstance(last.value.func, ast.Name)
        ):
            raise _Other
        call, arguments = last.value, check.args
        if (
            last.value.func.id != check.name
            or check.decorator_list
            or call.keywords
            or [type(one) for one in call.args] != [ast.Name]
            or len(arguments.args) != 1
            or any((arguments.posonlyargs, arguments.kwonlyargs, arguments.vararg, arguments.kwarg, arguments.defaults))
        ):
            raise _Other
        self.statements(body)
        if self.checks:
            raise _Other
        name = call.args[0]
        assert isinstance(name, ast.Name)
        self.names[arguments.args[0].arg] = name.id
        self.statements(check.body)

    def statements(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Pass):
                continue
            if isinstance(node, ast.Import) and all(alias.name in sys.stdlib_module_names for alias in node.names):
                self.imported.update(alias.name for alias in node.names if alias.asname in (None, alias.name))
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Name) and hasattr(builtins, node.value.id):
                continue
            if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == ["METADATA"]:
                self._literal(node.value)
                continue
            if not isinstance(node, ast.Assert):
                raise _Other
            # A message that has to be computed is left out: it is only asked for once the test has failed.
            message = str(node.msg.value) if isinstance(node.msg, ast.Constant) else ""
            self.checks.append(PlainCheck(node.lineno, message, self.expression(node.test)))

    def expression(self, node: ast.expr) -> tuple[Any, ...]:
        """A tree: ("literal", value), ("answer", number of the call), or an operation and its operands."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ("not", self.expression(node.operand))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            sign = _COMPARE.get(type(node.ops[0]))
            if sign is None or (sign.startswith("is") and not _constant(node.comparators[0])):
                raise _Other
            return (sign, self.expression(node.left), self.expression(node.comparators[0]))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and self._asks(node):
            return ("-", self.expression(node.left), self.expression(node.right))
        if isinstance(node, ast.Call) and self._asks(node):
            return self._call(node)
        return ("literal", self._literal(node))

    def _asks(self, node: ast.AST) -> bool:
        """Whether something of the program is called in an expression."""
        return any(
            isinstance(one, ast.Call)
            and not (
                isinstance(one.func, ast.Name) and one.func.id in _LITERAL_CALLS and one.func.id not in self.functions
            )
            for one in ast.walk(node)
        )

    def _call(self, node: ast.Call) -> tuple[Any, ...]:
        function = node.func
        if isinstance(function, ast.Attribute):
            if not (ast.unparse(function) == "math.isclose" and "math" in self.imported and len(node.args) == 2):
                raise _Other
            named = {one.arg: self._literal(one.value) for one in node.keywords if one.arg}
            if not named.keys() <= {"rel_tol", "abs_tol"} or any(type(one) is not float for one in named.values()):
                raise _Other
            tolerances = (named.get("rel_tol", 1e-9), named.get("abs_tol", 0.0))
            return ("isclose", self.expression(node.args[0]), self.expression(node.args[1]), tolerances)
        if not isinstance(function, ast.Name):
            raise _Other
        name = function.id
        if name in _SHAPES and name not in self.functions:
            if len(node.args) != (2 if name == "round" else 1) or node.keywords or name in self.names:
                raise _Other
            return (name, *(self.expression(one) for one in node.args))
        if name in self.offered:
            raise _Other
        if (hasattr(builtins, name) or name in self.imported) and name not in self.functions and name not in self.names:
            raise _Other
        if any(isinstance(one, ast.Starred) for one in node.args) or any(one.arg is None for one in node.keywords):
            raise _Other
        args = tuple(self._literal(one) for one in node.args)
        keywords = {one.arg: self._literal(one.value) for one in node.keywords if one.arg is not None}
        self.calls.append((self.names.get(name, name), args, keywords))
        return ("answer", len(self.calls) - 1)

    def _literal(self, node: ast.expr) -> Any:
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and (one.id not in _LITERAL_CALLS or one.id in self.functions):
                raise _Other
        return parse_value(ast.unparse(node))


def _constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))


class _Opaque:
    """An object of the program's: equal to itself only, and true."""

    __slots__ = ()


def judge(checks: tuple[PlainCheck, ...], answers: tuple[Any, ...], lines: tuple[str, ...]) -> str:
    """The first assertion that does not hold, or nothing. Raises _Other where the sandbox has to decide."""
    for check in checks:
        try:
            held = bool(_value(check.tree, answers))
        except _Other:
            raise
        except (TypeError, ValueError, ArithmeticError, RecursionError, MemoryError):
            raise _Other from None  # an exception of the test's: the sandbox tells it in its own words
        if not held:
            said = f"AssertionError: {check.message}" if check.message else "AssertionError"
            return f"line {check.line}: {lines[check.line - 1].strip()[:200]}: {said}"
    return ""


_NUMBERS = (bool, int, float)


def _value(tree: tuple[Any, ...], answers: tuple[Any, ...]) -> Any:
    word = tree[0]
    if word == "literal":
        return tree[1]
    if word == "answer":
        return _answer(tree[1], answers)
    first = _value(tree[1], answers)
    if word == "not":
        return not first
    if word in ("len", "tuple", "list", "sorted", "set"):
        if type(first) not in (list, tuple, str, set, frozenset, dict) or len(first) > _SORTED:
            raise _Other
        shapes: dict[str, Any] = {"len": len, "tuple": tuple, "list": list, "sorted": sorted, "set": set}
        return shapes[word](first)
    if word in ("abs", "int"):
        if type(first) not in _NUMBERS:
            raise _Other
        return abs(first) if word == "abs" else int(first)
    second = _value(tree[2], answers)
    if word == "==":
        return first == second
    if word == "!=":
        return first != second
    if word == "is":
        return first is second
    if word == "is not":
        return first is not second
    if type(first) not in _NUMBERS or type(second) not in _NUMBERS:
        raise _Other
    if word == "-":
        return first - second
    if word == "round":
        if type(second) is not int or abs(second) > 300:
            raise _Other
        return round(first, second)
    if word == "isclose":
        import math

        return math.isclose(first, second, rel_tol=tree[3][0], abs_tol=tree[3][1])
    return {"<": first < second, "<=": first <= second, ">": first > second, ">=": first >= second}[word]


def _answer(number: int, answers: tuple[Any, ...]) -> Any:
    if number >= len(answers):
        raise _Other
    answer = answers[number]
    if answer[0] == "value":
        return answer[1]
    if answer[0] == "tree" and answer[1][0] == "object":
        return _Opaque()
    raise _Other


# ------------------------------------------------------------------------------------------------ the conversation


def submit(job: TestJob, limits: Limits, send: _Send, counters: Counter[str]) -> Future[Outcome]:
    """Start the conversation of a job. Raises what `send` does; the future raises what the futures of `send` raise."""
    talk = _Conversation(job, job.limits or limits, send, counters)
    talk.start()
    return talk.future


class _Conversation:
    """One job on its way; each step is the callback of the one before."""

    def __init__(self, job: TestJob, limits: Limits, send: _Send, counters: Counter[str]) -> None:
        self.job = job
        self.limits = replace(limits, result_bytes=max(limits.result_bytes, RESULT_BYTES))
        self.send = send
        self.counters = counters
        self.future: Future[Outcome] = Future()
        self.plan = plan(job)
        self.calls: tuple[Call, ...] = ()
        self.going_on = False
        self.rounds = 0
        self.said: Outcome | None = None  # of the candidate's process: its output and what it used
        self.answers: tuple[Any, ...] = ()
        self.kinds: dict[str, tuple[Any, ...]] = {}

    def start(self) -> None:
        self.future.set_running_or_notify_cancel()
        if self.job.in_process or self.plan.reason:
            self._in_process()
        elif self.plan.calls is None:
            names = {name: ("module", name) if name in self.plan.modules else ("object",) for name in self.plan.names}
            self._then(self._half(names, (), ()), self._recorded)
        else:
            self.calls = self.plan.calls
            self._ask()

    def _then(self, job: Job | TestJob | StdinJob | CallsJob | HalfJob, step: Callable[[Outcome], None]) -> None:
        def guarded(done: Future[Outcome]) -> None:
            try:
                outcome = done.result()
            except Exception as error:  # the executor has failed, and says why
                self.future.set_exception(error)
                return
            try:
                step(outcome)
            except Exception as error:  # closed in between, or a fault of ours: never a verdict
                self._end(Outcome(Status.SANDBOX_ERROR, detail=f"{type(error).__name__}: {error}"[:300]))

        self.send(job).add_done_callback(guarded)

    def _end(self, outcome: Outcome, mode: str = TWO_PROCESS) -> None:
        """The verdict, with the output and the costs of the process that ran the program."""
        said = self.said
        if said is not None and outcome is not said:
            outcome = replace(
                outcome,
                values=(),
                stdout=said.stdout,
                stderr=said.stderr,
                wall_seconds=said.wall_seconds + outcome.wall_seconds,
                cpu_seconds=said.cpu_seconds + outcome.cpu_seconds,
                peak_memory=said.peak_memory,
            )
        if not self.future.done():
            self.counters[f"tests-{mode}"] += 1
            self.future.set_result(replace(outcome, values=(), mode=mode))

    # ------------------------------------------------------------------------------------------------ in-process

    def _in_process(self) -> None:
        self._then(replace(self.job, in_process=True), lambda outcome: self._end(outcome, IN_PROCESS))

    # ----------------------------------------------------------------------------------------------- two processes

    def _half(self, names: dict[str, Any], calls: tuple[Call, ...], answers: tuple[Any, ...]) -> HalfJob:
        known = self.plan
        limits = replace(self.limits, result_bytes=1 << 25)
        return HalfJob(known.code, known.helpers, names, known.seeded, calls, answers, known.lines, limits)

    @staticmethod
    def _said(outcome: Outcome) -> tuple[Any, Any]:
        """The word and the body of the test's process, in which nothing but the harness and the test has run."""
        found: Any = outcome.value
        return found[0], found[1]

    def _recorded(self, outcome: Outcome) -> None:
        """The test has been played without a program: now its calls are known."""
        if outcome.status is Status.SANDBOX_ERROR:
            self._end(outcome)
            return
        word: Any
        body: Any
        if outcome.status in (Status.EXCEPTION, Status.FAILED, Status.EXITED_EARLY):
            word, body = "more", []  # it fails before its first call, whatever the program
        elif outcome.ok:
            word, body = self._said(outcome)
        else:  # without a limit to meet, the program might lead it elsewhere
            self._in_process()
            return
        if word == "no":
            self.plan.reason = str(body)
            self._in_process()
            return
        self.plan.calls = self.calls = _calls(body) if word == "more" else ()
        self._ask()

    def _ask(self) -> None:
        self.rounds += 1
        track = not self.plan.checks  # plain assertions look at no argument after the call
        names = () if self.plan.checks else self.plan.names
        self._then(CallsJob(self.job.program, self.calls, names, self.going_on, track, self.limits), self._answered)

    def _answered(self, outcome: Outcome) -> None:
        self.said = outcome
        if not outcome.ok:
            self._end(outcome)
            return
        try:
            self.kinds, self.answers = _shape(outcome.values, len(self.calls))
        except (TypeError, ValueError, LookupError, AttributeError):
            self._end(Outcome(Status.BAD_RESULT, detail="bytes that are no answers"))
            return
        if self.plan.checks:
            try:
                failed = judge(self.plan.checks, self.answers, self.plan.lines)
                self._end(Outcome(Status.FAILED, detail=failed[:400]) if failed else Outcome(Status.OK))
                return
            except _Other:
                pass
        names = {name: self.kinds.get(name, ("object",)) for name in self.plan.names}
        self._then(self._half(names, self.calls, self.answers), self._played)

    def _played(self, outcome: Outcome) -> None:
        if not outcome.ok:
            self._end(outcome)
            return
        word, body = self._said(outcome)
        if word == "passed":
            self._end(Outcome(Status.OK, wall_seconds=outcome.wall_seconds, cpu_seconds=outcome.cpu_seconds))
        elif word == "no":
            self._end(Outcome(Status.FAILED, detail=f"not plain data: {body}"[:400]))
        elif self.rounds >= _ROUNDS:
            self._end(Outcome(Status.FAILED, detail=f"the test asks for other calls each of {_ROUNDS} times"))
        else:
            self.calls = _calls(body)
            self.going_on = True
            self.answers = ()
            self._ask()


def _calls(body: Any) -> tuple[Call, ...]:
    return tuple((name, args, keywords) for name, args, keywords in body)


_LENGTHS = {"value": 3, "tree": 3, "refused": 2, "error": 5}


def _shape(found: tuple[object, ...], most: int) -> tuple[dict[str, tuple[Any, ...]], tuple[Any, ...]]:
    """What a candidate's process says, in the shape that it must have. Raises ValueError, TypeError and the like."""
    whole: Any = found
    ((kinds, answers),) = whole
    if type(kinds) is not dict or type(answers) is not list or len(answers) > most:
        raise ValueError("no answers")
    for kind in kinds.values():
        if type(kind) is not tuple or not kind or kind[0] not in ("missing", "module", "value", "object"):
            raise ValueError("no kind")
        if kind[0] in ("module", "value") and len(kind) != 2:
            raise ValueError("no kind")
    for answer in answers:
        if type(answer) is not tuple or type(answer[0]) is not str or len(answer) != _LENGTHS[answer[0]]:
            raise ValueError("no answer")
        if answer[0] == "error":
            bases, arguments, letter, text = answer[1:]
            if [type(bases), type(arguments), type(letter), type(text)] != [tuple, tuple, int, str]:
                raise ValueError("no error")
            if letter not in b"xmef" or not all(type(base) is str for base in bases):
                raise ValueError("no error")
        elif answer[0] == "tree" and (type(answer[1]) is not tuple or not answer[1]):
            raise ValueError("no tree")
    return kinds, tuple(answers)
