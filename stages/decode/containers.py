"""Opens a container with libav so that it can read nothing but the bytes of the source.

Three limits, each enough by itself: only formats that hold their own pictures are allowed (no playlist, list, session
description or image sequence), every request to open something else is refused, and no protocol is allowed. libav
gets our file object, never a path.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import av
from av.buffer import Buffer
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.stream import VideoStream

from stages.decode.display import MAX_PIXELS, check_size
from stages.decode.reading import SafeFile
from stages.frames import SourceError

READ_BLOCK = 256 * 1024  # bytes libav asks for at a time
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,gxf,nut,ivf,wtv,dv,rm,"
    "h264,hevc,vvc,av1,obu,m4v,mpegvideo,mjpeg,yuv4mpegpipe,gif,apng,"
    "wav,mp3,flac,aac"  # so that the reason for sound alone is "no video stream"
)
SIDE_DATA_KINDS = 64  # libav numbers fewer kinds of side data of frames than this
MOST_FPS = 480  # a higher rate is believed only where the container's clock is finer
HEADER_FORMATS = {"mov", "matroska", "avi", "flv", "asf"}  # their header states a length; others estimate it


def open_container(file: SafeFile) -> InputContainer:
    """The open container. Raises SourceError with what the file seems to be instead."""
    if file.size == 0:
        raise SourceError("empty file")
    try:
        return av.open(
            file,
            "r",
            buffer_size=READ_BLOCK,
            io_open=_refuse,
            options={"max_pixels": str(MAX_PIXELS)},
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
            metadata_errors="replace",
        )
    except SourceError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        if file.failure:
            raise file.failure from error
        raise SourceError(_what_it_is(file)) from error


def _refuse(url: str, flags: int, options: dict) -> None:
    raise SourceError("the file refers to another file or address, which is never opened")


def _what_it_is(file: SafeFile) -> str:
    """A line for a file that libav does not take, from its first bytes."""
    file.seek(0)
    head = file.read(4096)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"#EXTM3U", b"ffconcat", b"v=0", b"<MPD", b"<?xml", b"RTSPtext", b"[playlist]")):
        return "a playlist or list of other files, not a video: references are never followed"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return "MP4 without a usable index (moov): cut off or damaged"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "damaged Matroska or WebM header"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return "text, not a video"
    return "not a video that can be read: unknown or damaged container"


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams but attached pictures (covers, thumbnails), in the container's order."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & pictures]


def video_stream(container: InputContainer) -> VideoStream:
    """The video stream with the largest picture, of those that are marked as default; the first of equals.

    A mark on the first stream alone says nothing: writers put it there where nobody chose. Raises SourceError.
    """
    streams = video_streams(container)
    if not streams:
        raise SourceError("no video stream")
    able = [stream for stream in streams if stream.codec_context is not None]
    if not able:
        raise SourceError("no decoder for the video's codec")
    chosen = [stream for stream in able if stream.disposition & Disposition.default]
    if not chosen or chosen == streams[:1]:
        chosen = [stream for stream in able if not stream.disposition & Disposition.dependent] or able
    stream = max(chosen, key=lambda s: (s.codec_context.width * s.codec_context.height, -s.index))
    context = stream.codec_context
    if context.width or context.height:
        check_size(context.width, context.height)
    return stream


def aspect_of(stream: VideoStream) -> Fraction:
    """The sample aspect ratio; 1 where it is unstated or absurd (beyond 1:10)."""
    aspect = stream.sample_aspect_ratio
    if not aspect or not Fraction(1, 10) <= aspect <= 10:
        return Fraction(1)
    return Fraction(aspect)


def time_base_of(stream: VideoStream) -> Fraction:
    """Seconds of a tick. Raises SourceError."""
    if stream.time_base is None:
        raise SourceError("the video stream has no time base")
    return stream.time_base


def average_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second as the container states them; None for a rate of one frame a tick of its clock."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and (rate <= MOST_FPS or rate * time_base_of(stream) < Fraction(1, 2)):
            return rate
    return None


def side_data(frame: av.VideoFrame) -> Mapping[str, Buffer]:
    """A frame's side data by their names in PyAV; those that it has no name for (EXIF, LCEVC, ...) are left out."""
    try:
        return cast(Mapping[str, Buffer], frame.side_data)  # PyAV's types know only motion vectors
    except ValueError:
        graph = Graph()
        nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))]
        named = {kind.value for kind in SideDataType}
        for kind in set(range(SIDE_DATA_KINDS)) - named:
            nodes.append(graph.add("sidedata", f"mode=delete:type={kind}"))
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        graph.vpush(frame)
        return cast(Mapping[str, Buffer], graph.vpull().side_data)


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """(degrees clockwise, mirrored left-right before that) from a frame's display matrix, to the nearest 90."""
    data = side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(math.degrees(math.atan2(b, a)) / 90) % 4 * 90, mirrored


def stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """The video's length as its header states it, seconds; None where it says nothing that can be trusted."""
    times = []
    if stream.duration and stream.duration > 0:
        times.append(float(stream.duration * time_base_of(stream)))
    elif tag := stream.metadata.get("DURATION"):  # Matroska, per track: HH:MM:SS.nnnnnnnnn
        try:
            hours, minutes, seconds = tag.split(":")
            times.append(int(hours) * 3600 + int(minutes) * 60 + float(seconds))
        except ValueError:
            pass
    if container.duration and container.duration > 0:
        whole = container.duration / av.time_base
        if not times or whole < times[0] - 1 / av.time_base:  # it is in microseconds
            times = [whole]
    return times[0] if times else None
