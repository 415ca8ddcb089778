"""Reads a video with PyAV: the default backend.

Every packet is decoded once, in order and without seeking: a file that states more than it holds, or states nothing,
ends where its bytes end.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import av

from stages.decode.animations import png_frames
from stages.decode.audio_track import AudioTrack, audio_info, audio_stream
from stages.decode.colour import is_hdr, matrix_name, primaries_name, transfer_name
from stages.decode.containers import (
    HEADER_FORMATS,
    aspect_of,
    average_rate,
    open_container,
    orientation,
    stated_seconds,
    time_base_of,
    video_stream,
    video_streams,
)
from stages.decode.deinterlace import Deinterlacer
from stages.decode.display import MAX_PIXELS, Display, check_size
from stages.decode.encryption import refuse_encrypted, refuse_protected, refuse_scrambled
from stages.decode.faults import Faults, stamp
from stages.decode.frame_times import FrameTimes
from stages.decode.hdr_frame import displayable
from stages.decode.reading import SafeFile
from stages.decode.rendering import STANDARD, Rendering
from stages.decode.scaler import Scaler
from stages.decode.timeline import PacketSizes, Timeline, backward, shortfall
from stages.decode.video_frame import VideoFrame
from stages.frames import SourceError, SourceInfo

DEMUX_ATTEMPTS = 8  # demuxer errors in a row, without a packet between them, that end a video
LEAP_SECONDS = 2.0  # a longer step between frames has to be confirmed by the frame after it
FALLBACK_FPS = 25  # where no rate is stated: for a raw stream, and for the length of a video of one frame
RAW_FORMATS = {"h264", "hevc", "vvc"}  # no times in them: frames are counted, at the rate they state

av.logging.set_level(None)  # libav's own messages add nothing to the reasons given here


class PyAVReader:
    """Iterates once over the frames of a video (see `readers.Reader`). Raises SourceError for what can't be decoded.

    With `hear` the packets of the sound, which lie between those of the video, go to `audio`; without, nothing of the
    sound is decoded.
    """

    def __init__(self, file: SafeFile, threads: int = 1, rendering: Rendering = STANDARD, *, hear: bool = False):
        self.frames = 0
        self._rendering = rendering
        self._file = file
        self._container = open_container(file)
        try:
            if not video_streams(self._container):
                refuse_scrambled(self._container, self._file)
            self._stream = video_stream(self._container)
            refuse_protected(self._container, self._stream)
            self._sound = audio_stream(self._container, self._stream)
            self.audio = AudioTrack(self._sound) if hear and self._sound is not None else None
            self._open_decoder(threads)
            self._expect()
            self._sizes = PacketSizes()
            self._damaged = array("q")  # PTS of frames that are damaged or refer to damaged ones
            self._decoding = self._deinterlacer.frames(self._decoded())
            first = next(self._decoding, None)  # its size, format and rotation count, not those of the header
            if first is None:
                refuse_scrambled(self._container, self._file)
                raise self._file.failure or SourceError(
                    f"no frame could be decoded ({self.decode_errors} errors)" if self.decode_errors
                    else "the video stream has no frames"
                )  # fmt: skip
            self.info, self._display = self._described(first)
        except BaseException:
            self._container.close()
            raise
        self._timeline = Timeline(max(1, round(LEAP_SECONDS / self.info.time_base)), self._period)
        self._decoding = chain([first], self._decoding)

    def __iter__(self) -> Iterator[VideoFrame]:
        display, scaler = self._display, Scaler()
        tick, hdr = float(self.info.time_base), self._rendering.hdr
        for pts, frame in self._timeline.ordered(self._times.timed(self._decoding)):
            self.frames += 1
            if self._damage(pts, pts):
                self._damaged.append(pts)
            yield displayable(frame, pts, tick, display, scaler, hdr)
        if self._file.failure:  # libav may have taken a failed read for the end
            raise self._file.failure
        if not self.frames:
            raise SourceError(f"none of the {self.left_out} frames has a time stamp")

    @property
    def turned(self) -> bool:
        """Whether frames are rotated or mirrored for display."""
        return bool(self._display.rotation or self._display.mirrored)

    @property
    def decode_errors(self) -> int:
        return self._faults.count

    @property
    def field_order(self) -> str | None:
        """Of the frames so far (see `Deinterlacer`)."""
        return self._deinterlacer.field_order

    @property
    def has_interlaced(self) -> bool:
        """Whether a frame so far is interlaced."""
        return self._deinterlacer.interlaced > 0

    @property
    def left_out(self) -> int:
        return self._timeline.left_out

    @property
    def last_end_pts(self) -> int | None:
        """PTS at which the last frame so far ends."""
        return self._timeline.end_pts(round(1 / ((self.info.fps or FALLBACK_FPS) * self.info.time_base)))

    @property
    def disordered(self) -> str | None:
        """After the iteration: a line when many frames have no place in time, else None."""
        if self.left_out > max(2, 0.05 * self.frames):
            return backward(self.left_out, self._container.format.name)
        return None

    @property
    def truncated(self) -> str | None:
        """After the iteration: a line when clearly less was decoded than the header states, else None."""
        if self._container.format.name == "apng" and self.frames < (stated := png_frames(self._file)):
            return f"truncated: {self.frames} of {stated} frames decoded"
        first, end = self._timeline.first_pts, self.last_end_pts
        if self._container.format.name.split(",")[0] not in HEADER_FORMATS or first is None or end is None:
            return None
        # Matroska states where the last frame ends, MP4 how long it is from the first: either will do.
        decoded = float((end - min(0, first)) * self.info.time_base)
        return shortfall(decoded, self.info.duration_s)

    def packets_bytes(self, start_pts: int, end_pts: int) -> int:
        """Bytes of the packets with start_pts <= PTS < end_pts; forgets every packet before end_pts."""
        return self._sizes.take(start_pts, end_pts)

    def damaged_frames(self, start_pts: int, end_pts: int) -> int:
        """Damaged frames with start_pts <= PTS < end_pts; forgets every one before end_pts."""
        found = [start_pts <= pts for pts in self._damaged if pts < end_pts]
        del self._damaged[: len(found)]
        return sum(found)

    def demuxed_pts(self) -> Iterator[int]:
        """Instead of the iteration: the PTS of every packet, nothing decoded; fills `packets_bytes`."""
        self._container.seek(0)
        self._sizes = PacketSizes()
        if self.audio is not None:
            self.audio = self.audio.again()
        for packet in self._packets():
            if packet is not None and packet.pts is not None and not packet.is_discard:
                yield packet.pts

    def close(self) -> None:
        """Closes the container; the file stays open (its hash may still be wanted)."""
        self._decoding = iter(())
        self._container.close()

    def _damage(self, shown: int, place: int) -> set[int | None]:
        """The PTS of damaged frames that the one at `shown` refers to, or stands for at `place`."""
        if self._times.by_dts:
            self._faults.in_decoding_order()
        return self._faults.affecting(shown, place)

    def _expect(self) -> None:
        """Before the first packet, and after a seek: nothing is known of what comes."""
        codec = self._stream.codec_context.codec
        self._times = FrameTimes(codec.reorder)
        self._faults = Faults(codec.canonical_name, self._container.format.name)

    def _open_decoder(self, threads: int) -> None:
        for other in self._container.streams:
            if other is not self._stream and not (self.audio and other is self._sound):
                other.discard = av.stream.Discard.all
        context = self._stream.codec_context
        context.thread_count = threads
        context.thread_type = "NONE" if threads == 1 else "AUTO"
        context.options = {"max_pixels": str(MAX_PIXELS)}
        wanted = self._rendering.deinterlace == "auto"
        self._deinterlacer = Deinterlacer(context.name, context.field_order, wanted)

    def _described(self, frame: av.VideoFrame) -> tuple[SourceInfo, Display]:
        check_size(frame.width, frame.height)
        stream = self._stream
        aspect = aspect_of(stream)
        rotation, mirrored = orientation(frame)
        display = Display.of(frame.width, frame.height, aspect, rotation, mirrored)
        rate = self._raw_rate or average_rate(stream)
        info = SourceInfo(
            media="video",
            container=self._container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            width=display.width,
            height=display.height,
            rotation=rotation,
            sample_aspect_ratio=aspect,
            fps=float(rate) if rate else None,
            duration_s=stated_seconds(self._container, stream),
            time_base=time_base_of(stream),
            video_stream=stream.index,
            video_streams=len(video_streams(self._container)),
            audio=audio_info(self._sound),
            bit_depth=frame.format.components[0].bits,
            color_transfer=transfer_name(frame),
            color_primaries=primaries_name(frame),
            color_matrix=matrix_name(frame),
            hdr=is_hdr(frame),
        )
        return info, display

    @property
    def _raw_rate(self) -> Fraction | None:
        """Frames per second of a raw stream, whose average by libav is a guess; None for any other stream."""
        if self._container.format.name not in RAW_FORMATS:
            return None
        rate = self._stream.codec_context.framerate
        return rate if rate and rate <= 1000 else Fraction(FALLBACK_FPS)

    @property
    def _period(self) -> int | None:
        """Ticks from a frame to the next of a raw stream, None for any other."""
        return round(1 / (self._raw_rate * time_base_of(self._stream))) if self._raw_rate else None

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames as the decoder gives them; what fails is counted and skipped."""
        for packet in self._packets():
            try:
                for frame in self._stream.codec_context.decode(packet):
                    self._faults.frame(frame)
                    if frame.is_corrupt:
                        self._faults.failed(stamp(frame))
                    yield frame
            except EOFError:
                return
            except av.FFmpegError:
                self._faults.failed(None if packet is None else stamp(packet))

    def _packets(self) -> Iterator[av.Packet | None]:
        """The stream's packets, then None, which makes the decoder give its last frames.

        Packets of the sound go to `audio`. Where reading both ends or fails, the video alone is read on: it may be the
        index of the sound that is damaged.
        """
        failures, count, period, audio = 0, 0, self._period, self.audio
        may_be_encrypted = self._container.format.name.startswith("mov")
        while failures < DEMUX_ATTEMPTS:
            try:
                for packet in self._container.demux(self._stream if audio is None else [self._stream, audio.stream]):
                    if not packet.size:
                        continue
                    failures = 0
                    if audio is not None and packet.stream_index == audio.stream.index:
                        audio.add(packet)
                        continue
                    pts = packet.pts if packet.pts is not None else packet.dts
                    self._sizes.add(pts if pts is not None or period is None else count * period, packet.size)
                    count += 1
                    if may_be_encrypted:
                        refuse_encrypted(packet)
                    self._times.packet(packet)
                    self._faults.packet(packet)
                    yield packet
            except IndexError:  # PyAV empties streams that came up while it read, and does not know them
                pass
            except av.FFmpegError:
                if self._file.failure:
                    break
                if audio is None:
                    self._faults.unread()
                    failures += 1
                    continue
                audio.failed_to_read()
            if audio is None:
                break
            audio.finish()
            audio = None
        yield None
