"""The rights columns of a source: whose it is, under which terms, and what its owner said of text and data mining.

They come from manifests and from `opt_outs`, and stand in `sources` and `clips` of every catalog, NULL where nothing
was said. In `optout_*` NULL is "not checked", and 'none found' is "checked, and there was none".
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from stages.shards.rights import RIGHTS_NAMES, SIGNALS, signal_names

TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")

SOURCE_KINDS = ("public dataset", "licensed", "private", "crawled", "user", "synthetic")
ALLOWED, CONSTRAINED, NOT_ALLOWED, NONE_FOUND = "allowed", "constrained", "not allowed", "none found"
ANSWERS = (ALLOWED, CONSTRAINED, NOT_ALLOWED, NONE_FOUND)

RIGHTS = pa.schema({name: TIME if name.endswith("_checked") else TEXT for name in RIGHTS_NAMES})
CHOICES: Mapping[str, tuple[str, ...]] = {"source_kind": SOURCE_KINDS} | {f"optout_{s}": ANSWERS for s in SIGNALS}
TIMES = frozenset(field.name for field in RIGHTS if field.type == TIME)
CHECKED = frozenset([*CHOICES, *TIMES])  # columns that do not take every text


def signal_columns(signal: str) -> dict[str, pa.DataType]:
    """The three columns of an opt-out signal, with their types."""
    return {name: RIGHTS.field(name).type for name in signal_names(signal)}


# The host of an http(s) URI. Python's `re` and DuckDB read it alike.
HOST = r"^[hH][tT][tT][pP][sS]?://(?:[^/?#@]*@)?(\[[^\]/]*\]|[^/:?#]+)"


def rights_value(name: str, cell: str | None) -> Any:
    """A cell of a rights column as it is stored: a text, or a time in UTC. ValueError says what was expected."""
    if cell is None:
        return None
    if name in CHOICES and cell not in CHOICES[name]:
        choices = ", ".join(map(repr, CHOICES[name]))
        raise ValueError(f"{name} is {cell!r}, expected one of {choices}, or an empty cell")
    if name not in TIMES:
        return cell
    try:
        time = datetime.datetime.fromisoformat(cell.strip())
    except ValueError:
        raise ValueError(f"{name} is {cell!r}, expected a date such as 2026-01-31 or 2026-01-31T12:00:00Z") from None
    return time.replace(tzinfo=time.tzinfo or datetime.UTC).astimezone(datetime.UTC)


def domain_of(uri: str) -> str | None:
    """The host of an http(s) URI, in small letters; None for another."""
    found = re.match(HOST, uri)
    return found[1].lower() if found else None


def domain_sql(domain: str, uri: str) -> str:
    """The domain as said, or else as `domain_of` finds it, in SQL."""
    return f"coalesce({domain}, lower(nullif(regexp_extract({uri}, '{HOST}', 1), '')))"
