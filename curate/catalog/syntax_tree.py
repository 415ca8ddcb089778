"""The syntax tree of SQL as DuckDB itself parses it, without running it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}  # that change nothing
_QUERY = re.compile(r'"type":"(\w+_NODE)"')  # quotes of the user's own texts are escaped there


def parse(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    """DuckDB's tree of SELECT statements: `statements`, or `error` and its message for text that is none."""
    return json.loads(_serialized(connection, text))


def writing(connection: duckdb.DuckDBPyConnection, select: str) -> str | None:
    """What a statement that DuckDB calls a SELECT writes by: INSERT, UPDATE, DELETE or COPY may stand inside its WITH.
    None where it only reads.
    """
    found = [name for name in _QUERY.findall(_serialized(connection, select)) if name not in QUERIES]
    return found[0].partition("_")[0] if found else None


def _serialized(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """The tree as JSON. Not parsed, it can be looked through however deep it is."""
    return connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0]


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
