"""The sound that belongs to a video, from the packets that the video's reader meets on its way through the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from stages.decode.audio_levels import STEPS, AudioLevels, Steps, kind_of
from stages.frames import AudioInfo, ClipAudio, Levels

BATCH_PACKETS = 32  # decoded together: the two decoders evict each other from the processor's caches
JUMP_SECONDS = 0.05  # sound that comes so far from where the last has ended does not follow it
LAG_SECONDS = 30.0  # a clip's sound is waited for while the pictures are less than this past the clip's end
RATES = range(1000, 1_000_001)  # samples per second that are taken for a rate of sound
MOST_CHANNELS = 64


def audio_stream(container: InputContainer, video: VideoStream) -> AudioStream | None:
    """The stream of sound that libav takes to belong to the video; None where there is none."""
    stream: Any = container.streams.best("audio", related=video)
    return stream if stream is not None else next(iter(container.streams.audio), None)


def audio_info(stream: AudioStream | None) -> AudioInfo | None:
    """What the header says of the sound."""
    if stream is None:
        return None
    context = stream.codec_context
    if context is None:
        return AudioInfo("unknown", None, None)
    return AudioInfo(context.codec.canonical_name, context.channels or None, context.sample_rate or None)


@dataclass
class _Stretch:
    """Levels without a gap, from `start_s` on, in pieces of a second or less."""

    start_s: float
    pieces: list[Steps] = field(default_factory=list)
    dropped: int = 0  # steps at its start that no clip can own any more

    @property
    def steps(self) -> int:
        return self.dropped + sum(len(power) for power, _ in self.pieces)

    def between(self, start_s: float, end_s: float) -> Levels | None:
        """The levels of a clip in that time, those of steps at its edges included; None where there are none."""
        first = max(0, math.floor((start_s - self.start_s) * STEPS) - self.dropped)
        last = math.ceil((end_s - self.start_s) * STEPS) - self.dropped
        if last <= first or not self.pieces:
            return None
        power, peak = (np.concatenate(values)[first:last] for values in zip(*self.pieces, strict=True))
        offset = self.start_s + (self.dropped + first) / STEPS - start_s
        return Levels(offset, power, peak) if len(power) else None

    def forget(self, before_s: float) -> None:
        while self.pieces and self.start_s + (self.dropped + len(self.pieces[0][0])) / STEPS < before_s:
            self.dropped += len(self.pieces.pop(0)[0])


class AudioTrack:
    """Levels of a stream of sound by the time of the container, in which the video's PTS are too.

    What can't be decoded is counted in `errors` and makes the sound of the clips concerned unknown; it never stops the
    video. `ended` says that no more sound comes.
    """

    def __init__(self, stream: AudioStream):
        self.errors = 0
        self.ended = False
        self.stream = stream
        self._waiting: list[av.Packet] = []
        self._stretches: list[_Stretch] = []
        self._levels: AudioLevels | None = None  # of the last stretch, while it goes on
        self._faults: list[tuple[float, float, int]] = []  # start and end in seconds, number of packets that failed
        self._until = -math.inf  # seconds: how far the sound is decoded
        self._refused: str | None = (
            None if stream.codec_context is not None else "no decoder for the codec of its sound"
        )
        stated = stream.duration * stream.time_base if stream.duration and stream.time_base else 0
        start = (stream.start_time or 0) * stream.time_base if stream.time_base else 0
        self._stated_end = float(start + stated) if stated > 0 else math.inf
        if stream.codec_context is not None:
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.thread_count = 1

    def again(self) -> AudioTrack:
        """The same stream from its start, for a file that is read again."""
        self.stream.discard = av.stream.Discard.default
        if self.stream.codec_context is not None:
            self.stream.codec_context.flush_buffers()
        return AudioTrack(self.stream)

    def add(self, packet: av.Packet) -> None:
        """Takes a packet of the stream, to be decoded now or later."""
        self._waiting.append(packet)
        if len(self._waiting) >= BATCH_PACKETS:
            self._decode()

    def finish(self) -> None:
        """No more packets come."""
        self._decode()
        self._decode_one(None)
        self._break()
        self.ended = True
        self.stream.discard = av.stream.Discard.all

    def failed_to_read(self) -> None:
        """The file can't be read on: what sound follows is not known."""
        self.errors += 1
        self._faults.append((max(self._until, 0.0), math.inf, 1))

    def ready(self, end_s: float, seen_s: float) -> bool:
        """Whether a clip that ends at `end_s` need not wait for its sound, where the pictures are at `seen_s`."""
        if self._refused or self.ended:
            return True
        if self._waiting:
            self._decode()
        if self._until >= self._stated_end - JUMP_SECONDS:
            self._break()  # what is left of the last second may be all that comes
        return self._heard(end_s) or seen_s > end_s + LAG_SECONDS

    def clip(self, start_s: float, end_s: float) -> ClipAudio:
        """The levels of a clip; forgets those before its end."""
        failed = sum(number for start, end, number in self._faults if start < end_s and end > start_s)
        unknown = self._refused
        if failed:
            unknown = f"damaged sound: {failed} of its packets can't be decoded"
        elif not unknown and not self.ended and not self._heard(end_s):
            unknown = f"its sound is more than {LAG_SECONDS:g} s behind its pictures in the file"
        found = [part for stretch in self._stretches if (part := stretch.between(start_s, end_s)) is not None]
        self._faults = [fault for fault in self._faults if fault[1] > end_s]
        for stretch in self._stretches:
            stretch.forget(end_s)
        self._stretches = [one for one in self._stretches if one.pieces or one is self._stretches[-1]]
        return ClipAudio([] if unknown else found, unknown)

    def _heard(self, end_s: float) -> bool:
        """Whether all sound before that time is there as levels."""
        if end_s > self._stated_end and self._until >= self._stated_end - JUMP_SECONDS:
            return True
        last = self._stretches[-1] if self._stretches else None
        return last is not None and last.start_s + last.steps / STEPS >= end_s - 0.5 / STEPS

    def _decode(self) -> None:
        waiting, self._waiting = self._waiting, []
        for packet in waiting:
            self._decode_one(packet)

    def _decode_one(self, packet: av.Packet | None) -> None:
        """Decodes a packet; None empties the decoder."""
        context = self.stream.codec_context
        if self._refused or context is None:
            return
        whole = packet is None or not packet.is_corrupt
        try:
            for frame in context.decode(packet):
                whole = whole and not frame.is_corrupt
                self._place(frame)
        except EOFError:
            pass
        except (av.FFmpegError, ValueError, OverflowError):  # the last two are PyAV's, for formats it does not know
            whole = False
        if not whole:
            self._failed(packet)

    def _place(self, frame: av.AudioFrame) -> None:
        """Appends a decoded frame where its PTS says, or behind the last one where it has none."""
        rate, channels = frame.sample_rate, len(frame.layout.channels)
        if rate not in RATES or not 1 <= channels <= MOST_CHANNELS:
            self._refused = f"sound of {channels} channels at {rate} Hz is not decoded"
            return
        if not frame.samples:
            return
        start_s = frame.time if frame.time is not None else max(self._until, 0.0)
        follows = abs(start_s - self._until) <= JUMP_SECONDS
        if self._levels is None or not follows or self._levels.kind != kind_of(frame):
            self._break()
            try:
                self._levels = AudioLevels(frame)
            except ValueError as error:
                self._refused = f"sound that can't be measured: {error}"
                return
            self._stretches.append(_Stretch(start_s))
        stretch = self._stretches[-1]
        stretch.pieces += self._levels.add(frame)
        self._until = stretch.start_s + self._levels.taken / rate

    def _break(self) -> None:
        """Ends the stretch."""
        if self._levels is not None and (rest := self._levels.rest()) is not None:
            self._stretches[-1].pieces.append(rest)
        self._levels = None

    def _failed(self, packet: av.Packet | None) -> None:
        self.errors += 1
        start, seconds = max(self._until, 0.0), 0.0
        if packet is not None and packet.pts is not None and packet.time_base:
            start, seconds = float(packet.pts * packet.time_base), float((packet.duration or 0) * packet.time_base)
        end, number = start + max(seconds, 1 / STEPS), 1
        if self._faults and abs(self._faults[-1][1] - start) <= JUMP_SECONDS:  # goes on
            start, _, before = self._faults.pop()
            number += before
        self._faults.append((start, end, number))
