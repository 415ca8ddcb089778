"""CSV manifests: every cell is read as text first, so that no part of the file decides for the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from curate.catalog.schema import TEXT
from curate.errors import UserError
from curate.run.manifests.kinds import Cells, Kind
from curate.run.manifests.reader import CHUNK, ColumnType, ManifestReader, Row

BLOCK = 1 << 20  # bytes that are parsed at a time; no row may be longer
INTEGER = r"^\s*(?:0|-?[1-9][0-9]*)\s*$"
FLOAT = r"^\s*-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*$"
DIGITS = r"^[0-9]+$"
SURE = 18  # digits of a whole number that fits 64 bits for certain
MOST = 38  # digits that Arrow computes with
WORDS: dict[Kind, str] = {
    "boolean": r"^(?:true|false|True|False|TRUE|FALSE)$",
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?$",
}
TOKENS = pa.array(csv.ConvertOptions().null_values)  # an empty cell among numbers: NA, null, nan, ...


class CsvReader(ManifestReader):
    """A file with a header line; quotes may hold line breaks. An empty cell is NULL whatever its column's type."""

    def columns(self) -> list[str]:
        with self.opened_text() as file:
            names = _open(file).schema.names
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{self.manifest}: two columns are called {name!r}: rename one")
        return names

    def types(self, naming: str) -> dict[str, ColumnType]:
        columns = self.columns()
        found = {name: Cells() for name in columns if name != naming}
        number = 0
        end: str | None = None  # the file's last cell
        for batch in self._batches([naming, *found]):
            self._check_names(naming, number, batch[naming])
            number += len(batch)
            end = batch[columns[-1]][-1].as_py() if len(batch) else end
            for name, cells in found.items():
                if "text" not in cells.kinds:
                    look_at_texts(batch[name], cells)
        self._check_end(number, end or "")
        kinds = {name: cells.type() for name, cells in found.items()}
        return {
            name: ColumnType(kind, found[name].are_numerals, found[name].example)
            for name, kind in kinds.items()
            if kind is not None
        }

    def rows(self, naming: str, types: Mapping[str, pa.DataType]) -> Iterator[Row]:
        there = set(self.columns())
        number = 0
        for batch in self._batches([naming, *(name for name in types if name in there)]):
            self._check_names(naming, number, batch[naming])
            number += len(batch)
            columns = {n: converted(batch[n], types.get(n, TEXT)) for n in batch.schema.names}
            for part in pa.table(columns).to_batches(CHUNK):
                yield from part.to_pylist()

    def _batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """The cells of these columns as texts, empty ones as NULL."""
        with self.opened_text() as file:
            yield from _open(file, names)

    def _check_end(self, row: int, cell: str) -> None:
        """UserError where the last cell holds line breaks and no quote ends it: it has swallowed the rows after it."""
        if "\n" not in cell:
            return
        with self.opened_text() as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - BLOCK))
            if not file.read().rstrip().endswith(b'"'):
                begin = cell.splitlines()[0][:40]
                raise UserError(f"{self.manifest}: row {row}: the quote before {begin!r} is never closed")

    def _check_names(self, naming: str, before: int, names: pa.Array) -> None:
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(names), ""), True)
        if (at := pc.index(blank, True).as_py()) >= 0:
            self.check_name(naming, before + at + 1, names[at].as_py())


def _open(file: object, names: list[str] | None = None) -> csv.CSVStreamingReader:
    return csv.open_csv(
        file,
        read_options=csv.ReadOptions(block_size=BLOCK, use_threads=False),  # its errors then name the row
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names or (), TEXT), include_columns=names, null_values=[""],
            strings_can_be_null=True,
        ),
    )  # fmt: skip


def look_at_texts(texts: pa.Array, cells: Cells) -> None:
    """Takes note of what the texts of one column are; NULL counts for nothing."""
    left = texts.drop_null()
    tokens = pc.is_in(left, value_set=TOKENS)
    if pc.any(tokens).as_py():
        cells.see("token")
        left = left.filter(pc.invert(tokens))
    left, whole = _split(left, INTEGER)
    left = _look_at_integers(whole, left, cells)
    left, floats = _split(left, FLOAT)
    if len(floats):
        cells.see("float")
        if not pc.all(pc.is_finite(converted(floats, pa.float64()))).as_py():
            cells.see_text(floats[0].as_py())  # 1e999 is no number that a column can hold
    for kind, pattern in WORDS.items():
        left, found = _split(left, pattern)
        if len(found):
            cells.see(kind) if _converts(found, kind) else cells.see_text(found[0].as_py())
    left, digits = _split(left, DIGITS)
    if len(digits):
        cells.see_text(digits[0].as_py(), digits=True)
    if len(left):
        cells.see_text(left[0].as_py())


def _look_at_integers(whole: pa.Array, left: pa.Array, cells: Cells) -> pa.Array:
    """Takes note of the range of whole numbers; those too long to compute with join the texts that are left."""
    if not len(whole):
        return left
    long = pc.greater(pc.utf8_length(whole), MOST)
    if pc.any(long).as_py():
        cells.see_text(whole.filter(long)[0].as_py(), digits=True)
        whole = whole.filter(pc.invert(long))
    if len(whole):
        sure = pc.max(pc.utf8_length(whole)).as_py() <= SURE
        extremes = pc.min_max(converted(whole, pa.int64() if sure else pa.decimal128(MOST, 0)))
        cells.see_range(int(extremes["min"].as_py()), int(extremes["max"].as_py()))
    return left


def _split(texts: pa.Array, pattern: str) -> tuple[pa.Array, pa.Array]:
    """(texts that a pattern does not match, texts that it does)."""
    if not len(texts):
        return texts, texts
    matched = pc.match_substring_regex(texts, pattern)
    return texts.filter(pc.invert(matched)), texts.filter(matched)


def _converts(texts: pa.Array, kind: Kind) -> bool:
    """Whether texts that look like dates are (the 30th of February is none)."""
    to = {"boolean": pa.bool_(), "date": pa.date32(), "timestamp": pa.timestamp("us")}[kind]
    try:
        texts.cast(to)
    except pa.ArrowInvalid:
        return False
    return True


def converted(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Texts as values of a type; what tables write for an empty cell is NULL, but among texts."""
    if kind == TEXT:
        return texts
    plain = pc.utf8_trim_whitespace(texts)
    plain = pc.if_else(pc.is_in(plain, value_set=TOKENS), pa.scalar(None, TEXT), plain)
    if pa.types.is_timestamp(kind):
        return plain.cast(pa.timestamp("us")).cast(kind)  # without a zone it is UTC
    return plain.cast(kind)
