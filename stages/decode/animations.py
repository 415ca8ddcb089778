"""Tells pictures that move, animated WebP and PNG, from still ones, by the chunks of the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from stages.decode.reading import SafeFile

LEAST_MS = 10  # a frame of WebP that states no more is shown for ...
DEFAULT_MS = 100  # ... so long, as browsers do

_ANIMATION = 2  # flag in the extended header of WebP


@dataclass(frozen=True)
class WebpFrame:
    """A frame of an animated WebP as its chunk states it."""

    milliseconds: int  # that it is shown
    end: int  # of its chunk, bytes from the start of the file
    size: int  # of its chunk, bytes


def is_animated(file: SafeFile, kind: str) -> bool:
    """Whether a 'webp' or 'png' has more than one frame; no other kind has. Leaves the file's position anywhere."""
    if kind == "webp":
        return len(webp_frames(file)) > 1
    return kind == "png" and png_frames(file) > 1


def webp_frames(file: SafeFile) -> list[WebpFrame]:
    """The frames of an animated WebP that are there as a whole; none of a still one."""
    file.seek(12)
    head = file.read(9)
    if head[:4] != b"VP8X" or len(head) < 9 or not head[8] & _ANIMATION:
        return []
    frames = []
    for name, start, size in _riff_chunks(file):
        if name == b"ANMF":
            file.seek(start)
            head = file.read(16)
            file.seek(start + size - 1)
            if len(head) < 16 or not file.read(1):
                break
            shown = int.from_bytes(head[12:15], "little")
            end = start + size + size % 2
            frames.append(WebpFrame(shown if shown > LEAST_MS else DEFAULT_MS, end, size))
    return frames


def _riff_chunks(file: SafeFile) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, size) of each chunk's contents."""
    place = 12
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = struct.unpack("<4sI", head)
        yield name, place + 8, size
        place += 8 + size + size % 2


def png_frames(file: SafeFile) -> int:
    """Frames that the animation chunk of a PNG states, which comes before its pixels; 1 where there is none."""
    place = 8
    while True:
        file.seek(place)
        head = file.read(12)
        if len(head) < 12 or head[4:8] == b"IDAT":
            return 1
        if head[4:8] == b"acTL":
            return int.from_bytes(head[8:12], "big")
        place += 12 + int.from_bytes(head[:4], "big")
