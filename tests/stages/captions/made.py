"""What the tests of captions share: units with clips and frames, settings for the stand-in server."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stages.base import Context
from stages.captions.pace import Clock
from stages.captions.settings import CaptionSettings
from stages.captions.stage import Caption
from stages.frames import FrameRequest
from stages.unit import Clip, Source, Unit
from tests.caption_server import MODEL

PROMPT = "Describe clip {clip_id}."
FRAMES = {"positions": [0.5], "long_side": 16}


class StoppedClock(Clock):
    """A clock on which time passes only while somebody waits, and that without waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.seconds += seconds
        return event.is_set()


def clip_row(number: int, **columns: Any) -> dict[str, Any]:
    row = {"clip_id": f"{number:032x}", "source_id": "s" * 32, "uri": "films/a.mp4", "start_s": 1.0, "end_s": 3.5}
    return row | {"width": 640, "height": 360, "fps": 24.0} | columns


def unit_of(
    numbers: Iterable[int],
    stage: Caption | None = None,
    unit_id: str = "u",
    manifest: dict[str, Any] | None = None,
    uri: str = "films/a.mp4",
    **more: Any,
) -> Unit:
    """A unit of known clips, with a frame for each position that the stage wants."""
    source = Source("s" * 32, uri, manifest or {})
    clips = [Clip(clip_row(number), source) for number in numbers]
    request = stage.wants() if stage else None
    if request:
        for clip in clips:
            clip.pixels[request] = pictures(request, clip.clip_id)
    return Unit(unit_id, clips, **more)


def pictures(request: FrameRequest, clip: str = "0") -> list[tuple[float, np.ndarray]]:
    shade = int(clip, 16) * 37 % 256
    size = (request.long_side * 9 // 16, request.long_side, 3)
    return [(at, np.full(size, (shade + 40 * index) % 256, np.uint8)) for index, at in enumerate(request.positions)]


def served(url: str, **settings: Any) -> CaptionSettings:
    """Settings for a server; those of `server:` itself go by their names, the rest beside them."""
    own = {"base_url": url, "model": MODEL, "concurrency": 8, "backoff_seconds": 0.01}
    own |= settings.pop("server", {})
    given = {"source": "server", "server": own, "prompts": PROMPT, "frames": FRAMES}
    return CaptionSettings.model_validate(given | settings)


def run(stage: Caption, units: Iterable[Unit], catalog: Path | None = None) -> list[Unit]:
    """The units after the stage; with a catalog its answers are cached there."""
    if catalog is not None:
        stage.prepare(Context(str(catalog)))
    stage.setup()
    try:
        return list(stage.stream(iter(units)))
    finally:
        stage.close()


def rows_of(units: Iterable[Unit], table: str = "captions") -> dict[int, dict[str, Any]]:
    """The rows of a table by the number of their clip; each clip has one."""
    rows = [clip.results[table] for unit in units for clip in unit.clips if table in clip.results]
    found = {int(row["clip_id"], 16): row for row in rows}
    assert len(found) == len(rows)
    return found


def asked_about(prompt: str) -> int:
    """The number of the clip that a prompt made of PROMPT names."""
    return int(re.search(r"[0-9a-f]{32}", prompt)[0], 16)
