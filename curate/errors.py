"""Errors that the command line prints as one line: the user's (exit code 2), an engine's or a catalog's (1)."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: says what is wrong, with the offending value, and the fix."""


class EngineError(Exception):
    """An engine could not go on: what was committed stays, the rest is pending."""


class DamagedError(Exception):
    """A catalog's own files are damaged: says which, and what can be done."""


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional package that is not installed."""
    return UserError(f"this needs the package {package}: pip install 'clipmill[{extra}]'")
