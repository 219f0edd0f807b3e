"""A benchmark is a YAML file of benchmarks/: where its rows come from, how it asks, how it judges, what others scored.

docs/benchmarks.md describes every key. An unknown or missing key, or a value of the wrong type, is a UsageError that
names the file and the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from azr_mlx import paths
from azr_mlx.errors import UsageError

ROW_FORMATS = (
    "humaneval", "mbpp", "evalplus", "apps", "cruxeval", "livecodebench", "livecodebench-execution", "self-play",
)  # fmt: skip
SCORERS = ("asserts", "evalplus", "tests", "output", "input", "self-play")
# How a model's text becomes a completion.
ANSWERS = {
    "continue": "the text up to its first stop text follows the problem's stub",
    "program": "the text up to its first stop text is the program",
    "block": "the fenced block that defines the function (replies.py), below the stub's imports and helpers",
    "tag": "what stands between [ANSWER] and [/ANSWER]; of an assertion the side that was asked for",
    "training": "read like an answer in self-play",
    "answer-tag": "the last ```python block between <answer> and </answer>, else all of that section",
}


@dataclass(frozen=True)
class DataSource:
    """Where rows come from, tried in this order: the path given by the user, `package` or `file`, `cache`, `hub`.

    `azr data NAME` fetches them: from `hub`, else from `download` to `cache`.
    """

    url: str  # the original, for people
    licence: str
    revision: str = ""
    package: str = ""  # an importable package that ships the file; it is found, never imported
    file: str = ""  # the path inside that package; without one: beside the YAML, else in the repository
    cache: str = ""  # a file that another tool leaves under the user's cache folder
    hub: str = ""  # a data set of the Hugging Face hub
    hub_file: str = ""  # JSONL files of it, spaces between; without, its Parquet files HUB_CONFIG/SPLIT-*.parquet
    hub_config: str = ""
    hub_splits: tuple[str, ...] = ()
    download: str = ""  # the address of a file with the rows, for what no hub has
    megabytes: float = 1.0  # what a download would take; over 100 nothing is fetched unasked
    command: str = ""  # what a person types to get the rows, where `azr data` cannot


@dataclass(frozen=True)
class Wording:
    """One prompt variant: what the model reads, where it must stop, and how its text becomes a completion.

    In `text` the words in braces are fields of the problem. answer: one of ANSWERS; with `training` the prompt is that
    of self-play in `style`, and `text` is not used.
    """

    text: str = "{prompt}"
    chat: bool = False  # through the model's chat template
    prefill: str = ""  # the beginning of the reply, written for the model
    stop: tuple[str, ...] = ()
    tokens: int = 512
    answer: str = "continue"
    examples: tuple[str, ...] = ()  # ids of the problems shown before, solved
    example: str = ""  # how each of them is shown; {solution} is its reference
    style: str = ""
    about: str = ""
    harness: str = ""  # the harness whose published numbers a run with this variant may stand beside


@dataclass(frozen=True)
class Prelude:
    """What the official harness runs before every program: names that programs use without importing them.

    source, date: where it stands and when that was last changed. Modules that the sandbox does not have are left out.
    """

    text: str
    source: str
    date: str


@dataclass(frozen=True)
class Published:
    """A score that somebody published, in percent, for comparison with a run of the same model.

    unlike: what was different there whatever the prompt variant (data, dates, stop texts, token limit), or that it is
    not known; such a score is shown as not comparable. Empty where prompt, extraction, data and limits are those here.
    """

    model: str
    scores: Mapping[str, float]
    prompt: str
    source: str
    unlike: str = ""


@dataclass(frozen=True)
class Benchmark:
    name: str
    title: str
    about: str
    format: str
    scorer: str
    source: DataSource
    rows: int
    prompts: Mapping[str, Wording]
    default: str
    default_chat: str
    content: str = ""  # sha256 of the rows that `rows` counts, see data.fingerprint
    comparison: str = ""  # of the scorer `tests`: apps or livecodebench
    prelude: Prelude | None = None
    seconds: float = 5.0  # of processor time for one program, test or input
    factor: float = 4.0  # of the scorer evalplus: an input may take so many times what the reference takes
    memory_mb: int = 1024
    splits: Mapping[str, str] = field(default_factory=dict)  # name -> "11-510" of numeric ids, or "" for all
    split: str = ""  # the one that is meant when nobody says
    levels: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)  # column of the format -> column of the rows
    note: str = ""
    published: tuple[Published, ...] = ()


def benchmark_names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem for path in paths.benchmarks().glob("*.yaml"))


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or of that YAML file. Raises UsageError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else paths.benchmarks() / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(f"there is no benchmark {name!r}; there are {', '.join(benchmark_names())}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: a benchmark is a mapping of keys")
    raw = dict(raw)
    if "extends" in raw:
        raw = _extended(path, raw)
    raw.setdefault("name", path.stem)
    source: DataSource = _build(DataSource, raw.get("source"), f"{path}: source")
    if source.file and not source.package and (path.parent / source.file).is_file():
        source = replace(source, file=str(path.parent / source.file))
    raw["source"] = source
    if "prelude" in raw:
        raw["prelude"] = _build(Prelude, raw["prelude"], f"{path}: prelude")
    prompts = _mapping(raw.get("prompts"), f"{path}: prompts")
    raw["prompts"] = {key: _build(Wording, value, f"{path}: prompts.{key}") for key, value in prompts.items()}
    raw["published"] = tuple(_build(Published, one, f"{path}: published") for one in raw.get("published") or ())
    benchmark: Benchmark = _build(Benchmark, raw, str(path))
    for key, value, known in (
        ("format", benchmark.format, ROW_FORMATS),
        ("scorer", benchmark.scorer, SCORERS),
        ("default", benchmark.default, tuple(benchmark.prompts)),
        ("default_chat", benchmark.default_chat, tuple(benchmark.prompts)),
        ("split", benchmark.split, tuple(benchmark.splits) or ("",)),
    ):
        if value not in known:
            raise UsageError(f"{path}: {key} is {value!r}; it may be {', '.join(known)}")
    for key, wording in benchmark.prompts.items():
        if wording.answer not in ANSWERS:
            raise UsageError(f"{path}: prompts.{key}.answer is {wording.answer!r}; it may be {', '.join(ANSWERS)}")
    if benchmark.seconds <= 0 or benchmark.memory_mb < 32:
        raise UsageError(f"{path}: seconds must be above 0 and memory_mb at least 32")
    return benchmark


def _extended(path: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """A benchmark that is another one but for some keys; `source` and `prompts` are taken key by key."""
    other = path.with_name(f"{raw.pop('extends')}.yaml")
    try:
        base = yaml.safe_load(other.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: extends: {' '.join(str(error).split())}") from None
    if not isinstance(base, dict) or "extends" in base:
        raise UsageError(f"{path}: extends: {other.name} is no benchmark that can be extended")
    parts = {
        name: {**_mapping(base.get(name, {}), f"{other}: {name}"), **_mapping(raw.get(name, {}), f"{path}: {name}")}
        for name in ("source", "prompts")
    }
    return {**base, **raw, **parts}


def is_chat(model: str) -> bool:
    """Whether a model's name says that it was tuned to follow instructions.

    The presence of a chat template says nothing: Qwen's base models ship one.
    """
    name = model.rstrip("/").rpartition("/")[2].lower()
    if re.search(r"instruct|chat|(?:^|[-_])it(?:$|[-_])", name):
        return True
    return _TUNED.search(name) is not None and "base" not in name


# Families whose tuned models have no word for it in their names; their base models, where there are any, say so.
_TUNED = re.compile(r"qwen3(\.\d+)?-\d+(\.\d+)?b|smollm3-|r1-distill|deepseek-r1|phi-4|gpt-oss|qwq|magistral|thinking")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{where}: must be a mapping")
    return value


def _build(kind: Any, value: Any, where: str) -> Any:
    given = _mapping(value, where)
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in given:
        if key not in known:
            raise UsageError(f"{where}: there is no key {key!r}; there are {', '.join(known)}")
    words = {key: _typed(value, hints[key], f"{where}.{key}") for key, value in given.items()}
    try:
        return kind(**words)
    except TypeError as error:
        missing = str(error).partition(": ")[2]
        raise UsageError(f"{where}: lacks {missing or error}") from None


def _typed(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint == tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: must be a list")
        return tuple(str(item) for item in value)
    if hint == Mapping[str, str]:
        return {str(key): str(item) for key, item in _mapping(value, where).items()}
    if hint == Mapping[str, float]:
        try:
            return {key: float(item) for key, item in _mapping(value, where).items()}
        except (TypeError, ValueError):
            raise UsageError(f"{where}: must map names to numbers") from None
    if isinstance(hint, type) and not isinstance(value, hint):
        raise UsageError(f"{where}: must be of type {hint.__name__}, is {value!r}")
    return value
