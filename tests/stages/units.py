"""Units of clips for the tests of stages, and the rows that stages made for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from stages.frames import FrameRequest
from stages.unit import Clip, Row, Source, Unit

SOURCE = Source("s", "films/a.mp4")


def clip_of(
    clip_id: str,
    pictures: Iterable[np.ndarray] = (),
    request: FrameRequest | None = None,
    source: Source = SOURCE,
    **columns: Any,
) -> Clip:
    """A clip with pictures (h, w, 3) uint8 BGR, one a second.

    They are the frames of a request or, with no request, those of the stage that scores the clip now.
    """
    clip = Clip({"clip_id": clip_id, "source_id": source.source_id} | columns, source)
    frames = [(float(second), picture) for second, picture in enumerate(pictures)]
    if request is None:
        clip.frames = frames
    else:
        clip.pixels = {request: frames}
    return clip


def rows_of(units: Iterable[Unit], table: str) -> dict[str, Row]:
    """The rows that stages made for a table, by clip id; no clip has two."""
    rows = [clip.results[table] for unit in units for clip in unit.clips if table in clip.results]
    found = {row["clip_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found
