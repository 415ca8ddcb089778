"""Bits per pixel: how many bits the codec spent on each pixel of the clip."""

from __future__ import annotations

from typing import Any, ClassVar

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed


class BitsPerPixel(Measure):
    """Compressed bits / (width * height * frames), from packet sizes; Open-Sora 2 drops below 0.02.

    It compares only within a codec: AV1 needs half of what H.264 needs. Unknown for images.
    """

    name = "bits_per_pixel"
    version = 1
    columns: ClassVar[dict[str, Column]] = {
        "bits_per_pixel": Column(
            "double", "compressed size of a pixel", "bits", also=("bitrate", "compression", "bpp")
        ),
    }
    unknown = "images; packet sizes unknown"

    def observe(self, sample: Sample, previous: Sample | None) -> None:
        return None

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        pixels = clip.width * clip.height * clip.frames
        if clip.media != "video" or not clip.packet_bytes or pixels <= 0:
            return {"bits_per_pixel": None}
        return {"bits_per_pixel": 8.0 * clip.packet_bytes / pixels}
