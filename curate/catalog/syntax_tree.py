"""The syntax tree of SQL as DuckDB itself parses it, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb


def parse(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    """DuckDB's tree of SELECT statements: `statements`, or `error` and its message for text that is none."""
    return json.loads(connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """A tree's nodes, each before those below it. Without recursion: a query may be nested deeply."""
    waiting = [tree]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting.extend(reversed(found.values()))
        elif isinstance(found, list):
            waiting.extend(reversed(found))
