"""The one exception that a user's mistake raises: the command line prints it as one line and exits with 2."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: says what is wrong, with the offending value, and the fix."""


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional package that is not installed."""
    return UserError(f"this needs the package {package}: pip install 'clipmill[{extra}]'")
