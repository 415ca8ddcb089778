"""Parquet manifests: columns have types, which are kept as far as a catalog has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.catalog.schema import BIGINT, DOUBLE, TEXT, storable
from curate.run.manifests.jsonl_file import plain
from curate.run.manifests.kinds import integer_type
from curate.run.manifests.reader import CHUNK, ColumnType, ManifestReader, Row


class ParquetReader(ManifestReader):
    """Lists, structs and maps are kept as JSON text; whole numbers without a sign by their range."""

    def columns(self) -> list[str]:
        with self.opened() as file:
            return list(pq.ParquetFile(file).schema_arrow.names)

    def types(self, naming: str) -> dict[str, ColumnType]:
        with self.opened() as file:
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            unsigned = [field.name for field in schema if _plain(field.type) == pa.uint64()]
            greatest = dict.fromkeys(unsigned, 0)
            number = 0
            for batch in parquet.iter_batches(CHUNK, columns=[naming, *unsigned]):
                names = batch[naming].to_pylist()
                for row, name in enumerate(names, number + 1):
                    self.check_name(naming, row, name)
                number += len(names)
                for name in unsigned:
                    found = pc.max(batch[name].cast(pa.uint64())).as_py()
                    greatest[name] = max(greatest[name], found or 0)
        kinds = {f.name: integer_type(0, greatest[f.name]) if f.name in greatest else stored_as(f.type) for f in schema}
        return {
            name: ColumnType(kind, numerals=pa.types.is_integer(kind))
            for name, kind in kinds.items()
            if kind is not None and name != naming
        }

    def rows(self, naming: str, types: Mapping[str, pa.DataType]) -> Iterator[Row]:
        with self.opened() as file:
            parquet = pq.ParquetFile(file)
            there = [name for name in parquet.schema_arrow.names if name == naming or name in types]
            number = 0
            for batch in parquet.iter_batches(CHUNK, columns=there):
                columns = {name: values_of(batch[name], types.get(name, TEXT)) for name in there}
                for row in pa.table(columns).to_pylist():
                    number += 1
                    self.check_name(naming, number, row[naming])
                    yield {name: plain(value, types.get(name, TEXT)) for name, value in row.items()}


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def stored_as(kind: pa.DataType) -> pa.DataType | None:
    """The type of a column of `sources` for an Arrow type; None for a column of NULL alone."""
    kind = _plain(kind)
    if pa.types.is_null(kind):
        return None
    if pa.types.is_integer(kind):
        return BIGINT
    if pa.types.is_floating(kind):
        return DOUBLE
    if pa.types.is_nested(kind) or pa.types.is_duration(kind) or pa.types.is_decimal256(kind):
        return TEXT
    return storable(kind)


def values_of(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values whose Python objects a column of this type takes: times to the microsecond, numbers as themselves."""
    values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", tz=values.type.tz), safe=False)
    elif pa.types.is_duration(values.type):
        values = values.cast(pa.duration("us"), safe=False)
    elif pa.types.is_time64(values.type):
        values = values.cast(pa.time64("us"), safe=False)
    simple = pa.types.is_primitive(values.type) or pa.types.is_boolean(values.type)
    return values.cast(TEXT) if kind == TEXT and simple and not pa.types.is_duration(values.type) else values
