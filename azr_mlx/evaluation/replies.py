"""The program in a chat reply: its fenced blocks, and which of them is meant.

Everything here looks at lines, in linear time, and parses nothing: a reply is a model's text.

Which block is meant, when the function's name is known: the longest of those that define it, as EvalPlus's sanitizer
takes the longest code that parses; of equally long ones the last. Blocks that only define things and stand before it
(imports, helpers) go in front. Without a name, or when no block defines it, it is the last block, as LiveCodeBench has
it. What a model wrote between <think> and </think> is not looked at.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

# A fence opens with three or more marks and what it likes to say about its language, and closes with as many marks.
_OPENS = re.compile(r"([ \t]*)(?:[-*+>]|\d+[.)])?[ \t]*(`{3,}|~{3,})([^\n]*)")
_ONE_LINE = re.compile(r"[ \t]*```(?:python3?|py)[ \t]+([^`\n]+)```[ \t]*")
_CODE = re.compile(r"(?:from|import|def|class|async def|@)\b|@")
_ASSIGNS = re.compile(r"[A-Za-z_]\w*[ \t]*(?::[^=\n]*)?=(?!=)")


@dataclass(frozen=True)
class Block:
    """A fenced block's text, without its fences and their indentation, lines ended by a line feed."""

    text: str


def blocks(reply: str) -> list[Block]:
    """The fenced blocks of a reply. One that is never closed ends with the reply: a stop text or the limit took it.

    A fence inside a text in triple quotes closes nothing, as long as the quotes are closed again.
    """
    lines = reply.split("\n")
    found: list[Block] = []
    i = 0
    while i < len(lines):
        alone = _ONE_LINE.fullmatch(lines[i])
        opened = None if alone else _OPENS.fullmatch(lines[i])
        i += 1
        if alone:
            found.append(Block(alone[1].strip() + "\n"))
        if opened is None or "`" in opened[3]:
            continue
        end = _end(lines, i, opened[2])
        width = len(opened[1])
        inside = [_without(line, width) for line in lines[i:end]]
        # In a list the whole block may be indented.
        text = textwrap.dedent("\n".join(inside))
        found.append(Block(text + "\n" if inside and end < len(lines) else text))
        i = end + 1
    return found


def _end(lines: list[str], start: int, mark: str) -> int:
    """The line that closes a fence, or the number of lines: the first that looks so and stands in no quotes."""
    closes = re.compile(rf"[ \t]*{re.escape(mark[0])}{{{len(mark)},}}[ \t]*")
    first = None
    quotes = ""
    for i in range(start, len(lines)):
        if closes.fullmatch(lines[i]):
            if not quotes:
                return i
            first = i if first is None else first
            continue
        if quotes and first is not None and _OPENS.fullmatch(lines[i]) and lines[i].strip(" \t`~"):
            break  # another block begins: those quotes were never meant to be closed
        quotes = _quotes(lines[i], quotes)
    return len(lines) if first is None else first


def _quotes(line: str, quotes: str) -> str:
    """The triple quotes that are open at the end of a line, given those at its beginning."""
    at = 0
    while at < len(line):
        if quotes:
            at = line.find(quotes, at)
            if at < 0:
                return quotes
            at, quotes = at + 3, ""
        elif line[at : at + 3] in ('"""', "'''"):
            quotes, at = line[at : at + 3], at + 3
        elif line[at] in "\"'":  # a text on one line
            end = line.find(line[at], at + 1)
            at = len(line) if end < 0 else end + 1
        elif line[at] == "#":
            return ""
        else:
            at += 1
    return quotes


def _without(line: str, width: int) -> str:
    """A line without the indentation of its fence, as far as it has it."""
    blank = len(line) - len(line.lstrip(" \t"))
    return line[min(width, blank) :]


def program(reply: str, entry_point: str = "") -> str | None:
    """The program of a reply, see above; None when it has no fenced block."""
    reply = thought_out(reply).replace("\r\n", "\n").replace("\r", "\n")
    texts = [_typed(block.text) for block in blocks(reply)]
    if not texts:
        return None
    mine = [i for i, text in enumerate(texts) if defines(text, entry_point)]
    if not mine:
        methods = [i for i, text in enumerate(texts) if has_method(text, entry_point)]
        if not methods:
            return texts[-1]
        mine = methods
    chosen = max(mine, key=lambda i: (len(texts[i].strip()), i))
    before = [text for i, text in enumerate(texts[:chosen]) if i not in mine and _only_defines(text)]
    return "".join([*before, texts[chosen]])


def thinking(reply: str) -> bool:
    """Whether a reply ends before its thinking does: there is no answer in it."""
    return reply.lstrip().startswith("<think>") and "</think>" not in reply


def thought_out(reply: str) -> str:
    """What a reply says after its thinking; nothing when it never came to that."""
    if thinking(reply):
        return ""
    _, thought, after = reply.rpartition("</think>")
    return after if thought and after.strip() else reply


def bare(reply: str, entry_point: str) -> str:
    """A reply without a fenced block: from its first line of code on, when text stands before it and it is one.

    Text after the code ends it, too: the first line at the margin that cannot be code, once the function is there.
    """
    lines = reply.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = next((i for i, line in enumerate(lines) if defines(line, entry_point)), None)
    if start is None:
        return "\n".join(lines)
    while start > 0 and (_CODE.match(lines[start - 1]) or not lines[start - 1].strip()):
        start -= 1
    end = len(lines)
    seen = False
    for i in range(start, len(lines)):
        seen = seen or defines(lines[i], entry_point)
        if seen and lines[i][:1].isupper() and " " in lines[i].strip() and not _ASSIGNS.match(lines[i]):
            end = i
            break
    return "\n".join(lines[start:end]).strip("\n") + "\n"


def defines(code: str, name: str) -> bool:
    """Whether a text defines a name at its margin: as a function, or by an assignment (a lambda)."""
    if not name:
        return False
    it = re.escape(name)
    return (
        re.search(rf"^(?:(?:async[ \t]+)?def[ \t]+{it}\b|{it}[ \t]*(?::[^=\n]*)?=(?!=))", code, re.MULTILINE)
        is not None
    )


def has_method(code: str, name: str) -> bool:
    """Whether a text has the class Solution with a method of that name."""
    wanted = rf"^[ \t]+(?:async[ \t]+)?def[ \t]+{re.escape(name)}\b"
    return (
        bool(name)
        and re.search(r"^class[ \t]+Solution\b", code, re.MULTILINE) is not None
        and (re.search(wanted, code, re.MULTILINE) is not None)
    )


def _only_defines(code: str) -> bool:
    """Whether a block only imports, defines and assigns: what a later block may need, and what does nothing else."""
    quotes = ""
    for line in code.split("\n"):
        margin = bool(line) and not line[0].isspace() and line[0] not in "#)]}"
        if margin and not quotes and not (_CODE.match(line) or _ASSIGNS.match(line)):
            return False
        quotes = _quotes(line, quotes)
    return True


def _typed(code: str) -> str:
    """What was typed in an interactive session, if a block is one, without the answers; else the block."""
    lines = code.split("\n")
    if not any(line.startswith(">>> ") for line in lines) or not lines[0].startswith(">>> "):
        return code
    return "".join(line[4:] + "\n" for line in lines if line.startswith((">>> ", "... ")))


def body(code: str) -> str:
    """A block that is the body of a function, indented by four."""
    return textwrap.indent(textwrap.dedent(code), "    ") + "\n"
