"""The columns that every catalog has, and the way from a worker's rows to an Arrow table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from curate.catalog.arrays import array
from curate.errors import UserError

TEXT, INT, BIGINT, DOUBLE, BOOL = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()
TIME = pa.timestamp("us", tz="UTC")  # the views show it as a plain TIMESTAMP, always UTC

PASS = "pass"  # the first column of every table that a ledger writes: which pass of a run made the row

BASE: dict[str, pa.Schema] = {
    "sources": pa.schema(
        {
            "source_id": TEXT,
            "uri": TEXT,
            "status": TEXT,  # 'done' or 'failed'
            "reason": TEXT,  # why it failed
            "media": TEXT,  # 'video' or 'image'
            "duration_s": DOUBLE,
            "width": INT,
            "height": INT,
            "fps": DOUBLE,
            "codec": TEXT,
            "pixel_format": TEXT,
            "bit_depth": INT,
            "color_transfer": TEXT,
            "color_primaries": TEXT,
            "color_matrix": TEXT,
            "field_order": TEXT,
            "container": TEXT,
            "video_stream": INT,
            "video_streams": INT,
            "rotation": INT,
            "sample_aspect_ratio": TEXT,
            "bytes": BIGINT,
            "modified_at": TIME,
            "archive_offset": BIGINT,  # where its header starts in a tar
            "content_hash": TEXT,
            "frames": BIGINT,
            "decode_errors": BIGINT,
            "has_audio": BOOL,
            "audio_codec": TEXT,
            "audio_channels": INT,
            "audio_rate": INT,
            "audio_errors": BIGINT,  # NULL where no measure asked for the sound
            "clips": BIGINT,
            "settings": TEXT,  # hash of the settings that made the row
            "recipe": TEXT,
            "run_id": TEXT,
            "cpu_seconds": DOUBLE,
            "committed_at": TIME,
        }
    ),
    "clips": pa.schema(
        {
            "clip_id": TEXT,
            "source_id": TEXT,
            "uri": TEXT,
            "media": TEXT,
            "scene": INT,
            "start_s": DOUBLE,
            "end_s": DOUBLE,
            "start_pts": BIGINT,
            "end_pts": BIGINT,
            "time_base_num": INT,
            "time_base_den": INT,
            "width": INT,
            "height": INT,
            "fps": DOUBLE,
            "frames": BIGINT,
            "damaged_frames": BIGINT,
            "versions": TEXT,
        }
    ),
    "thumbnails": pa.schema(
        {"clip_id": TEXT, "source_id": TEXT, "width": BIGINT, "height": BIGINT, "jpeg": pa.binary()}
    ),
    "runs": pa.schema(
        {
            "run_id": TEXT,
            "event": TEXT,  # 'start' or 'end'; the view joins the two
            "at": TIME,
            "recipe": TEXT,
            "recipe_text": TEXT,
            "stages": TEXT,  # JSON: by table that the run fills, the stages that make its rows
            "settings": TEXT,  # JSON: by table, their hash, which stands in its rows
            "versions": TEXT,
            "inputs": TEXT,
            "engine": TEXT,
            "status": TEXT,
            "counts": TEXT,
        }
    ),
    "gates": pa.schema(
        {
            "recipe": TEXT,
            "position": INT,
            "name": TEXT,
            "condition": TEXT,
            "unknown": TEXT,
            "run_id": TEXT,
            "set_at": TIME,
            "generation": BIGINT,
        }
    ),
    "places": pa.schema(
        {
            "number": BIGINT,
            "kind": TEXT,  # 'moved' or 'link'
            "old": TEXT,
            "new": TEXT,
            "set_at": TIME,
        }
    ),
    "removals": pa.schema(
        {
            "removal_id": TEXT,
            "removed_at": TIME,
            "kind": TEXT,  # 'source', 'clip', 'copy' or 'named'
            "digest": TEXT,
            "source_digest": TEXT,  # of a clip
            "content_digest": TEXT,
            "bytes": BIGINT,
            "start_s": DOUBLE,  # of a clip
            "end_s": DOUBLE,
        }
    ),
}

# What the table of every stage on clips says beside its signals; `clips` does not show it.
STATE = pa.schema(
    {
        "clip_id": TEXT,
        "source_id": TEXT,
        "status": TEXT,  # 'done', 'failed', or 'unfit': the stage does not take the clip as it is
        "reason": TEXT,  # why it is not done
        "content_hash": TEXT,  # of the source that the row was made of
        "manifest_hash": TEXT,  # of the manifest's cells that the row was made of
        "settings": TEXT,  # hash of the settings that made the row
        "recipe": TEXT,
        "run_id": TEXT,
        "committed_at": TIME,
    }
)
JUDGED = ("verdict", "dropped_by", "failed_gates", "unknown_gates")  # what the view `clips` adds of gates
BOOKKEEPING = frozenset([*STATE.names, PASS])

_DUCKDB_NAMES = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.string_view(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.large_binary(): "BLOB",
    pa.binary_view(): "BLOB",
    pa.date32(): "DATE",
}


def duckdb_type(kind: pa.DataType | str) -> str:
    """DuckDB's name of an Arrow type that Delta can store (a str is an Arrow type's name: 'double')."""
    if isinstance(kind, str):
        kind = pa.type_for_alias(kind)
    if kind in _DUCKDB_NAMES:
        return _DUCKDB_NAMES[kind]
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        fields = (f'"{f.name.replace(chr(34), chr(34) * 2)}" {duckdb_type(f.type)}' for f in kind)
        return f"STRUCT({', '.join(fields)})"
    if pa.types.is_map(kind):
        return f"MAP({duckdb_type(kind.key_type)}, {duckdb_type(kind.item_type)})"
    raise UserError(f"a column of type {kind} can't be kept in a catalog; use text, numbers, dates or lists of them")


def storable(kind: pa.DataType) -> pa.DataType | None:
    """The type a Delta column takes for values of an Arrow type; None where there is nothing to store."""
    if pa.types.is_null(kind):
        return None
    if pa.types.is_dictionary(kind):
        return storable(kind.value_type)
    if pa.types.is_unsigned_integer(kind):
        return BIGINT
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_large_string(kind) or kind == pa.string_view() or pa.types.is_time(kind):
        return TEXT
    if pa.types.is_large_binary(kind) or kind == pa.binary_view() or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_date64(kind):
        return pa.date32()
    if pa.types.is_timestamp(kind):
        return TIME
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = storable(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(kind):
        fields = [(f.name, storable(f.type)) for f in kind]
        fields = [(name, inner) for name, inner in fields if inner is not None]
        return pa.struct(fields) if fields else None
    return kind


def plain_types(table: pa.Table) -> pa.Table:
    """The same table with the types of `storable`: files that Delta rewrote come back with string views."""
    wanted = {f.name: kind for f in table.schema if (kind := storable(f.type)) is not None}
    return table.select(list(wanted)).cast(pa.schema(wanted))


def clip_columns(added: Mapping[str, pa.DataType | str] = MappingProxyType({})) -> dict[str, pa.DataType]:
    """The columns of `clips`: those that every catalog has, and `added` (Arrow types or their names)."""
    base = {field.name: field.type for field in BASE["clips"]}
    return base | {n: pa.type_for_alias(k) if isinstance(k, str) else k for n, k in added.items()}


def rows_to_table(
    name: str, rows: Iterable[Mapping[str, Any]], extra: Mapping[str, pa.DataType | str] | None = None
) -> pa.Table:
    """Rows of one table as Arrow: declared types for its base columns and for `extra`, the rest inferred.

    A column without a type, which no row has a value of, is left out; NaN becomes NULL, since both mean
    unknown and SQL would call NaN the greatest of numbers. Raises UserError, naming column and types, for a
    value that does not fit and for an extra column that takes a base column's name.
    """
    rows = list(rows)
    declared: dict[str, pa.DataType] = {f.name: f.type for f in BASE.get(name, pa.schema([]))}
    lowered = {column.lower(): column for column in declared}
    for column, kind in (extra or {}).items():
        kind = pa.type_for_alias(kind) if isinstance(kind, str) else kind
        if declared.setdefault(column, kind) != kind:
            raise UserError(
                f"column {column!r} of {name} is {duckdb_type(declared[column])}, not {duckdb_type(kind)}: rename yours"
            )
    given: dict[str, None] = {}
    for row in rows:
        given.update(dict.fromkeys(row))
    arrays: dict[str, pa.Array] = {}
    for column in declared | given:
        same = lowered.setdefault(column.lower(), column)
        if same != column:
            raise UserError(f"columns {same!r} and {column!r} of {name} differ only in case: rename one")
        values = [row.get(column) for row in rows] if column in given else [None] * len(rows)
        made = _column(name, column, values, declared.get(column))
        if made is not None:
            arrays[column] = made
    return pa.table(arrays)


def _column(table: str, column: str, values: list[Any], kind: pa.DataType | None) -> pa.Array | None:
    try:
        column_array = array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        wanted = duckdb_type(kind) if kind is not None else None
        found = sorted({type(value).__name__ for value in values if value is not None})
        if wanted is None:
            raise UserError(f"column {column!r} of {table} mixes {', '.join(found)}: give it one type") from error
        raise UserError(f"column {column!r} of {table} is {wanted}, but got {', '.join(found)}: {error}") from error
    target = storable(column_array.type)
    if target is None:
        return None
    return column_array if target == column_array.type else column_array.cast(target)


def merge_schemas(name: str, stored: pa.Schema, wanted: pa.Schema) -> pa.Schema:
    """The stored columns of a table and those of `wanted` that it lacks, in types that a table can store.

    UserError, naming the column and both types, where a column is there with another type, or differs only in case.
    Integers may go into a column of floating-point numbers.
    """
    merged = stored
    lowered = {field.name.lower(): field for field in stored}
    for field in wanted:
        kind = storable(field.type)
        there = lowered.get(field.name.lower())
        if kind is None:
            continue
        if there is None:
            merged = merged.append(pa.field(field.name, kind))
            lowered[field.name.lower()] = merged.field(field.name)
        elif there.name != field.name:
            raise UserError(f"column {field.name!r} of {name} is already there as {there.name!r}: rename it")
        elif there.type != kind and not _widens(kind, there.type):
            raise UserError(
                f"column {field.name!r} of {name} is {duckdb_type(there.type)} in the catalog, but now comes as "
                f"{duckdb_type(kind)}: give it one type or another name"
            )
    return merged


def _widens(kind: pa.DataType, stored: pa.DataType) -> bool:
    """Whether values of one type can be stored as another without a change."""
    if pa.types.is_integer(kind) and pa.types.is_integer(stored):
        return kind.bit_width <= stored.bit_width
    return (pa.types.is_integer(kind) or kind == pa.float32()) and stored == pa.float64()
