"""Fetches the frames of known clips of one source; runs in the decoder's child process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Protocol

import av
import cv2

from stages.decode.animated_webp import AnimatedWebp
from stages.decode.fetch_messages import ClipFrames, ClipSpan, FetchCost, FetchRequest
from stages.decode.images import ImageReader, is_animated_webp, is_image
from stages.decode.messages import Call, Message
from stages.decode.reading import SafeFile, reason_of
from stages.decode.rendering import STANDARD, Rendering
from stages.decode.seek_reader import SeekReader
from stages.frames import Frame, FrameRequest, Picture, SourceError, SourceInfo


class Seeker(Protocol):
    """Frames of an open source by time: of a video, an animation, or a still image. Methods raise SourceError."""

    info: SourceInfo
    decoded: int  # frames so far, those on the way to the wanted ones among them

    def frame_at(self, place: int, start_pts: int, end_pts: int) -> Frame:
        """The frame of the span [start_pts, end_pts) displayed at PTS `place`."""

    def next_pts(self, shown: int) -> int | None:
        """The PTS of the frame after the one just given, whose PTS is `shown`; None at the end."""

    def lost(self, shown: int, place: int) -> set[int | None]:
        """The PTS of damaged frames that the frame `shown` for `place` refers to or stands for."""

    def ends_at(self, end_pts: int) -> int | None:
        """The PTS at which the source ends, if that is before `end_pts`; else None."""

    def close(self) -> None: ...


def run(call: Call) -> Iterator[Message]:
    """The child's task: a FetchRequest in, messages of ClipFrames and of the FetchCost out."""
    for answer in fetch(call.file, FetchRequest.from_json(call.request), call.progress):
        yield answer.to_message()


def fetch(
    file: SafeFile, request: FetchRequest, progress: Callable[[int], None] = lambda n: None
) -> Iterator[ClipFrames | FetchCost]:
    """The frames of each clip in order of time, then the cost. Closes the file.

    Raises SourceError when the source can't be read at all.
    """
    cv2.setNumThreads(1)
    began = time.process_time()
    with file:
        seeker = open_seeker(file, request.size, request.threads, progress, request.rendering)
        for clip in sorted(request.clips, key=lambda clip: (clip.start_pts, clip.end_pts)):
            try:
                yield ClipFrames(clip.clip_id, _pictures(seeker, clip, request.wants))
            except (SourceError, av.FFmpegError, cv2.error, ValueError) as error:
                if file.failure:
                    raise file.failure from error
                yield ClipFrames(clip.clip_id, reason_of(error))
        yield FetchCost(seeker.decoded, time.process_time() - began)


def open_seeker(
    file: SafeFile,
    size: int | None,
    threads: int,
    progress: Callable[[int], None],
    rendering: Rendering = STANDARD,
) -> Seeker:
    """What gives the frames of an open file by time, those of a still image too. Raises SourceError.

    `size` is what the file had when it was scanned, bytes, None where nobody knows.
    """
    if size is not None and file.size is not None and file.size != size:
        raise SourceError(f"the file has changed since it was scanned: {file.size} bytes, then {size}")
    if is_image(file):
        return StillSeeker(ImageReader(file))
    return AnimatedWebp(file) if is_animated_webp(file) else SeekReader(file, threads, progress, rendering)


def check_time_base(seeker: Seeker, then: Fraction) -> None:
    """Raises SourceError where PTS have another meaning than when the file was scanned."""
    now = seeker.info.time_base
    if now != then:
        raise SourceError(f"the file has changed since it was scanned: its time base is {now}, then {then}")


class StillSeeker:
    """The one frame of a still image, at every time."""

    def __init__(self, reader: ImageReader):
        self.info = reader.info
        self.decoded = 1
        self._frame = next(iter(reader))

    def frame_at(self, place: int, start_pts: int, end_pts: int) -> Frame:
        return self._frame

    def next_pts(self, shown: int) -> int | None:
        return None

    def lost(self, shown: int, place: int) -> set[int | None]:
        return set()

    def ends_at(self, end_pts: int) -> int | None:
        return None

    def close(self) -> None:
        """Nothing is open: the picture was decoded at once."""


def _pictures(seeker: Seeker, clip: ClipSpan, wants: tuple[FrameRequest, ...]) -> list[list[Picture]]:
    """The pictures of each request; a frame is decoded once however many requests want it."""
    check_time_base(seeker, clip.time_base)
    found: dict[tuple[int, int], Picture] = {}  # by (place, long side)
    for place in sorted({clip.place(share) for request in wants for share in request.positions}):
        frame = seeker.frame_at(place, clip.start_pts, clip.end_pts)
        sides = {request.long_side for request in wants for share in request.positions if clip.place(share) == place}
        for side in sides:
            found[place, side] = (frame.seconds, frame.picture(side))
    return [[found[clip.place(share), request.long_side] for share in request.positions] for request in wants]
