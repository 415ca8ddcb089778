"""What a purge would take, as it is shown before it is done: counts by table, shards, datasets, near duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.catalog.catalog import Catalog
from curate.catalog.gates import quote
from curate.catalog.state import owner
from curate.errors import printable
from curate.removal.caches import answers_of, pieces_of
from curate.removal.datasets import touched
from curate.removal.plan import Plan
from curate.shards.inventory import shard_rows_sql, tables_with_shards

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

EXAMPLES = 5
COMPONENT = "duplicate_component"  # the end of the column's name, in any table of the stage


@dataclass(frozen=True)
class Found:
    """`counts` are of what goes, for the record; `lines` say it; `hashes` are of the shards that hold purged clips."""

    counts: dict[str, Any]
    lines: list[str]
    hashes: frozenset[str]


def find(
    catalog: Catalog, sql: duckdb.DuckDBPyConnection, plan: Plan, folders: list[Path], unknown: Sequence[str]
) -> Found:
    """Counts what would go; `unknown` are lines of a list that the catalog does not hold. Needs the temporary tables of
    `choose`.
    """
    stay = sum(len(clips) for clips in plan.by_source.values())
    seconds = sum(clip.end_s - clip.start_s for clip in plan.clips)
    rows = _rows(catalog, sql)
    shards = _shards(sql)
    datasets, unreached = touched(catalog, plan)
    lines = [
        f"sources: {len(plan.sources):,}",
        f"clips: {len(plan.clips):,} ({seconds / 3600:.3f} hours)"
        + (f", {stay:,} of them of {len(plan.by_source):,} sources that stay" if stay else ""),
        *(f"{table}: {count:,}" for table, count in rows.items()),
        f"shards to write anew: {len(shards):,} ({sum(size for _, size in shards.values()):,} bytes)",
        f"answers in the cache: {len(answers_of(catalog, plan.clip_ids)):,}",
    ]
    hashes = frozenset(digest for digest, _ in shards.values())
    lines.append(f"pieces of shards in caches: {len(pieces_of(folders, hashes)):,}")
    at_shards = set(shards)
    for one in datasets:
        lines.append(f"dataset {one.dataset.folder}: {int(one.gone.sum()):,} of its {len(one.gone):,} samples go")
    for each in unreached:
        lacks = " (it will lack shards)" if at_shards.intersection(each.note.shards) else ""
        lines.append(f"dataset {each.note.name} {each.why}{lacks}")
    if unknown:
        lines.append(f"not in the catalog, and kept out from now on: {len(unknown):,}")
        lines += [f"  {printable(line)}" for line in unknown[:EXAMPLES]]
        lines += [f"  and {len(unknown) - EXAMPLES:,} more"] if len(unknown) > EXAMPLES else []
    counts = {
        "sources": len(plan.sources), "clips": len(plan.clips), "hours": round(seconds / 3600, 6), "rows": rows,
        "shards": len(shards), "datasets": len(datasets), "named": len(plan.named),
    }  # fmt: skip
    return Found(counts, lines, hashes)


def near_duplicates(catalog: Catalog, sql: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Lines on clips that stay and were judged duplicates of what goes."""
    known = near = False
    for name in _stage_tables(catalog):
        columns = {row[0] for row in sql.execute(f"DESCRIBE raw.{quote(name)}").fetchall()}
        for column in (one for one in columns if one.endswith(COMPONENT)):
            known, kind = True, column.removesuffix(COMPONENT) + "duplicate_kind"
            rows = sql.execute(f"""
                SELECT d.clip_id, c.uri, c.start_s, d.{quote(kind)}, count(*) OVER () FROM raw.{quote(name)} AS d
                JOIN clips AS c USING (clip_id) WHERE d.clip_id NOT IN (FROM gone_clips) AND d.{quote(column)} IN (
                    SELECT {quote(column)} FROM raw.{quote(name)} WHERE clip_id IN (FROM gone_clips))
                ORDER BY ALL LIMIT {EXAMPLES}""").fetchall()  # fmt: skip
            near = near or bool(rows)
            if rows:
                yield f"{name}: {rows[0][4]:,} clips that stay are duplicates of what goes, unless named too:"
            yield from (f"  {clip} {printable(uri)} from {start:g} s ({kind})" for clip, uri, start, kind, _ in rows)
    if known and not near:
        yield "near duplicates that stay: none"
    elif not known:
        yield "near duplicates are not known: a recipe with the stage `duplicates` finds them"


def _rows(catalog: Catalog, sql: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many rows of each table are of clips that go."""
    found = {}
    for name in ["thumbnails", *_stage_tables(catalog)]:
        text = f"SELECT count(*) FROM raw.{quote(name)} WHERE clip_id IN (FROM gone_clips)"
        found[name] = int(sql.execute(text).fetchall()[0][0])
    return found


def _stage_tables(catalog: Catalog) -> list[str]:
    opened = {name: catalog.table(name) for name in catalog.tables()}
    return [name for name, table in opened.items() if table is not None and owner(table) == (name, "clip_id")]


def _shards(sql: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, int]]:
    """(hash, bytes) of the shards, by path, that rows of clips that go name."""
    found: dict[str, tuple[str, int]] = {}
    for table in tables_with_shards(sql):
        rows = sql.execute(
            f"SELECT shard, any_value(shard_hash), any_value(shard_bytes) FROM {shard_rows_sql(sql, table)} "
            "WHERE shard IS NOT NULL AND clip_id IN (FROM gone_clips) GROUP BY 1"
        ).fetchall()
        found |= {shard: (digest, size) for shard, digest, size in rows}
    return found
