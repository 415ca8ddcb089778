"""Settings of the stage `probe`, and of the decoder that fetches frames: how decoding is bounded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.settings import Settings


class FetchSettings(Settings):
    """How the decoder that fetches frames is guarded; as in `probe`, but of one unit's clips."""

    threads: int = Field(1, ge=1, le=64)
    stall_seconds: float = Field(60.0, gt=0)  # no frame for so long: the decoder is killed
    limit_seconds: float = Field(3600.0, gt=0)  # wall-clock limit of one unit
    memory_gb: float | None = Field(None, ge=1, le=1e6)


class ProbeSettings(Settings):
    """`probe:` what is asked of the header before anything is decoded, and how decoding is guarded."""

    min_seconds: float = Field(0.0, ge=0)  # shorter sources become one dropped clip, undecoded
    backend: Literal["pyav", "decord"] = "pyav"
    threads: int = Field(1, ge=1, le=64)  # decoder threads of one worker
    stall_seconds: float = Field(60.0, gt=0)  # no frame for so long: the decoder is killed
    limit_seconds: float = Field(4 * 3600.0, gt=0)  # wall-clock limit of one source
    memory_gb: float | None = Field(None, ge=1, le=1e6)  # address-space limit of a decoder
    truncated: Literal["fail", "keep"] = "fail"  # sources that end early: failed, or done with what is left
