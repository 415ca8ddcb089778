"""A stage on clips that needs no model: what the machinery around such stages is tested with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from curate.recipe.registry import BUILT_IN
from stages.base import ClipError, ClipStage, Column
from stages.frames import FrameRequest
from stages.settings import ModelSettings
from stages.unit import Clip, Row


class BrightnessSettings(ModelSettings):
    gain: float = 1.0
    refuse: str = ""  # clips whose source's name holds this fail
    log: str = Field("", exclude=True)  # a file that takes a line for every clip scored


class Brightness(ClipStage[BrightnessSettings]):
    """Mean of the frames' green, times `gain`."""

    name = "brightness"
    default_table = "brightness"

    def wants(self) -> FrameRequest:
        return FrameRequest((0.25, 0.75), 64)

    def signals(self) -> dict[str, Column]:
        return {"brightness": Column("double"), "frames": Column("int32"), "model": Column("string")}

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        return [self._score_one(clip) for clip in clips]

    def _score_one(self, clip: Clip) -> Row | ClipError:
        if self.settings.log:
            with open(self.settings.log, "a") as log:
                log.write(clip.clip_id + "\n")
        if self.settings.refuse and self.settings.refuse in clip.source.uri:
            return ClipError("too ugly: 7 of 10")
        mean = sum(float(picture[..., 1].mean()) for _, picture in clip.frames) / len(clip.frames)
        return {"brightness": self.settings.gain * mean, "frames": len(clip.frames), "model": "green"}


def register(monkeypatch: Any) -> None:
    """Lets recipes name `brightness`, as they name clipmill's own stages."""
    monkeypatch.setitem(BUILT_IN, "brightness", f"{__name__}:Brightness")
