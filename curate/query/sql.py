"""`clipmill sql`: runs one query and prints its rows as a table, CSV or JSON, with nothing else on stdout."""

from __future__ import annotations

import base64
import csv
import json
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect, query
from curate.errors import UserError
from models.files import whole_file

if TYPE_CHECKING:
    from rich.console import Console


def print_query(catalog: str, text: str, form: str | None, output: str | None) -> int:
    """Prints the rows of a query, or writes them to the file `output`; returns 0.

    `form` is 'table', 'csv' or 'json'; None takes it from the name of the output. Raises UserError.
    """
    form = form or {".csv": "csv", ".json": "json"}.get(Path(output or "").suffix, "table")
    with connect(Catalog.open(catalog)) as sql:
        names, rows = query(sql, text)
    if output is None:
        write_rows(sys.stdout, names, rows, form)
        return 0
    target = Path(output)
    if target.exists() and not target.is_file():  # a device or a pipe can't be replaced by a file
        with target.open("w", newline="") as file:
            write_rows(file, names, rows, form)
        return 0
    try:
        with whole_file(target.resolve()) as temporary, temporary.open("w", newline="") as file:
            write_rows(file, names, rows, form)
    except OSError as error:
        raise UserError(f"can't write {output}: {error.strerror}") from error
    return 0


def write_rows(file: IO[str], names: list[str], rows: list[tuple[Any, ...]], form: str) -> None:
    """Writes rows as 'table', 'csv' or 'json', which is the `form`."""
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
        _table(file, names, rows)


def _table(file: IO[str], names: list[str], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, name in enumerate(names):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    width = None if file.isatty() else 10_000
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    if console.measure(table).minimum > console.width:  # too many columns for this terminal
        _records(console, names, rows)
    else:
        console.print(table)
    console.print(f"{len(rows):,} row{'' if len(rows) == 1 else 's'}")


def _records(console: Console, names: list[str], rows: list[tuple[Any, ...]]) -> None:
    """One column a line, like psql's expanded display."""
    longest = max(map(len, names), default=0)
    for number, row in enumerate(rows, 1):
        console.print(f"-- row {number} ", style="bold")
        for name, value in zip(names, row, strict=True):
            console.print(f"{name:{longest}}  {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.1f}"
    text = f"<{len(value):,} bytes>" if isinstance(value, bytes | bytearray) else str(_plain(value))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
