"""Gives decoded frames the times at which they are shown, also where a container's PTS follow the decoding order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

import av

MOST_REORDERED = 16  # frames: no standard lets a decoder hold back more
MOST_EXPIRED = 8  # so often frames were held back for nothing: the stream has packets that give no frame

Timed = tuple[int | None, av.VideoFrame]  # ticks at which it is shown, None where nothing tells; the frame


class FrameTimes:
    """Times of decoded frames, which come in the order in which they are shown: PTS, or DTS by libav's rule.

    AVI, ASF, VC-1 or SVQ3 in MOV and others keep one time for each packet. Where the decoder reorders frames, their
    PTS are then in decoding order, and frames carry each other's times. libav's `guess_correct_pts` finds it out: once
    PTS went backward more often than DTS, the DTS (of the packet that made the decoder give the frame) are the times.
    DTS are shifted here so that they go on where PTS were left.

    PTS are known to be right once packets were not in their order. Until then a frame waits while a packet with an
    earlier PTS has not come out: either that one comes late, and all that waited get DTS; or it never comes.
    """

    def __init__(self, reorders: bool):
        """`reorders`: whether frames of the codec may be shown in another order than they are decoded."""
        self.by_dts = False
        self.trusted = not reorders  # PTS are taken, whatever comes
        self.frames = 0  # seen so far
        self._sent: list[int] = []  # PTS of packets of which no frame has come, sorted
        self._highest: int | None = None  # PTS of all packets so far
        self._packet_dts: int | None = None  # of the last packet
        self._held: list[av.VideoFrame] = []
        self._expired = 0
        self._last_pts: int | None = None  # of frames, as are those below
        self._last_dts: int | None = None
        self._faulty_pts = self._faulty_dts = 0  # times that did not rise
        self._given: int | None = None  # the last time that was given
        self._step = 1  # ticks between the last two
        self._offset = 0  # from a DTS to the time

    def packet(self, packet: av.Packet) -> None:
        """Notes a packet that is to be decoded next."""
        if self.trusted or self.by_dts:
            return
        pts, dts = packet.pts, packet.dts
        if pts is None:
            return
        rises = dts is None or self._packet_dts is None or dts > self._packet_dts
        if self._highest is not None and pts < self._highest and rises:
            self.trusted = True
            self._sent.clear()
            return
        if self._packet_dts is not None and dts is not None and rises:
            self._step = dts - self._packet_dts
        self._highest = pts if self._highest is None else max(pts, self._highest)
        self._packet_dts = dts
        insort(self._sent, pts)

    def timed(self, frames: Iterable[av.VideoFrame]) -> Iterator[Timed]:
        """Each frame with its time."""
        for frame in frames:
            self.frames += 1
            if not (self.trusted or self.by_dts) and self._must_wait(frame):
                self._held.append(frame)
                continue
            if self._held:
                yield from self._released()
            yield self._time(frame), frame
        yield from self._released()

    def _must_wait(self, frame: av.VideoFrame) -> bool:
        """Whether it is not known yet which time the frame has, as frames before it have not come."""
        pts, dts = frame.pts, frame.dts
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
        if dts is not None or pts is not None:
            self._last_dts = dts if dts is not None else pts
        if pts is None:
            return bool(self._held)
        self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
        self._last_pts = pts
        if self._faulty_pts > self._faulty_dts:
            self._take_dts(frame)
            return False
        place = bisect_left(self._sent, pts)
        if place < len(self._sent) and self._sent[place] == pts:
            del self._sent[place]
        if place == 0:
            return False
        if len(self._held) < MOST_REORDERED:
            return True
        del self._sent[:place]  # lost, or never shown
        self._expired += 1
        self.trusted = self._expired >= MOST_EXPIRED
        return False

    def _take_dts(self, frame: av.VideoFrame) -> None:
        """From the first frame that waits, or this one, on: DTS, shifted to where the times that were given end."""
        self.by_dts = True
        undecided = (*self._held, frame)
        earliest = min([*self._sent[:1], *(one.pts for one in undecided if one.pts is not None)])
        if self._given is not None:
            earliest = max(earliest, self._given + 1)
        first = undecided[0].dts
        self._offset = 0 if first is None else earliest - first
        self._sent.clear()

    def _released(self) -> Iterator[Timed]:
        held, self._held = self._held, []
        for frame in held:
            yield self._time(frame), frame

    def _time(self, frame: av.VideoFrame) -> int | None:
        pts = frame.pts
        time = pts if pts is not None else frame.dts
        if self.trusted:
            return time
        if self.by_dts:
            if frame.dts is not None:
                time = frame.dts + self._offset
            elif self._given is not None:  # the decoder's last frames, which no packet brought out
                time = self._given + self._step
        if time is not None:
            if self._given is not None and time > self._given:
                self._step = time - self._given
            self._given = time
        return time
