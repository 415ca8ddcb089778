"""Rows of what is purged: taken out of every table, with the old versions, their files and their logs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.catalog.catalog import OWN_TABLES, Catalog
from curate.catalog.gates import quote
from curate.catalog.ledger import Ledger
from curate.catalog.state import owner
from curate.catalog.table_files import Erasure
from curate.removal.plan import Plan
from curate.removal.shards import MOVED
from curate.shards.inventory import shard_columns
from stages.scan.purged import ALL_PURGED

if TYPE_CHECKING:
    import duckdb


def open_ledgers(catalog: Catalog, run_id: str, stack: ExitStack) -> dict[str, Ledger]:
    """The ledgers of all state tables, freed of superseded rows: nobody else writes. UserError for a live run."""
    found = {}
    for name in ["sources", *catalog.tables()]:
        table = catalog.table(name) if name not in found and name not in OWN_TABLES else None
        if table is not None and (own := owner(table)) is not None and own.state == name:
            found[name] = stack.enter_context(Ledger(catalog, name, own.key, run_id))
    for ledger in found.values():
        ledger.maintain()
    return found


def erase_rows(ledgers: Mapping[str, Ledger], sql: duckdb.DuckDBPyConnection, plan: Plan) -> dict[str, int]:
    """Takes the rows out of every table, those of stages first; by table, how many files were written anew.

    The rows of clips whose shards were written anew name the new ones, in the same commit. A row that names a purged
    clip in another column (a duplicate of it, say) was judged against it: it goes too, and is judged again.
    """
    sql.register("gone_clips_now", pa.table({"clip_id": pa.array(sorted(plan.clip_ids), pa.string())}))
    sql.register("gone_sources_now", pa.table({"source_id": pa.array(sorted(plan.source_ids), pa.string())}))
    written = {}
    for name, ledger in ledgers.items():
        if name != "sources":
            written[name] = ledger.erase({name: _of_stage(sql, name, plan)})
    if (sources := ledgers.get("sources")) is not None:
        written["sources"] = sources.erase(_of_sources(sql, plan))
    return written


def _of_stage(sql: duckdb.DuckDBPyConnection, name: str, plan: Plan) -> Erasure:
    texts = [row[0] for row in sql.execute(f"DESCRIBE raw.{quote(name)}").fetchall() if row[1] == "VARCHAR"]
    columns = [quote(text) for text in texts if text not in ("clip_id", "status", "settings", "recipe", "run_id")]
    naming = " OR ".join(
        f"{column} IN (FROM gone_clips_now) OR {column} IN (FROM gone_sources_now)" for column in columns
    )
    rows = sql.execute(
        f"SELECT clip_id FROM raw.{quote(name)} WHERE clip_id IN (FROM gone_clips_now) OR {naming or 'false'}"
    ).fetchall()
    gone = pa.array(sorted({clip for (clip,) in rows}), pa.string())
    shards = shard_columns(sql, name)
    moved = {old: new for old, new in (plan.moved or {}).items() if new is not None}
    if shards is None or not moved:
        return Erasure("clip_id", gone)
    shard = quote(shards["shard"])
    held = sql.execute(
        f"SELECT clip_id, {shard} FROM raw.{quote(name)} WHERE {shard} IN (SELECT unnest(?)) ORDER BY 1", [list(moved)]
    ).fetchall()
    columns_of = dict(zip(MOVED, ("shard", "shard_hash", "shard_bytes", "index_hash"), strict=True))
    values = {"clip_id": pa.array([clip for clip, _ in held], pa.string())}
    for key, column in columns_of.items():
        kind = pa.int64() if key == "bytes" else pa.string()
        values[shards[column]] = pa.array([moved[old][key] for _, old in held], kind)
    return Erasure("clip_id", gone, pa.table(values) if held else None)


def _of_sources(sql: duckdb.DuckDBPyConnection, plan: Plan) -> dict[str, Erasure]:
    """Of `sources` and its data tables. A source that stays is told how many clips it has left."""
    clips = pa.array(sorted(plan.clip_ids), pa.string())
    left = sql.execute(
        """SELECT s.source_id, count(c.clip_id) FILTER (c.clip_id NOT IN (FROM gone_clips_now)), any_value(s.reason)
        FROM raw.sources AS s LEFT JOIN raw.clips AS c USING (source_id)
        WHERE s.source_id IN (SELECT unnest(?)) GROUP BY 1 ORDER BY 1""",
        [list(plan.by_source)],
    ).fetchall()
    changed = pa.table(
        {
            "source_id": pa.array([row[0] for row in left], pa.string()),
            "clips": pa.array([row[1] for row in left], pa.int64()),
            "reason": pa.array([row[2] if row[1] else row[2] or ALL_PURGED for row in left], pa.string()),
        }
    )
    return {
        "clips": Erasure("clip_id", clips),
        "thumbnails": Erasure("clip_id", clips),
        "sources": Erasure(
            "source_id", pa.array(sorted(plan.source_ids), pa.string()), changed if changed.num_rows else None
        ),
    }


def drop_histories(catalog: Catalog, ledgers: Mapping[str, Ledger]) -> None:
    """Leaves the present version of each table alone: no old file, and no statistic of one in a log."""
    for ledger in ledgers.values():
        ledger.drop_history()
    for name in OWN_TABLES:
        catalog.drop_own_history(name)
