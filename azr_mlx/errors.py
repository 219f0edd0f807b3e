"""The errors that a person reads: one line each, which names what to do."""

from __future__ import annotations


class AzrError(Exception):
    """A failure whose message is one line for the person at the keyboard.

    The command line prints it without a traceback and leaves with `exit_code`. Line breaks become spaces, and what a
    terminal would obey (the message may quote a file or a program) is written out.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


class UsageError(AzrError):
    """The command or a file it was given is wrong; nothing was done."""

    exit_code = 2
