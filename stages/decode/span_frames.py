"""Frames of spans of one source: what can't be decoded is noted, and the source stays open from span to span."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import cv2

from stages.decode.fetch import Seeker, check_time_base, open_seeker
from stages.decode.reading import SafeFile, reason_of
from stages.decode.rendering import STANDARD, Rendering
from stages.frames import Frame, SourceError


class SpanFrames:
    """The frames of the span [start_pts, end_pts), asked for in order of time.

    `check` raises SourceError if one of them stood for others that the scan saw and that are gone.
    """

    def __init__(self, seeker: Seeker, start_pts: int, end_pts: int):
        self.seeker, self.start_pts, self.end_pts = seeker, start_pts, end_pts
        self._lost: set[int | None] = set()

    def at(self, place: int) -> Frame:
        """The frame displayed at PTS `place`. Raises SourceError."""
        frame = self.seeker.frame_at(place, self.start_pts, self.end_pts)
        self._lost |= self.seeker.lost(frame.pts, place)
        if frame.pts > place:  # a clip begins with a frame
            self._lost.add(self.start_pts)
        return frame

    def every(self) -> Iterator[Frame]:
        """Each frame of the span, once. Raises SourceError."""
        place: int | None = self.start_pts
        while place is not None and place < self.end_pts:
            frame = self.at(place)
            yield frame
            place = self.seeker.next_pts(frame.pts)

    def check(self) -> None:
        """After the last frame: raises SourceError for a span that is damaged, or that its source does not reach."""
        if self._lost:
            frames = "1 frame" if len(self._lost) == 1 else f"{len(self._lost)} frames"
            raise SourceError(f"{frames} that it needs can't be decoded: the file is damaged there")
        ends = self.seeker.ends_at(self.end_pts)
        if ends is not None:
            tick = self.seeker.info.time_base
            now, then = (float(end * tick) for end in (ends, self.end_pts))
            raise SourceError(
                f"the source ends at {now:.3f} s now, the clip goes to {then:.3f} s: the file has changed or is damaged"
            )


class KeptSeeker:
    """The seeker of the last source, which stays open, with its decoder where it stands."""

    def __init__(self, threads: int = 1):
        self.decoded = 0  # frames so far, those on the way to the wanted ones among them
        self._threads = threads
        self._progress: Callable[[int], None] = lambda n: None
        # What is open, the size it had when it was scanned, and how its frames are rendered
        self._source: tuple[SafeFile, int | None, Rendering] | None = None
        self._seeker: Seeker | None = None

    @contextmanager
    def of(
        self,
        file: SafeFile,
        size: int | None,
        time_base: Fraction,
        progress: Callable[[int], None] = lambda n: None,
        rendering: Rendering = STANDARD,
    ) -> Iterator[Seeker]:
        """The seeker of an open file; `size` and `time_base` are those that it had when it was scanned.

        Errors inside become SourceErrors. The file stays open, to be given again, unless the seeker can't go on in it.
        """
        self._progress = progress
        before = 0
        try:
            if self._seeker is None or self._source != (file, size, rendering):
                self.close()
                self._seeker = open_seeker(file, size, self._threads, lambda n: self._progress(n), rendering)
                self._source = (file, size, rendering)
            before = self._seeker.decoded
            check_time_base(self._seeker, time_base)
            yield self._seeker
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
