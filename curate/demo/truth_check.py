"""Compares what a run found in the demo's films with what is in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from curate.demo.films import FilmTruth, shot_at

if TYPE_CHECKING:
    import duckdb

WITHIN_FRAMES = 2  # a cut is found if one clip ends and the next begins at most so many frames from it
MOST_LOST = 0.5  # seconds on either side of a gradual joint that may be lost with it
SAME_CLUSTER = """
SELECT parse_filename(a.uri), a.start_s, a.end_s, parse_filename(b.uri), b.start_s, b.end_s
FROM clips a JOIN clips b ON a.duplicate_cluster = b.duplicate_cluster AND a.clip_id < b.clip_id
"""
Shot = tuple[str, int | None]  # film, number of its shot


@dataclass
class Comparison:
    """What was found and what was not."""

    joints: Counter[str] = field(default_factory=Counter)  # by kind
    found: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)  # "film at second", for each joint that was not found
    false_cuts: list[str] = field(default_factory=list)
    duplicates: set[tuple[Shot, Shot]] = field(default_factory=set)
    duplicates_found: set[tuple[Shot, Shot]] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    failed_clips: list[str] = field(default_factory=list)  # "film: reason", of any stage

    @property
    def only_the_broken_failed(self) -> bool:
        return self.failed == self.broken


def compare(sql: duckdb.DuckDBPyConnection, truth: list[FilmTruth]) -> Comparison:
    """Compares the catalog behind a SQL connection with the truth about its films."""
    result = Comparison()
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for film, start, end in sql.execute(
        "SELECT parse_filename(uri), start_s, end_s FROM clips WHERE media = 'video' ORDER BY uri, start_s"
    ).fetchall():
        spans[film].append((start, end))
    for film in truth:
        if film.media == "broken":
            result.broken.add(film.name)
        elif film.media == "video" and not film.duplicate_of:
            _compare_cuts(result, film, spans[film.name])
        if film.duplicate_of:
            for shot in range(len(film.shots)):
                result.duplicates.add(_pair((film.name, shot), (film.duplicate_of, shot)))
    failed = sql.execute("SELECT parse_filename(uri) FROM sources WHERE status = 'failed'").fetchall()
    result.failed = {name for (name,) in failed}
    for table in ("embeddings", "captions"):
        if table in {name for (name,) in sql.execute("SHOW TABLES").fetchall()}:
            result.failed_clips += [
                f"{film}: {reason}"
                for film, reason in sql.execute(
                    f"SELECT parse_filename(uri), t.reason FROM {table} t JOIN clips USING (clip_id) "
                    "WHERE t.status = 'failed' ORDER BY ALL"
                ).fetchall()
            ]
    films = {film.name: film for film in truth}
    for one, *span, other, start, end in sql.execute(SAME_CLUSTER).fetchall():
        shots = (one, shot_at(films[one], *span)), (other, shot_at(films[other], start, end))
        result.duplicates_found.add(_pair(*shots))
    return result


def _pair(one: Shot, other: Shot) -> tuple[Shot, Shot]:
    return (one, other) if (one[0], one[1] or 0) <= (other[0], other[1] or 0) else (other, one)


def _compare_cuts(result: Comparison, film: FilmTruth, spans: list[tuple[float, float]]) -> None:
    """A joint is found if one clip ends at its start and the next begins at its end; other breaks are false cuts."""
    slack = (WITHIN_FRAMES + 0.5) / film.fps
    breaks = [(end, start) for (_, end), (start, _) in pairwise(spans)]
    for joint in film.joints:
        kind, first, last = joint["kind"], joint["start_s"], joint["end_s"]
        result.joints[kind] += 1
        # No frame of a gradual joint may be in a clip, and some frames beside it may be lost.
        more = 0.0 if kind == "cut" else MOST_LOST
        hits = [
            (end, start)
            for end, start in breaks
            if first - slack - more <= end <= first + slack and last - slack <= start <= last + slack + more
        ]
        if hits:
            breaks.remove(hits[0])
            result.found[kind] += 1
        else:
            result.missed.append(f"{film.name} at {first:.2f} s ({kind})")
    result.false_cuts += [f"{film.name} at {end:.2f} s" for end, _ in breaks]


def describe(result: Comparison) -> list[str]:
    """The comparison as lines to print."""
    lines = [f"{kind}: {result.found[kind]} of {count} found" for kind, count in result.joints.items()]
    lines += [f"  missed: {where}" for where in result.missed]
    lines.append(f"false cuts: {len(result.false_cuts)}")
    lines += [f"  {where}" for where in result.false_cuts]
    found = result.duplicates & result.duplicates_found
    lines.append(f"duplicates: {len(found)} of {len(result.duplicates)} pairs of shots found")
    for what, pairs in (("not found", result.duplicates - found), ("not one of ours", result.duplicates_found - found)):
        lines += [
            f"  {what}: shot {i} of {one} and shot {j} of {other}" for (one, i), (other, j) in sorted(pairs, key=str)
        ]
    lines += [f"clip failed: {clip}" for clip in result.failed_clips]
    if result.only_the_broken_failed:
        lines.append(f"broken files: all {len(result.broken)} failed with their reason, and no other file did")
    else:
        lines += [f"  broken, but not failed: {name}" for name in sorted(result.broken - result.failed)]
        lines += [f"  failed, but not broken: {name}" for name in sorted(result.failed - result.broken)]
    return lines
