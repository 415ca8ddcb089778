"""Path patterns as robots.txt has them (RFC 9309, 2.2.2 and 2.2.3); TDMRep and RSL take the same."""

from __future__ import annotations

import string
from urllib.parse import quote, urlsplit

ASCII = string.printable


def path_of(url: str) -> str:
    """The path and query of a URL, which patterns are compared with; what is not ASCII is percent-encoded."""
    parts = urlsplit(url)
    return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=ASCII)


def matches(pattern: str, path: str) -> bool:
    """Whether a path begins as a pattern says; `*` stands for any characters, a `$` at the end for the path's end.

    Takes time linear in both, whatever the pattern.
    """
    pattern = quote(pattern, safe=ASCII)
    ends = pattern.endswith("$")
    first, *rest = (pattern[:-1] if ends else pattern).split("*")
    if not path.startswith(first):
        return False
    if not rest:
        return not ends or path == first
    at = len(first)
    for part in rest[:-1]:
        found = path.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    last = rest[-1]
    if ends:
        return path.endswith(last) and len(path) - len(last) >= at
    return path.find(last, at) >= 0
