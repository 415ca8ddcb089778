"""Which columns of a `SELECT *` a terminal shows: those that say most, as many as stand side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from curate.catalog.gates import referenced_columns
from curate.catalog.schema import BOOKKEEPING
from curate.catalog.syntax_tree import nodes, parse
from curate.query.columns.words import own_tables
from curate.query.gates import gates_in_force
from curate.query.text_table import TextTable

LONGEST = 40  # characters of a value
NOTES = ("_id", "_hash", "_pts", "_num", "_den", "_prompt", "_revision", "_model", "_basis")  # how such names end
NOTED = {*BOOKKEEPING, "versions", "contract", "phash", "phash_frames", "recipe_text", "stages", "counts", "run_id"}


def has_star(sql: duckdb.DuckDBPyConnection, text: str) -> bool:
    """Whether the columns of a query are chosen by `*`."""
    return any(node.get("class") == "STAR" for node in _chosen(_tree(sql, text)))


def readable_columns(sql: duckdb.DuckDBPyConnection, text: str, table: TextTable, width: int) -> list[int]:
    """The columns of a query's `table`, by place, that stand side by side in `width` characters.

    First those that the query names beside `*`, those that say most of the tables it reads, and those that gates in
    force judge by; then the others in their order. A column of NULL alone is left out, and what is noted of a row.
    """
    tree = _tree(sql, text)
    read = {node["table_name"].lower() for node in nodes(tree) if node.get("type") == "BASE_TABLE"}
    own = [words for words in own_tables().values() if words.name in read]
    first = [name for node in _chosen(tree) if (name := node.get("alias") or (node.get("column_names") or [""])[-1])]
    first += [column for words in own for column in words.first] or ["clip_id"]
    if "clips" in read:
        gates = [standing.gate for standing in gates_in_force(sql) if "." not in standing.gate.name]
        first += sorted({column for gate in gates for column in referenced_columns(sql, gate)})
    places = {name: at for at, name in reversed(list(enumerate(table.names)))}
    wanted = [places[name] for name in first if name in places]
    wanted += [at for at, name in enumerate(table.names) if name not in NOTED and not name.endswith(NOTES)]
    found, left = [], width - 1
    for at in dict.fromkeys(wanted):
        if table.rows and all(row[at] == "NULL" for row in table.rows):
            continue
        if (needed := table.column_width(at)) <= left:
            found.append(at)
            left -= needed
    return found


def shortened(name: str, value: str) -> str:
    """A value of at most LONGEST characters; of a path its end, without the current folder."""
    if name == "uri":
        value = value.removeprefix(f"{Path.cwd()}/")
        return value if len(value) <= LONGEST else f"…{value[1 - LONGEST :]}"
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"


def _tree(sql: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    """The syntax tree of a query; empty for what is no SELECT, such as EXPLAIN."""
    tree = parse(sql, text)
    return {} if tree["error"] else tree["statements"][0]["node"]


def _chosen(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The items between SELECT and FROM; of a UNION those of its first query."""
    while "left" in tree:
        tree = tree["left"]
    return tree.get("select_list", [])
