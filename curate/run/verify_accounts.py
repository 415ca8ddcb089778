"""Verify: whether every listed source is done, failed, pending or purged, and every clip kept or dropped."""

from __future__ import annotations

# What a run that went to its end says of its listing (curate/run/run_rows.py).
PARTS = ("listed_done", "listed_failed", "pending", "purged")


def _count(name: str) -> str:
    return f"coalesce(TRY_CAST(json_extract(counts, '$.{name}') AS BIGINT), 0)"


# What must be empty: claim -> query for (what it is about, detail).
ACCOUNTS = {
    "a run's listing is not what it left done, failed and pending": f"""
        SELECT run_id, concat('listed ', {_count("listed")}, ': done ', {_count("listed_done")}, ', failed ',
            {_count("listed_failed")}, ', pending ', {_count("pending")}, ', purged ', {_count("purged")})
        FROM runs WHERE status = 'finished' AND json_extract(counts, '$.listed') IS NOT NULL
            AND {_count("listed")} <> {" + ".join(map(_count, PARTS))}""",
    "kept and dropped clips are not those of the table": """
        SELECT 'clips', concat(kept, ' kept and ', dropped, ' dropped, of ', total)
        FROM (
            SELECT count(*) FILTER (verdict = 'kept') AS kept, count(*) FILTER (verdict = 'dropped') AS dropped
            FROM clips
        ), (SELECT count(*) AS total FROM raw.clips) WHERE kept + dropped <> total""",
}
