"""What a clip's latents were made of, as hashes that stand in its row: captions, crop, window and conditions.

curate/shards/changed.py computes the same hashes in SQL from what the catalog says of the clip now. A hash is the md5
of a plain encoding, which both sides have.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from stages.base import Column

MADE_OF = {
    "captions_hash": Column("string", "hash of the captions that were encoded; NULL where no text was"),
    "crop_hash": Column("string", "hash of the box that was cropped to; NULL with `letterbox: false`"),
    "window_hash": Column("string", "hash of span, picture size, rendering, rate and bucket of its window"),
    "conditions_hash": Column("string", "hash of the conditions beside the latents"),
    "condition_names": Column("string", "JSON: the columns of `clips` that are the conditions"),
}


def captions_hash(texts: Iterable[str | None]) -> str:
    """Of the captions by field, as the catalog holds them; a missing one counts as empty."""
    return _md5(",".join(_md5((text or "").encode()) for text in texts).encode())


def crop_hash(row: Mapping[str, Any]) -> str:
    """Of the letterbox box of a clip, which is its whole picture where none was measured."""
    box = [row.get(f"crop_{name}") for name in "xywh"]
    if any(value is None for value in box):
        box = [0, 0, row["width"], row["height"]]
    return _md5(",".join(map(str, box)).encode())


def window_hash(row: Mapping[str, Any], fps: float, bucket: str) -> str:
    """Of a clip's span, picture size and rendering, and of the rate and bucket of its window."""
    names = ("start_pts", "end_pts", "time_base_num", "time_base_den", "width", "height", "media", "hdr", "deinterlace")
    parts = ["" if row.get(name) is None else str(row[name]) for name in names]
    return _md5(",".join([*parts, bucket]).encode() + struct.pack(">d", fps))


def conditions_hash(values: Iterable[float | None]) -> str:
    """Of the values in the order of their names, each as the eight bytes of a double; an unknown one is NaN."""
    known = [math.nan if value is None or value != value else value for value in values]
    return _md5(struct.pack(f">{len(known)}d", *known))


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
