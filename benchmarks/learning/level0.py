"""Level 0: one natural call or operation a program, for models that are too small for the built-in held-out tasks.

    python benchmarks/learning/level0.py            # writes level0-held-out.jsonl and level0-played.jsonl beside it

48 functions, each with four sets of values as a deduction and as an abduction task. Half of the functions are never
played: they are band 2 of the held-out tasks. The other half is band 1, and is played with four other sets of values.
No task is solved by a guess: the output is none of the arguments, and for an abduction neither the output nor a common
value is an input that gives it; no output is True, False or None, and none occurs more than twice.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from azr_mlx.executor import Executor, Job, values  # noqa: E402
from azr_mlx.executor.literals import parse_arguments  # noqa: E402
from azr_mlx.run.held_out_tasks import COMMON_VALUES  # noqa: E402
from azr_mlx.selfplay.task_buffer import to_row  # noqa: E402
from azr_mlx.types import Case, Kind, Task  # noqa: E402

HELD_OUT, PLAYED = HERE / "level0-held-out.jsonl", HERE / "level0-played.jsonl"
SETS = 4  # of values, held out and again played
DRAWS = 400  # sets of values that are looked at for each function

WORDS = (
    "apple", "river", "stone", "Garden", "Winter", "music", "lemon", "Paper", "silver", "Monday", "bridge", "tiger",
    "Candle", "orange", "forest", "market", "Rocket", "window", "planet", "butter", "Castle",
    "summer", "mirror", "coffee",
)  # fmt: skip
NAMES = ("Alice", "Peter", "Maria", "David", "Laura", "Simon", "Clara", "Jonas", "Helen", "Oscar")

# The arguments of a function by the names of its parameters.
DRAWN: dict[str, Callable[[Random], object]] = {
    "text": lambda rng: rng.choice(WORDS),
    "sentence": lambda rng: " ".join(rng.sample(WORDS, 3)),
    "line": lambda rng: ",".join(rng.sample(WORDS, 3)),
    "name": lambda rng: rng.choice(NAMES),
    "words": lambda rng: rng.sample(WORDS, rng.randint(2, 3)),
    "numbers": lambda rng: rng.sample(range(2, 40), rng.randint(3, 5)),
    "more": lambda rng: rng.sample(range(2, 40), rng.randint(1, 2)),
    "n": lambda rng: rng.randint(11, 60),
    "a": lambda rng: rng.randint(11, 60),
    "b": lambda rng: rng.randint(61, 90),
    "prices": lambda rng: {word: rng.randint(2, 30) for word in rng.sample(WORDS, rng.randint(2, 3))},
}

# Parameters and what is returned. The first of each pair is played, the second never.
FUNCTIONS = (
    ("text", "text.swapcase()"), ("text", "'Re' + text"),
    ("text", "text[::-1]"), ("sentence", "sentence[::-1]"),
    ("sentence", "sentence.split()"), ("line", "line.split(',')"),
    ("numbers", "numbers[0]"), ("words", "words[0]"),
    ("text", "text + '!'"), ("text", "text + '?!'"),
    ("name", "'Hello, ' + name"), ("name", "name + ' Smith'"),
    ("name", "{'name': name}"), ("name", "[name, 'guest']"),
    ("text", "text * 2"), ("numbers", "numbers * 2"),
    ("words", "' '.join(words)"), ("words", "'-'.join(words)"),
    ("text", "text[1:]"), ("text", "text[:-1]"),
    ("numbers", "sum(numbers)"), ("numbers", "max(numbers)"),
    ("text", "(text, 1)"), ("text", "(text, 'end')"),
    ("numbers", "numbers[::-1]"), ("words", "words[::-1]"),
    ("numbers", "numbers[1:]"), ("numbers", "numbers[:-1]"),
    ("numbers", "numbers + [0]"), ("numbers", "[0] + numbers"),
    ("numbers, more", "numbers + more"), ("words, text", "words + [text]"),
    ("numbers", "min(numbers)"), ("numbers", "numbers[-1]"),
    ("n", "(n, n)"), ("n", "[n]"),
    ("n", "n + 1"), ("n", "n + 10"),
    ("n", "n * 2"), ("n", "-n"),
    ("a, b", "[a, b]"), ("a, b", "(b, a)"),
    ("n", "divmod(n, 10)"), ("n", "'No. ' + str(n)"),
    ("prices", "list(prices.items())"), ("prices", "list(prices.values())"),
    ("n", "{'count': n}"), ("text", "{text: len(text)}"),
)  # fmt: skip


def source(parameters: str, returned: str) -> str:
    return f"def f({parameters}):\n    return {returned}\n"


def drawn(parameters: str, returned: str) -> Iterator[str]:
    """Different argument texts of a function, the same on every machine."""
    seen = set()
    for number in range(DRAWS):
        rng = Random(f"{parameters}/{returned}/{number}")
        text = ", ".join(repr(DRAWN[name](rng)) for name in parameters.split(", "))
        if text not in seen:
            seen.add(text)
            yield text


def guessed(executor: Executor, program: str, given: str, output: object) -> bool:
    """Whether a guess solves the task, as a deduction or as an abduction."""
    if any(values.equal(one, output) for one in parse_arguments(given)[0]):
        return True
    tries = [executor.submit(Job(program, (text,))) for text in (repr(output), *COMMON_VALUES)]
    return any(one.ok and values.equal(one.values[0], output) for one in (future.result() for future in tries))


def main() -> None:
    # By file, then by set of values: the first tasks of each kind are of different functions.
    rows: dict[Path, list[list[str]]] = {path: [[] for _ in range(SETS)] for path in (HELD_OUT, PLAYED)}
    outputs: Counter[str] = Counter()
    with Executor() as executor:
        for number, (parameters, returned) in enumerate(FUNCTIONS):
            program, never = source(parameters, returned), number % 2 == 1
            wanted = [HELD_OUT] * SETS + ([] if never else [PLAYED] * SETS)
            for given in drawn(parameters, returned):
                if not wanted:
                    break
                outcome = executor.submit_check(Job(program, (given,))).result()
                output = repr(outcome.values[0])
                if outputs[output] == 2 or guessed(executor, program, given, outcome.values[0]):
                    continue
                outputs[output] += 1
                file = wanted.pop(0)
                place = SETS - 1 - wanted.count(file)
                for kind in (Kind.DEDUCTION, Kind.ABDUCTION):
                    task = to_row(Task(kind, program, (Case(given, output),)))
                    rows[file][place].append(json.dumps(task | {"band": 2 if never else 1}))
            if wanted:
                sys.exit(f"{returned}: {len(wanted)} sets of values are missing")
    for path, sets in rows.items():
        lines = [line for part in sets for line in part]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{path.name}: {len(lines)} tasks")


if __name__ == "__main__":
    main()
