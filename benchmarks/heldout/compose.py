"""Programs put together from parts: pipelines, loops with a state, recursions, tables, dicts that grow, searches.

    program = compose(Random(7))        # source, hint, and the sources of its arguments

The parts are chosen so that a program reads like one that somebody wanted. Whether each of its parts matters is not
known here: the build asks, by leaving one out at a time (`Composed.parts`), and keeps no program with an idle part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from benchmarks.heldout import inputs as i


@dataclass(frozen=True)
class Composed:
    """A program, what it does in words, what draws its arguments, and the program without each of its parts."""

    source: str
    hint: str
    arguments: Callable[[Random], str]
    parts: tuple[str, ...]


# Pipelines: values of one type become values of another -----------------------------------------------------------

_ONE, _MANY, _TEXT, _WORDS, _COUNTS, _PAIRS = "n", "numbers", "text", "words", "counts", "pairs"

# (from, to): (expression over {v} with constants {a} < {b}, what it does in words)
_STAGES: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    (_MANY, _MANY): (
        ("[n for n in {v} if n % {a} == {c}]", "keeps the numbers with remainder {c} when divided by {a}"),
        ("[n for n in {v} if n > {b}]", "keeps the numbers above {b}"),
        ("[n * {a} for n in {v}]", "multiplies every number by {a}"),
        ("[n * n - {b} for n in {v}]", "squares every number and takes {b} away"),
        ("[{b} - n for n in {v}]", "takes every number from {b}"),
        ("[n // {a} for n in {v}]", "divides every number by {a}, without the rest"),
        ("[n + k for k, n in enumerate({v})]", "adds its place to every number, counted from 0"),
        ("[n * k for k, n in enumerate({v}, 1)]", "multiplies every number by its place, counted from 1"),
        ("[x + y for x, y in zip({v}, {v}[1:])]", "adds neighbours"),
        ("[max(x, y) for x, y in zip({v}, {v}[1:])]", "keeps the larger of two neighbours"),
        ("[x * y for x, y in zip({v}, {v}[::-1])]", "multiplies each number by its mirror image"),
        ("[n for k, n in enumerate({v}) if n not in {v}[:k]]", "drops repeated numbers"),
        ("[n if n % 2 else n // 2 for n in {v}]", "halves the even numbers"),
        ("[n + {b} if n < {b} else n - {b} for n in {v}]", "moves every number {b} towards or past {b}"),
        ("sorted({v})", "sorts"),
        ("sorted({v}, key=lambda n: (n % {a}, n))", "sorts by the remainder of {a}, then by size"),
        ("{v}[{a}:] + {v}[:{a}]", "moves the first {a} to the end"),
        ("{v}[::-1]", "turns around"),
        ("{v}[::{a}]", "keeps every number whose place is a multiple of {a}"),
        ("{v} + [sum({v})]", "puts the sum at the end"),
        ("[min({v})] + {v}", "puts the smallest in front"),
        ("[sum(map(int, str(abs(n)))) for n in {v}]", "takes the sum of digits of every number"),
    ),
    (_MANY, _ONE): (
        ("sum({v})", "sums"),
        ("sum({v}[::2]) - sum({v}[1::2])", "adds and subtracts by turns"),
        ("max({v}) * len({v})", "multiplies the largest by how many there are"),
        ("max({v}) - min({v})", "takes the distance of the largest and the smallest"),
        ("sum(n > {b} for n in {v}) * {a} + len({v})", "counts those above {b} {a} times, and all once"),
        ("{v}[0] * {v}[-1]", "multiplies the first and the last"),
        ("sorted({v})[len({v}) // 2] + {b}", "takes the middle one by size and adds {b}"),
        ("sum(x < y for x, y in zip({v}, {v}[1:])) + max({v})", "counts the rises and adds the largest"),
    ),
    (_MANY, _TEXT): (
        ("'-'.join(str(n) for n in {v})", "joins the numbers with dashes"),
        ("''.join(chr(97 + n % 26) for n in {v})", "turns the numbers into letters"),
        ("''.join('#' if n % 2 else '.' for n in {v}) + str(len({v}))", "draws the odd ones, and says how many"),
        ("'<'.join(str(n) for n in sorted({v}))", "writes the numbers in their order"),
    ),
    (_MANY, _COUNTS): (
        ("{{n: {v}.count(n) for n in {v}}}", "counts every number"),
        ("{{n: n * {a} for n in {v} if n > {a}}}", "maps what is above {a} to {a} times as much"),
        ("{{k: n for k, n in enumerate({v}) if n % {a}}}", "maps places to the numbers that {a} does not divide"),
    ),
    (_MANY, _PAIRS): (
        ("[divmod(n, {a}) for n in {v}]", "divides by {a} with remainder"),
        ("list(zip({v}, sorted({v})))", "pairs the numbers with the same ones sorted"),
        ("[(n, str(n)[::-1]) for n in {v}]", "pairs the numbers with their digits turned around"),
    ),
    (_TEXT, _TEXT): (
        ("{v}[::-1]", "reads from the end"),
        ("{v}[{a}:] + {v}[:{a}].upper()", "moves the first {a} letters to the end, as capitals"),
        ("''.join(c for c in {v} if c not in 'aeiou')", "drops the vowels"),
        ("''.join(c + c if c in 'aeiou' else c for c in {v})", "doubles the vowels"),
        ("''.join(sorted({v}))", "sorts the letters"),
        ("''.join(c.upper() if k % {a} == 0 else c for k, c in enumerate({v}))", "makes every {a}th letter a capital"),
        ("{v}.replace({v}[0], '{s}')", "writes {s} for the first letter wherever it stands"),
        ("{v}[:{a}] + '{s}' + {v}[{a}:]", "puts {s} after {a} letters"),
        ("{v}[::2] + {v}[1::2]", "reads the even places, then the odd ones"),
        ("''.join(x + y for x, y in zip({v}, {v}[::-1]))[:{b}]", "mixes in the mirror image, up to {b} letters"),
        ("{v}.strip({v}[0]) + {v}[-1] * {a}", "takes the first letter from both ends and repeats the last"),
        ("''.join(c for k, c in enumerate({v}) if c not in {v}[:k])", "drops repeated letters"),
        ("''.join(min(x, y) for x, y in zip({v}, {v}[1:]))", "keeps the earlier of two neighbours"),
    ),
    (_TEXT, _MANY): (
        ("[ord(c) - 97 for c in {v} if c.islower()]", "gives places in the alphabet, from 0"),
        ("[k for k, c in enumerate({v}) if c in 'aeiou']", "gives the places of the vowels"),
        ("[{v}.count(c) for c in {v}]", "counts for each letter how often it occurs"),
        ("[{v}.find(c) for c in {v}[::-1]]", "finds the first place of each letter, from the end"),
        ("[len(part) for part in {v}.split({v}[1])]", "gives the lengths between places of the second letter"),
    ),
    (_TEXT, _ONE): (
        ("len({v}) * {a} + {v}.count({v}[0])", "takes {a} times the length, and counts the first letter"),
        ("sum(c in 'aeiou' for c in {v}) * 10 + len(set({v}))", "counts vowels by tens and different letters by ones"),
        ("ord(max({v})) - ord(min({v}))", "takes the distance of the last and the first letter of the alphabet"),
    ),
    (_TEXT, _WORDS): (
        ("[{v}[k : k + {a}] for k in range(0, len({v}), {a})]", "cuts into pieces of {a}"),
        ("[{v}[:k] for k in range(1, len({v}), 2)]", "lists every second beginning"),
        ("[c * {v}.count(c) for c in sorted(set({v}))]", "lists the letters as often as they occur"),
        ("{v}.split({v}[{a}])", "cuts at the letter in place {a}"),
    ),
    (_TEXT, _COUNTS): (
        ("{{c: {v}.count(c) for c in sorted({v})}}", "counts the letters"),
        ("{{c: {v}.rfind(c) for c in {v}}}", "maps letters to their last place"),
        ("{{c: k for k, c in enumerate({v}) if k % {a}}}", "maps letters to their last place that {a} does not divide"),
    ),
    (_WORDS, _WORDS): (
        ("[w for w in {v} if len(w) > {b2}]", "keeps words of more than {b2} letters"),
        ("[w[0].upper() + w[1:] for w in {v}]", "capitalises"),
        ("[w[::-1] for w in {v}]", "turns every word around"),
        ("[w + str(len(w)) for w in {v}]", "writes its length behind every word"),
        ("[x[0] + y[1:] for x, y in zip({v}, {v}[1:] + {v}[:1])]", "hands first letters on to the next word"),
        ("[w[:{a}] for w in {v}]", "keeps {a} letters of each"),
        ("sorted({v}, key=lambda w: w[-1])", "sorts by the last letter"),
        ("sorted({v}, key=len)", "sorts by length"),
        ("[w for k, w in enumerate({v}) if k % 2 == 0]", "keeps the words in even places"),
        ("[w.replace('e', '{s}') for w in {v}]", "writes {s} for e"),
    ),
    (_WORDS, _TEXT): (
        ("' '.join({v})", "makes a sentence"),
        ("''.join(w[-1] for w in {v})", "joins the last letters"),
        ("'{s}'.join(w[:{a}] for w in {v})", "joins the first {a} letters of each with {s}"),
        ("max({v}, key=len) + min({v})", "joins the longest word and the first of the alphabet"),
        ("''.join(w[k % len(w)] for k, w in enumerate({v}))", "takes one letter of each, always one further on"),
    ),
    (_WORDS, _MANY): (
        ("[len(w) for w in {v}]", "gives the lengths"),
        ("[sum(c in 'aeiou' for c in w) for w in {v}]", "counts the vowels of each"),
        ("[ord(w[0]) - ord(w[-1]) for w in {v}]", "gives the distance of first and last letter"),
    ),
    (_WORDS, _COUNTS): (
        ("{{w[0]: len(w) for w in {v}}}", "maps first letters to lengths"),
        ("{{w: k * {a} for k, w in enumerate({v})}}", "maps each word to {a} times its place"),
        ("{{len(w): w for w in {v}}}", "maps lengths to words"),
    ),
    (_COUNTS, _PAIRS): (
        ("sorted({v}.items(), key=lambda pair: -pair[1])", "sorts by value, the largest first"),
        ("[(value, key) for key, value in {v}.items() if value % {a}]", "turns pairs around where {a} does not divide"),
        ("sorted((value * {a}, key) for key, value in {v}.items())", "sorts by value, {a} times as large"),
    ),
    (_COUNTS, _WORDS): (
        ("[key for key in {v} if {v}[key] > {b}]", "keeps the keys with more than {b}"),
        ("[key * ({v}[key] % 3 + 1) for key in {v}]", "repeats the keys"),
        ("[f'{{key}}{{value}}' for key, value in sorted({v}.items())]", "writes keys with their values, sorted"),
    ),
    (_COUNTS, _MANY): (
        ("[value + len(key) for key, value in {v}.items()]", "adds the length of its key to every value"),
        ("sorted({v}.values())[:{a}]", "takes the {a} smallest values"),
        ("[{v}[key] for key in sorted({v})]", "gives the values in the order of the keys"),
    ),
    (_COUNTS, _COUNTS): (
        ("{{key: value - {a} for key, value in {v}.items() if value > {b}}}", "takes {a} from what is above {b}"),
        ("{{key: value * len(key) for key, value in {v}.items()}}", "multiplies by the length of the key"),
        ("{{key[::-1]: value + {b} for key, value in {v}.items()}}", "turns the keys around and adds {b}"),
    ),
    (_COUNTS, _ONE): (
        ("max({v}.values()) * len({v})", "multiplies the largest value by the number of keys"),
        ("sum({v}[key] for key in {v} if 'a' in key) - {b}", "sums where the key has an a, and takes {b} away"),
    ),
    (_COUNTS, _TEXT): (
        ("max({v}, key={v}.get) + str(min({v}.values()))", "joins the key of the largest and the smallest value"),
        ("''.join(key[0] * {v}[key] for key in sorted({v}))[:{b}]", "draws a bar of letters for each key, up to {b}"),
    ),
}  # fmt: skip

_SOURCES: dict[str, tuple[i.Source, ...]] = {
    _MANY: (i.numbers(4, 6, 1, 12), i.numbers(4, 6, 2, 30, unique=True), i.pool(5, 7, 1, 2, 3, 4, 5, 6)),
    _TEXT: (i.word, i.word, i.letters(6, 9, "abcde")),
    _WORDS: (i.words(3, 5), i.words(3, 5, i.short_word), i.words(3, 4, i.name)),
    _COUNTS: (i.mapping(i.words(3, 4), i.integer(1, 9)), i.mapping(i.words(3, 4, i.short_word), i.integer(2, 15))),
}
_NAMES: dict[str, tuple[str, ...]] = {
    _MANY: ("numbers", "values", "items"),
    _TEXT: ("text", "word", "line"),
    _WORDS: ("words", "names", "parts"),
}
_NAMES |= {_COUNTS: ("counts", "table", "stock"), _PAIRS: ("pairs",), _ONE: ("result",)}


def pipeline(rng: Random, stages: int) -> Composed:
    """`stages` stages, each a line; the last one is returned."""
    while True:
        kind = rng.choice(list(_SOURCES))
        start, path = kind, []
        for k in range(stages):
            ends = [to for (come, to) in _STAGES if come == kind and (k == stages - 1 or to not in (_ONE, _PAIRS))]
            to = rng.choice(ends)
            path.append((kind, to, rng.choice(_STAGES[kind, to])))
            kind = to
        if len({expression for _, _, (expression, _) in path}) == len(path):
            break
    parameter = rng.choice(_NAMES[start])
    constants = [_constants(rng) for _ in path]

    def written(left_out: int | None) -> str:
        lines, held, holds = [], parameter, start
        for k, (come, to, (expression, _)) in enumerate(path):
            if k == left_out:
                continue
            assert come == holds
            value = expression.format(v=held, **constants[k])
            last = k == max(j for j in range(len(path)) if j != left_out)
            if last:
                lines.append(f"return {value}")
            else:
                held = held if to == holds else _NAMES[to][0] if _NAMES[to][0] != parameter else _NAMES[to][1]
                lines.append(f"{held} = {value}")
            holds = to
        return _function(parameter, lines)

    parts = [written(k) for k, (come, to, _) in enumerate(path) if come == to and len(path) > 1]
    hints = [words.format(**constants[k]) for k, (_, _, (_, words)) in enumerate(path)]
    return Composed(written(None), _sentence(hints), i.call(rng.choice(_SOURCES[start])), tuple(parts))


def _constants(rng: Random) -> dict[str, object]:
    a = rng.randint(2, 4)
    return {"a": a, "b": rng.randint(5, 12), "b2": rng.randint(3, 5), "c": rng.randrange(a), "s": rng.choice("*_+0")}


def _function(parameters: str, lines: list[str]) -> str:
    return f"def f({parameters}):\n" + "".join(f"    {line}\n" for line in lines)


def _sentence(parts: list[str]) -> str:
    text = ", then ".join(parts)
    return text[0].upper() + text[1:] + "."


# Loops with a state ---------------------------------------------------------------------------------------------------

# (condition, in words), (what is done, in words); x is the item, total and kept are the state.
_NUMBER_TESTS = (
    ("x % {a} == 0", "multiples of {a}"), ("x > {b}", "numbers above {b}"), ("x > total", "numbers above the total"),
    ("x in kept", "numbers that were kept before"), ("len(kept) < {a}", "while fewer than {a} are kept, numbers"),
    ("(total + x) % 2 == 0", "numbers that make the total even"), ("kept and x < kept[-1]", "falling numbers"),
)  # fmt: skip
_NUMBER_ACTS = (
    ("total += x", "are added"), ("total -= {a}", "cost {a}"), ("total = max(total, x * {a})", "set a new height"),
    ("kept.append(x)", "are kept"), ("kept = [x] + kept", "are kept in front"), ("kept = kept[1:] + [total]", "push"),
    ("total = total * 2 + x % 2", "are written as a bit"), ("kept.append(x - total)", "leave their difference"),
)  # fmt: skip
_LETTER_TESTS = (
    ("x in 'aeiou'", "vowels"), ("x in kept", "letters seen before"), ("x > 'm'", "letters after m"),
    ("kept.endswith(x)", "letters that come twice"), ("total % {a} == 0", "while {a} divides the count, letters"),
    ("len(kept) > {a}", "when more than {a} are kept, letters"),
)  # fmt: skip
_LETTER_ACTS = (
    ("kept += x", "are kept"), ("kept = x + kept", "are kept in front"), ("kept = kept[::-1] + x", "turn all around"),
    ("total += 1", "are counted"), ("total += ord(x) - 96", "count by their place in the alphabet"),
    ("kept += x.upper()", "are kept as capitals"), ("kept = kept[1:] + str(total)", "push the count in"),
    ("kept = kept.replace(x, '*') + x", "cover their likes"),
)  # fmt: skip
_RETURNS = ("(total, kept)", "[kept, total]", "(kept, total, len(kept))", "{'total': total, 'kept': kept}")


def scan(rng: Random, branches: int) -> Composed:
    """A loop over numbers or letters with two state variables and an if/elif/else of `branches` branches."""
    over_numbers = rng.random() < 0.5
    tests, acts = (_NUMBER_TESTS, _NUMBER_ACTS) if over_numbers else (_LETTER_TESTS, _LETTER_ACTS)
    chosen, done = rng.sample(tests, branches - 1), rng.sample(acts, branches)
    constants = [_constants(rng) for _ in range(branches)]
    parameter = "numbers" if over_numbers else "text"
    ending = rng.choice(_RETURNS)

    def written(left_out: int | None) -> str:
        lines = ["total = 0", f"kept = {'[]' if over_numbers else repr('')}", f"for x in {parameter}:"]
        for k in range(branches):
            head = "else:" if k == branches - 1 else f"{'el' if k else ''}if {chosen[k][0].format(**constants[k])}:"
            lines += [f"    {head}", f"        {done[k][0].format(**constants[k]) if k != left_out else 'pass'}"]
        return _function(parameter, [*lines, f"return {ending}"])

    hints = [
        f"{who} {what}".format(**values)
        for who, what, values in zip(
            [*(t[1] for t in chosen), "the others"], [d[1] for d in done], constants, strict=True
        )
    ]
    source = rng.choice(_SOURCES[_MANY if over_numbers else _TEXT])
    return Composed(written(None), _sentence(hints), i.call(source), tuple(written(k) for k in range(branches)))


# Recursions -----------------------------------------------------------------------------------------------------------

# (parameters, source of arguments, base test, base value, (case test, value) ..., otherwise, hint)
_RECURSIONS = (
    ("numbers", "len(numbers) < 2", ("numbers", "[n + {a} for n in numbers]", "numbers * {a}"),
     ("numbers[0] > numbers[-1]", "numbers[0] % 2 == 0", "sum(numbers) % {a} == 0", "len(numbers) % 2 == 0"),
     ("[numbers[0]] + f(numbers[1:])", "f(numbers[1:]) + [numbers[0]]", "f(numbers[::-1][1:]) + numbers[-1:]",
      "[numbers[0] + numbers[1]] + f(numbers[2:])", "f(numbers[:-1]) + [len(numbers)]",
      "f(numbers[1:-1]) + [numbers[0]]")),
    ("text", "len(text) < {a}", ("text.upper()", "text + '!'", "'(' + text + ')'"),
     ("text[0] > text[-1]", "text[0] in 'aeiou'", "text[0] in text[1:]", "len(text) % 2"),
     ("text[0] + f(text[1:])", "f(text[1:]) + text[0]", "text[-1] + f(text[:-1])", "f(text[2:]) + text[:2]",
      "text[0] + f(text[1:-1]) + text[-1]", "f(text[1:]) + str(len(text))", "'-' + f(text[1:])")),
    ("n", "n < {a}", ("[n]", "[n + 1]", "[0]"),
     ("n % 3 == 0", "n % 2 == 0", "n > 20", "n % 10 < 5"),
     ("f(n // 2) + [n]", "[n % 10] + f(n // 3)", "f(n - 5) + [n % 4]", "[n] + f(n // 4)", "f(n // 3)[::-1] + [1]",
      "f(n - 7)[1:] + [n]", "f(n // 2) + f(n // 5)")),
)  # fmt: skip


def recursion(rng: Random, cases: int) -> Composed:
    """A function that calls itself on something smaller, in one of `cases` ways."""
    parameter, base, values, tests, ways = rng.choice(_RECURSIONS)
    constants = _constants(rng)
    value, chosen, done = rng.choice(values), rng.sample(tests, cases - 1), rng.sample(ways, cases)

    def written(left_out: int | None) -> str:
        lines = [f"if {base}:", f"    return {value}"]
        for k in range(cases - 1):
            if k != left_out:
                lines += [f"if {chosen[k]}:", f"    return {done[k]}"]
        return _function(parameter, [*lines, f"return {done[-1]}"]).format(**constants)

    source = {"numbers": i.numbers(4, 6, 1, 12), "text": i.word, "n": i.integer(12, 70)}[parameter]
    what = {"numbers": "a list", "text": "a text", "n": "a number"}[parameter]
    ways_said = f"; {cases} cases" if cases > 1 else ""
    hint = f"Takes {what} apart, step by step, until little is left{ways_said}."
    return Composed(written(None), hint, i.call(source), tuple(written(k) for k in range(cases - 1)))


# Tables, dicts that grow, searches -----------------------------------------------------------------------------------


def table(rng: Random) -> Composed:
    """Two nested loops with a condition."""
    cell, said = rng.choice((
        ("x * y", "products"), ("x + {a} * y", "sums"), ("abs(x - y)", "distances"), ("max(x, y) - 1", "larger ones"),
        ("f'{{x}}{{y}}'", "digits side by side"), ("(x, y)", "pairs"), ("x * 10 + y", "two-digit numbers"),
    ))  # fmt: skip
    test, when = rng.choice((
        ("x < y", "x is smaller"), ("(x + y) % {a} == 0", "{a} divides the sum"), ("x % {a} != y % {a}",
        "the remainders of {a} differ"), ("x != y and x * y < {b}0", "they differ and the product is below {b}0"),
        ("abs(x - y) > 1", "they are no neighbours"),
    ))  # fmt: skip
    shape, ending = rng.choice((
        ("for y in range(1, n + 1)", "found"), ("for y in range(x, n + 1)", "found[::-1]"),
        ("for y in range(1, n + 1, 2)", "found[-{b}:]"), ("for y in range(x + 1)", "[len(found), found[-1:]]"),
    ))  # fmt: skip
    constants = _constants(rng)

    def written(condition: bool) -> str:
        lines = ["found = []", "for x in range(1, n + 1):", f"    {shape}:"]
        lines += (
            [f"        if {test}:", f"            found.append({cell})"]
            if condition
            else [f"        found.append({cell})"]
        )
        return _function("n", [*lines, f"return {ending}"]).format(**constants)

    hint = f"Collects {said} of numbers x and y up to n, where {when}.".format(**constants)
    return Composed(written(True), hint, i.call(i.integer(3, 5)), (written(False),))


def grouping(rng: Random) -> Composed:
    """A dict that grows in a loop, and what is made of it."""
    what, source, keys = rng.choice((
        ("words", i.words(4, 6), ("len(item)", "item[0]", "item[-1]", "item[1] in 'aeiou'", "len(set(item))")),
        ("numbers", i.numbers(5, 8, 1, 30), ("item % {a}", "item // {b}", "item > {b}", "str(item)[-1]")),
    ))  # fmt: skip
    key = rng.choice(keys)
    line, said = rng.choice((
        ("groups.setdefault(key, []).append(item)", "the items of each group"),
        ("groups[key] = groups.get(key, 0) + 1", "how many each group has"),
        ("groups[key] = max(groups.get(key, item), item)", "the largest of each group"),
        ("groups[key] = item + groups[key] if key in groups else item", "each group added up, the latest in front"),
        ("groups[key] = [item] + groups.get(key, [])[:1]", "the latest two of each group"),
    ))  # fmt: skip
    ending, so = rng.choice((
        ("groups", ""), ("sorted(groups.items(), key=lambda pair: str(pair[0]))", ", sorted by key"),
        ("list(groups.values())", ", without the keys"), ("[groups[key] for key in reversed(groups)]", ", last first"),
        ("{{str(key): groups[key] for key in groups}}", ", with keys as text"),
    ))  # fmt: skip
    constants = _constants(rng)
    lines = ["groups = {{}}", f"for item in {what}:", f"    key = {key}", f"    {line}"]
    source_text = _function(what, [*lines, f"return {ending}"]).format(**constants)
    return Composed(source_text, f"Groups {what} by a property; gives {said}{so}.", i.call(source), ())


def countdown(rng: Random) -> Composed:
    """A while loop that changes a number until it is small, and writes down what it meets."""
    test, when = rng.choice((("n % 2 == 0", "even"), ("n % 3 == 0", "a multiple of 3"), ("n > {b}0", "above {b}0"),
                             ("n % 10 > 4", "high in its last digit")))  # fmt: skip
    shrink = rng.sample(("n //= 2", "n -= {b}", "n = n // 3 + 1", "n -= n % 10 + 1", "n = n // 2 - 1", "n -= {a}"), 2)
    note = rng.choice(("seen.append(n)", "seen.append(n % {b})", "seen.insert(0, n)", "seen = [n] + seen[:{a}]",
                       "seen.append(str(n)[0])", "seen.append(n * {a} - len(seen))"))  # fmt: skip
    ending = rng.choice(("seen", "(len(seen), seen[-2:])", "seen[::2]", "[seen[0], n, len(seen)]"))
    constants = _constants(rng)

    def written(left_out: int | None) -> str:
        ways = [shrink[1] if left_out == 0 else shrink[0], shrink[0] if left_out == 1 else shrink[1]]
        lines = [
            "seen = []",
            "while n > {a}:",
            f"    if {test}:",
            f"        {ways[0]}",
            "    else:",
            f"        {ways[1]}",
        ]
        return _function("n", [*lines, f"    {note}", f"return {ending}"]).format(**constants)

    hint = f"Makes a number smaller until it is at most {{a}}, in one way when it is {when}, and says what it met."
    return Composed(written(None), hint.format(**constants), i.call(i.integer(25, 99)), (written(0), written(1)))


def compose(rng: Random) -> Composed:
    """One program of any kind."""
    make: Callable[[Random], Composed] = rng.choice((
        lambda r: pipeline(r, 1), lambda r: pipeline(r, 2), lambda r: pipeline(r, 2), lambda r: pipeline(r, 3),
        lambda r: pipeline(r, 3), lambda r: scan(r, 2), lambda r: scan(r, 3), lambda r: scan(r, 4),
        lambda r: recursion(r, 2), lambda r: recursion(r, 3), table, grouping, countdown,
    ))  # fmt: skip
    return make(rng)
