"""Writes the demo's media files: videos, images and sound, with PyAV and OpenCV."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

# The same frames give the same bytes: one thread, and no mbtree, which together with B-frames gave other
# bytes at every run (x264 r165; measured with eight encodings of one film).
CODEC_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "28", "threads": "1", "x264-params": "mbtree=0"},
    "mpeg4": {"qscale": "4", "flags": "+qscale", "threads": "1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "34", "b": "0", "threads": "1"},
}


def write_video(
    path: Path,
    frames: Iterable[tuple[float, np.ndarray]],
    fps: int,
    codec: str = "libx264",
    rotation: int = 0,
    aspect: tuple[int, int] = (1, 1),
) -> None:
    """Writes frames, (seconds, (h, w, 3) uint8 RGB), with their seconds as PTS.

    `rotation` (0 or 90) stores the frames turned, with a display matrix that turns them back (MP4 only).
    """
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream: VideoStream | None = None
        for seconds, pixels in frames:
            stored = np.ascontiguousarray(np.rot90(pixels)) if rotation else pixels
            if stream is None:
                stream = cast(VideoStream, container.add_stream(codec, rate=fps, options=CODEC_OPTIONS[codec]))
                stream.width, stream.height, stream.pix_fmt = stored.shape[1], stored.shape[0], "yuv420p"
                stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
                stream.codec_context.time_base = Fraction(1, fps)
            frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
            frame.pts, frame.time_base = round(seconds * fps), Fraction(1, fps)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
    if rotation:
        _set_mp4_rotation(path)


def reencode(
    source: Path, path: Path, codec: str, size: tuple[int, int] | None = None, trim_s: float = 0.0, gain: float = 1.0
) -> None:
    """Writes the video of `source` again: in another codec and size (width, height), without its first and last
    `trim_s` seconds, and `gain` times as bright.
    """
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        if stream.average_rate is None or container.duration is None:
            raise ValueError(f"{source} has no frame rate or no duration")
        fps = round(stream.average_rate)
        width, height = size or (stream.width, stream.height)
        end = container.duration / av.time_base - trim_s

        def frames() -> Iterator[tuple[float, np.ndarray]]:
            for frame in container.decode(stream):
                if trim_s - 1e-6 <= frame.time < end - 1e-6:
                    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
                    if gain != 1:
                        pixels = np.clip(pixels * np.float32(gain), 0, 255).astype(np.uint8)
                    yield frame.time - trim_s, pixels

        write_video(path, frames(), fps, codec)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Writes (h, w, 3) uint8 RGB to a JPEG, PNG or WebP file, by the name's ending."""
    coded, data = cv2.imencode(path.suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not coded:
        raise OSError(f"{path}: OpenCV could not encode the image")
    path.write_bytes(data.tobytes())


def write_sound(path: Path, seconds: float = 3.0, rate: int = 16000) -> None:
    """Writes a sine tone in AAC, without video."""
    tone = np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate).astype(np.float32) * 0.3
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, len(tone) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _set_mp4_rotation(path: Path) -> None:
    """Writes a rotation by 90 degrees clockwise into the track header of an MP4 file, which PyAV can't.

    ISO 14496-12, 8.3.2: the 3 x 3 matrix {a, b, u, c, d, v, x, y, w} follows 40 bytes of other fields
    of a version 0 `tkhd` box; a to d and x, y are 16.16 fixed point, w is 2.30.
    """
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd") + 4
    height = struct.unpack_from(">I", data, box + 80)[0]  # 16.16 already
    struct.pack_into(">9i", data, box + 40, 0, 1 << 16, 0, -(1 << 16), 0, 0, height, 0, 1 << 30)
    path.write_bytes(bytes(data))
