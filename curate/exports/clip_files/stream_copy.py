"""Copies the packets of a span into an MP4, where a player then shows exactly the span's frames.

A copy has to begin with a key frame and to need no packet from outside the span, and the source has to be shown as it
is stored: upright, square, progressive, of standard dynamic range. That such a copy is exact is not believed but
decoded: the source's frames and the copy's must have the same pixels at the same times. This costs two decodes, about
a tenth of encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import BinaryIO

import av

from curate.exports.clip_files.mp4_writer import index_options
from stages.decode.seek_reader import SeekReader
from stages.decode.span_frames import SpanFrames
from stages.decode.stored_pixels import stored_hash
from stages.decode.video_frame import VideoFrame

CONTAINERS = {"mov", "matroska", "mpegts"}  # in which both times of a packet can be trusted
CODECS = {"h264", "hevc", "vp9", "av1"}  # that MP4 holds and players of today decode

Shown = list[tuple[int, bytes]]  # of each frame: ticks after the start, hash of its pixels


def copy_span(
    reader: SeekReader,
    start_pts: int,
    end_pts: int,
    target: BinaryIO,
    places: list[int] | None,
    progress: Callable[[int], None],
) -> int | None:
    """Writes the span to the empty file `target`; returns its number of frames, None where only encoding will do.

    `places` are the times, PTS, at which frames are wanted; None: at their own. Raises SourceError for a span that is
    damaged.
    """
    if not _upright(reader):
        return None
    stream, packets = reader.packets(start_pts, end_pts)
    if not packets or stream.codec_context.codec.canonical_name not in CODECS:
        return None
    if (shown := _shown(reader, start_pts, end_pts, progress)) is None:
        return None
    # Again: reading frames may have opened the container anew, which frees the stream that came with the packets.
    stream, packets = reader.packets(start_pts, end_pts)
    times = [start_pts + at for at, _ in shown]
    if times != sorted(packet.pts for packet in packets if packet.pts is not None):
        return None
    if places is not None and not _on_time(times, places):
        return None
    _mux(stream, packets, times, end_pts, target)
    return len(shown) if _decoded(target, reader.info.time_base, progress) == shown else None


def _upright(reader: SeekReader) -> bool:
    info = reader.info
    return info.container.split(",")[0] in CONTAINERS and info.sample_aspect_ratio == 1 and not reader.turned


def _on_time(times: list[int], places: list[int]) -> bool:
    """Whether each frame is where one is wanted, to the tick that places are rounded by."""
    return len(times) == len(places) and all(abs(a - b) <= 1 for a, b in zip(times, places, strict=True))


def _shown(reader: SeekReader, start_pts: int, end_pts: int, progress: Callable[[int], None]) -> Shown | None:
    """The frames of the span in the source, None where one is shown otherwise than it is stored."""
    span, found = SpanFrames(reader, start_pts, end_pts), []
    for frame in span.every():
        hashed = frame.stored_hash() if isinstance(frame, VideoFrame) else None
        if hashed is None:
            return None
        found.append((frame.pts - start_pts, hashed))
        progress(len(found))
    span.check()
    return found


def _mux(stream: av.VideoStream, packets: list[av.Packet], times: list[int], end_pts: int, target: BinaryIO) -> None:
    """`times` are the packets' PTS, rising. The times of decoding, which not all containers have, are made of them."""
    delay = max(time - (packet.pts or 0) for time, packet in zip(times, packets, strict=True))
    with av.open(target, "w", format="mp4", options=index_options(len(packets))) as out:
        made = out.add_stream_from_template(stream)
        made.time_base = stream.time_base
        for (time, later), packet in zip(pairwise([*times, end_pts]), packets, strict=True):
            packet.pts, packet.dts = (packet.pts or 0) - times[0], time - delay - times[0]
            packet.duration, packet.stream = later - time, made  # the sum is the length of what is shown
            out.mux(packet)


def _decoded(target: BinaryIO, time_base: Fraction, progress: Callable[[int], None]) -> Shown | None:
    """The frames of the copy, None where one has no time."""
    target.seek(0)
    found: Shown = []
    with av.open(target, "r", format="mp4") as made:
        for frame in made.decode(made.streams.video[0]):
            hashed = stored_hash(frame)
            if frame.pts is None or frame.time_base is None or hashed is None:
                return None
            at = frame.pts * frame.time_base / time_base
            found.append((int(at) if at.denominator == 1 else -1, hashed))
            progress(len(found))
    return found
