"""Deinterlaces frames with libav's bwdif, one for one: a frame in gives a frame out, at its own time.

bwdif looks at the frames before and after. So that a frame comes out alike in a pass and after a seek, the first frame
after a seek is only looked at: where it is interlaced, it is not given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.filter import Graph

# Codecs whose decoders mark each interlaced frame. Of others only the container tells, for all frames at once.
MARKED = {
    "av1", "cavs", "dnxhd", "dvvideo", "h264", "hevc", "libdav1d", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4",
    "prores", "vc1", "vp8", "vp9", "vvc", "wmv3",
}  # fmt: skip
FIELD_ORDERS = {1: "progressive", 2: "tt", 3: "bb", 4: "tb", 5: "bt"}  # FFmpeg's names: coded first, shown first
_TOP_FIRST, _BOTTOM_FIRST = (2, 5), (3, 4)
LEAST_SIZE = (3, 4)  # width and height of what bwdif takes


class Deinterlacer:
    """Passes the frames of a stream on, those that are interlaced through bwdif; counts both kinds.

    Until the first interlaced frame nothing is filtered, and a progressive film is never touched.
    """

    def __init__(self, codec: str, field_order: int, wanted: bool):
        """`codec` and `field_order` as the stream states them; without `wanted` frames are only counted."""
        self.progressive = self.interlaced = 0
        self._wanted = wanted
        self._stated = field_order
        self._all = codec not in MARKED and field_order in (*_TOP_FIRST, *_BOTTOM_FIRST)

    @property
    def field_order(self) -> str | None:
        """Of the frames so far: 'progressive', 'mixed', or the order of an interlaced stream; None where unknown."""
        if not self.interlaced:
            return "progressive" if self.progressive else FIELD_ORDERS.get(self._stated)
        if self.progressive:
            return "mixed"
        return FIELD_ORDERS[self._stated] if self._stated in (*_TOP_FIRST, *_BOTTOM_FIRST) else "interlaced"

    def frames(self, decoded: Iterable[av.VideoFrame], after_seek: bool = False) -> Iterator[av.VideoFrame]:
        """The frames in their order; a progressive one is the very frame that the decoder gave."""
        filter_: _Bwdif | None = None
        before: _Input | None = None
        for frame in decoded:
            interlaced = self._all or frame.interlaced_frame
            self.interlaced += interlaced
            self.progressive += not interlaced
            if filter_ is not None and not filter_.takes(frame):  # its size or format changed
                yield from filter_.end()
                filter_ = before = None
            elif filter_ is not None and not (interlaced or filter_.last.interlaced):
                yield filter_.last.frame  # nothing that waits is interlaced: the filter may rest
                filter_ = None
            taken = _Input(frame, interlaced, given=True)
            if filter_ is None and not (interlaced and self._wanted and _Bwdif.can_take(frame)):
                yield frame
            elif filter_ is not None:
                yield from filter_.push(taken)
            else:
                filter_ = self._filter(frame)
                if before is not None and filter_.takes(before.frame):
                    yield from filter_.push(before._replace(given=False))
                elif after_seek and before is None:
                    taken = taken._replace(given=False)
                yield from filter_.push(taken)
            before, after_seek = taken, False
        if filter_ is not None:
            yield from filter_.end()

    def _filter(self, frame: av.VideoFrame) -> _Bwdif:
        parity = "auto"
        if self._all:
            parity = "tff" if self._stated in _TOP_FIRST else "bff"
        return _Bwdif(frame, parity)


class _Input(NamedTuple):
    """A frame on its way through the filter; one that is not `given` is only looked at."""

    frame: av.VideoFrame
    interlaced: bool
    given: bool


class _Bwdif:
    """libav's filter for frames of one size and format.

    It is told to filter all frames, and what it makes of a progressive one is not used: its first picture is made of
    one field alone, and so would be the first interlaced frame after progressive ones that it had let pass.
    """

    def __init__(self, frame: av.VideoFrame, parity: str):
        self._kind = _kind(frame)
        self._waiting: deque[_Input] = deque()
        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
        )
        bwdif = self._graph.add("bwdif", f"mode=send_frame:parity={parity}:deint=all")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()

    @staticmethod
    def can_take(frame: av.VideoFrame) -> bool:
        """Whether the frame is large enough."""
        return frame.width >= LEAST_SIZE[0] and frame.height >= LEAST_SIZE[1]

    def takes(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is of this filter's size and format."""
        return _kind(frame) == self._kind

    @property
    def last(self) -> _Input:
        """The frame that was pushed last; its picture comes with the next one."""
        return self._waiting[-1]

    def push(self, taken: _Input) -> Iterator[av.VideoFrame]:
        """The frames that are finished with this one."""
        self._waiting.append(taken)
        self._graph.vpush(taken.frame)
        yield from self._finished()

    def end(self) -> Iterator[av.VideoFrame]:
        """The frame that waits for one after it."""
        self._graph.vpush(None)
        yield from self._finished()

    def _finished(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                made = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            frame, interlaced, given = self._waiting.popleft()
            made.pts, made.dts, made.duration = frame.pts, frame.dts, frame.duration  # it counts time in other units
            if given:
                yield made if interlaced else frame


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
