"""JSONL manifests: a JSON object a line. Its values have types already, which are joined over the whole file."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from curate.catalog.schema import TEXT
from curate.errors import UserError
from curate.run.manifests.kinds import Cells
from curate.run.manifests.reader import ColumnType, ManifestReader, Row, chosen


class JsonlReader(ManifestReader):
    """A key that a line lacks is an empty cell. Lists and objects are kept as JSON text."""

    def columns(self) -> list[str]:
        return list(self._seen[0])

    def types(self, naming: str) -> dict[str, ColumnType]:
        cells, texts, rows = self._seen
        if texts[naming] < rows:
            for number, row in self._lines():
                self.check_name(naming, number, row.get(naming))
        kinds = {name: found.type() for name, found in cells.items() if name != naming}
        return {
            name: ColumnType(kind, cells[name].are_numerals, cells[name].example)
            for name, kind in kinds.items()
            if kind is not None
        }

    @cached_property
    def _seen(self) -> tuple[dict[str, Cells], Counter[str], int]:
        """From one pass: what the values of each column are, how many of them are texts, and the number of rows."""
        found: dict[str, Cells] = {}
        texts: Counter[str] = Counter()
        number = 0
        for number, row in self._lines():  # noqa: B007 the last one is their number
            for name, value in row.items():
                cells = found.setdefault(name, Cells())
                texts[name] += isinstance(value, str) and bool(value.strip())
                if value is not None:
                    look_at_value(value, cells)
        return found, texts, number

    def rows(self, naming: str, types: Mapping[str, pa.DataType]) -> Iterator[Row]:
        for number, row in self._lines():
            self.check_name(naming, number, row.get(naming))
            yield {name: plain(value, types.get(name, TEXT)) for name, value in chosen(row, naming, types).items()}

    def _lines(self) -> Iterator[tuple[int, Row]]:
        """(row, counted from 1, its values); lines without text are left out."""
        number = 0
        with self.opened_text() as file:
            for line_number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line, parse_float=_number)
                except UnicodeDecodeError:
                    raise
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{self.manifest}:{line_number}: not valid JSON: {error}") from error
                if not isinstance(row, dict):
                    raise UserError(f"{self.manifest}:{line_number}: expected an object, got {type(row).__name__}")
                number += 1
                yield number, row


def _number(text: str) -> float | str:
    """A number as written where it is greater than any floating-point number."""
    value = float(text)
    return value if math.isfinite(value) else text


def look_at_value(value: Any, cells: Cells) -> None:
    """Takes note of what one value of a column is."""
    if isinstance(value, bool):
        cells.see("boolean")
    elif isinstance(value, int):
        cells.see_range(value, value)
    elif isinstance(value, float):
        cells.see("float")
    else:
        text = plain(value, TEXT)
        cells.see_text(text, digits=text.isascii() and text.isdigit())


def plain(value: Any, kind: pa.DataType) -> Any:
    """A value as a column of a type takes it: as text where that is the type, NaN as None."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list | dict | tuple):
        value = json.dumps(value, default=str)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate is no text
    if value is None or kind != TEXT:
        return value
    if isinstance(value, datetime.timedelta):
        return str(value)
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)
