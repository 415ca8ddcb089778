"""`clipmill sql`: runs one query and prints its rows as a table, CSV or JSON, with nothing else on stdout."""

from __future__ import annotations

import base64
import csv
import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect, query
from curate.errors import UserError, printable
from models.files import whole_file

if TYPE_CHECKING:
    import duckdb

    from curate.query.text_table import Layout, TextTable


def print_query(
    catalog: str, text: str, form: str | None, output: str | None, layout: Layout | None = None,
    beside: Callable[[Catalog, duckdb.DuckDBPyConnection], None] | None = None,
) -> int:  # fmt: skip
    """Prints the rows of a query, or writes them to the file `output`; returns 0.

    `form` is 'table', 'csv' or 'json'; None takes it from the name of the output. A table is 'wide', with every column
    side by side, or 'vertical', a column a line; None shows every column, but of a `SELECT *` on a terminal those that
    stand side by side and say most. `beside` may add the views of something else to the connection. Raises UserError.
    """
    form = form or {".csv": "csv", ".json": "json"}.get(Path(output or "").suffix, "table")
    if layout is not None and form != "table":
        raise UserError(f"--{layout} is for tables, and {form} has every column: leave one of them out")
    opened = Catalog.open(catalog)
    with connect(opened) as sql:
        if beside is not None:
            beside(opened, sql)
        names, rows = query(sql, text)
        if output is None and form == "table" and layout is None and sys.stdout.isatty():
            _print_readable(sql, text, _text_table(names, rows))
            return 0
    if output is None:
        write_rows(sys.stdout, names, rows, form, layout)
        return 0
    target = Path(output)
    if target.exists() and not target.is_file():  # a device or a pipe can't be replaced by a file
        with target.open("w", newline="") as file:
            write_rows(file, names, rows, form, layout)
        return 0
    try:
        with whole_file(target.resolve()) as temporary, temporary.open("w", newline="") as file:
            write_rows(file, names, rows, form, layout)
    except OSError as error:
        raise UserError(f"can't write {output}: {error.strerror}") from error
    return 0


def write_rows(
    file: IO[str],
    names: list[str],
    rows: list[tuple[Any, ...]],
    form: str,
    layout: Layout | None = None,
) -> None:
    """Writes rows as 'table', 'csv' or 'json', which is the `form`; a table as `print_query` says."""
    if form == "csv":
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_plain(value) for value in row] for row in rows)
    elif form == "json":
        keys = [name if name not in names[:i] else f"{name}_{i}" for i, name in enumerate(names)]
        file.write("[")
        for number, row in enumerate(rows):
            finite = {name: _finite(value) for name, value in zip(keys, row, strict=True)}
            record = json.dumps(finite, default=_plain, ensure_ascii=False)
            file.write(("," if number else "") + "\n" + record)
        file.write("\n]\n" if rows else "]\n")
    else:
        _text_table(names, rows).print(file, layout)


def _print_readable(sql: duckdb.DuckDBPyConnection, text: str, table: TextTable) -> None:
    """A table on the terminal; of a `SELECT *` that is wider, the columns that say most, and on stderr which."""
    from curate.query.readable import has_star, readable_columns, shortened

    there = len(table.names)
    width = shutil.get_terminal_size().columns
    places: list[int] = []
    if table.width() > width and has_star(sql, text):
        short = [[shortened(name, value) for name, value in zip(table.names, row, strict=True)] for row in table.rows]
        places = readable_columns(sql, text, replace(table, rows=short), width)
        table = replace(table, rows=short).chosen(places) if places else table
    table.print(sys.stdout)
    if places:
        left_out = f"{there - len(places)} column{'s' if there - len(places) > 1 else ''} left out"
        print(f"shown: {', '.join(table.names)}; {left_out} (--wide shows all, --vertical one a line)", file=sys.stderr)


def _text_table(names: list[str], rows: list[tuple[Any, ...]]) -> TextTable:
    from curate.query.text_table import TextTable

    numbers = frozenset(at for at in range(len(names)) if any(isinstance(row[at], int | float) for row in rows))
    return TextTable(names, [[_cell(value) for value in row] for row in rows], numbers)


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.1f}"
    return printable(f"<{len(value):,} bytes>" if isinstance(value, bytes | bytearray) else str(_plain(value)))


def _finite(value: Any) -> Any:
    """The value with null in place of NaN and infinity, which JSON does not have, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal) and value.as_tuple().exponent == 0:
        return int(value)  # JSON has whole numbers of any length
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return {str(key): _finite(item) for key, item in value.items()} if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    """A value as CSV and JSON can hold it: bytes as base64, lists as JSON, other types as text."""
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return json.dumps(value, default=str)
    return value if value is None or isinstance(value, int | float | str) else str(value)
