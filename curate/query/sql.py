"""`clipmill sql`: one query, printed as a table, CSV or JSON; data alone goes to stdout."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import sys
from pathlib import Path
from typing import IO, Any

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect, query
from curate.errors import UserError


def print_query(catalog: str, text: str, form: str | None, output: str | None) -> int:
    """`form` is 'table', 'csv' or 'json'; None takes it from the name of the output."""
    form = form or {".csv": "csv", ".json": "json"}.get(Path(output or "").suffix, "table")
    with connect(Catalog.open(catalog)) as sql:
        names, rows = query(sql, text)
    if output is None:
        write_rows(sys.stdout, names, rows, form)
        return 0
    target = Path(output)
    if target.exists() and not target.is_file():  # a device or a pipe is written to, never replaced
        with target.open("w", newline="") as file:
            write_rows(file, names, rows, form)
        return 0
    target = target.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")  # whole or absent, never half a file
    try:
        with part.open("w", newline="") as file:
            write_rows(file, names, rows, form)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"can't write {output}: {error.strerror}") from error
    return 0


def write_rows(file: IO[str], names: list[str], rows: list[tuple[Any, ...]], form: str) -> None:
    """`form` is 'table', 'csv' or 'json'."""
    if form == "csv":
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_plain(value) for value in row] for row in rows)
    elif form == "json":
        keys = [name if name not in names[:i] else f"{name}_{i}" for i, name in enumerate(names)]
        file.write("[")
        for number, row in enumerate(rows):
            known = {name: _known(value) for name, value in zip(keys, row, strict=True)}
            record = json.dumps(known, default=_plain, ensure_ascii=False)
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


def _records(console: Any, names: list[str], rows: list[tuple[Any, ...]]) -> None:
    """One column a line, as psql's expanded display."""
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


def _known(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return {str(key): _known(item) for key, item in value.items()} if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return json.dumps(value, default=str)
    return value if value is None or isinstance(value, int | float | str) else str(value)
