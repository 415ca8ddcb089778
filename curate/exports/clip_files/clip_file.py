"""Writes one clip as MP4; runs in the killable child. The source of the last clip stays open for the next."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import BinaryIO, cast

import cv2
import numpy as np

from curate.exports.clip_files.messages import PIECE, ClipFile, ClipFileRequest
from curate.exports.clip_files.mp4_writer import MP4Writer
from curate.exports.clip_files.stream_copy import copy_span
from stages.decode.fetch import Seeker
from stages.decode.messages import Call, Message
from stages.decode.seek_reader import SeekReader
from stages.decode.span_frames import KeptSeeker, SpanFrames
from stages.frames import Box, SourceError
from stages.windows.reader import places_in
from stages.windows.window import covering, rate

IN_MEMORY = 64 << 20  # bytes of a file; a larger one is written to a file without a name in TMPDIR

_kept: KeptSeeker | None = None


def write(call: Call) -> Iterator[Message]:
    """The child's task: a ClipFileRequest in, the file's bytes in pieces and a ClipFile out. Raises SourceError."""
    global _kept
    cv2.setNumThreads(1)
    request = ClipFileRequest.from_json(call.request)
    if _kept is None:
        _kept = KeptSeeker(request.threads)
    window = request.window
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as spooled:
        target = cast(BinaryIO, spooled)
        with _kept.of(call.file, window.size, window.time_base, call.progress, window.rendering) as seeker:
            made = write_clip(seeker, request, target, call.progress)
        target.seek(0)
        while piece := target.read(PIECE):
            yield Message(None, [np.frombuffer(piece, np.uint8)])
        yield made.to_message()


def write_clip(
    seeker: Seeker, request: ClipFileRequest, target: BinaryIO, progress: Callable[[int], None] = lambda n: None
) -> ClipFile:
    """Writes the file of a request to `target`. Raises SourceError for a still image, and for a span that can't be
    decoded whole.
    """
    window, info = request.window, seeker.info
    if info.media == "image":
        raise SourceError("a still image is no clip")
    size = (window.width, window.height)
    whole = window.crop is None and size == (info.width, info.height)
    places = None if request.every else places_in(window, info)
    seconds = (window.end_pts - window.start_pts) * window.time_base
    if request.copy and whole and isinstance(seeker, SeekReader):
        frames = copy_span(seeker, window.start_pts, window.end_pts, target, places, progress)
        if frames is not None:
            return _about(target, True, info.codec, frames, size, seconds)
        target.seek(0)
        target.truncate()
    size = (max(2, size[0] - size[0] % 2), max(2, size[1] - size[1] % 2))
    box = covering((info.width, info.height), window.crop, size[1], size[0])
    span = SpanFrames(seeker, window.start_pts, window.end_pts)
    tick = window.time_base if places is None else 1 / rate(window.fps)
    with MP4Writer(target, size, rate(window.fps), window.frames, tick, request.crf, request.threads) as writer:
        if places is None:
            _add_every(writer, span, box, size, progress)
        else:
            for number, place in enumerate(places):
                writer.add(span.at(place).cropped(box, size))
                progress(number)
            seconds = window.frames / rate(window.fps)
        span.check()
    return _about(target, False, "h264", writer.frames, writer.size, seconds)


def _about(
    target: BinaryIO, copied: bool, codec: str, frames: int, size: tuple[int, int], seconds: Fraction
) -> ClipFile:
    length = target.seek(0, os.SEEK_END)
    return ClipFile(copied, codec, frames, *size, float(frames / seconds), float(seconds), length)


def _add_every(
    writer: MP4Writer, span: SpanFrames, box: Box, size: tuple[int, int], progress: Callable[[int], None]
) -> None:
    """Each frame of the span at its own time, shown until the next."""
    held: tuple[int, np.ndarray] | None = None  # a frame's length is known with the next one
    for frame in span.every():
        if held is not None:
            writer.add(held[1], held[0] - span.start_pts, frame.pts - held[0])
        held = frame.pts, frame.cropped(box, size)
        progress(writer.frames)
    if held is not None:
        writer.add(held[1], held[0] - span.start_pts, span.end_pts - held[0])
