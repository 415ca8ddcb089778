"""What a run found in the demo's films, held against what is in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from curate.demo.films import FilmTruth

WITHIN_FRAMES = 2  # a cut is found when one clip ends and the next begins so near to it
MOST_LOST = 0.5  # seconds on either side of a gradual joint that may be lost with it
# Near duplicates: clips whose three 64-bit hashes differ by less than a tenth of their bits.
SIMILAR = """
SELECT parse_filename(a.uri), parse_filename(b.uri)
FROM clips a JOIN clips b ON a.uri < b.uri AND a.media = 'video' AND b.media = 'video'
WHERE list_sum([bit_count(xor(('0x' || a.phash[i : i + 15])::UBIGINT, ('0x' || b.phash[i : i + 15])::UBIGINT))
                FOR i IN [1, 17, 33]]) < 20
"""


@dataclass
class Comparison:
    """Counts and names of what was found and what was not."""

    joints: Counter[str] = field(default_factory=Counter)  # by kind
    found: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)  # "film at second", one for each joint that was not found
    false_cuts: list[str] = field(default_factory=list)
    duplicates: set[tuple[str, str]] = field(default_factory=set)
    duplicates_found: set[tuple[str, str]] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    @property
    def only_the_broken_failed(self) -> bool:
        return self.failed == self.broken


def compare(sql: Any, truth: list[FilmTruth]) -> Comparison:
    """Asks a catalog's SQL connection what was found in the films that the truth is about."""
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
            result.duplicates.add(tuple(sorted((film.name, film.duplicate_of))))
    failed = sql.execute("SELECT parse_filename(uri) FROM sources WHERE status = 'failed'").fetchall()
    result.failed = {name for (name,) in failed}
    result.duplicates_found = {tuple(sorted(pair)) for pair in sql.execute(SIMILAR).fetchall()}
    return result


def _compare_cuts(result: Comparison, film: FilmTruth, spans: list[tuple[float, float]]) -> None:
    """A joint is found when one clip ends by its start and the next begins at its end; others are false."""
    slack = (WITHIN_FRAMES + 0.5) / film.fps
    breaks = [(end, start) for (_, end), (start, _) in pairwise(spans)]
    for joint in film.joints:
        kind, first, last = joint["kind"], joint["start_s"], joint["end_s"]
        result.joints[kind] += 1
        # All of a gradual joint's own frames have to be out of the clips, and some beside them may be.
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
    lines.append(f"duplicates: {len(found)} of {len(result.duplicates)} pairs found by their perceptual hash")
    lines += [f"  not one of ours: {' and '.join(pair)}" for pair in result.duplicates_found - result.duplicates]
    if result.only_the_broken_failed:
        lines.append(f"broken files: all {len(result.broken)} failed with their reason, and no other file did")
    else:
        lines += [f"  broken, but not failed: {name}" for name in sorted(result.broken - result.failed)]
        lines += [f"  failed, but not broken: {name}" for name in sorted(result.failed - result.broken)]
    return lines


def films_are_there(folder: Path, truth: list[FilmTruth]) -> bool:
    names = [name for film in truth for name in (film.name, film.caption_file) if name]
    return all((folder / name).exists() for name in names)
