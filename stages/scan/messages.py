"""What the parent and the decoder's child say to each other when a source is scanned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from stages.cuts.settings import CutSettings
from stages.decode.messages import JsonRequest, Message, picture_bytes, pictures_of
from stages.decode.settings import ProbeSettings
from stages.frames import FrameRequest, Picture, Span
from stages.unit import Row

THUMBNAIL = FrameRequest((0.5,), 320)
# Columns of a clip that every scan fills, beside those of its measures.
CLIP_COLUMNS = {
    "scene": "int32", "start_s": "double", "end_s": "double", "start_pts": "int64", "end_pts": "int64",
    "time_base_num": "int32", "time_base_den": "int32", "width": "int32", "height": "int32", "fps": "double",
    "frames": "int64", "damaged_frames": "int64", "source_s": "double", "versions": "string",
    "hdr": "string", "deinterlace": "string",
}  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "double": (float, int), "int32": (int,), "int64": (int,), "string": (str,), "bool": (bool,),
}  # fmt: skip
_BITS = {"int32": 31, "int64": 63, "double": 1023}
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


@dataclass(frozen=True)
class ScanSettings(JsonRequest):
    """Everything that decides what a scan yields."""

    probe: ProbeSettings
    cut: CutSettings
    measures: tuple[str, ...]
    wants: tuple[FrameRequest, ...] = ()
    device: str = "auto"  # of the detector of cuts, apart from `cut`, of which only what decides a result is sent

    @property
    def on_device(self) -> CutSettings:
        return self.cut.model_copy(update={"device": self.device})

    @property
    def clip_bytes(self) -> int:
        """Bytes that the thumbnail and the frames of one clip can have at most."""
        return picture_bytes((THUMBNAIL, *self.wants))


class ScannedSource(BaseModel):
    """Columns of `sources` that a scan read. They come in several messages: the size first, the totals last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: Int64 | None = None
    modified_at: float | None = None  # seconds since 1970; a time in the columns
    media: str | None = None
    container: str | None = None
    codec: str | None = None
    pixel_format: str | None = None
    bit_depth: Int32 | None = None
    color_transfer: str | None = None
    color_primaries: str | None = None
    color_matrix: str | None = None
    field_order: str | None = None
    width: Int32 | None = None
    height: Int32 | None = None
    rotation: Int32 | None = None
    sample_aspect_ratio: str | None = None
    fps: float | None = None
    video_stream: Int32 | None = None
    video_streams: Int32 | None = None
    duration_s: float | None = None
    frames: Int64 | None = None
    decode_errors: Int64 | None = None
    has_audio: bool | None = None
    audio_codec: str | None = None
    audio_channels: Int32 | None = None
    audio_rate: Int32 | None = None
    audio_errors: Int64 | None = None
    content_hash: str | None = None
    cpu_seconds: float | None = None
    reason: str | None = None  # why there is no clip

    @property
    def columns(self) -> Row:
        """Those that this message has."""
        found = self.model_dump(exclude_unset=True)
        if self.modified_at is not None:
            found["modified_at"] = time_of(self.modified_at)
        return found

    def to_message(self) -> Message:
        return Message({"source": self.model_dump(exclude_unset=True)})


def time_of(seconds: float) -> datetime | None:
    """The UTC time of so many seconds since 1970; None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


@dataclass
class ScannedClip:
    """One clip as the scan yields it: its columns, its thumbnail (JPEG), the frames asked for.

    `pixels` holds, for each FrameRequest, a list of (seconds, picture (h, w, 3) uint8 BGR).
    """

    span: Span
    columns: Row
    thumbnail: tuple[int, int, bytes] | None  # width, height, JPEG
    pixels: list[list[Picture]] = field(default_factory=list)

    def to_message(self) -> Message:
        width, height, jpeg = self.thumbnail or (0, 0, b"")
        fields = {
            "columns": self.columns,
            "thumbnail": [width, height],
            "seconds": [[at for at, _ in some] for some in self.pixels],
        }
        pictures = [picture for some in self.pixels for _, picture in some]
        return Message(fields, [np.frombuffer(jpeg, np.uint8), *pictures])


class AnswerParser:
    """Checks the messages of one scan, in order.

    `types` are the Arrow type names of a clip's columns. Raises ValueError for what no scan says: unknown columns,
    values of other types, clips before the header or out of order.
    """

    def __init__(self, wants: Sequence[FrameRequest], types: Mapping[str, str]):
        self._wants = wants
        self._types = CLIP_COLUMNS | dict(types)
        self._has_header = False
        self._last_start: int | None = None

    def __call__(self, message: Message) -> ScannedSource | ScannedClip:
        match message.fields:
            case {"source": source}:
                scanned = ScannedSource.model_validate(source, strict=True)
                self._has_header = self._has_header or scanned.media in ("video", "image")
                return scanned
            case {"columns": dict(columns), "thumbnail": [int(width), int(height)], "seconds": seconds}:
                return self._clip(columns, (width, height), seconds, message.arrays)
        raise ValueError("neither columns of a source nor a clip")

    def _clip(self, columns: Row, size: tuple[int, int], seconds: object, arrays: Sequence[np.ndarray]) -> ScannedClip:
        for name, value in columns.items():
            _check(name, value, self._types.get(name))
        span = Span(*(columns[name] for name in ("scene", "start_pts", "end_pts", "start_s", "end_s")))
        if not isinstance(span.start_pts, int) or not isinstance(span.end_pts, int):
            raise ValueError("a clip without its span")
        if not self._has_header or (self._last_start is not None and span.start_pts <= self._last_start):
            raise ValueError("a clip out of order")
        self._last_start = span.start_pts
        jpeg = arrays[0].tobytes()
        thumbnail = (*size, jpeg) if jpeg else None
        pixels = pictures_of(seconds, arrays[1:], self._wants) if seconds else []
        return ScannedClip(span, columns, thumbnail, pixels)


def _check(name: str, value: object, kind: str | None) -> None:
    if kind is None:
        raise ValueError(f"a clip has no column {name[:100]!r}")
    fits = type(value) in _TYPES[kind] and (not isinstance(value, int) or abs(value) < 2 ** _BITS.get(kind, 1))
    if value is not None and not fits:
        raise ValueError(f"the column {name} is no {kind}")
