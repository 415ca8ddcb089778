"""Duplicates as the stage `duplicates` found them: how many, in clusters of which size, and the largest clusters."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.subject import Subject

LARGEST = 20  # clusters that are named
COLUMNS = ("duplicate_cluster", "duplicate_kind", "duplicate_keep")


def figures(subject: Subject) -> Iterator[Figure]:
    wanted = {
        "duplicates.kinds": ("Clips by the kind of their duplicates", _KINDS, ""),
        "duplicates.sizes": ("Clusters of duplicates by size", _SIZES, "of the clips that are counted here"),
        "duplicates.largest": ("The largest clusters of duplicates", _LARGEST, f"the first {LARGEST}"),
    }
    for id, (title, text, note) in wanted.items():
        if subject.has(*COLUMNS):
            yield subject.figure(id, title, text, note)
        else:
            yield subject.absent(id, title, "the columns of the stage duplicates")


_KINDS = """
    SELECT CASE WHEN duplicate_kind IS NOT NULL THEN duplicate_kind WHEN duplicate_keep THEN 'no duplicate'
            ELSE 'not judged' END AS kind,
        count(*) AS clips, sum(seconds) / 3600 AS hours,
        count(*) FILTER (NOT duplicate_keep) AS redundant_clips,
        coalesce(sum(seconds) FILTER (NOT duplicate_keep), 0) / 3600 AS redundant_hours,
        count(*) FILTER (kept AND NOT duplicate_keep) AS kept_redundant_clips,
        coalesce(sum(seconds) FILTER (kept AND NOT duplicate_keep), 0) / 3600 AS kept_redundant_hours
    FROM audited GROUP BY 1 ORDER BY clips DESC, kind"""

_CLUSTERS = """
    SELECT duplicate_cluster, count(*) AS clips, sum(seconds) AS seconds, count(*) FILTER (kept) AS kept_clips,
        count(DISTINCT source_id) AS sources
    FROM audited WHERE duplicate_kind IS NOT NULL GROUP BY 1"""

_SIZES = f"""
    SELECT clips AS size, count(*) AS clusters, CAST(sum(clips) AS BIGINT) AS clips, sum(seconds) / 3600 AS hours
    FROM ({_CLUSTERS}) AS clusters GROUP BY size ORDER BY size"""

_LARGEST = f"""
    SELECT duplicate_cluster, clips, kept_clips, sources, seconds / 3600 AS hours FROM ({_CLUSTERS})
    ORDER BY clips DESC, duplicate_cluster LIMIT {LARGEST}"""
