"""Records which packets and frames are damaged, so that frames that depend on none of them are known whole."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import av

KEPT = 4096  # faults, and key frames, that are remembered
# Codecs and containers in which each packet is one frame that is shown. In others hidden frames, fields and repeats
# have packets of their own.
ONE_EACH = {"h264", "hevc", "vp9", "av1"}, {"mov", "matroska"}
DELAYED = 256  # packets: more than a decoder holds back before it gives their frames


class Fault(NamedTuple):
    """Where something is damaged, or lost: the time is that of the packet or frame nearest to it.

    A damaged frame is known by its time. Of lost packets nobody knows what they held, so their place in decoding order
    counts, as the number of a packet or halfway between two.
    """

    time: int | None  # PTS; None in a stream without times
    number: float  # of the packet, in decoding order
    lost: bool = False


class Faults:
    """Packets and frames met since the last seek: which failed, and from which key frame others are decoded.

    A packet that follows a frame in decoding order can't damage it, nor can one that is shown before the frame's key
    frame: so the leading frames of an open group, which fail after a seek, do not count. Of a packet that the demuxer
    calls corrupt (bytes were lost on the way) the next one is damaged too: where libav splits a stream into frames
    itself, the mark comes one packet early.

    `count`: packets and frames that are damaged so far, each once.
    """

    def __init__(self, codec: str = "", container: str = "") -> None:
        """`codec` and `container` by libav's names: in some a packet that gives no frame is a failure."""
        self.count = 0
        self._neighbour = False  # the next packet is damaged too
        self._one_each = codec in ONE_EACH[0] and container.split(",")[0] in ONE_EACH[1]
        self._due: dict[int, int] = {}  # numbers of the packets that gave no frame so far, by time
        self._gone: dict[int, int] = {}  # of packets that gave none before a later frame came
        self._number = 0  # of the last packet, in decoding order
        self._time: int | None = None  # of the last packet that has one
        self._sent: dict[int, int] = {}  # numbers of the last packets, by time
        self._keys: deque[tuple[int, int]] = deque(maxlen=KEPT)  # (time, number) of key frames
        self._failed: deque[Fault] = deque(maxlen=KEPT)

    def packet(self, packet: av.Packet) -> None:
        """Notes a packet that is to be decoded next."""
        self._number += 1
        time = stamp(packet)
        if time is not None:
            self._time = time
            self._sent[time] = self._number
            if len(self._sent) > DELAYED:
                del self._sent[next(iter(self._sent))]
            if self._one_each and not packet.is_discard:
                self._due[time] = self._number
            if packet.is_keyframe:
                self._keys.append((time, self._number))
        corrupt = packet.is_corrupt
        if corrupt or self._neighbour:
            self._failed.append(Fault(time, self._number, lost=True))
            self.count += 1
        self._neighbour = corrupt

    def frame(self, frame: av.VideoFrame) -> None:
        """Notes a frame that the decoder gave: there are containers that mark no packet as a key frame."""
        time = stamp(frame)
        if time is None:
            return
        if frame.key_frame:
            self._keys.append((time, self._sent.get(time, self._number)))
        if not self._one_each:
            return
        self._due.pop(time, None)
        if self._gone:
            self._gone.pop(time, None)  # its time runs backward: late, not lost
        for overtaken in [due for due in self._due if due < time]:
            self._gone[overtaken] = self._due.pop(overtaken)
            if len(self._gone) > KEPT:
                del self._gone[next(iter(self._gone))]

    def in_decoding_order(self) -> None:
        """PTS turned out to follow the decoding order: a packet whose time was passed is not lost."""
        self._one_each = False
        self._due.clear()
        self._gone.clear()

    def failed(self, time: int | None) -> None:
        """Notes a missing or damaged frame; in a stream without times it shifts all that come after it."""
        if time is None or time not in (fault.time for fault in self._failed):
            self.count += 1
        time = self._time if time is None else time
        number = self._number if time is None else self._sent.get(time, self._number)
        self._failed.append(Fault(time, number))

    def unread(self) -> None:
        """Notes that something between the last packet and the next could not be read."""
        self.count += 1
        if self._time is not None:  # before the first packet there is nothing that a frame refers to
            self._failed.append(Fault(self._time, self._number + 0.5, lost=True))

    def affecting(self, shown: int, place: int) -> set[int | None]:
        """The times of failures that the frame at the time `shown` may refer to; later calls ask for later frames.

        Failures between it and `place`, where it is shown instead, are among them.
        """
        if not self._failed and not self._gone:
            return set()
        key = max((key for key in self._keys if key[0] <= shown), default=None)
        if key is not None:
            self._forget(key)
        until = self._sent.get(shown, self._number)

        def counts(fault: Fault) -> bool:
            if fault.time is None or shown < fault.time <= place:
                return True
            if fault.lost:
                return (key is None or key[1] <= fault.number) and fault.number <= until
            return (key is None or key[0] <= fault.time) and (fault.time <= place or fault.number <= until)

        faults = (*self._failed, *(Fault(time, number) for time, number in self._gone.items()))
        return {fault.time for fault in faults if counts(fault)}

    def _forget(self, key: tuple[int, int]) -> None:
        """Drops what no frame refers to that is shown at this key frame or later."""
        while self._keys[0] < key:
            self._keys.popleft()
        while self._failed and _is_over(self._failed[0], *key):
            self._failed.popleft()
        while self._gone and (gone := next(iter(self._gone))) < key[0]:
            del self._gone[gone]


def _is_over(fault: Fault, since: int, first: int) -> bool:
    """Whether a key frame at the time `since`, packet `first`, and what is shown after it, are free of a fault."""
    if fault.lost:
        return fault.number < first
    return fault.time is not None and fault.time < since


def stamp(item: av.Packet | av.VideoFrame) -> int | None:
    """The PTS of a packet or a frame; where a container has none, the DTS."""
    pts = item.pts
    return pts if pts is not None else item.dts
