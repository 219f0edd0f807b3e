"""Text made safe for where it goes: what programs or models wrote, and a terminal or file that cannot hold it all."""

from __future__ import annotations

import codecs
import sys
import unicodedata

# What stands for a character where only ASCII (or another small set) can be written.
PLAIN = {
    "±": "+-", "→": "->", "↑": "^", "↓": "v", "↗": "/", "↘": "\\", "·": "-", "…": "...", "Δ": "d", "●": "*", "○": "o",
    "━": "=", "─": "-", "│": "|", "┃": "|", "═": "=", **dict.fromkeys("┏┓┗┛┡┩┳┻╇╈┼├┤└┘┌┐╭╮╰╯┬┴┢┪", "+"),
    **dict(zip("▁▂▃▄▅▆▇█", "_.-:=+*#", strict=True)),
}  # fmt: skip


def printable(text: str) -> str:
    """The text with every control and bidirectional character as its escape; line breaks and tabs stay."""
    return "".join(
        mark
        if mark in "\n\t" or unicodedata.category(mark)[0] != "C"
        else mark.encode("unicode_escape", "surrogatepass").decode()
        for mark in text
    )


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: each character that cannot be written as one that can, at worst a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    words = []
    for mark in error.object[error.start : error.end]:
        plain = PLAIN.get(mark) or unicodedata.normalize("NFKD", mark).encode("ascii", "ignore").decode()
        words.append(plain or "?")
    return "".join(words), error.end


codecs.register_error("azr-plain", _in_plain)


def never_refuse() -> None:
    """Let standard output and error take any text: where their encoding has no place for a character, a plain one
    stands for it. A table that cannot be printed must not end a run that is done."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None or codecs.lookup(stream.encoding).name == "utf-8":
            continue
        if stream.errors in ("strict", "surrogateescape"):  # the second is Python's own in the C locale
            reconfigure(errors="azr-plain")
