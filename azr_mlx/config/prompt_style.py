"""Prompt styles as data: how a family of models is asked, one YAML file each.

The shipped ones lie in the folder styles; a file of your own is named in `model.style`. docs/prompts.md describes the
format. Here a file is read and checked as far as it can be without the task kinds: names, types, nothing unknown. The
fields of its wordings are checked by `azr_mlx.selfplay.prompts`, which fills them in.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from azr_mlx import paths
from azr_mlx.config.option import ConfigError, yaml_errors
from azr_mlx.types import Case, Kind, Role

_SHIPPED = Path(__file__).with_name("styles")
COMPACT = "compact"  # the style of the embedded model, which is no file: its pre-training writes it


@dataclass(frozen=True)
class PromptExample:
    """A worked example. `reply` is what is answered; empty stands for the blocks that the kind makes from the rest."""

    program: str
    cases: tuple[Case, ...]
    message: str = ""
    reply: str = ""


@dataclass(frozen=True)
class PromptWording:
    """How one role asks for one kind. `text` None is the kind's own wording, `opening` and `stop` None the style's.

    text       of the first question, with fields in braces
    again      of every later question when examples stand before it; None is `text`
    opening    the beginning of the reply, written for the model
    stop       texts that end a reply; they stay in it
    examples   shown before, each as a question and its reply
    references where the tasks go that a proposer is to differ from: "text" leaves them to the field {references},
               "turns" shows each as a question and its reply, and then `examples` only while there are fewer
    """

    text: str | None = None
    again: str | None = None
    opening: str | None = None
    stop: tuple[str, ...] | None = None
    examples: tuple[PromptExample, ...] = ()
    references: str = "text"


@dataclass(frozen=True)
class PlainTurns:
    """A conversation in plain text, for models without a chat template; {text} is a question or a reply."""

    begin: str = ""
    question: str = "{text}"
    reply: str = "{text}"


@dataclass(frozen=True)
class PromptStyle:
    """One prompt style. `turns` None: the model's chat template. `tags`: a reply has <think> and <answer> sections."""

    name: str
    about: str = ""
    turns: PlainTurns | None = None
    tags: bool = False
    opening: str = ""
    stop: tuple[str, ...] = ()
    wordings: Mapping[tuple[Role, Kind], PromptWording] = field(default_factory=dict)

    @property
    def chat(self) -> bool:
        """Whether prompts go through the model's chat template."""
        return self.turns is None and self.name != COMPACT

    def wording(self, role: Role, kind: Kind) -> PromptWording:
        """How the role asks for the kind; the kind's own wording where the style has none."""
        return self.wordings.get((role, kind), PromptWording())


def style_names() -> tuple[str, ...]:
    """The names of the shipped styles, `compact` among them."""
    return tuple(sorted([*(path.stem for path in _SHIPPED.glob("*.yaml")), COMPACT]))


def find_style(name: str) -> Path:
    """The file of a shipped style's name or of a path. Raises ConfigError with the nearest name when there is none."""
    if not name.endswith((".yaml", ".yml")):
        path: Path | None = _SHIPPED / f"{name}.yaml" if name in style_names() else None
    else:
        path = paths.resolve_existing(name)
    if path is None or not path.is_file():
        near = difflib.get_close_matches(name, style_names(), n=1, cutoff=0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"model.style: there is no prompt style {name}: it may be one of {', '.join(style_names())}, "
            f"or a YAML file of your own{guess}"
        )
    return path


def load_style(name: str) -> PromptStyle:
    """The style of a shipped name or of a YAML file. Raises ConfigError, one line: which file, where, what is wrong."""
    if name == COMPACT:
        return PromptStyle(COMPACT, "headings and fenced blocks, no words: the embedded model", PlainTurns())
    path = find_style(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{paths.display_path(path)}: cannot be read: {error}") from None
    return parse_style(text, name, paths.display_path(path))


@lru_cache(maxsize=16)
def parse_style(text: str, name: str, where: str = "style") -> PromptStyle:
    """The style written in a YAML text; `where` names the text in errors. Every scalar is read as the text it is."""
    with yaml_errors(where):
        tree = yaml.load(text, Loader=yaml.BaseLoader)
    return _Reader(where).style(tree, name)


def dump_style(style: PromptStyle) -> str:
    """The style as YAML that `parse_style` reads back equal."""
    tree: dict[str, Any] = {"about": style.about}
    turns = style.turns
    tree["turns"] = "chat" if turns is None else {f.name: getattr(turns, f.name) for f in fields(turns)}
    tree |= {"tags": style.tags, "opening": style.opening, "stop": list(style.stop)}
    for role in Role:
        kinds = {str(kind): _wording_tree(one) for (of, kind), one in style.wordings.items() if of is role}
        if kinds:
            tree[str(role)] = kinds
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _wording_tree(wording: PromptWording) -> dict[str, Any]:
    """What is said in a wording, without what is left to the style."""
    tree: dict[str, Any] = {}
    for key in ("text", "again", "opening", "stop"):
        value = getattr(wording, key)
        if value is not None:
            tree[key] = list(value) if isinstance(value, tuple) else value
    if wording.references != PromptWording.references:
        tree["references"] = wording.references
    if wording.examples:
        tree["examples"] = [_example_tree(example) for example in wording.examples]
    return tree


def _example_tree(example: PromptExample) -> dict[str, Any]:
    tree: dict[str, Any] = {"program": example.program}
    cases = [{"input": case.input, "output": case.output} for case in example.cases]
    tree |= cases[0] if len(cases) == 1 else {"cases": cases}
    return tree | {key: getattr(example, key) for key in ("message", "reply") if getattr(example, key)}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, which people can read and edit."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # A line that ends in a blank cannot stand in a block.
    block = "\n" in text.strip("\n") and not any(line != line.rstrip() for line in text.splitlines())
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _text_node)


@dataclass(frozen=True)
class _Reader:
    where: str

    def wrong(self, place: str, what: str) -> ConfigError:
        return ConfigError(f"{self.where}: {place + ' ' if place else ''}{what}")

    def mapping(self, node: Any, place: str, keys: Sequence[str]) -> dict[str, Any]:
        """The mapping, which has none but these keys."""
        if not isinstance(node, dict):
            raise self.wrong(place, f"must hold keys of {', '.join(keys)}")
        for key in node:
            if key not in keys:
                near = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.5)
                guess = f"; did you mean {near[0]}?" if near else ""
                raise self.wrong(place, f"has no key {key}: there are {', '.join(keys)}{guess}")
        return node

    def text(self, node: Any, place: str) -> str:
        if not isinstance(node, str):
            raise self.wrong(place, "must be a text: put it in quotes")
        return node

    def texts(self, node: Any, place: str) -> tuple[str, ...]:
        if not isinstance(node, list) or not all(isinstance(one, str) and one for one in node):
            raise self.wrong(place, 'must be a list of texts, as ["</answer>"]')
        return tuple(node)

    def one_of(self, node: Any, place: str, words: Sequence[str]) -> str:
        if node not in words:
            raise self.wrong(place, f"must be {' or '.join(words)}")
        return str(node)

    def style(self, tree: Any, name: str) -> PromptStyle:
        top = self.mapping(tree, "", ("about", "turns", "tags", "opening", "stop", *Role))
        if "turns" not in top:
            raise self.wrong("", "lacks turns: chat, or the keys begin, question and reply of plain text")
        wordings = {}
        for role in Role:
            for key, node in self.mapping(top.get(role, {}), role, tuple(Kind)).items():
                wordings[role, Kind(key)] = self.wording(node, f"{role}.{key}", role)
        return PromptStyle(
            name,
            about=self.text(top.get("about", ""), "about"),
            turns=self.turns(top["turns"]),
            tags=self.one_of(top.get("tags", "false"), "tags", ("true", "false")) == "true",
            opening=self.text(top.get("opening", ""), "opening"),
            stop=self.texts(top.get("stop", []), "stop"),
            wordings=wordings,
        )

    def turns(self, node: Any) -> PlainTurns | None:
        if node == "chat":
            return None
        if not isinstance(node, dict):
            raise self.wrong("turns", "must be chat, or the keys begin, question and reply of plain text")
        keys = self.mapping(node, "turns", ("begin", "question", "reply"))
        made = PlainTurns(**{key: self.text(value, f"turns.{key}") for key, value in keys.items()})
        for key in ("question", "reply"):
            if getattr(made, key).count("{text}") != 1:
                raise self.wrong(f"turns.{key}", "must hold {text} once")
        return made

    def wording(self, node: Any, place: str, role: Role) -> PromptWording:
        keys = ("text", "again", "opening", "stop", "examples", *(["references"] if role is Role.PROPOSE else []))
        given = self.mapping(node, place, keys)
        examples = given.get("examples", [])
        if not isinstance(examples, list):
            raise self.wrong(f"{place}.examples", "must be a list")
        found: dict[str, Any] = {
            key: self.text(given[key], f"{place}.{key}") for key in ("text", "again", "opening") if key in given
        }
        if "stop" in given:
            found["stop"] = self.texts(given["stop"], f"{place}.stop")
        if "references" in given:
            found["references"] = self.one_of(given["references"], f"{place}.references", ("text", "turns"))
        shown = tuple(self.example(one, f"{place}.examples[{number}]") for number, one in enumerate(examples))
        return PromptWording(**found, examples=shown)

    def example(self, node: Any, place: str) -> PromptExample:
        given = self.mapping(node, place, ("program", "input", "output", "cases", "message", "reply"))
        if "program" not in given:
            raise self.wrong(place, "lacks program")
        cases = given.get("cases")
        if cases is None:
            cases = [{key: given[key] for key in ("input", "output") if key in given}]
        elif "input" in given or "output" in given or not isinstance(cases, list):
            raise self.wrong(place, "has either input and output, or cases: a list of such pairs")
        return PromptExample(
            self.text(given["program"], f"{place}.program").strip("\n"),
            tuple(self.case(one, f"{place}.cases[{number}]") for number, one in enumerate(cases)),
            self.text(given.get("message", ""), f"{place}.message"),
            self.text(given.get("reply", ""), f"{place}.reply"),
        )

    def case(self, node: Any, place: str) -> Case:
        given = self.mapping(node, place, ("input", "output"))
        missing = [key for key in ("input", "output") if key not in given]
        if missing:
            raise self.wrong(place, f"lacks {missing[0]}")
        return Case(self.text(given["input"], f"{place}.input"), self.text(given["output"], f"{place}.output"))
