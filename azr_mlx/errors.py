"""The errors that a person reads: one line each, which names what to do."""

from __future__ import annotations


class AzrError(Exception):
    """A failure whose message is one line for the person at the keyboard.

    The command line prints it without a traceback and leaves with `exit_code`.
    """

    exit_code = 1


class UsageError(AzrError):
    """The command or a file it was given is wrong; nothing was done."""

    exit_code = 2
