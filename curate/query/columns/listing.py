"""`clipmill columns`: every table and column with its type, unit, stage and meaning, of a catalog or as documented."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.errors import UserError, did_you_mean, nearest
from curate.query.columns.words import ColumnWords, documented, of_catalog, own_tables
from curate.query.sql import write_rows

if TYPE_CHECKING:
    import duckdb

SHOWN = ("column", "type", "unit", "stage", "meaning")


@contextmanager
def empty_catalog() -> Iterator[duckdb.DuckDBPyConnection]:
    """The views of a catalog that holds nothing."""
    with tempfile.TemporaryDirectory() as folder, connect(Catalog.open_or_create(folder)) as sql:
        yield sql


def print_columns(catalog: str | None, name: str | None, form: str) -> int:
    """Prints the columns of a catalog, or without one those that clipmill documents: of one table, of one name in every
    table, or all of them; returns 0. UserError for a name that is not there.
    """
    if catalog is None:
        with empty_catalog() as sql:
            found = documented(sql)
    else:
        with connect(Catalog.open(catalog)) as sql:
            found = of_catalog(sql)
    tables = list(dict.fromkeys(words.table for words in found))
    if name is not None:
        chosen = [one for one in found if one.table == name] or [one for one in found if one.column == name]
        if not chosen:
            where = "is documented" if catalog is None else f"is in {catalog}"
            like = nearest(name, [*tables, *(one.column for one in found)]) or did_you_mean(name, tables)
            raise UserError(f"no table or column {name!r} {where}{like}")
        found = chosen
    if form != "table":
        rows = [(words.table, *_row(words)) for words in found]
        write_rows(sys.stdout, ["table", *SHOWN], rows, form)
        return 0
    for table in tables:
        if rows := [_row(words) for words in found if words.table == table]:
            _print_table(table, rows)
    return 0


def said_of(table: str, stage: str) -> str:
    """What a row of a table is."""
    own = own_tables().get(table)
    return own.row if own else f"what the stage `{stage}` says of a clip"


def _row(words: ColumnWords) -> tuple[str, ...]:
    return tuple(getattr(words, name) for name in SHOWN)


def _print_table(name: str, rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() else 10_000
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    console.print(f"{name}: one row is {said_of(name, rows[0][SHOWN.index('stage')])}", style="bold")
    table = Table()
    for column in SHOWN:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
