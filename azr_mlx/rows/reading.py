"""Rows of a file: prompts with whatever columns their rewards need. A row that is no row is counted, and left out.

table = read("rows.jsonl")
train, held_out = split(table.rows, share=0.1, most=200)
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr_mlx import paths
from azr_mlx.errors import UsageError
from azr_mlx.executor import boundary

Message = dict[str, str]  # {"role": ..., "content": ...}
Text = str | list[Message]  # what TRL calls a standard or a conversational prompt

# What TRL hands a reward function under these names is not a column.
RESERVED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
_ROLES = ("system", "user", "assistant", "tool", "developer")


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and its columns. `number` is its place in the file, from 1; `columns` does not hold the prompt."""

    number: int
    prompt: Text
    columns: Mapping[str, Any]

    @property
    def conversational(self) -> bool:
        return not isinstance(self.prompt, str)

    def completion(self, text: str) -> Text:
        """A completion in the form that TRL hands to reward functions: text, or one message of the assistant."""
        return [{"role": "assistant", "content": text}] if self.conversational else text


@dataclass
class Table:
    """The rows of a file that can be used, why others cannot, and a digest of the former."""

    name: str
    rows: list[Row] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    first_refused: dict[str, int] = field(default_factory=dict)  # the number of the first row with that fault

    @property
    def columns(self) -> list[str]:
        """Names of the columns that some row has, the prompt left out."""
        return list(dict.fromkeys(name for row in self.rows for name in row.columns))

    @property
    def digest(self) -> str:
        text = json.dumps([[row.number, row.prompt, row.columns] for row in self.rows], default=str, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def refuse(self, number: int, why: str) -> None:
        self.refused[why] += 1
        self.first_refused.setdefault(why, number)

    def keep_if(self, fits: Callable[[Row], bool], why: str) -> None:
        """Leave out the rows that do not fit."""
        for row in self.rows:
            if not fits(row):
                self.refuse(row.number, why)
        self.rows = [row for row in self.rows if fits(row)]

    def complaints(self) -> list[str]:
        """A line for each kind of fault: how many rows have it, and the first of them."""
        return [
            f"{self.name}: {number} of {len(self.rows) + self.refused.total()} rows are left out: {why} "
            f"(first: row {self.first_refused[why]})"
            for why, number in self.refused.most_common()
        ]


def read(source: str, *, prompt: str = "prompt", split: str = "train") -> Table:
    """The rows of a JSONL, JSON, CSV or Parquet file, or of a `datasets` name ("owner/name" or "owner/name:config").

    prompt: the name of the column that holds the prompt, text or a list of messages.
    Raises UsageError when nothing is there, when the file is of another kind, or when no row can be used.
    """
    path = paths.resolve_existing(source)
    table = Table(paths.display_path(path) if path is not None else source)
    for number, row in enumerate(_raw(source, path, split), 1):
        found = _row(number, row, prompt)
        if isinstance(found, str):
            table.refuse(number, found)
        else:
            table.rows.append(found)
    if not table.rows:
        faults = "; ".join(f"{why} {number}" for why, number in table.refused.most_common(3)) or "it is empty"
        raise UsageError(f"data.path: {table.name} has no row that can be used: {faults}")
    return table


def _raw(source: str, path: Path | None, split: str) -> Iterable[Any]:
    """What stands in each row; a line that is no JSON is None."""
    if path is None:
        if Path(source).suffix.lower() in _READERS:
            raise UsageError(f"data.path: there is no file {source}")
        return _from_datasets(source, split)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        kinds = ", ".join(_READERS)
        raise UsageError(f"data.path: {path} is of no kind that is read: use {kinds} or the name of a data set")
    try:
        return list(reader(path))
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise UsageError(f"data.path: {path} cannot be read: {error}") from None


def _jsonl(path: Path) -> Iterator[Any]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _json(path: Path) -> Iterator[Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(found, dict):  # {"data": [...]} and the like
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else None
    if not isinstance(found, list):
        raise ValueError("it must hold a list of objects")
    yield from found


def _csv(path: Path) -> Iterator[Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    yield from parquet.read_table(path).to_pylist()


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet,
}  # fmt: skip


def _from_datasets(source: str, split: str) -> Iterable[Any]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UsageError(
            f"data.path: there is no file {source}; to load it as a data set, pip install 'azr-mlx[datasets]'"
        ) from None
    name, _, subset = source.partition(":")
    try:
        return list(load_dataset(name, subset or None, split=split))
    except Exception as error:  # whatever the hub, the network or the library has to say
        said = str(error).strip().splitlines()
        raise UsageError(
            f"data.path: {source} is no file here, and as a data set it could not be loaded: "
            f"{said[0] if said else type(error).__name__}"
        ) from None


def _row(number: int, raw: Any, name: str) -> Row | str:
    """The row, or what is wrong with it in a few fixed words."""
    if not isinstance(raw, Mapping):
        return "no JSON object"
    prompt = raw.get(name)
    if prompt is None or prompt == "":
        return f"no {name}"
    if not isinstance(prompt, str):
        prompt = _messages(prompt)
        if prompt is None:
            return f"{name} is neither text nor a list of messages"
    texts = [prompt] if isinstance(prompt, str) else [one["content"] for one in prompt]
    if not boundary.encodable(*texts):
        return f"{name} is no text that can be encoded"
    columns = {str(key): value for key, value in raw.items() if key != name and key is not None}
    clash = next((key for key in columns if key in RESERVED), None)
    if clash is not None:
        return f"a column is called {clash}, a name that reward functions get something else under"
    return Row(number, prompt, columns)


def _messages(value: Any) -> list[Message] | None:
    if not isinstance(value, list | tuple) or not value:
        return None
    for one in value:
        if not isinstance(one, Mapping) or one.get("role") not in _ROLES or not isinstance(one.get("content"), str):
            return None
    return [dict(one) for one in value]


def split(rows: Sequence[Row], share: float, most: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, rows to hold out): `share` of the prompts, at most `most`; equal prompts stay together.

    Which rows are held out follows from their prompts alone, not from their order: a file that grows keeps its split
    as far as it can.
    """
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(json.dumps(row.prompt, sort_keys=True), []).append(row)
    names = sorted(by_prompt, key=lambda text: hashlib.sha256(text.encode()).digest())
    chosen = set(names[: min(most, round(share * len(names)))])
    train = [row for row in rows if json.dumps(row.prompt, sort_keys=True) not in chosen]
    return train, [one for name in names if name in chosen for one in by_prompt[name]]
