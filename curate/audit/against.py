"""What an audit is compared with: another version of the catalog, another catalog, or a dataset."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.audit.selection import EVERY_CLIP, Chosen, of_dataset, of_select
from curate.catalog.catalog import MARKER, Catalog
from curate.catalog.syntax_tree import parse
from curate.catalog.versions import find_version
from curate.catalog.views import OTHER, connect_beside, of_other
from curate.datasets.files import ABOUT, open_dataset
from curate.errors import UserError
from curate.storage import is_local

PREFIX = "other_"  # of the relations of what is compared with
RELATIONS = ("chosen", "judged", "audited", "audited_sources")


@dataclass(frozen=True)
class Against:
    """The catalog, at a version, that an audit is compared with, and which of its clips."""

    said: str
    catalog: Catalog
    tables: Mapping[str, int]  # version by table
    moment: datetime.datetime | None  # the gates of this time judge; None: those in force
    chosen: Chosen = EVERY_CLIP
    same_catalog: bool = False  # as the one that is audited

    def attach(self, sql: duckdb.DuckDBPyConnection) -> None:
        """Makes its views those of the database `other` of a connection."""
        connect_beside(sql, self.catalog, self.tables, self.moment)


def find_against(catalog: Catalog, text: str) -> Against:
    """What `--against TEXT` names: a dataset's folder, a catalog's URI, or a version of this catalog. UserError."""
    if is_local(text) and Path(text, ABOUT).exists():
        return _dataset(catalog, text)
    if not is_local(text) or Path(text, MARKER).exists():
        other = Catalog.open(text)
        return Against(f"the catalog {other.uri}", other, other.snapshot(), None, same_catalog=other.uri == catalog.uri)
    if "/" in text or Path(text).is_dir():
        raise UserError(f"--against {text}: there is no catalog and no dataset in that folder")
    version = find_version(catalog, text)
    return Against(version.said, catalog, version.tables, version.moment, same_catalog=True)


def attach_other(text: str, catalog: Catalog, sql: duckdb.DuckDBPyConnection) -> None:
    """Adds the views of what `--against TEXT` names to a catalog's connection, as `other.clips` and so on."""
    find_against(catalog, text).attach(sql)


def _dataset(catalog: Catalog, folder: str) -> Against:
    """The samples of a dataset, as the catalog that it was made of judges them now."""
    dataset = open_dataset(folder)
    try:
        root = Catalog.open(dataset.root)
    except UserError as error:
        raise UserError(
            f"--against {folder}: the catalog that it was made of is out of reach ({error}); --other {folder} counts "
            "what it shares with this one"
        ) from error
    said = f"the dataset {dataset.name}"
    return Against(said, root, root.snapshot(), None, of_dataset(dataset), root.uri == catalog.uri)


def selected(sql: duckdb.DuckDBPyConnection, against: Against, select: str | None) -> Chosen:
    """Which clips of the other are compared: those that the same --select gives there, unless it has its own."""
    if select is None or against.chosen.sql is not None:
        return against.chosen
    with of_other(sql):
        return of_select(sql, select)


def as_other(sql: duckdb.DuckDBPyConnection, text: str, views: Mapping[str, Any]) -> str:
    """A query over the views of a catalog and the relations of an audit, as one over those of the other."""
    tree = parse(sql, text)
    if tree["error"]:
        raise UserError(f"a query that can't be asked of the other: {tree['error_message']}")
    own = _names_of_ctes(tree)

    def rename(node: dict[str, Any]) -> None:
        path = node["qualified_name"]["path"]
        if node["catalog_name"] or path[-1] in own:
            return
        if path[:-1] == [] and path[-1] in RELATIONS:
            there = [PREFIX + path[-1]]
        elif len(path) > 1 or path[-1].lower() in views:
            there = [OTHER, *(path if len(path) > 1 else ["main", *path])]
        else:
            return
        node["alias"] = node["alias"] or path[-1]
        node["qualified_name"]["path"] = there
        node["catalog_name"], node["schema_name"], node["table_name"] = ["", "", *there][-3:]

    _each_table(tree, rename)
    return sql.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()[0][0]


def _names_of_ctes(tree: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(tree, dict):
        found |= {each["key"] for each in (tree.get("cte_map") or {}).get("map", ())}
        tree = list(tree.values())
    if isinstance(tree, list):
        for child in tree:
            found |= _names_of_ctes(child)
    return found


def _each_table(tree: Any, change: Callable[[dict[str, Any]], None]) -> None:
    if isinstance(tree, dict):
        if tree.get("type") == "BASE_TABLE":
            change(tree)
        tree = list(tree.values())
    if isinstance(tree, list):
        for child in tree:
            _each_table(child, change)
