"""From the text of a reply to its parts: sections, fenced blocks, proposals, answers.

Model text is only ever cut and matched here, never evaluated, in a time linear in its length, whatever it is: a pattern
neither tries one place twice nor scans to the end of the text from each of many places. Hence the possessive
quantifiers (`*+`), and two searches with a bound between them where one lazy pattern would do.
Source of the rules: AZR section 3 and its released code; departures are marked HARDENED.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from azr_mlx.executor import syntax

# A fence opens with a label and a line break; it closes with a fence on a line of its own. The end of the text does
# not close one: a reply that was cut off has no block.
_OPEN = re.compile(r"```[ \t]*+([\w+.-]*+)[ \t]*+\r?\n")
_CLOSE = re.compile(r"```(?!\w)")
_BETWEEN = re.compile(r"</think>\s*+<answer>")
_COMMENT = {
    word: re.compile(rf"#[ \t]*{word}[ \t]*:[ \t]*(.+)", re.IGNORECASE) for word in ("input", "output", "message")
}
_PROSE = {word: re.compile(rf"\bthe {word} is:?[ \t]*(.+)", re.IGNORECASE) for word in ("input", "output")}
_PYTHON = ("python", "py", "python3", "")
# What a verdict says of a reply that lacks a required part: the reasons of ParseError, of missing tags and answers.
FORM_REASONS = frozenset((
    "bad tags", "no answer block", "no function", "no input block", "no message", "no python block", "too few inputs",
))  # fmt: skip


class ParseError(ValueError):
    """A reply lacks a required part. The message is one of a few fixed reasons, so that they can be counted."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A program defining `f`, and the text of one input for it."""

    program: str
    input: str


def well_formed(reply: str) -> bool:
    """Whether a reply is a think section followed at once by an answer section; text after them is tolerated."""
    text = reply.strip()
    if not text.startswith("<think>"):
        return False
    # If the first place where the two sections meet is not followed by an end, neither is a later one.
    between = _BETWEEN.search(text)
    return between is not None and "</answer>" in text[between.end() :]


def answer_section(reply: str) -> str:
    """The text of the last <answer> section, stripped; to the end when it is not closed; "" when there is none."""
    _, tag, rest = reply.rpartition("<answer>")
    return rest.partition("</answer>")[0].strip() if tag else ""


def blocks(text: str, *labels: str) -> list[str]:
    """The contents of the fenced blocks with one of the labels (lower case), in order; all blocks without labels."""
    return [body.strip() for label, body in _fenced(text) if not labels or label.lower() in labels]


def _fenced(text: str) -> list[tuple[str, str]]:
    """Label and content of every fenced block. The blanks before a closing fence, and their line break, are its own."""
    found: list[tuple[str, str]] = []
    at = 0
    while (opening := _OPEN.search(text, at)) is not None:
        start = opening.end()
        closing = _CLOSE.search(text, start)
        if closing is None:
            break
        end = closing.start()
        while end > start and text[end - 1] in " \t":
            end -= 1
        if end > start and text[end - 1] == "\n":
            end -= 2 if end - 1 > start and text[end - 2] == "\r" else 1
        found.append((opening[1], text[start:end]))
        at = closing.end()
    return found


def proposal(answer: str) -> Proposal:
    """The proposed program and input: the first block, which must be Python, and the first ```input block.

    A program without an `f` has its last top-level function renamed; helpers and nested functions are welcome
    (HARDENED: the official default rejects them, although its prompt invites them). Raises ParseError.
    """
    found = _fenced(answer)
    if not found or found[0][0].lower() not in _PYTHON:
        raise ParseError("no python block")
    program = name_f(found[0][1].strip())
    inputs = blocks(answer, "input")
    if inputs:
        return Proposal(program, inputs[0])
    comment = _COMMENT["input"].search(answer)
    if comment is None:
        raise ParseError("no input block")
    return Proposal(program, comment.group(1).strip())


def name_f(program: str) -> str:
    """The program with an entry function called `f`: kept if there is one, else the last function takes the name.

    Raises ParseError("no function") when there is none at the top level.
    """
    names = re.findall(r"^def[ \t]+(\w+)[ \t]*\(", program, re.MULTILINE)
    if not names:
        raise ParseError("no function")
    if "f" in names:
        return program
    return re.sub(rf"(?<![\w.]){names[-1]}(?=[ \t]*\()", "f", program)


def last_inputs(answer: str, count: int) -> tuple[str, ...]:
    """The last `count` input blocks, in order. Raises ParseError when there are fewer."""
    inputs = blocks(answer, "input")
    if len(inputs) < count:
        raise ParseError("too few inputs")
    return tuple(inputs[-count:])


def message(answer: str) -> str:
    """The first message: its block, else a tag, else a comment. Raises ParseError when there is none."""
    messages = blocks(answer, "message")
    if messages:
        return messages[0]
    tag = re.search(r"<message>(.*?)(?:</message>|\Z)", answer, re.DOTALL)
    found = tag or _COMMENT["message"].search(answer)
    if found is None:
        raise ParseError("no message")
    return found.group(1).strip()


def solver_value(answer: str, word: str) -> str:
    """The text that answers a task whose hidden part is its "output" or its "input" (`word`).

    The last block with that label; else, in this order, a comment, a call `word(...)`, a tag, a sentence, everything.
    """
    found = blocks(answer, word)
    if found:
        return found[-1]
    comment = _COMMENT[word].search(answer)
    if comment is not None:
        return comment.group(1).strip()
    call = re.search(rf"(?<![\w.]){word}\(", answer, re.IGNORECASE)
    last = answer.rfind(")")
    if call is not None and call.end() <= last:
        return answer[call.end() : last].strip()
    tag = re.search(rf"<{word}>(.*?)(?:</{word}>|\Z)", answer, re.DOTALL | re.IGNORECASE)
    if tag is not None:
        return tag.group(1).strip()
    prose = _PROSE[word].search(answer)
    if prose is not None:
        return prose.group(1).strip().removesuffix(".")
    return answer


def solver_program(answer: str) -> str | None:
    """The last Python block, or None: a program outside a fence is no answer."""
    found = blocks(answer, *_PYTHON)
    return found[-1] if found else None


def import_lines(program: str) -> str:
    """The top-level import statements of a program that parses, one a line: a solver who rewrites it may use them."""
    try:
        tree = syntax.parse(program, "<azr program>")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return "".join(ast.unparse(node) + "\n" for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
