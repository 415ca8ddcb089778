"""Which column or table an error is about that is not there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_COLUMN = (
    r'Referenced column "([^"]+)" not found',
    r'does not have a column named "([^"]+)"',
    r'Column "([^"]+)" in (?:EXCLUDE|REPLACE|RENAME) list not found',
    r'Column "([^"]+)" does not exist on',
)
_TABLE = (r"Table with name (?:raw\.)?\"?([\w.]+)\"? does not exist",)


@dataclass(frozen=True)
class Missing:
    """A name that the catalog does not have."""

    kind: Literal["column", "table"]
    name: str


def missing_name(error: BaseException | None) -> Missing | None:
    """The column or table that an error, or one that it came of, says is not there."""
    while error is not None:
        if column := getattr(error, "column", None):
            return Missing("column", column)
        if type(error).__module__.split(".")[0] in ("duckdb", "_duckdb"):
            for kind, patterns in (("column", _COLUMN), ("table", _TABLE)):
                for pattern in patterns:
                    if found := re.search(pattern, str(error)):
                        return Missing("column" if kind == "column" else "table", found[1])
        error = error.__cause__
    return None
