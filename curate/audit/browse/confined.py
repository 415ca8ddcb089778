"""A DuckDB that reads one catalog and nothing else, for SQL that anyone may have typed.

Tables come as Arrow datasets, so that DuckDB opens no file and no store: COPY may write into a file that it is allowed
to read. The configuration is locked behind that. On top, only one SELECT at a time is taken, without COPY and other
writing in its WITH, and without the table functions that open files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow.dataset as pads
from deltalake import DeltaTable
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

from curate.audit.browse.thumbnails import Thumbnails
from curate.catalog.catalog import Catalog, file_paths
from curate.catalog.gates import literal, one_line, quote
from curate.catalog.syntax_tree import nodes, parse, writing
from curate.catalog.views import connect
from curate.errors import UserError
from curate.storage import is_local

# Clips with all their columns, numbered; `_place` is where the thumbnail lies. In memory: a page of a million clips
# takes tens of milliseconds there, and seconds in the view, which joins the tables of all stages anew each time.
CLIPS = "page.clips"
# Table functions that open nothing. `query` and the like would run SQL that was not looked at.
FUNCTIONS = {"range", "generate_series", "unnest", "json_each", "json_tree", "repeat", "repeat_row", "summary"}


@dataclass(frozen=True)
class Confined:
    """`versions` are those of the catalog's tables that `connection` shows, whatever is committed meanwhile."""

    connection: duckdb.DuckDBPyConnection
    datasets: dict[str, Any]  # of the tables, by the name under which SQL of the views finds each
    thumbnails: Thumbnails
    versions: dict[str, int]

    @contextlib.contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own for one question."""
        with self.connection.cursor() as cursor:
            for name, dataset in self.datasets.items():  # a cursor does not see what another has registered
                cursor.register(name, dataset)
            yield cursor


def open_confined(catalog: Catalog, memory_gb: float) -> Confined:
    """Reads all rows of `clips` into memory and locks the door. Raises UserError where they do not fit."""
    versions, datasets = catalog.snapshot(), dict[str, Any]()

    def files(connection: duckdb.DuckDBPyConnection, name: str, table: DeltaTable) -> str:
        relation = f"_files_of_{name}"
        datasets[relation] = _dataset(catalog, table)
        connection.register(relation, datasets[relation])
        return quote(relation)

    connection = connect(catalog, versions, files=files)
    try:
        settings = {
            "memory_limit": f"{memory_gb:.3f}GB",
            "temp_directory": "",  # nothing of the catalog is left on a disk, and no folder beside the user's files
            "enable_progress_bar": "false",  # it would stand on stdout, where the address is awaited
        }
        for setting, value in settings.items():
            connection.execute(f"SET {setting} = {literal(value)}")
        thumbnails = Thumbnails(catalog, versions)
        _read_clips(connection, thumbnails, memory_gb)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return Confined(connection, datasets, thumbnails, versions)


def _dataset(catalog: Catalog, table: DeltaTable) -> pads.Dataset:
    """The rows of a table. Not deltalake's own dataset: where its log has no statistics of a text column, as ours has
    not, that one finds nothing by a condition on the column.
    """
    store = LocalFileSystem() if is_local(catalog.uri) else PyFileSystem(FSSpecHandler(catalog.fs))
    schema = table.to_pyarrow_dataset().schema  # files from before a column was added lack it
    return pads.dataset(file_paths(table), schema=schema, filesystem=store, format="parquet")


def _read_clips(connection: duckdb.DuckDBPyConnection, thumbnails: Thumbnails, memory_gb: float) -> None:
    connection.register("_places", thumbnails.places)
    try:
        connection.execute("CREATE SCHEMA page")
        connection.execute(
            f"CREATE TABLE {CLIPS} AS SELECT row_number() OVER () AS _row, clips.*, _places.place AS _place "
            "FROM clips LEFT JOIN _places ON _places.clip_id = clips.clip_id"
        )
    except duckdb.OutOfMemoryException as error:
        raise UserError(f"the clips do not fit in {memory_gb:.1f} GB of memory: give more with --memory-gb") from error
    finally:
        connection.unregister("_places")
    connection.execute(f"CREATE OR REPLACE VIEW clips AS SELECT * EXCLUDE (_row, _place) FROM {CLIPS}")


def check_select(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Raises UserError for anything but one SELECT (DESCRIBE and SUMMARIZE are too) over what the schema shows."""
    try:
        statements = connection.extract_statements(text)
        if len(statements) != 1:
            raise UserError(f"expected one SELECT, not {len(statements)} statements")
        if statements[0].type != duckdb.StatementType.SELECT:
            raise UserError(f"only a SELECT is taken here, not {statements[0].type.name}")
        if (what := writing(connection, text)) is not None:
            raise UserError(f"only a SELECT is taken here, without {what} inside it")
        tree = parse(connection, text)
    except duckdb.InterruptException:  # it was stopped; that says nothing of the text
        raise
    except (duckdb.Error, RuntimeError, ValueError) as error:  # also for text that is no UTF-8, and deep nesting
        raise UserError(one_line(error)) from error
    if tree["error"]:
        raise UserError(one_line(ValueError(tree["error_message"])))
    for node in nodes(tree):
        if node.get("type") == "TABLE_FUNCTION" and (name := _function(node)) not in FUNCTIONS:
            raise UserError(f"{name}() can't be asked here: the tables of the schema are all there is")


def _function(node: dict[str, Any]) -> str:
    function = node.get("function")
    return str(function.get("function_name")).lower() if isinstance(function, dict) else "a table function"
