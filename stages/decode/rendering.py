"""How decoded frames become standard pictures: what is done with high dynamic range and with interlaced frames.

The scan of a source notes in its clips what it did, and whoever decodes them again (seeks, windows) does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

HdrMode = Literal["tone_map", "clip", "leave"]
DeinterlaceMode = Literal["auto", "off"]
# As a recipe has it: YAML takes a bare `off` for false.
DeinterlaceSetting = Annotated[DeinterlaceMode, BeforeValidator(lambda value: "off" if value is False else value)]


@dataclass(frozen=True)
class Rendering:
    """`hdr`: frames in PQ or HLG are tone-mapped, cut off at SDR white, or left as they are stored.
    `deinterlace`: with 'auto', frames that are marked as interlaced go through bwdif.
    """

    hdr: HdrMode = "tone_map"
    deinterlace: DeinterlaceMode = "auto"

    @classmethod
    def of_clip(cls, row: Mapping[str, Any]) -> Rendering:
        """How the scan rendered a clip, by its row in `clips`."""
        hdr: HdrMode = row["hdr"] if row.get("hdr") in ("clip", "leave") else "tone_map"
        return cls(hdr, "off" if row.get("deinterlace") == "off" else "auto")


STANDARD = Rendering()
