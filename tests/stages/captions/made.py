"""What the tests of captions share: units with clips and frames, settings against the stand-in server."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from stages.captions.settings import CaptionSettings
from stages.captions.stage import Caption
from stages.frames import FrameRequest
from stages.unit import Clip, Row, Source, Unit
from tests.caption_server import MODEL
from tests.stages.units import rows_of as rows_by_clip

PROMPT = "Describe clip {clip_id}."
FRAMES = {"positions": [0.5], "long_side": 16}


def clip_row(number: int, **columns: Any) -> dict[str, Any]:
    row = {"clip_id": f"{number:032x}", "source_id": "s" * 32, "uri": "films/a.mp4", "start_s": 1.0, "end_s": 3.5}
    return row | {"width": 640, "height": 360, "fps": 24.0} | columns


def unit_of(
    numbers: list[int],
    stage: Caption,
    unit_id: str = "u",
    uri: str = "films/a.mp4",
    entry: Row | None = None,
    **more: Any,
) -> Unit:
    """A unit of clips with a frame for each position that the stage wants; `entry` is what the manifest says."""
    request = stage.wants()
    unit = Unit(unit_id, [Clip(clip_row(number), Source("s" * 32, uri, entry or {})) for number in numbers], **more)
    for clip in unit.clips if request else ():
        clip.pixels[request] = pictures(request, clip.clip_id)
    return unit


def pictures(request: FrameRequest, clip: str = "0") -> list[tuple[float, np.ndarray]]:
    shade = int(clip, 16) * 37 % 256
    size = (request.long_side * 9 // 16, request.long_side, 3)
    return [(at, np.full(size, (shade + 40 * index) % 256, np.uint8)) for index, at in enumerate(request.positions)]


def served(url: str, **settings: Any) -> CaptionSettings:
    """Settings for a server; those of `server:` itself go by their names, the rest beside them."""
    own = {"base_url": url, "model": MODEL, "concurrency": 8, "backoff_seconds": 0.01, "timeout_seconds": 0.5}
    own |= settings.pop("server", {})
    given = {"source": "server", "server": own, "prompts": PROMPT, "frames": FRAMES}
    return CaptionSettings.model_validate(given | settings)


def run(stage: Caption, units: list[Unit]) -> list[Unit]:
    stage.setup()
    try:
        return list(stage.stream(iter(units)))
    finally:
        stage.close()


def rows_of(units: list[Unit], table: str = "captions") -> dict[int, dict[str, Any]]:
    """The rows of a table by the number of their clip; each clip has one."""
    return {int(clip_id, 16): row for clip_id, row in rows_by_clip(units, table).items()}


def asked_about(prompt: str) -> int:
    """The number of the clip that a prompt made of PROMPT names."""
    return int(re.search(r"[0-9a-f]{32}", prompt)[0], 16)
