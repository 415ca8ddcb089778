"""Columns of sources that the catalog has already, brought up to date with a manifest: no video is decoded.

The rows of a manifest go to a temporary Parquet file, and DuckDB compares them with the stored ones: memory does not
grow with either.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.catalog.data_files import Rewrite
from curate.catalog.gates import literal, quote
from curate.catalog.idset import IdSet, pack
from curate.catalog.ledger import Ledger
from curate.catalog.schema import TEXT, rows_to_table
from curate.catalog.superseded_rows import files_sql
from curate.run.manifests.manifest import Manifest
from curate.run.naming import Naming
from curate.storage import is_local
from stages.unit import source_id

CHUNK = 16_384  # rows of a manifest at a time
KEY = "source_id"


@dataclass
class Refreshed:
    """Distinct sources that manifests name: new to the catalog, known with another row, known with the same."""

    new: int = 0
    changed: int = 0
    same: int = 0


def refresh_sources(
    ledger: Ledger, manifests: Iterable[Manifest], types: Mapping[str, pa.DataType], naming: Naming
) -> Refreshed:
    """Gives known sources the cells of their manifest row; columns that a manifest has not stay as they are.

    A source that is named twice has the cells of its first row. `types` are those of the stored columns, which are
    there. UserError for what can't be read or written.
    """
    ledger.prune(Rewrite.__call__)
    counts, seen, known_ids = Refreshed(), IdSet(), _KnownIds(ledger)
    for manifest in manifests:
        own = {name: kind for name, kind in types.items() if name in set(manifest.names.values())}
        with tempfile.TemporaryDirectory(prefix="clipmill-") as folder:
            rows, changed = Path(folder, "rows.parquet"), Path(folder, "changed.parquet")
            _write_rows(rows, manifest, own, seen, naming, known_ids)
            named, known, count = _compare(ledger, rows, changed, own)
            counts.new += named - known
            counts.changed += count
            counts.same += known - count
            if count:
                ledger.change_rows(str(changed))
    return counts


def _write_rows(
    path: Path, manifest: Manifest, types: Mapping[str, pa.DataType], seen: IdSet, naming: Naming, known: _KnownIds
) -> None:
    """The rows of a manifest whose sources no row before named, as Parquet with their ids."""
    schema = pa.schema({KEY: TEXT} | dict(types))
    entries = manifest.entries(types)
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(entries, CHUNK)):
            ids = [source_id(name) for name in naming.names([entry["uri"] for entry in chunk], (seen, known))]
            first = seen.add(pack(ids))
            rows = [{KEY: ids[at], **entry} for at, entry in enumerate(chunk) if first[at]]
            table = rows_to_table("manifest", rows, dict(types))
            if rows:
                writer.write_table(pa.table([table[name] for name in schema.names], schema=schema))


class _KnownIds:
    """The ids that a ledger holds, read when they are first asked for: where a place may have several names."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._ids: IdSet | None = None

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the (n,) ids are there."""
        if self._ids is None:
            self._ids = IdSet()
            for table in self._ledger.known(columns=(KEY,)):
                if table.num_rows:
                    self._ids.add(pack(table[KEY].to_pylist()))
        return self._ids.contains(ids)


def _compare(ledger: Ledger, rows: Path, changed: Path, types: Mapping[str, pa.DataType]) -> tuple[int, int, int]:
    """Counts the rows, those of known sources, and those of these that differ, which are written to `changed`."""
    manifest = f"read_parquet({literal(str(rows))})"
    with _stored(ledger) as (sql, stored):
        there = {row[0] for row in sql.execute(f"DESCRIBE {stored}").fetchall()}
        differs = [
            f"m.{quote(name)} IS DISTINCT FROM {f's.{quote(name)}' if name in there else 'NULL'}" for name in types
        ]
        joined = f"FROM {manifest} AS m JOIN ({stored}) AS s ON s.{KEY} = m.{KEY}"
        ((named,),) = sql.execute(f"SELECT count(*) FROM {manifest}").fetchall()
        ((known,),) = sql.execute(f"SELECT count(*) {joined}").fetchall()
        other = f"SELECT m.* {joined} WHERE {' OR '.join(differs) or 'false'}"
        ((count,),) = sql.execute(f"COPY ({other}) TO {literal(str(changed))} (FORMAT parquet)").fetchall()
    return named, known, count


@contextmanager
def _stored(ledger: Ledger) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """DuckDB, and a query for the rows of `sources` as they are stored; none is superseded any more."""
    table, catalog = ledger.tables[ledger.state], ledger.catalog
    with duckdb.connect() as sql:
        if not is_local(catalog.uri):
            sql.register_filesystem(catalog.fs)
        if table.file_uris():
            yield sql, f"SELECT * FROM {files_sql(table, 'union_by_name = true')}"
        else:
            yield sql, f"SELECT NULL::VARCHAR AS {KEY} WHERE false"
