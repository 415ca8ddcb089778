"""Reads the pixels of windows; runs in the killable child.

The source of the last window stays open, and its decoder where it stands: windows of one source that are
asked for in rising order decode no group of pictures twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import av
import cv2
import numpy as np

from stages.decode.reading import SafeFile, one_line, open_source
from stages.decode.seek_reader import check_time_base, open_seeker
from stages.frames import Box, SourceError
from stages.windows.shared_pixels import Attached, Room
from stages.windows.window import Pixels, Window, covering

HELD_BYTES = 16 << 20  # blocks up to this size are not given back to the system at once


class WindowReader:
    """Gives windows their pixels, keeping one source open at a time."""

    def __init__(self, threads: int = 1):
        self.decoded = 0  # frames so far, those on the way to the wanted ones among them
        self._threads = threads
        self._progress: Callable[[int], None] = lambda n: None
        self._source: tuple[str, int | None] | None = None  # what is open
        self._file: SafeFile | None = None
        self._seeker: Any = None
        self._closing = ExitStack()

    def read(
        self, window: Window, into: np.ndarray | None = None, progress: Callable[[int], None] = lambda n: None
    ) -> Pixels:
        """The window's pixels, in the array `into` where there is one. Raises SourceError."""
        self._progress = progress
        before = 0
        try:
            places = window.places()
            self._open(window)
            before = self._seeker.decoded
            check_time_base(self._seeker, window.time_base)
            info = self._seeker.info
            if info.media == "image" and window.frames > 1:
                raise SourceError(f"a still image has one frame, not {window.frames}")
            box = covering((info.width, info.height), window.crop, window.height, window.width)
            video = np.empty(window.shape, np.uint8) if into is None else into
            return Pixels(video, self._fill(video, window, places, box), box)
        except Exception as error:
            failure = self._file.failure if self._file is not None else None
            if failure or not isinstance(error, SourceError):
                self.close()  # nobody knows where it stands
            if failure:
                raise failure from error
            if isinstance(error, (av.FFmpegError, cv2.error, ValueError)):
                raise SourceError(one_line(error)) from error
            raise
        finally:
            if self._seeker is not None:
                self.decoded += self._seeker.decoded - before

    def close(self) -> None:
        """Closes the source that is open."""
        self._source = self._file = self._seeker = None
        self._closing.close()

    def _open(self, window: Window) -> None:
        wanted = (window.uri, window.size)
        if self._source == wanted:
            return
        self.close()
        self._file = self._closing.enter_context(open_source(window.uri))
        self._seeker = open_seeker(self._file, window.size, self._threads, lambda n: self._progress(n))
        self._closing.callback(self._seeker.close)
        self._source = wanted

    def _fill(self, video: np.ndarray, window: Window, places: list[int], box: Box) -> list[int]:
        """The PTS of the frames that were put into the video; a frame that is shown again is made once.

        Raises SourceError where a frame would stand for others that the scan saw and that are gone.
        """
        pts: list[int] = []
        lost: set[int | None] = set()
        for k, place in enumerate(places):
            frame = self._seeker.frame_at(place, window.start_pts, window.end_pts)
            lost |= self._seeker.lost(frame.pts, place, window.start_pts)
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
            raise SourceError(f"{frames} of it can't be decoded: the file is damaged there")
        ends = self._seeker.ends_at(window.end_pts)
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


def read(
    window: Window, room: Room | None, threads: int = 1, progress: Callable[[int], None] = lambda n: None
) -> Iterator[Pixels | tuple[list[int], Box]]:
    """The window's pixels; of those that are in the room of the parent's memory, the PTS and the crop box.

    The next call of this process goes on in the source that this one leaves open. Raises SourceError.
    """
    global _server
    cv2.setNumThreads(1)
    if _server is None:
        _server = _Server(threads)
    into = _server.memory.array(room, window.shape) if room is not None else None
    pixels = _server.reader.read(window, into, progress)
    yield pixels if into is None else (pixels.pts, pixels.crop)
