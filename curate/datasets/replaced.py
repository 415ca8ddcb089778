"""Datasets of a catalog of which samples were encoded again since, or whose folder is gone: notes of `verify`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.datasets.files import Dataset, open_dataset
from curate.errors import UserError
from curate.shards.inventory import shard_rows_sql, tables_with_shards
from curate.shards.kept import dataset_notes

if TYPE_CHECKING:
    import duckdb


def replaced_samples(catalog: Catalog, sql: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """One line for each dataset that was made from this catalog and is not what the catalog would give now."""
    for note in dataset_notes(catalog):
        try:
            dataset = open_dataset(note.folder)
            if dataset.retired is not None:
                yield f"the dataset {note.folder} was retired by a purge: {_successor(dataset)}"
                continue
            replaced, samples = _count(sql, dataset), dataset.samples
        except UserError:  # it was moved or deleted, lies on another machine, or is damaged
            yield (
                f"the dataset {note.name} is not in {note.folder} on this machine; {note.path} keeps its "
                f"{len(note.shards):,} shards: delete that file once nobody trains on it"
            )
            continue
        if replaced:
            yield (
                f"{replaced:,} of {samples:,} samples of the dataset {note.folder} are replaced in the catalog, by "
                f"later latents or none; it still reads its own shards, which {note.path} keeps: make another dataset "
                "to train on the new ones"
            )


def _successor(dataset: Dataset) -> str:
    successor = dataset.retired["successor"] if dataset.retired is not None else None
    return f"its successor is {successor}" if successor else "nothing of it is left"


def _count(sql: duckdb.DuckDBPyConnection, dataset: Dataset) -> int:
    """The samples that the catalog has in another shard or in none. UserError for an index that can't be read."""
    samples = pa.table(dataset.columns(["clip_id", "shard"]))
    shards = pa.table({"path": [shard.path for shard in dataset.shards], "shard": range(len(dataset.shards))})
    table = dataset.about["table"]
    now = shard_rows_sql(sql, table) if table in tables_with_shards(sql) else "(SELECT '' AS clip_id, '' AS shard)"
    sql.register("dataset_samples", samples)
    sql.register("dataset_shards", shards)
    ((replaced,),) = sql.execute(f"""
        SELECT count(*) FROM dataset_samples AS s JOIN dataset_shards AS d ON d.shard = s.shard
        LEFT JOIN {now} AS now ON now.clip_id = s.clip_id WHERE now.shard IS DISTINCT FROM d.path""").fetchall()
    return replaced
