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

from stages.frames import SourceError
from stages.reading import open_source
from stages.seek_reader import check_time_base, open_seeker
from stages.windows import Box, Pixels, Window, covering


class WindowReader:
    """Gives windows their pixels, keeping one source open at a time."""

    def __init__(self, threads: int = 1):
        self.decoded = 0  # frames of the open source so far, those on the way to the wanted ones among them
        self._threads = threads
        self._open: tuple[str, int | None] | None = None
        self._closing = ExitStack()
        self._file: Any = None
        self._seeker: Any = None
        self._progress: Callable[[int], None] = lambda n: None

    def read(self, window: Window, progress: Callable[[int], None] = lambda n: None) -> Pixels:
        """Raises SourceError with the reason why there are none."""
        self._progress = progress
        try:
            places = window.places()
            seeker = self._seeker_of(window)
            check_time_base(seeker, window.time_base)
            if seeker.info.media == "image" and window.frames > 1:
                raise SourceError(f"a still image has one frame, not {window.frames}")
            box = covering((seeker.info.width, seeker.info.height), window.crop, window.height, window.width)
            return self._pixels(window, places, box)
        except (SourceError, av.FFmpegError, cv2.error, ValueError) as error:
            failure = self._file.failure if self._file is not None else None
            if failure or not isinstance(error, SourceError):
                self.close()  # nobody knows where it stands
            raise failure or SourceError(" ".join(str(error).split())[:300]) from error

    def close(self) -> None:
        self._closing.close()
        self._open = self._file = self._seeker = None

    def _seeker_of(self, window: Window) -> Any:
        wanted = (window.uri, window.size)
        if self._open != wanted:
            self.close()
            self._file = self._closing.enter_context(open_source(window.uri))
            try:
                self._seeker = open_seeker(self._file, window.size, self._threads, self._alive)
            except BaseException:
                self._closing.close()
                raise
            self._closing.callback(self._seeker.close)
            self._open = wanted
        return self._seeker

    def _alive(self, decoded: int) -> None:
        self.decoded = decoded
        self._progress(decoded)

    def _pixels(self, window: Window, places: list[int], box: Box) -> Pixels:
        video = np.empty((window.frames, window.height, window.width, 3), np.uint8)
        pts: list[int] = []
        for k, place in enumerate(places):
            frame = self._seeker.frame_at(place, window.start_pts, window.end_pts)
            if pts and frame.pts == pts[-1]:
                video[k] = video[k - 1]
            else:
                video[k] = frame.cropped(box, (window.width, window.height))
            pts.append(frame.pts)
            self._progress(k)
        return Pixels(video, pts, box)


_reader: WindowReader | None = None  # of this process, which is a child of its own for nothing else


def read(window: Window, threads: int = 1, progress: Callable[[int], None] = lambda n: None) -> Iterator[Pixels]:
    """The pixels of one window; the next call of this process goes on in the same source. Raises SourceError."""
    global _reader
    cv2.setNumThreads(1)
    if _reader is None:
        _reader = WindowReader(threads)
    yield _reader.read(window, progress)
