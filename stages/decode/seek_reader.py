"""Reads single frames of a source by seeking; runs in the killable child.

A frame is the one *displayed* at a time: the last with PTS at or before it. The decoder is put on the key
frame before it and goes forward, so the frame is the same that a decode from the start gives. Every way ends:
a seek that lands too late is tried from further back three times, then the file is decoded from its start,
and where that ends before the time asked for, the frame can't be had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import av
import cv2

from stages.decode.faults import Faults, stamp
from stages.decode.images import ImageReader, is_image
from stages.decode.pixels import VideoFrame
from stages.decode.pyav_reader import FALLBACK_FPS, LEAP_SECONDS, PyAVReader
from stages.decode.reading import SafeFile, open_source
from stages.decode.scaler import Scaler
from stages.decode.timeline import Timeline
from stages.frames import FrameRequest, Picture, SourceError

# Containers that stamp every frame; elsewhere libav counts times up from where it happens to begin to read.
SEEKABLE = {"mov", "matroska", "avi", "flv", "mpegts", "asf", "ivf", "nut"}
BACK_SECONDS = (2.0, 10.0)  # how far before its time a frame is sought where seeks land too late
WALK_SECONDS = 0.5  # without an index of key frames, so far ahead is walked to instead of sought
INDEX_SECONDS = 10.0  # an index that ends before a place says nothing of key frames further ahead than this
KEYLESS_FRAMES = 600  # so many frames after a seek without a key frame among them: it is not worth going on
PROGRESS_FRAMES = 16


@dataclass(frozen=True)
class ClipSpan:
    """A clip in its source: frames with start_pts <= pts < end_pts, in ticks of `time_base` seconds."""

    clip_id: str
    start_pts: int
    end_pts: int
    time_base: Fraction

    def place(self, share: float) -> int:
        """The PTS at a share of the clip's length, never after its last tick."""
        ticks = int(share * (self.end_pts - self.start_pts))
        return min(self.start_pts + max(0, ticks), max(self.start_pts, self.end_pts - 1))


def fetch(
    uri: str,
    clips: list[ClipSpan],
    wants: tuple[FrameRequest, ...],
    size: int | None = None,
    threads: int = 1,
    progress: Callable[[int], None] = lambda n: None,
) -> Iterator[tuple[str, list[list[Picture]] | str] | dict[str, float]]:
    """Of each clip (clip id, the pictures of each request or why there are none), at last what it took.

    `size` is what the file had when it was scanned. Raises SourceError when the source can't be read at all.
    """
    cv2.setNumThreads(1)
    began = time.process_time()
    with open_source(uri) as file:
        reader = open_seeker(file, size, threads, progress)
        for clip in sorted(clips, key=lambda clip: (clip.start_pts, clip.end_pts)):
            try:
                yield clip.clip_id, _pictures(reader, clip, wants)
            except (SourceError, av.FFmpegError, cv2.error, ValueError) as error:
                if file.failure:
                    raise file.failure from error
                yield clip.clip_id, " ".join(str(error).split())[:300]
        yield {"decoded": reader.decoded, "cpu_seconds": time.process_time() - began}


def open_seeker(file: SafeFile, size: int | None, threads: int, progress: Callable[[int], None]) -> Any:
    """What gives the frames of an open file by time, a still image's too. Raises SourceError.

    `size` is what the file had when it was scanned, None where nobody knows.
    """
    if size is not None and file.size is not None and file.size != size:
        raise SourceError(f"the file has changed since it was scanned: {file.size} bytes, then {size}")
    return Still(ImageReader(file)) if is_image(file) else SeekReader(file, threads, progress)


def check_time_base(reader: Any, then: Fraction) -> None:
    """Raises SourceError where PTS have another meaning than when the file was scanned."""
    now = reader.info.time_base
    if now != then:
        raise SourceError(f"the file has changed since it was scanned: its time base is {now}, then {then}")


def _pictures(reader: Any, clip: ClipSpan, wants: tuple[FrameRequest, ...]) -> list[list[Picture]]:
    check_time_base(reader, clip.time_base)
    found: dict[tuple[int, int], Picture] = {}  # by (place, long side)
    for place in sorted({clip.place(share) for request in wants for share in request.positions}):
        frame = reader.frame_at(place, clip.start_pts, clip.end_pts)
        sides = {request.long_side for request in wants for share in request.positions if clip.place(share) == place}
        for side in sides:
            found[place, side] = (frame.seconds, frame.picture(side))
    return [[found[clip.place(share), request.long_side] for share in request.positions] for request in wants]


class SeekReader(PyAVReader):
    """Frames of a video by time. Asked in rising time it decodes no group of pictures twice."""

    def __init__(self, file: SafeFile, threads: int = 1, progress: Callable[[int], None] = lambda n: None):
        self.decoded = 0  # frames so far, those on the way to the wanted ones among them
        self._threads = threads
        self._progress = progress
        self._scaler = Scaler()
        self._shown: tuple[int, Any] | None = None  # the frame the walk stands on
        self._next: tuple[int, Any] | None = None  # the one after it; None at the end
        self._landed = 0  # DTS of the first packet after the last seek
        self._delay: int | None = None  # of the first packet: how much earlier its DTS is, by which MP4 is indexed
        self._fresh = self._sought = False
        super().__init__(file, threads)
        self._walk_from_start()

    def frame_at(self, place: int, start_pts: int, end_pts: int) -> VideoFrame:
        """The frame of the span displayed at PTS `place`. Raises SourceError where there is none."""
        for approach in self._approaches(place):
            approach()
            self._walk_to(place)
            if self._shown is not None or self._from_start:
                break
        shown, after = self._shown, self._next
        if shown is None or shown[0] < start_pts:  # before the span's first frame: that one
            shown = after if after is not None and after[0] < end_pts else None
        elif after is None and self._ends_before(place):
            shown = None
        if shown is None:
            seconds = float(place * self.info.time_base)
            raise SourceError(f"no frame at {seconds:.3f} s can be decoded: the file is damaged or cut off there")
        pts, frame = shown
        return VideoFrame(frame, pts, pts * float(self.info.time_base), self._display, self._scaler)

    def ends_at(self, end_pts: int) -> int | None:
        """Where the source ends, PTS, if the walk came to its end and that is before `end_pts`; else None.

        `end_pts` is what a scan saw: the PTS of a frame, or the end of the last one; half a frame is forgiven.
        """
        end_pts -= self._usual_step // 2
        if self._next is not None or self._end() >= end_pts:
            return None
        for approach in self._approaches(self._shown[0] - 1):
            if self._from_start or self._timeline.first_pts != self._timeline.last_pts:
                break  # the step before the last frame is known: its length may rest on that
            approach()
            self._walk_to(end_pts)
        end = self._end()
        return end if self._next is None and end < end_pts else None

    def lost(self, shown: int, place: int, start_pts: int) -> set[int | None]:
        """The PTS of frames that can't be decoded and that the frame just given for `place` leans on or stands for.

        Those shown before `start_pts` are not counted. None stands for one in a stream without times.
        """
        return self._faults.behind(shown, place, start_pts)

    def _approaches(self, place: int) -> Iterator[Callable[[], None]]:
        """Ways to get to a place, cheapest first."""
        if self._can_walk(place):
            yield lambda: None
        if not self._seekable:
            yield self._restart
            return
        yield partial(self._seek, place)
        yield lambda: self._seek(self._landed - 1)  # many containers seek by DTS: one group further back
        for seconds in BACK_SECONDS:
            yield partial(self._seek, place - round(seconds / self.info.time_base))
        yield self._restart

    @property
    def _seekable(self) -> bool:
        return self._container.format.name.split(",")[0] in SEEKABLE

    def _can_walk(self, place: int) -> bool:
        """Whether to go on from here: no key frame in between, as far as the container's index tells."""
        behind = self._from_start if self._shown is None else self._shown[0] <= place
        if not behind or self._next is None or not self._seekable:  # at the end there is nowhere else to go
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
        """Stands before the first frame of a group of pictures that begins at or before the place."""
        self._shown, self._next, self._from_start, self._sought = None, None, False, True
        self._landed, self._fresh = place, True
        try:
            self._container.seek(place, stream=self._stream, backward=True)
        except (av.FFmpegError, OSError, OverflowError):
            return
        self._timeline = Timeline(self._timeline.leap)
        self._faults = Faults(self.info.codec, self.info.container)
        self._begin(_from_key_frame(self._decoded()), from_start=False)

    def _restart(self) -> None:
        """Opens the file anew: what a decode from the start gives, wherever seeking fails."""
        self._container.close()
        self._file.seek(0)
        super().__init__(self._file, self._threads)
        self._walk_from_start()

    def _walk_from_start(self) -> None:
        self._begin(self._decoding, from_start=True)

    def _begin(self, frames: Iterable[Any], from_start: bool) -> None:
        self._from_start = from_start
        self._walk = self._timeline.ordered(frames)
        self._shown, self._next = None, next(self._walk, None)

    def _ends_before(self, place: int) -> bool:
        """At the end: whether the last frame can't have been shown for so long."""
        end = self._timeline.end_pts(self._usual_step) or 0
        return place > max(end, self._shown[0] + LEAP_SECONDS / self.info.time_base)

    def _end(self) -> int:
        """The PTS up to which a scan may have seen frames, at the end of the walk."""
        last = self._timeline.last_pts or 0
        # decord's scan takes the step before for the last frame's length, libav's what the file says
        return max(self._timeline.end_pts(self._usual_step) or 0, last + self._timeline.last_step)

    @property
    def _usual_step(self) -> int:
        """Ticks from a frame to the next, by the rate that the file states."""
        return round(1 / ((self.info.fps or FALLBACK_FPS) * self.info.time_base))

    def _open_decoder(self, threads: int) -> None:
        super()._open_decoder(threads)
        self._faults = Faults(self._stream.codec_context.name, self._container.format.name)

    def _packets(self) -> Iterator[Any]:
        for packet in super()._packets():
            if self._delay is None and packet is not None and packet.dts is not None and packet.pts is not None:
                self._delay = packet.pts - packet.dts if self._container.format.name.startswith("mov") else 0
            if self._fresh and packet is not None and packet.dts is not None:
                self._landed, self._fresh = packet.dts, False
            if packet is not None:
                self._faults.packet(packet)
            yield packet

    def _decoded(self) -> Iterator[Any]:
        for frame in super()._decoded():
            self.decoded += 1
            self._faults.frame(frame)
            if self.decoded % PROGRESS_FRAMES == 0:
                self._progress(self.decoded)
            yield frame

    def _failed(self, what: Any) -> None:
        super()._failed(what)
        self._faults.failed(None if what is None else stamp(what))

    def _unread(self) -> None:
        super()._unread()
        self._faults.unread()


def _from_key_frame(frames: Iterable[Any]) -> Iterator[Any]:
    """What can be trusted after a seek: a key frame, then those shown after it.

    Frames of an open group that are shown before their key frame lean on the group before.
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


class Still:
    """A still image, asked like a video."""

    decoded = 1

    def __init__(self, reader: ImageReader):
        self.info = reader.info
        self._frame = next(iter(reader))

    def frame_at(self, place: int, start_pts: int, end_pts: int) -> Any:
        return self._frame

    def lost(self, shown: int, place: int, start_pts: int) -> set[int | None]:
        return set()

    def ends_at(self, end_pts: int) -> int | None:
        return None

    def close(self) -> None:
        """Nothing is open: the picture was decoded at once."""
