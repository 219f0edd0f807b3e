"""From a preset, a YAML text and `--set` words to a checked configuration, and back to YAML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from azr_mlx import paths
from azr_mlx.config.checks import check
from azr_mlx.config.option import ConfigError, Option, written, yaml_errors
from azr_mlx.config.schema import SHORT_FORMS, Config, flatten, options, sections, with_values
from azr_mlx.errors import AzrError


def load(source: str | Path | None = None, sets: Sequence[str] = ()) -> Config:
    """The configuration of a preset's name or a YAML file (None: the defaults), overlaid by `--set a.b=c` words.

    A prompt style that the file names by its path is looked for beside the file first.

    Raises ConfigError for an unknown option, a wrong type, a value out of range or an impossible combination.
    """
    values: dict[str, Any] = {}
    where = "config"
    if source is not None:
        path = find_config(source)
        where = paths.display_path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: cannot be read: {error}") from None
        values.update(_read(text, where))
        beside = path.parent / str(values.get("model.style", ""))
        if beside.suffix in (".yaml", ".yml") and beside.is_file():
            values["model.style"] = str(beside)
    for word in sets:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: write it as key=value, for example --set optim.lr=1e-5")
        values.update(_read_set(key.strip(), text))
    config = with_values(Config(), values)
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def parse(text: str, where: str = "config") -> Config:
    """The configuration written in a YAML text; `where` names the text in errors."""
    config = with_values(Config(), dict(_read(text, where)))
    check(config)
    return config


def presets() -> tuple[str, ...]:
    """The names of the shipped configurations."""
    try:
        return tuple(sorted(path.stem for path in paths.configs().glob("*.yaml")))
    except AzrError:
        return ()


def find_config(source: str | Path) -> Path:
    """The file of a path or of a preset's name. Raises ConfigError with the nearest preset when there is neither."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir() and (path / "config.yaml").is_file():
        return path / "config.yaml"  # a run folder
    names = presets()
    if str(source) in names:
        return paths.configs() / f"{source}.yaml"
    if not names:
        paths.shipped()  # says what is wrong
    word = path.stem if path.suffix in (".yaml", ".yml") else str(source)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.4)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{source}: no such file and no such preset; the presets are {', '.join(names)}{guess}")


def _read(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a YAML text. YAML gives the structure; its option reads a scalar."""
    with yaml_errors(where):
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{where}: must hold `key: value` lines, not {_noun(node)}")
    yield from _walk(node, "", lambda line: f"{where}:{line}")


def _read_set(key: str, text: str) -> Iterator[tuple[str, Any]]:
    """The same for one `--set key=text`: the text is read as the YAML value it would be in a file."""
    where = f"--set {key}={text}"
    if not key:
        raise ConfigError(f"{where}: names no setting")
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        node = yaml.ScalarNode("", text, style="'")  # such as a lone bracket: take it as it stands
    yield from _place(key, node or yaml.ScalarNode("", "", style="'"), lambda line: where, 1)


def _walk(node: yaml.MappingNode, prefix: str, at: Callable[[int], str]) -> Iterator[tuple[str, Any]]:
    """The keys of one level; `at` names a line of the text in errors."""
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{at(line)}: a setting's name must be a word, not {_noun(key_node)}")
        key = prefix + key_node.value
        if key in seen:
            raise ConfigError(f"{at(line)}: {key} is given twice, first on line {seen[key]}")
        seen[key] = line
        yield from _place(key, value_node, at, line)


def _place(key: str, node: yaml.Node, at: Callable[[int], str], line: int) -> Iterator[tuple[str, Any]]:
    """One key with its node: a section is walked, an option is read, anything else is refused."""
    place = at(line)
    if key in sections():
        if isinstance(node, yaml.MappingNode):
            yield from _walk(node, f"{key}.", at)
        elif key in SHORT_FORMS and (isinstance(node, yaml.SequenceNode) or node.value):
            yield SHORT_FORMS[key], _value(options()[SHORT_FORMS[key]], node, place)
        elif not (
            isinstance(node, yaml.ScalarNode) and node.style is None and not node.value
        ):  # an empty section is fine
            inside = ", ".join(one.rpartition(".")[2] for one in options() if one.startswith(f"{key}."))
            raise ConfigError(f"{place}: {key} is a section, not a setting: it holds {inside}")
    elif key in options():
        yield key, _value(options()[key], node, place)
    else:
        near = nearest(key)
        about = f"{near.allowed}; default {written(near.default)}"
        raise ConfigError(f"{place}: {key} is not a setting; the nearest is {near.key} ({about})")


def nearest(key: str) -> Option:
    """The option whose name, or else whose help, is most like the key."""
    leaf = key.rpartition(".")[2].lower()
    words = " ".join(re.split(r"[\W_]+", leaf))

    def likeness(one: Option) -> float:
        name = one.key.rpartition(".")[2]
        by_name = difflib.SequenceMatcher(None, leaf, name).ratio()
        by_path = difflib.SequenceMatcher(None, key.lower(), one.key).ratio()
        by_help = 0.9 if len(words) > 3 and re.search(rf"\b{re.escape(words)}\b", one.help) else 0.0
        return max(by_name, by_path, by_help) + 0.1 * by_path

    return max(options().values(), key=likeness)


def _value(one: Option, node: yaml.Node, place: str) -> Any:
    """The value of an option from its node, by the option's type. Raises ConfigError unless it is allowed."""

    def refuse(given: str, hint: str = "") -> ConfigError:
        return ConfigError(f"{place}: {one.key} is {given}: it must be {one.allowed}{hint}")

    if isinstance(node, yaml.SequenceNode):
        if not one.many:
            raise refuse("a list")
        if not all(isinstance(item, yaml.ScalarNode) for item in node.value):
            raise refuse("a nested list")
        value: Any = tuple(item.value for item in node.value)
    elif isinstance(node, yaml.ScalarNode):
        text = node.value
        if node.style is None and (text in ("~", "null", "Null", "NULL") or (not text and one.type is not str)):
            raise refuse("empty", "; remove the line to keep the default")
        if one.many:
            value = tuple(part.strip() for part in text.split(",") if part.strip())
        else:
            value = _scalar(one.type, text)
            if value is None:
                raise refuse(text if text else "empty")
    else:
        raise refuse("a section")
    if not one.permits(value):
        wrong = next((v for v in value if v not in (one.choices or ())), value) if one.many else value
        near = difflib.get_close_matches(str(wrong), [str(c) for c in one.choices or ()], n=1, cutoff=0.5)
        raise refuse(written(wrong) if one.many else node.value, f"; did you mean {near[0]}?" if near else "")
    return value


_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_NUMBER = re.compile(r"[-+]?([0-9]+(_[0-9]+)*\.?([0-9]+(_[0-9]+)*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


def _scalar(type_: Any, text: str) -> Any:
    """The text as a value of the type, or None when it is not one."""
    if type_ is str:
        return text
    if type_ is bool:
        return {"true": True, "false": False}.get(text.lower())
    if len(text) > 100 or not _NUMBER.fullmatch(text):
        return None
    if type_ is int and _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    if type_ is float:
        return number
    return int(number) if number.is_integer() else None  # 1e3 is a whole number, however it is written


def _noun(node: yaml.Node) -> str:
    return {"MappingNode": "a section", "SequenceNode": "a list"}.get(type(node).__name__, "a single value")


def dump(config: Config, comment: str = "") -> str:
    """The whole configuration as YAML that `parse` reads back equal; `comment` becomes the lines above it."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    section = ""
    for key, value in flatten(config).items():
        owner, _, leaf = key.rpartition(".")
        if owner != section:
            section = owner
            lines.append(f"{owner}:")
        lines.append(f"{'  ' if owner else ''}{leaf}: {written(value)}")
    return "\n".join(lines) + "\n"
