"""Duplicates among the demo's films: copies, and films encoded again, resized, trimmed or made brighter."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from curate.demo import files


@dataclass(frozen=True)
class Duplicate:
    """A film made from another one; a setting that is not given stays as it is."""

    name: str
    of: str
    change: str  # 'copy', 're-encoded', 'resized', 'trimmed' or 'brighter'
    codec: str = "libx264"
    size: tuple[int, int] | None = None  # width, height
    trim_s: float = 0.0  # seconds cut off at the start, and at the end
    gain: float = 1.0  # factor of the brightness


DUPLICATES = (
    Duplicate("cuts_copy.mp4", "cuts.mp4", "copy"),
    Duplicate("cuts_mpeg4_again.mp4", "cuts_mpeg4.avi", "re-encoded"),
    Duplicate("wide_again.mp4", "wide.mp4", "resized", "mpeg4", (320, 180)),
    Duplicate("cuts_vp9_trimmed.mp4", "cuts_vp9.webm", "trimmed", trim_s=0.4),
    Duplicate("titles_brighter.mp4", "titles.mp4", "brighter", gain=1.2),
)


def write_duplicate(folder: Path, duplicate: Duplicate) -> None:
    """Writes a duplicate beside its original in `folder`."""
    source, path = folder / duplicate.of, folder / duplicate.name
    if duplicate.change == "copy":
        shutil.copyfile(source, path)
    else:
        files.reencode(source, path, duplicate.codec, duplicate.size, duplicate.trim_s, duplicate.gain)
