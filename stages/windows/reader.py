"""Reads the pixels of windows; runs in the killable child.

The source of the last window stays open, and its decoder where it stands: windows of one source that are
asked for in rising order decode no group of pictures twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from stages.decode.fetch import Seeker
from stages.decode.messages import Call, Message
from stages.decode.reading import SafeFile
from stages.decode.span_frames import KeptSeeker, SpanFrames
from stages.decode.ticks import rounding
from stages.frames import Box, SourceError, SourceInfo
from stages.windows.messages import ReadRequest, WindowAnswer
from stages.windows.shared_pixels import Attached
from stages.windows.window import Pixels, Window, covering

HELD_BYTES = 16 << 20  # blocks up to this size are not given back to the system at once


class WindowReader:
    """Gives windows their pixels, keeping one source open at a time."""

    def __init__(self, threads: int = 1):
        self._kept = KeptSeeker(threads)

    @property
    def decoded(self) -> int:
        """Frames so far, those on the way to the wanted ones among them."""
        return self._kept.decoded

    def read(
        self,
        file: SafeFile,
        window: Window,
        into: np.ndarray | None = None,
        progress: Callable[[int], None] = lambda n: None,
    ) -> Pixels:
        """The window's pixels, in the array `into` where there is one. Raises SourceError.

        The file stays open, to be given again with the next window, unless the reader can't go on in it.
        """
        with self._kept.of(file, window.size, window.time_base, progress, window.rendering) as seeker:
            info = seeker.info
            places = places_in(window, info)
            if info.media == "image" and window.frames > 1:
                raise SourceError(f"a still image has one frame, not {window.frames}")
            box = covering((info.width, info.height), window.crop, window.height, window.width)
            video = np.empty(window.shape, np.uint8) if into is None else into
            return Pixels(video, _fill(seeker, video, window, places, box, progress), box)

    def close(self) -> None:
        """Leaves the source that is open; its file is the caller's."""
        self._kept.close()


def places_in(window: Window, info: SourceInfo) -> list[int]:
    """The places of a window in its source: later by the tick that a container may have rounded times up by."""
    off = rounding(info.time_base, info.fps)
    return [min(place + off, window.end_pts - 1) for place in window.places()]


def _fill(
    seeker: Seeker, video: np.ndarray, window: Window, places: list[int], box: Box, progress: Callable[[int], None]
) -> list[int]:
    """The PTS of the frames that were put into the video; a frame that is shown again is made once.

    Raises SourceError where a frame would stand for others that the scan saw and that are gone.
    """
    pts: list[int] = []
    span = SpanFrames(seeker, window.start_pts, window.end_pts)
    for k, place in enumerate(places):
        frame = span.at(place)
        if pts and frame.pts == pts[-1]:
            video[k] = video[k - 1]
        else:
            video[k] = frame.cropped(box, (window.width, window.height))
        pts.append(frame.pts)
        progress(k)
    span.check()
    return pts


class _Server:
    """What a child keeps from one call to the next."""

    def __init__(self, threads: int):
        self.reader = WindowReader(threads)
        self.memory = Attached()
        # glibc maps what is larger than the largest block it ever got back, and unmaps it after use: with a
        # large one behind it, it keeps the memory of the frames' pictures: a fifth of the time at 256 px.
        np.empty(HELD_BYTES, np.uint8)


_server: _Server | None = None


def read(call: Call) -> Iterator[Message]:
    """The child's task: a ReadRequest in, one message of a WindowAnswer out.

    The pixels are in the room of the parent's memory where there is one that can be mapped, else in the message. The
    source stays open for the next call. Raises SourceError.
    """
    global _server
    cv2.setNumThreads(1)
    request = ReadRequest.from_json(call.request)
    if _server is None:
        _server = _Server(request.threads)
    into = None
    if request.room is not None and call.shared is not None:
        into = _server.memory.array(call.shared, request.room, request.window.shape)
    pixels = _server.reader.read(call.file, request.window, into, call.progress)
    yield WindowAnswer(pixels.pts, pixels.crop, pixels.video if into is None else None).to_message()
