"""Settings of the stage `probe` and of the decoder that fetches frames: limits of time, memory and threads."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from stages.decode.rendering import DeinterlaceSetting, Rendering
from stages.settings import Settings


class FetchSettings(Settings):
    """Limits of the decoder that fetches frames; as in `probe`, but for the clips of one unit."""

    threads: int = Field(1, ge=1, le=64)
    stall_seconds: float = Field(60.0, gt=0)  # the decoder is killed after so long without a frame
    limit_seconds: float = Field(3600.0, gt=0)  # wall-clock limit of one unit
    memory_gb: float | None = Field(None, ge=1, le=1e6)


class ProbeSettings(Settings):
    """`probe:` what the header must say before anything is decoded, and the limits of decoding."""

    judged: ClassVar[frozenset[str]] = frozenset({"min_seconds"})

    min_seconds: float = Field(0.0, ge=0)  # shorter sources become one dropped clip, undecoded
    backend: Literal["pyav", "decord"] = "pyav"
    threads: int = Field(1, ge=1, le=64)  # decoder threads of one worker
    stall_seconds: float = Field(60.0, gt=0)  # the decoder is killed after so long without a frame
    limit_seconds: float = Field(4 * 3600.0, gt=0)  # wall-clock limit of one source
    memory_gb: float | None = Field(None, ge=1, le=1e6)  # address-space limit of a decoder
    truncated: Literal["fail", "keep"] = "fail"  # sources that end early: failed, or done with what is left
    # Sources in PQ or HLG: brought to standard range, cut off at its white, left as stored, or dropped undecoded
    hdr: Literal["tone_map", "clip", "leave", "drop"] = "tone_map"
    deinterlace: DeinterlaceSetting = "auto"  # frames that are marked as interlaced: through bwdif, or left as they are

    @property
    def rendering(self) -> Rendering:
        return Rendering("leave" if self.hdr == "drop" else self.hdr, self.deinterlace)
