"""What the readers of the three kinds of manifest share: two passes, one for the types of columns and one for rows."""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from curate.errors import UserError, first_line
from curate.storage import filesystem

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SAVE = 'save it as UTF-8 ("CSV UTF-8" in a spreadsheet; iconv -t UTF-8)'
CHUNK = 4096  # rows at a time
Row = dict[str, Any]


@dataclass(frozen=True)
class ColumnType:
    """The type of a column over the whole file.

    `numerals` says that all its cells are written in digits, `example` is a cell that is no number.
    """

    type: pa.DataType
    numerals: bool = False
    example: str = ""


class ManifestReader(ABC):
    """One manifest, read from its beginning in each pass, locally or from a store; no pass holds more than a chunk."""

    def __init__(self, manifest: str):
        self.manifest = manifest

    @abstractmethod
    def columns(self) -> list[str]:
        """The names of all columns, in their order."""

    @abstractmethod
    def types(self, naming: str) -> dict[str, ColumnType]:
        """The type of each column that has one, but for `naming`, whose every cell must be a text. UserError."""

    @abstractmethod
    def rows(self, naming: str, types: Mapping[str, pa.DataType]) -> Iterator[Row]:
        """All rows: the cells of these columns as values of these types, and the name of the source. UserError."""

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The open file; what goes wrong with it is one line. UserError."""
        fs, path = filesystem(self.manifest)
        try:
            with fs.open(path, "rb") as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            why = "there is no such file" if isinstance(error, FileNotFoundError) else first_line(error)
            raise UserError(f"can't read the manifest {self.manifest}: {why}") from error

    @contextmanager
    def opened_text(self) -> Iterator[BinaryIO]:
        """The open file of a manifest of text, which is UTF-8. UserError, with the fix, for another encoding."""
        with self.opened() as file:
            head = file.read(4)
            if head.startswith(UTF_16) or b"\0" in head:
                raise UserError(f"the manifest {self.manifest} is UTF-16: {SAVE}")
            file.seek(0)
            try:
                yield file
            except (pa.ArrowInvalid, UnicodeDecodeError) as error:
                if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in str(error):
                    row = re.search(r"Row #\d+", str(error))
                    where = f" ({row[0].lower().replace('#', '')})" if row else ""
                    raise UserError(f"the manifest {self.manifest} is not UTF-8{where}: {SAVE}") from error
                raise

    def check_name(self, naming: str, number: int, name: object) -> None:
        """UserError for a row, counted from 1, that names no source."""
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{self.manifest}: row {number}: {naming} is {name!r}, expected a path or URI")


def chosen(row: Row, naming: str, types: Collection[str]) -> Row:
    """Of a row, the name of its source and the cells of these columns; absent ones are None."""
    return {naming: row[naming]} | {name: row.get(name) for name in types}
