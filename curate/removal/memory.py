"""What a catalog remembers of purges, in the table `removals`: digests, by which what was purged is kept out."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from curate.catalog.catalog import Catalog
from curate.removal.plan import Plan
from stages.scan.purged import Purged, Span, digest

if TYPE_CHECKING:
    import duckdb

TABLE = "removals"
WHOLE = ("source", "copy", "named")
EXAMPLES = 3


def read_purged(catalog: Catalog) -> Purged:
    """What no run may bring back."""
    whole: set[str] = set()
    spans: dict[str, list[Span]] = {}
    sizes: set[int] = set()
    every_size = False
    for row in catalog.rows(TABLE):
        if row["kind"] in WHOLE:
            whole |= {row["digest"], row["content_digest"]} - {None}
        else:
            for key in {row["source_digest"], row["content_digest"]} - {None}:
                spans.setdefault(key, []).append((row["start_s"], row["end_s"]))
        if row["bytes"] is not None:
            sizes.add(row["bytes"])
        elif row["content_digest"] is not None or row["kind"] == "named":  # bytes of a size that nobody knows
            every_size = True
    return Purged(frozenset(whole), {key: tuple(some) for key, some in spans.items()}, frozenset(sizes), every_size)


def purged_sources(catalog: Catalog) -> int:
    """How many sources were purged, copies that runs met among them."""
    return len({row["digest"] for row in catalog.rows(TABLE, ["kind", "digest"]) if row["kind"] in ("source", "copy")})


def remember(catalog: Catalog, plan: Plan) -> None:
    """Notes what a purge takes out, once."""
    if any(row["removal_id"] == plan.removal_id for row in catalog.rows(TABLE, ["removal_id"])):
        return
    stamp = {"removal_id": plan.removal_id, "removed_at": datetime.datetime.fromisoformat(plan.began)}
    if rows := [stamp | row for row in _rows(plan)]:
        catalog.append(TABLE, rows)


def remember_copies(catalog: Catalog, source_ids: Iterable[str]) -> None:
    """Notes sources that a run has met and left out, so that the next one does not read them again."""
    now = datetime.datetime.now(datetime.UTC)
    stamp = {"removed_at": now, "kind": "copy"}
    if rows := [stamp | {"digest": digest(one)} for one in sorted(set(source_ids))]:
        catalog.append(TABLE, rows)


def came_back(catalog: Catalog, sql: duckdb.DuckDBPyConnection) -> list[str]:
    """Mismatches for `verify`: purged sources and clips that stand in the catalog, by id, bytes or span."""
    purged = read_purged(catalog)
    if not purged:
        return []
    found = []
    sources = sql.execute("SELECT source_id, content_hash FROM raw.sources").fetchall()
    if back := [one for one, content in sources if purged.holds(one) or purged.holds(content)]:
        found.append(f"{len(back):,} sources that were purged came back: {', '.join(sorted(back)[:EXAMPLES])}")
    spans = {one: some for one, content in sources if (some := purged.spans_of(one, content))}
    rows = sql.execute(
        "SELECT clip_id, source_id, start_s, end_s FROM raw.clips WHERE source_id IN (SELECT unnest(?))", [list(spans)]
    ).fetchall()
    clips = [clip for clip, source, start, end in rows if purged.overlap(spans[source], start, end)]
    if clips:
        found.append(f"{len(clips):,} clips that were purged came back: {', '.join(sorted(clips)[:EXAMPLES])}")
    return found


def _rows(plan: Plan) -> Iterator[dict[str, Any]]:
    for source in plan.sources:
        yield {
            "kind": "source", "digest": digest(source.source_id), "bytes": source.bytes,
            "content_digest": source.content_hash and digest(source.content_hash),
        }  # fmt: skip
    for of_source in plan.by_source.values():
        for clip in of_source:
            yield {
                "kind": "clip", "digest": digest(clip.clip_id), "source_digest": digest(clip.source_id),
                "content_digest": clip.content_hash and digest(clip.content_hash), "bytes": clip.bytes,
                "start_s": clip.start_s, "end_s": clip.end_s,
            }  # fmt: skip
    for name in plan.named:
        yield {"kind": "named", "digest": digest(name)}
