"""Text that programs or models wrote, made safe for a terminal or a page."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with every control and bidirectional character as its escape; line breaks and tabs stay."""
    return "".join(
        mark
        if mark in "\n\t" or unicodedata.category(mark)[0] != "C"
        else mark.encode("unicode_escape", "surrogatepass").decode()
        for mark in text
    )
