"""A folder of everything that a folder of videos should not hold, and a canary that tells who touched it.

All of it is made here, in a second or two, from numpy and PyAV.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CANARY = "canary/canary.mp4"  # what every playlist of the folder refers to, relative to the folder


def moving_square(count: int, width: int = 96, height: int = 64) -> Iterable[np.ndarray]:
    """`count` frames (h, w, 3) uint8 RGB: a bright square that moves over a gradient."""
    ramp = np.linspace(30, 180, width).astype(np.uint8)
    for i in range(count):
        frame = np.repeat(np.broadcast_to(ramp, (height, width))[..., None], 3, axis=2).copy()
        left = (3 * i) % max(1, width - 16)
        frame[height // 4 : height // 4 + 16, left : left + 16] = (230, 60, 40)
        yield frame


def write_video(
    path: Path | str,
    frames: Iterable[np.ndarray],
    *,
    fps: int = 24,
    pts: Iterable[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str = "mp4",
    rotation: float | None = None,
    mirrored: bool = False,
    aspect: Fraction | None = None,
    index_first: bool = False,
    color_range: int | None = None,
    matrix: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes RGB frames (h, w, 3), or frames that are av.VideoFrames already. `pts` are in `time_base`."""
    path = Path(path)
    muxing = {"movflags": "faststart"} if index_first else {}
    with open(path, "wb") as raw, av.open(raw, "w", format=container, options=muxing) as out:
        stream, base = None, time_base or Fraction(1, fps)
        times = iter(pts) if pts is not None else iter(range(10**9))
        for picture in frames:
            ready = isinstance(picture, av.VideoFrame)
            frame = picture if ready else av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            if stream is None:
                stream = out.add_stream(codec, rate=fps, options={"preset": "ultrafast"} | (options or {}))
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixel_format
                stream.time_base = stream.codec_context.time_base = base
                if aspect:
                    stream.codec_context.sample_aspect_ratio = aspect
                if color_range:
                    stream.codec_context.color_range = color_range
                if matrix:
                    stream.codec_context.colorspace = matrix
                if rotation is not None:
                    stream.set_display_rotation(rotation, hflip=mirrored)
            if not ready:
                frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = next(times), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def write_tone(path: Path, container: str = "mp4", seconds: float = 0.5) -> Path:
    """Sound alone: a sine wave."""
    with open(path, "wb") as raw, av.open(raw, "w", format=container) as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        for start in range(0, int(44100 * seconds), 1024):
            wave = np.sin(np.arange(start, start + 1024) * 0.06).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def write_shuffled_times(path: Path, order: Iterable[int]) -> Path:
    """Intra-only frames whose packets carry these PTS in this order, under rising DTS."""
    order = list(order)
    with open(path, "wb") as raw, av.open(raw, "w", format="matroska") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        stream.time_base = Fraction(1, 25)
        packets = []
        for i, picture in enumerate(moving_square(len(order))):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode()
        for i, (packet, pts) in enumerate(zip(packets, order, strict=True)):
            packet.time_base, packet.pts, packet.dts = Fraction(1, 25), pts, i - 1000
            out.mux(packet)
    return path


def claim_more(data: bytes, times: int) -> bytes:
    """The bytes of an MP4 whose header claims `times` as many frames and seconds as there are."""
    data = bytearray(data)
    for box, place in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24), (b"elst", 12), (b"stts", 12)):
        at = data.index(box) + place  # of a duration or a count of samples
        (value,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", data, at, value * times)
    return bytes(data)


def flip_bits(data: bytes, count: int, seed: int, start: int = 0) -> bytes:
    """The bytes with `count` bits flipped at random places from `start` on."""
    draw, data = random.Random(seed), bytearray(data)
    for _ in range(count):
        data[draw.randrange(start, len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def make_hostile_folder(path: Path | str, port: int = 9) -> dict[str, str]:
    """Fills the folder; returns name (relative) -> 'done', 'failed' or 'either' (must be one of them).

    `port` on 127.0.0.1 and CANARY are what the playlists refer to; see `Canary`. Directory links that loop
    are there too, and in no expectation: a listing must only not follow them for ever.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str] = {}

    def put(name: str, data: bytes, outcome: str) -> None:
        (path / name).write_bytes(data)
        expected[name] = outcome

    good = write_video(path / "good.mp4", moving_square(48)).read_bytes()
    index_first = write_video(path / "index_first.mp4", moving_square(48), index_first=True).read_bytes()
    expected |= {"good.mp4": "done", "index_first.mp4": "done"}

    put("empty.mp4", b"", "failed")
    put("text.mp4", b"This is not a video.\n" * 50, "failed")
    put("noise.mp4", random.Random(1).randbytes(65536), "failed")
    put("truncated_index_last.mp4", good[: len(good) * 2 // 3], "failed")
    put("truncated_index_first.mp4", index_first[: len(index_first) * 2 // 3], "either")
    put("header_only.mp4", index_first[: index_first.index(b"mdat") + 4], "failed")
    put("bit_flipped.mp4", flip_bits(good, 40, seed=2, start=64), "either")
    put("bit_flipped_pixels.mp4", flip_bits(index_first, 40, 3, index_first.index(b"mdat") + 64), "either")
    put("claims_more_frames.mp4", claim_more(good, 50), "either")
    write_tone(path / "audio_only.mp4")
    expected["audio_only.mp4"] = "failed"

    odd = {
        "one_frame.mp4": write_video(path / "one_frame.mp4", moving_square(1)),
        "two_pixels.mp4": write_video(path / "two_pixels.mp4", [f[:2, :2] for f in moving_square(24)]),
        "8k.mp4": write_video(path / "8k.mp4", [np.full((4320, 7680, 3), 90, np.uint8)] * 2),
        "rotated.mp4": write_video(path / "rotated.mp4", moving_square(48), rotation=90),
        "variable_rate.mkv": write_video(
            path / "variable_rate.mkv", moving_square(8), container="matroska",
            pts=[0, 40, 41, 500, 533, 1700, 1733, 2900], time_base=Fraction(1, 1000)),
    }  # fmt: skip
    expected |= dict.fromkeys(odd, "done")
    write_shuffled_times(path / "out_of_order.mkv", [0, 2, 1, 5, 3, 4, 9, 8, 7, 6, 10, 11, 12, 13])
    expected["out_of_order.mkv"] = "either"

    for name in ("it's \"quoted\".mp4", "two  spaces .mp4", "new\nline.mp4", "🎬 фильм.mp4", "%41?x=1#a.mp4",
                 "'; DROP TABLE clips; --.mp4", "-rf.mp4", "NULL"):  # fmt: skip
        put(name, good, "done")

    links = {"loop_a.mp4": "loop_b.mp4", "loop_b.mp4": "loop_a.mp4", "dangling.mp4": "gone"}
    for name, target in links.items():
        (path / name).symlink_to(target)
        expected[name] = "failed"
    (path / "inner").mkdir()
    (path / "inner" / "again").symlink_to("..", target_is_directory=True)

    put("unreadable.mp4", good, "failed")
    (path / "unreadable.mp4").chmod(0)
    with contextlib.suppress(PermissionError), open(path / "unreadable.mp4", "rb"):
        expected["unreadable.mp4"] = "done"  # root reads everything

    for name, data in references(path, port).items():
        put(name, data, "failed")
    return expected


def references(path: Path, port: int) -> dict[str, bytes]:
    """Files called .mp4 that refer to the canary and to a port of this machine, by name."""
    url, canary = f"http://127.0.0.1:{port}/x.ts", (path / CANARY).resolve()
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n"
    segments = "".join(f"#EXTINF:9,\n{target}\n" for target in (CANARY, canary, f"file://{canary}", url))
    return {
        "playlist_hls.mp4": f"{hls}{segments}#EXT-X-ENDLIST\n".encode(),
        "playlist_http.mp4": f"{hls}#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n".encode(),
        "list_concat.mp4": f"ffconcat version 1.0\nfile {CANARY}\n".encode(),
        "list_concat_http.mp4": f"ffconcat version 1.0\nfile '{url}'\nfile '{canary}'\n".encode(),
        "session_sdp.mp4": (
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n"
        ).encode(),
        "manifest_dash.mp4": (
            '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'profiles="urn:mpeg:dash:profile:isoff-live:2011" mediaPresentationDuration="PT9S"><Period>'
            '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
            f"<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>\n"
        ).encode(),
    }


class Canary:
    """A pipe at CANARY in the folder and a listening port: `touched` tells whether anybody opened either.

    A reader of the pipe lets the waiting writer through, which no reader can avoid.
    """

    def __init__(self, folder: Path | str):
        self._pipe = Path(folder) / CANARY
        self._pipe.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(self._pipe)
        self._opened = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._ended = False
        self._writer = threading.Thread(target=self._wait_for_reader, daemon=True)
        self._writer.start()

    def touched(self) -> list[str]:
        """What was touched so far: 'file', 'network'."""
        found = ["file"] if self._opened.wait(0.2) else []
        with contextlib.suppress(BlockingIOError):
            self._listener.accept()[0].close()
            found.append("network")
        return found

    def __enter__(self) -> Canary:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        reader = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)  # lets the writer go
        self._writer.join(5)
        os.close(reader)
        self._listener.close()

    def _wait_for_reader(self) -> None:
        writer = os.open(self._pipe, os.O_WRONLY)
        if not self._ended:
            self._opened.set()
        os.close(writer)
