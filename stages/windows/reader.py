"""Reads the pixels of windows; runs in the killable child.

The source of the last window stays open, and its decoder where it stands: windows of one source that are
asked for in rising order decode no group of pictures twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import av
import cv2
import numpy as np

from stages.decode.fetch import Seeker, check_time_base, open_seeker
from stages.decode.messages import Call, Message
from stages.decode.reading import SafeFile, reason_of
from stages.decode.ticks import rounding
from stages.frames import Box, SourceError
from stages.windows.messages import ReadRequest, WindowAnswer
from stages.windows.shared_pixels import Attached
from stages.windows.window import Pixels, Window, covering

HELD_BYTES = 16 << 20  # blocks up to this size are not given back to the system at once


class WindowReader:
    """Gives windows their pixels, keeping one source open at a time."""

    def __init__(self, threads: int = 1):
        self.decoded = 0  # frames so far, those on the way to the wanted ones among them
        self._threads = threads
        self._progress: Callable[[int], None] = lambda n: None
        self._source: tuple[SafeFile, int | None] | None = None  # what is open, and the size it had when scanned
        self._seeker: Seeker | None = None

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
        self._progress = progress
        before = 0
        try:
            places = window.places()
            seeker = self._open(file, window.size)
            before = seeker.decoded
            check_time_base(seeker, window.time_base)
            info = seeker.info
            if info.media == "image" and window.frames > 1:
                raise SourceError(f"a still image has one frame, not {window.frames}")
            box = covering((info.width, info.height), window.crop, window.height, window.width)
            video = np.empty(window.shape, np.uint8) if into is None else into
            return Pixels(video, self._fill(seeker, video, window, places, box), box)
        except Exception as error:
            failure = file.failure
            if failure or not isinstance(error, SourceError):
                self.close()  # its position is unknown
                file.close()
            if failure:
                raise failure from error
            if isinstance(error, (av.FFmpegError, cv2.error, ValueError)):
                raise SourceError(reason_of(error)) from error
            raise
        finally:
            if self._seeker is not None:
                self.decoded += self._seeker.decoded - before

    def close(self) -> None:
        """Leaves the source that is open; its file is the caller's."""
        if self._seeker is not None:
            self._seeker.close()
        self._source = self._seeker = None

    def _open(self, file: SafeFile, size: int | None) -> Seeker:
        if self._seeker is None or self._source != (file, size):
            self.close()
            self._seeker = open_seeker(file, size, self._threads, lambda n: self._progress(n))
            self._source = (file, size)
        return self._seeker

    def _fill(self, seeker: Seeker, video: np.ndarray, window: Window, places: list[int], box: Box) -> list[int]:
        """The PTS of the frames that were put into the video; a frame that is shown again is made once.

        Raises SourceError where a frame would stand for others that the scan saw and that are gone.
        """
        pts: list[int] = []
        lost: set[int | None] = set()
        off = rounding(seeker.info.time_base, seeker.info.fps)
        for k, place in enumerate(places):
            place = min(place + off, window.end_pts - 1)
            frame = seeker.frame_at(place, window.start_pts, window.end_pts)
            lost |= seeker.lost(frame.pts, place)
            if frame.pts > place:  # a clip begins with a frame
                lost.add(window.start_pts)
            if pts and frame.pts == pts[-1]:
                video[k] = video[k - 1]
            else:
                video[k] = frame.cropped(box, (window.width, window.height))
            pts.append(frame.pts)
            self._progress(k)
        if lost:
            frames = "1 frame" if len(lost) == 1 else f"{len(lost)} frames"
            raise SourceError(f"{frames} that it needs can't be decoded: the file is damaged there")
        ends = seeker.ends_at(window.end_pts)
        if ends is not None:
            now, then = (float(end * window.time_base) for end in (ends, window.end_pts))
            raise SourceError(
                f"the source ends at {now:.3f} s now, the clip goes to {then:.3f} s: the file has changed or is damaged"
            )
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
