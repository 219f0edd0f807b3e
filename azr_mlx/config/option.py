"""One configuration field: its default, what it means, what it may be, and how it is written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from azr_mlx.errors import UsageError


class ConfigError(UsageError):
    """One line: where, which option, what it was given, what it may be."""


@contextmanager
def yaml_errors(where: str) -> Iterator[None]:
    """Within it a text that is not YAML, or is nested too deep to be read, is a ConfigError; `where` names the text."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: is not YAML: {' '.join(str(error).split())}") from None


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] | None = None,
    explained: str = "",
) -> Any:
    """A dataclass field that knows its meaning and its range; `explained` names the page that lists its choices."""
    metadata = {
        "help": help, "low": low, "high": high, "above": above, "below": below, "choices": choices,
        "explained": explained,
    }  # fmt: skip
    if isinstance(default, (list, dict, set)):
        raise TypeError("options are immutable: use a tuple")
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """One leaf of the tree: its dotted key, its type and what it may be."""

    key: str
    type: Any  # int, float, bool, str or tuple[str, ...]
    default: Any
    help: str
    low: float | None
    high: float | None
    above: float | None
    below: float | None
    choices: tuple[Any, ...] | None
    explained: str  # what it may be, with a Markdown link to the page that lists the choices, or ""

    @property
    def allowed(self) -> str:
        """What the value may be, in words."""
        if self.choices is not None:
            listed = ", ".join(str(choice) for choice in self.choices)
            return f"some of {listed}" if self.many else f"one of {listed}"
        if self.many:
            return "a list of words"
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return "text"
        noun = "a whole number" if self.type is int else "a number"
        if self.low is not None and self.high is not None:
            return f"{noun} from {self.low:g} to {self.high:g}"
        limits = {
            "of {:g} or more": self.low,
            "of at most {:g}": self.high,
            "above {:g}": self.above,
            "below {:g}": self.below,
        }
        ends = " and ".join(words.format(end) for words, end in limits.items() if end is not None)
        return f"{noun} {ends}".rstrip()

    @property
    def many(self) -> bool:
        return self.type not in (int, float, bool, str)

    def permits(self, value: Any) -> bool:
        """Whether a value of the right type lies within the limits."""
        if self.choices is not None:
            return all(one in self.choices for one in value) if self.many else value in self.choices
        if self.type not in (int, float):
            return True
        return (
            not (isinstance(value, float) and not math.isfinite(value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*")


def written(value: Any) -> str:
    """A value as it is written in YAML and in messages."""
    if isinstance(value, tuple):
        return f"[{', '.join(written(one) for one in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.lower() != "null"):
        quoted: str = yaml.dump(value, default_style='"', allow_unicode=True, width=math.inf)
        return quoted.rstrip("\n")
    return str(value)
