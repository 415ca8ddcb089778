"""Chooses the bucket of a clip: one of a few shapes (frames x height x width) that clips are encoded in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from stages.decode.rendering import Rendering
from stages.decode.ticks import forgiven
from stages.frames import Box, SourceError
from stages.unit import Source
from stages.windows.window import Window, covering, rate

_NAME = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})")


@dataclass(frozen=True, order=True)
class Bucket:
    """Frames, height and width of a window, pixels; written "17x256x256"."""

    frames: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Bucket:
        """Raises ValueError for what is no bucket."""
        found = _NAME.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no bucket: FRAMESxHEIGHTxWIDTH is wanted, for instance 17x256x256")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


def choose(row: Mapping[str, Any], buckets: Iterable[Bucket], fps: float, max_upscale: float = 1.0) -> Bucket | str:
    """The bucket of a clip (a row of `clips`), or why there is none.

    First the most frames that the clip has at `fps`; then the aspect nearest to that of its picture within the
    letterbox, by the logarithm of their ratio; then the largest area for which no pixel is enlarged more than
    `max_upscale` times. A still image takes only buckets of one frame.
    """
    buckets = list(buckets)
    if not buckets:
        return "there are no buckets"
    have = frames_of(row, fps)
    long_enough = [bucket for bucket in buckets if bucket.frames <= have]
    if not long_enough:
        shortest = min(bucket.frames for bucket in buckets)
        if row.get("media") == "image":
            return f"a still image is one frame, and the shortest bucket has {shortest}; add a bucket of one frame"
        seconds = _seconds(math.ceil(1000 * shortest / rate(fps)) / 1000)
        return (
            f"shorter than the shortest bucket, {shortest} frames at {fps:g} fps; add a shorter one, or select only "
            f"clips WHERE end_s - start_s >= {seconds}: its {_seconds(float(_length(row)))} s are {have}"
        )
    try:
        fitting = [bucket for bucket in long_enough if _upscale(row, bucket) <= max_upscale * (1 + 1e-9)]
    except SourceError as error:
        return str(error)
    if not fitting:
        least = min(long_enough, key=lambda bucket: (_upscale(row, bucket), bucket))
        _, _, w, h = _picture(row)
        return (
            f"too small for the buckets; add a smaller one, or raise max_upscale ({max_upscale:g}): "
            f"{w}x{h} pixels would be enlarged {_upscale(row, least):.2f} times for {least}"
        )
    most = max(bucket.frames for bucket in fitting)
    return min(
        (bucket for bucket in fitting if bucket.frames == most),
        key=lambda bucket: (_aspect_apart(row, bucket), -bucket.height * bucket.width, bucket),
    )


def window_of(
    row: Mapping[str, Any], source: Source, bucket: Bucket, fps: float, where: Literal["middle", "start"] = "middle"
) -> Window:
    """The clip's window for a bucket that it fits: frames from its middle or its start.

    `row` is one of `clips`.
    """
    base = _time_base(row)
    ticks = row["end_pts"] - row["start_pts"]
    spare = 0
    if where == "middle":
        taken = bucket.frames / (rate(fps) * base)  # ticks, as if the last frame had its whole time
        spare = max(0, math.floor((ticks - taken) / 2))
    return Window(
        row["clip_id"], source.uri, source.bytes, row["start_pts"], row["end_pts"], base,
        float(spare * base), fps, bucket.frames, _crop(row), bucket.height, bucket.width, Rendering.of_clip(row),
        source.place,
    )  # fmt: skip


def frames_of(row: Mapping[str, Any], fps: float) -> int:
    """Frames at `fps` that have their whole time within the clip; at least 1, the clip's first."""
    if row.get("media") == "image":
        return 1
    off = min(forgiven(_time_base(row), row.get("fps")), 1 / (2 * rate(fps)))
    return max(1, math.floor((_length(row) + off) * rate(fps)))


def _time_base(row: Mapping[str, Any]) -> Fraction:
    return Fraction(row["time_base_num"], row["time_base_den"])


def _length(row: Mapping[str, Any]) -> Fraction:
    """Seconds of a clip."""
    return (row["end_pts"] - row["start_pts"]) * _time_base(row)


def _seconds(length: float) -> str:
    """Seconds with at most three decimals, without trailing zeros."""
    return f"{length:.3f}".rstrip("0").rstrip(".")


def _crop(row: Mapping[str, Any]) -> Box | None:
    """The letterbox box of a clip, where it was measured."""
    if any(row.get(f"crop_{name}") is None for name in "xywh"):
        return None
    return row["crop_x"], row["crop_y"], row["crop_w"], row["crop_h"]


def _picture(row: Mapping[str, Any]) -> Box:
    return _crop(row) or (0, 0, row["width"], row["height"])


def _upscale(row: Mapping[str, Any], bucket: Bucket) -> float:
    """How many times a pixel of the clip is enlarged, along the side where it is more."""
    _, _, w, h = covering((row["width"], row["height"]), _crop(row), bucket.height, bucket.width)
    return max(bucket.width / w, bucket.height / h)


def _aspect_apart(row: Mapping[str, Any], bucket: Bucket) -> float:
    _, _, w, h = _picture(row)
    return round(abs(math.log(w / h * bucket.height / bucket.width)), 9)  # equal but for rounding is equal
