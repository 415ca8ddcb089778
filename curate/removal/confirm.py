"""Asks before something is deleted."""

from __future__ import annotations

import sys

from curate.errors import UserError


def confirm(question: str, yes: bool) -> None:
    """Returns if the user agrees, at the terminal or by `yes`; UserError else: nothing was changed."""
    if yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise UserError(f"{question} Nothing was changed: say --yes, or --dry-run to look only")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was changed")
