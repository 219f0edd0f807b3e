"""Arguments for the programs: small, readable values, drawn with a seed.

A source draws the text of one call's arguments, for example "'olive', 3". Sources of several arguments are written with
`call`. The same seed gives the same texts on every machine and Python version.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

Source = Callable[[Random], Any]  # draws one value


def _list(text: str) -> list[str]:
    return text.split()


WORDS = _list(
    "anchor apple banana basket bottle bridge button candle carpet cheese cherry circle coffee copper cotton desert "
    "dinner dragon falcon feather flower forest garden ginger guitar hammer harbor hollow island jacket jungle "
    "kettle kitten ladder lemon letter lizard mango marble meadow melon mirror moon needle oboe ocean olive orange "
    "otter paper pebble pepper pigeon pillow planet pocket potato puzzle quartz rabbit raccoon ribbon river rocket "
    "saddle sailor shadow silver socket spider spoon squirrel summer teapot tennis thunder ticket tiger tomato "
    "tunnel turtle umbrella valley velvet violin wagon walnut willow window winter yellow zebra"
)
SHORT = _list("ant bat bee cat cow dog elk fox hen owl pig ram rat yak ape cod eel emu gnu jay")
NAMES = _list("Ada Alan Bela Chen Dana Edsger Femi Grace Hedy Ines John Katya Lena Mei Nils Omar Pia Radia Sofia Tim")
CITIES = _list("Lima Oslo Rome Cairo Quito Tokyo Paris Delhi Accra Hanoi Minsk Sofia")


def integer(low: int, high: int) -> Source:
    return lambda rng: rng.randint(low, high)


def one_of(*values: Any) -> Source:
    return lambda rng: rng.choice(values)


def numbers(fewest: int, most: int, low: int = 1, high: int = 20, unique: bool = False) -> Source:
    """A list of integers."""

    def draw(rng: Random) -> list[int]:
        count = rng.randint(fewest, most)
        return rng.sample(range(low, high + 1), count) if unique else [rng.randint(low, high) for _ in range(count)]

    return draw


def ascending(fewest: int, most: int, low: int = 1, high: int = 30) -> Source:
    """A sorted list of different integers."""
    return lambda rng: sorted(numbers(fewest, most, low, high, unique=True)(rng))


def pool(fewest: int, most: int, *values: Any) -> Source:
    """A list drawn from few values, so that some of them come again."""
    return lambda rng: [rng.choice(values) for _ in range(rng.randint(fewest, most))]


def word(rng: Random) -> str:
    return rng.choice(WORDS)


def short_word(rng: Random) -> str:
    return rng.choice(SHORT)


def name(rng: Random) -> str:
    return rng.choice(NAMES)


def words(fewest: int, most: int, pick: Source = word) -> Source:
    """A list of different words."""

    def draw(rng: Random) -> list[str]:
        found: list[str] = []
        count = rng.randint(fewest, most)
        while len(found) < count:
            one = pick(rng)
            if one not in found:
                found.append(one)
        return found

    return draw


def sentence(fewest: int, most: int, pick: Source = word) -> Source:
    return lambda rng: " ".join(words(fewest, most, pick)(rng))


def letters(fewest: int, most: int, alphabet: str) -> Source:
    """A string over a small alphabet."""
    return lambda rng: "".join(rng.choice(alphabet) for _ in range(rng.randint(fewest, most)))


def runs(fewest: int, most: int, alphabet: str, longest: int = 4) -> Source:
    """A string of runs of equal letters, such as 'aaabcc'."""

    def draw(rng: Random) -> str:
        text = ""
        for _ in range(rng.randint(fewest, most)):
            text += rng.choice([c for c in alphabet if not text.endswith(c)]) * rng.randint(1, longest)
        return text

    return draw


def mapping(keys: Source, value: Source) -> Source:
    """A dict from each drawn key to a drawn value."""
    return lambda rng: {key: value(rng) for key in keys(rng)}


def listing(fewest: int, most: int, item: Source) -> Source:
    return lambda rng: [item(rng) for _ in range(rng.randint(fewest, most))]


def pair(first: Source, second: Source) -> Source:
    return lambda rng: (first(rng), second(rng))


def grid(rows: Source, columns: Source, cell: Source) -> Source:
    """A list of rows of the same length."""

    def draw(rng: Random) -> list[list[Any]]:
        height, width = rows(rng), columns(rng)
        return [[cell(rng) for _ in range(width)] for _ in range(height)]

    return draw


def tree(depth: int, leaf: Source) -> Source:
    """A list of leaves and of such lists, at most `depth` deep."""

    def draw(rng: Random, left: int = depth) -> list[Any]:
        return [draw(rng, left - 1) if left > 1 and rng.random() < 0.4 else leaf(rng) for _ in range(rng.randint(1, 3))]

    return draw


def call(*arguments: Source) -> Callable[[Random], str]:
    """The text of a call's arguments, one source for each."""
    return lambda rng: ", ".join(repr(argument(rng)) for argument in arguments)
