"""The state of one shard while it is encoded: its clips, which of them are decoded or written, and its writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.shards.writer import ShardWriter
from stages.unit import Clip, Unit
from stages.windows.window import Pixels, Window


@dataclass
class ShardJob:
    """`clips` are those to encode, by id; `left` the ids not decoded yet; `waiting` windows that are decoded but not
    encoded yet; `written` the columns of clips that are in the shard, by id.
    """

    unit: Unit
    bucket: str = ""
    clips: dict[str, Clip] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    waiting: list[tuple[Window, Pixels]] = field(default_factory=list)
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    writer: ShardWriter | None = None
    parts: int = 0
    finished: int = 0  # clips that are written or failed
    reported: int = 0  # of those, the ones that a part has reported

    def expect(self, clip: Clip, bucket: str, window: Window) -> None:
        self.bucket = bucket
        self.clips[window.clip_id] = clip
        self.windows.append(window)
        self.left.add(window.clip_id)

    def part(self) -> Unit:
        """A part of the unit without clips, which reports how many more of them are finished."""
        part = self.unit.new_part(self.parts)
        part.last, part.progress = False, self.finished - self.reported
        self.reported, self.parts = self.finished, self.parts + 1
        return part

    def end(self) -> Unit:
        """The unit itself, as the last of its parts."""
        self.unit.part, self.unit.progress = self.parts, len(self.unit.clips) - self.reported
        return self.unit

    def close(self) -> None:
        """Removes what was written of a shard that is not published."""
        if self.writer is not None:
            self.writer.discard()


def sample_info(row: Mapping[str, Any], window: Window, pixels: Pixels) -> dict[str, Any]:
    """What the JSON of a sample says of where its frames are from: source and span, times and crop."""
    return {
        "clip_id": window.clip_id,
        "source_id": row["source_id"],
        "uri": window.uri,
        "fps": window.fps,
        "pts": list(pixels.pts),
        "time_base": [window.time_base.numerator, window.time_base.denominator],
        "start_s": start_seconds(window),
        "letterbox": list(window.crop) if window.crop else None,
        "crop": list(pixels.crop),
        "original_size": [row["width"], row["height"]],
    }


def start_seconds(window: Window) -> float:
    """Where in its source the window begins."""
    return float(window.start_pts * window.time_base) + window.offset_s


def text_arrays(field_name: str, embedding: np.ndarray) -> dict[str, np.ndarray]:
    """An embedding (L, D), trimmed to its length, and the mask that says so."""
    return {field_name: embedding, f"{field_name}_mask": np.ones(len(embedding), np.uint8)}
