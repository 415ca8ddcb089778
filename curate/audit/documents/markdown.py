"""Markdown of values that anybody may have written: names, conditions and texts are shown as they are, never obeyed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "://": "&#58;//", "www.": "www&#46;"}  # the last two make links
LONGEST = 500  # characters of one value


def escaped(text: str) -> str:
    """A text in one line of Markdown or one cell of a table: no markup, link, HTML or change of direction."""
    text = " ".join(text.split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    text = "".join("\ufffd" if unicodedata.category(each) in ("Cc", "Cf", "Cs") else each for each in text)
    for plain, entity in ENTITIES.items():
        text = text.replace(plain, entity)
    return SPECIAL.sub(r"\\\1", text)


def shown(value: Any) -> str:
    """A cell of a figure: numbers with separators, at least four digits of them; NULL is unknown."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"
    return escaped(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table; values are escaped. Nothing without a row."""
    lines = [f"| {' | '.join(shown(value) for value in row)} |" for row in rows]
    return ["", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines, ""] if lines else []
