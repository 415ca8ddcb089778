"""Reads single frames of a video by seeking.

The frame at a time is the one *displayed* then: the last with PTS at or before it. The reader seeks to the key frame
before it and decodes forward, so the frame is the same that a decode from the start gives. The search always ends: a
seek that lands too late is tried again from further back three times, then the file is decoded from its start, and
where the file ends before the time asked for, SourceError is raised. Files whose PTS follow the decoding order
(`stages.decode.frame_times`) are always decoded from their start: only that gives frames the times of a whole decode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import av
from av.video.stream import VideoStream

from stages.decode.faults import stamp
from stages.decode.hdr_frame import displayable
from stages.decode.pyav_reader import FALLBACK_FPS, LEAP_SECONDS, PyAVReader
from stages.decode.reading import SafeFile
from stages.decode.rendering import STANDARD, Rendering
from stages.decode.scaler import Scaler
from stages.decode.timeline import Timeline
from stages.decode.video_frame import VideoFrame
from stages.frames import SourceError

# Containers that stamp every frame; in others libav counts times up from the place where it begins to read.
SEEKABLE = {"mov", "matroska", "avi", "flv", "mpegts", "asf", "ivf", "nut"}
BACK_SECONDS = (2.0, 10.0)  # how far before its time to seek where seeks land too late
WALK_SECONDS = 0.5  # without an index of key frames: up to so far ahead, decode on instead of seeking
INDEX_SECONDS = 10.0  # an index that ends before the place says nothing about key frames further ahead than this
ORDER_FRAMES = 64  # decoded at the start, where frames are reordered, until it is clear whether their PTS are right
KEYLESS_FRAMES = 600  # after a seek: give up where none of so many frames is a key frame
PROGRESS_FRAMES = 16
REORDERED = 32  # packets: more than any codec lets a frame wait for those that are decoded before it

Stamped = tuple[int, av.VideoFrame]  # PTS, frame


class SeekReader(PyAVReader):
    """Frames of a video by time. When times rise from call to call, no group of pictures is decoded twice.

    `decoded` counts frames, those on the way to the wanted ones among them.
    """

    def __init__(
        self,
        file: SafeFile,
        threads: int = 1,
        progress: Callable[[int], None] = lambda n: None,
        rendering: Rendering = STANDARD,
    ):
        self.decoded = 0
        self._threads = threads
        self._progress = progress
        self._scaler = Scaler()
        self._shown: Stamped | None = None  # the frame the walk stands on
        self._next: Stamped | None = None  # the one after it; None at the end
        self._landed = 0  # DTS of the first packet after the last seek
        self._delay: int | None = None  # PTS - DTS of the first packet: the index of MP4 is by DTS
        self._fresh = self._sought = False
        self._in_decoding_order = False  # PTS are, as has been seen
        super().__init__(file, threads, rendering)
        self._walk_from_start()
        self._learn_order()

    def frame_at(self, place: int, start_pts: int, end_pts: int) -> VideoFrame:
        """The frame of the span displayed at PTS `place`. Raises SourceError where there is none."""
        for approach in self._approaches(place):
            approach()
            self._walk_to(place)
            self._in_decoding_order |= self._times.by_dts
            if self._from_start or (self._shown is not None and not self._in_decoding_order):
                break
        shown, after = self._shown, self._next
        if shown is None or shown[0] < start_pts:  # before the span's first frame: that one
            shown = after if after is not None and after[0] < end_pts else None
        elif after is None and self._ends_before(shown, place):
            shown = None
        if shown is None:
            seconds = float(place * self.info.time_base)
            raise SourceError(f"no frame at {seconds:.3f} s can be decoded: the file is damaged or cut off there")
        pts, frame = shown
        return displayable(frame, pts, float(self.info.time_base), self._display, self._scaler, self._rendering.hdr)

    def next_pts(self, shown: int) -> int | None:
        """The PTS of the frame after the one just given, whose PTS is `shown`; None at the end."""
        if self._next is not None and self._next[0] == shown:  # given as the first of a span, ahead of the walk
            self._walk_to(shown)
        return None if self._next is None else self._next[0]

    def ends_at(self, end_pts: int) -> int | None:
        """Where the source ends, PTS, if the walk came to its end and that is before `end_pts`; else None.

        `end_pts` is what a scan saw: the PTS of a frame, or the end of the last one; half a frame is forgiven.
        """
        end_pts -= self._usual_step // 2
        if self._next is not None or self._shown is None or self._end() >= end_pts:
            return None
        for approach in self._approaches(self._shown[0] - 1):
            if self._from_start or self._timeline.first_pts != self._timeline.last_pts:
                break  # the step before the last frame is known, and so is its length
            approach()
            self._walk_to(end_pts)
        end = self._end()
        return end if self._next is None and end < end_pts else None

    def lost(self, shown: int, place: int) -> set[int | None]:
        """The PTS of damaged frames that the frame just given for `place` refers to or stands for.

        None stands for one in a stream without times.
        """
        return self._damage(shown, place)

    def packets(self, start_pts: int, end_pts: int) -> tuple[VideoStream, list[av.Packet]]:
        """The stream, and its packets with start_pts <= PTS < end_pts in decoding order. None of them unless the first
        frame is a key frame and no packet behind the span is decoded between them. The next frame is sought anew.
        """
        found: list[av.Packet] = []
        for seconds in (0.0, *BACK_SECONDS) if self._seekable else ():
            self._shown, self._next, self._from_start, self._sought = None, None, False, True
            place = start_pts - round(seconds / self.info.time_base)
            try:
                self._container.seek(place, stream=self._stream, backward=True)
                found = _span_packets(self._container.demux(self._stream), start_pts, end_pts)
            except (av.FFmpegError, OSError, OverflowError):
                found = []  # frames that are read there tell the reason
            if found:
                break
        return self._stream, found

    def _approaches(self, place: int) -> Iterator[Callable[[], None]]:
        """Ways to get to a place, cheapest first."""
        if self._can_walk(place):
            yield lambda: None
        if not self._seekable:
            yield self._restart
            return
        yield partial(self._seek, place)
        back = [self._landed - 1]  # many containers seek by DTS: one group further back
        back += [place - round(seconds / self.info.time_base) for seconds in BACK_SECONDS]
        for earlier in back:
            if not self._in_decoding_order:
                yield partial(self._seek, earlier)
        yield self._restart

    @property
    def _seekable(self) -> bool:
        return self._container.format.name.split(",")[0] in SEEKABLE and not self._in_decoding_order

    def _can_walk(self, place: int) -> bool:
        """Whether to go on from here: no key frame in between, as far as the container's index tells."""
        behind = self._from_start if self._shown is None else self._shown[0] <= place
        if not behind or self._next is None or not self._seekable:  # at the end, or where seeking is impossible
            return behind
        here = self._next[0]
        ahead = float((place - here) * self.info.time_base)
        entries = self._stream.index_entries
        key = entries.search_timestamp(place - (self._delay or 0), backward=True) if len(entries) else -1
        if key < 0 or not self._sought:  # Matroska reads its index at the first seek
            covered = key >= 0 and entries[len(entries) - 1].timestamp > place
        else:
            covered = ahead <= INDEX_SECONDS or entries[len(entries) - 1].timestamp > place
        return entries[key].timestamp <= here if covered else ahead <= WALK_SECONDS

    def _walk_to(self, place: int) -> None:
        while self._next is not None and self._next[0] <= place:
            self._shown, self._next = self._next, next(self._walk, None)

    def _seek(self, place: int) -> None:
        """Goes to the first frame of a group of pictures that begins at or before the place."""
        self._shown, self._next, self._from_start, self._sought = None, None, False, True
        self._landed, self._fresh = place, True
        try:
            self._container.seek(place, stream=self._stream, backward=True)
        except (av.FFmpegError, OSError, OverflowError):
            return
        self._timeline = Timeline(self._timeline.leap)
        trusted = self._times.trusted
        self._expect()
        self._times.trusted |= trusted
        frames = self._deinterlacer.frames(_from_key_frame(self._decoded()), after_seek=True)
        self._begin(frames, from_start=False)

    def _learn_order(self) -> None:
        """Decodes on at the start until it is clear whether PTS can be trusted."""
        if not self._stream.codec_context.has_b_frames:
            return
        while not self._times.trusted and self._times.frames < ORDER_FRAMES and self._next is not None:
            if self._times.by_dts:
                self._in_decoding_order = True
                return
            self._shown, self._next = self._next, next(self._walk, None)

    def _restart(self) -> None:
        """Opens the file again and decodes from its start, which works wherever seeking fails."""
        self._container.close()
        self._file.seek(0)
        super().__init__(self._file, self._threads, self._rendering)
        self._walk_from_start()

    def _walk_from_start(self) -> None:
        self._begin(self._decoding, from_start=True)

    def _begin(self, frames: Iterable[av.VideoFrame], from_start: bool) -> None:
        self._from_start = from_start
        self._walk = self._timeline.ordered(self._times.timed(frames))
        self._shown, self._next = None, next(self._walk, None)

    def _ends_before(self, last: Stamped, place: int) -> bool:
        """At the end: whether the last frame can't have been shown for so long."""
        end = self._timeline.end_pts(self._usual_step) or 0
        return place > max(end, last[0] + LEAP_SECONDS / self.info.time_base)

    def _end(self) -> int:
        """At the end of the walk: the PTS up to which a scan may have seen frames."""
        last = self._timeline.last_pts or 0
        # A scan by decord takes the step before as the last frame's length, one by libav what the file states.
        return max(self._timeline.end_pts(self._usual_step) or 0, last + self._timeline.last_step)

    @property
    def _usual_step(self) -> int:
        """Ticks from a frame to the next, by the rate that the file states."""
        return round(1 / ((self.info.fps or FALLBACK_FPS) * self.info.time_base))

    def _packets(self) -> Iterator[av.Packet | None]:
        for packet in super()._packets():
            if self._delay is None and packet is not None and packet.dts is not None and packet.pts is not None:
                self._delay = packet.pts - packet.dts if self._container.format.name.startswith("mov") else 0
            if self._fresh and packet is not None and packet.dts is not None:
                self._landed, self._fresh = packet.dts, False
            yield packet

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for frame in super()._decoded():
            self.decoded += 1
            if self.decoded % PROGRESS_FRAMES == 0:
                self._progress(self.decoded)
            yield frame


def _span_packets(packets: Iterable[av.Packet], start_pts: int, end_pts: int) -> list[av.Packet]:
    """Those of a span from its key frame on, or none (see `SeekReader.packets`)."""
    found: list[av.Packet] = []
    behind = 0  # packets that are shown later: than the span's begin, before its first packet is met, then than its end
    for packet in packets:
        if not packet.size or behind > REORDERED:
            break
        pts = packet.pts
        if pts is None:
            return []
        if not found and not (pts == start_pts and packet.is_keyframe):
            behind += pts > start_pts
        elif pts >= end_pts:
            behind += 1
        elif pts >= start_pts:  # frames of an open group that are shown before its key frame are left out
            if (found and behind) or packet.is_corrupt or packet.is_discard:
                return []
            found.append(packet)
            behind = 0
    return found


def _from_key_frame(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The frames that are whole after a seek: a key frame, then those shown after it.

    Frames of an open group that are shown before their key frame refer to the group before.
    """
    key: int | None = None
    for number, frame in enumerate(frames):
        pts = stamp(frame)
        if key is None and frame.key_frame:
            key = pts
        if key is None and number >= KEYLESS_FRAMES:
            return
        if key is not None and pts is not None and pts >= key:
            yield frame
