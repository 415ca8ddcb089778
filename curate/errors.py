"""Errors that the command line prints as one line: a user's mistake (exit code 2), a failed engine or catalog (1)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can fix: says what is wrong, with the offending value, and the fix."""


class UnknownColumn(UserError):
    """A column that is not there; the command line adds which one is meant, or what makes it."""

    def __init__(self, message: str, column: str):
        super().__init__(message)
        self.column = column


class EngineError(Exception):
    """An engine could not continue: what was committed stays, the rest is pending."""


class DamagedError(Exception):
    """Files of a catalog are damaged: says which, and what can be done."""


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional package that is not installed."""
    return UserError(f"this needs the package {package}: pip install 'clipmill[{extra}]'")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def printable(text: str) -> str:
    """A text of somebody else's, such as a file's name, on one line of a terminal and without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: '; did you mean …?', or the list of what there is."""
    names = [str(name) for name in known]
    return nearest(word, names) or (f"; there is {', '.join(names)}" if names else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, where one is spelled alike: '; did you mean …?', else ''."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
