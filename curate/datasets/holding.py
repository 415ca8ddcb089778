"""Which datasets and shards hold clips that are to go from the catalog: neither is changed with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.datasets.files import open_dataset
from curate.errors import UserError
from curate.shards.inventory import shard_rows_sql, tables_with_shards
from curate.shards.kept import DatasetNote, dataset_notes

if TYPE_CHECKING:
    import duckdb


def shards_that_hold(sql: duckdb.DuckDBPyConnection, clips: str) -> Iterator[str]:
    """A line for each table of latents of which shards hold clips of the query `clips` beside others, which keep them.
    Shards of none but these clips go with their rows.
    """
    for table in tables_with_shards(sql):
        ((shards, held),) = sql.execute(f"""
            SELECT count(*), coalesce(sum(going), 0) FROM (
                SELECT count(*) AS samples, count(*) FILTER (clip_id IN ({clips})) AS going
                FROM {shard_rows_sql(sql, table)} WHERE shard IS NOT NULL GROUP BY shard)
            WHERE 0 < going AND going < samples""").fetchall()
        if shards:
            yield (
                f"{table}: the latents of {held:,} of these clips stay in {shards:,} shards beside those of other "
                "clips; no row names them, so no new dataset takes them"
            )


def datasets_that_hold(catalog: Catalog, sql: duckdb.DuckDBPyConnection, clips: str) -> Iterator[str]:
    """A line for each dataset that was made from this catalog and holds clips of the query `clips`, or may do so."""
    for note in dataset_notes(catalog):
        try:
            held, samples = _count(sql, note, clips)
        except UserError:  # it was moved or deleted, lies on another machine, or is damaged
            yield f"the dataset {note.name} is not in {note.folder} on this machine; it may hold some of these clips"
            continue
        if held:
            yield (
                f"the dataset {note.folder} holds {held:,} samples of these clips ({samples:,} in all): it stays as it "
                "is, with its shards; make another one to train without them"
            )


def _count(sql: duckdb.DuckDBPyConnection, note: DatasetNote, clips: str) -> tuple[int, int]:
    """(samples that are clips of the query, all samples). UserError for no such dataset."""
    dataset = open_dataset(note.folder)
    sql.register("dataset_samples", pa.table(dataset.columns(["clip_id"])))
    ((held,),) = sql.execute(f"SELECT count(*) FROM dataset_samples WHERE clip_id IN ({clips})").fetchall()
    sql.unregister("dataset_samples")
    return held, dataset.samples
