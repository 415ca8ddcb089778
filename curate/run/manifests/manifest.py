"""A manifest as the listing takes it: the columns it brings to `sources`, and an entry for each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from curate.catalog.locations import canonical
from curate.catalog.rights import CHECKED, RIGHTS, rights_value
from curate.catalog.schema import TEXT
from curate.errors import UserError
from curate.run.manifests.csv_file import CsvReader
from curate.run.manifests.jsonl_file import JsonlReader
from curate.run.manifests.kinds import joined
from curate.run.manifests.names import naming_column, stored_names
from curate.run.manifests.parquet_file import ParquetReader
from curate.run.manifests.reader import ColumnType, ManifestReader

READERS: dict[str, type[ManifestReader]] = {
    ".parquet": ParquetReader,
    ".csv": CsvReader,
    ".jsonl": JsonlReader,
    ".ndjson": JsonlReader,
}


def is_manifest(text: str) -> bool:
    return text.lower().endswith(tuple(READERS))


class Manifest:
    """One manifest; `uri` is its path or URI. What reads it raises UserError."""

    def __init__(self, uri: str):
        self.uri = uri
        self.reader = READERS["." + uri.lower().rpartition(".")[2]](uri)

    @cached_property
    def names(self) -> dict[str, str]:
        """Column of the manifest -> column of `sources`, but for the one that names the source."""
        return stored_names(self.uri, [name for name in self._columns if name != self.naming])

    @cached_property
    def naming(self) -> str:
        return naming_column(self.uri, self._columns)

    @cached_property
    def _columns(self) -> list[str]:
        return self.reader.columns()

    @cached_property
    def types(self) -> dict[str, ColumnType]:
        """The columns that it brings to `sources`, each with its type over the whole file, which is read for them.

        Rights columns have types of their own. UserError, naming the row, for a cell that such a column does not take.
        """
        found = {self.names[name]: column for name, column in self.reader.types(self.naming).items()}
        if checked := [name for name in found if name in CHECKED]:
            for _ in self._rows(dict.fromkeys(checked, TEXT)):
                pass
        rights = {name: replace(found[name], type=RIGHTS.field(name).type) for name in found if name in RIGHTS.names}
        return found | rights

    def entries(self, types: Mapping[str, pa.DataType]) -> Iterator[dict[str, Any]]:
        """For each row `uri` and the columns of `types`, which are called as in `sources`.

        Relative names are taken from the manifest's own folder.
        """
        folder = self.uri.rsplit("/", 1)[0] if "/" in self.uri else "."
        for row in self._rows(types):
            yield row | {"uri": canonical(row["uri"], folder)}

    def _rows(self, types: Mapping[str, pa.DataType]) -> Iterator[dict[str, Any]]:
        """For each row `uri`, as it is written, and the columns of `types`."""
        wanted = {own: name for own, name in self.names.items() if name in types}
        read_as = {own: TEXT if name in RIGHTS.names else types[name] for own, name in wanted.items()}
        checked = [own for own, name in wanted.items() if name in CHECKED]
        for number, row in enumerate(self.reader.rows(self.naming, read_as), 1):
            uri = row.pop(self.naming)
            try:
                for own in checked:
                    row[own] = rights_value(wanted[own], row.get(own))
            except ValueError as error:
                raise UserError(f"{self.uri}: row {number}: {error}") from error
            yield {self.names[name]: value for name, value in row.items()} | {"uri": uri}


def join_types(stored: Mapping[str, pa.DataType], manifests: Iterable[Manifest]) -> dict[str, pa.DataType]:
    """The columns that manifests bring, in types that hold the values of all of them and of those that are stored."""
    found: dict[str, pa.DataType] = {}
    spelled = {name.lower(): name for name in stored}
    for manifest in manifests:
        for name, column in manifest.types.items():
            if (there := spelled.setdefault(name.lower(), name)) != name:
                raise UserError(f"{manifest.uri}: column {name!r} is in the catalog as {there!r}: rename it")
            before = found.get(name, stored.get(name))
            what = f"{manifest.uri}: column {name!r} of sources"
            found[name] = joined(before, column.type, column.numerals, what, column.example)
        for name in manifest.names.values():  # of empty cells alone
            if name in stored:
                found.setdefault(name, stored[name])
    return found
