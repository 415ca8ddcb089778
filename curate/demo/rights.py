"""Plants rights in the demo's films: a manifest with a few licences, kinds of source, domains and an opt-out."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable
from pathlib import Path

from models.files import write_whole

OPTED_OUT = "wide.mp4"
# Rights that a film may have; which ones follows from its name. The last are those of a film of which nothing is known.
PLANTED: tuple[dict[str, str], ...] = (
    {"source_kind": "public dataset", "dataset": "drawn-films", "dataset_licence": "CC0-1.0", "licence": "CC-BY-4.0",
     "language": "en"},
    {"source_kind": "licensed", "licence": "stock-12", "language": "de", "consent": "written",
     "consent_from": "contracts/12.pdf", "consent_checked": "2026-01-15"},
    {"source_kind": "crawled", "domain": "films.example.com", "licence": "CC-BY-SA-4.0", "language": "en",
     "optout_robots": "allowed", "optout_robots_from": "films.example.com/robots.txt",
     "optout_robots_checked": "2026-02-01T08:30:00Z"},
    {"source_kind": "crawled", "domain": "archive.example.org", "language": "fr", "optout_tdmrep": "none found",
     "optout_tdmrep_from": "archive.example.org/tdmrep.json", "optout_tdmrep_checked": "2026-02-01T08:31:00Z"},
    {"source_kind": "synthetic", "licence": "own"},
    {},
)  # fmt: skip
NOT_ALLOWED = PLANTED[2] | {
    "optout_robots": "not allowed",
    "optout_robots_from": "films.example.com/robots.txt (GPTBot)",
}


def planted(film: str) -> dict[str, str]:
    """What the manifest says of a film, by column."""
    return NOT_ALLOWED if film == OPTED_OUT else PLANTED[zlib.crc32(film.encode()) % len(PLANTED)]


def write_rights(path: Path, films: Iterable[str]) -> Path:
    """Writes the manifest; films lie in the folder `films` beside it."""
    columns = ["path", *dict.fromkeys(name for each in (*PLANTED, NOT_ALLOWED) for name in each)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for film in films:
        writer.writerow({"path": f"films/{film}", **planted(film)})
    write_whole(path, text.getvalue())
    return path
