"""The formats that are tested: the tests draw and read each row, and docs/sources.md lists the same rows.

A film of FRAMES frames shows eight patches of plain colour over the number of the frame in black and white blocks, so
that colours, count, order and times can be read back from what any codec makes of it. To add a format, add a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

FRAMES, FPS = 24, 24
WIDTH, HEIGHT = 352, 288  # CIF: the one size that every codec takes
BITS = 5  # blocks that hold the number of a frame
COLOURS = [(200, 30, 30), (30, 200, 40), (40, 50, 210), (230, 220, 50),
           (20, 20, 20), (240, 240, 240), (128, 128, 128), (90, 40, 160)]  # fmt: skip
LIMITED, FULL = 1, 2
MATRICES = {"BT.601": 5, "BT.709": 1, "BT.2020": 9, "FCC": 4, "SMPTE 240M": 7, "BT.601 (525)": 6}


@dataclass(frozen=True)
class Format:
    """One film of the table: how it is written, and what must come back.

    `levels` is the largest difference of a patch's colour, 0 to 255; None where the drawing itself changes colours.
    `within` is the largest difference of a frame's time in seconds. `fails` is how the reason begins that users read of
    a format that is not taken.
    """

    container: str  # libav's name of the muxer
    codec: str  # and of the encoder
    pixels: str = "yuv420p"
    levels: int | None = 4
    fps: Fraction = Fraction(FPS)
    size: tuple[int, int] = (WIDTH, HEIGHT)
    matrix: str = "BT.601"
    color_range: int = LIMITED
    options: dict[str, str] = field(default_factory=dict)  # of the encoder
    muxing: dict[str, str] = field(default_factory=dict)  # of the muxer
    turn: tuple[int, bool] = (0, False)  # degrees counter-clockwise, mirrored
    aspect: Fraction = Fraction(1)
    times: tuple[int, ...] | None = None  # of the frames, in milliseconds; None: at the rate
    frames: int = FRAMES  # that come back
    within: float = 0.0015
    oddity: str = ""  # what is odd about it, in words
    fails: str = ""

    @property
    def name(self) -> str:
        parts = [self.container, self.codec, self.pixels]
        if (self.matrix, self.color_range) != ("BT.601", LIMITED):
            parts.append(f"{self.matrix}-{'full' if self.color_range == FULL else 'limited'}")
        return "-".join([*parts, *([self.oddity] if self.oddity else [])]).replace(" ", "_")


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """(h, w, 3) RGB: the patches in two rows, and the frame's number below in black and white blocks."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    rows = height // 3
    for index, colour in enumerate(COLOURS):
        row, column = divmod(index, 4)
        image[row * rows : (row + 1) * rows, column * width // 4 : (column + 1) * width // 4] = colour
    for bit in range(BITS):
        image[2 * rows :, bit * width // BITS : (bit + 1) * width // BITS] = 235 if number >> bit & 1 else 20
    return image


def colours(shown: np.ndarray) -> np.ndarray:
    """(8, 3): the patches' middles."""
    height, width = shown.shape[:2]
    return np.array([shown[(2 * r + 1) * height // 6, (2 * c + 1) * width // 8] for r in (0, 1) for c in range(4)], int)


def expected(row: Format) -> np.ndarray:
    """(8, 3): what the patches' middles must be."""
    wanted = np.array(COLOURS, float)
    if "gray" in row.pixels:
        wanted = (wanted @ [0.299, 0.587, 0.114])[:, None].repeat(3, 1)
    return wanted.round().astype(int)


def number(shown: np.ndarray) -> int:
    """The frame's number as its blocks say."""
    height, width = shown.shape[:2]
    row = shown[5 * height // 6].mean(axis=-1)
    return sum((row[(2 * bit + 1) * width // (2 * BITS)] > 127) << bit for bit in range(BITS))


def stored(rgb: np.ndarray, pixels: str, matrix: int, color_range: int) -> av.VideoFrame:
    """The RGB picture in that pixel format, made by that matrix and range."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    if pixels == "rgb24":
        return frame
    made = VideoReformatter().reformat(
        frame, format=pixels, dst_colorspace=matrix, dst_color_range=color_range, src_color_range=FULL
    )
    if not pixels.startswith(("rgb", "bgr", "gbr", "0rgb", "argb", "mono", "pal")):
        made.colorspace, made.color_range = matrix, color_range
    return made


def write(path: Path, row: Format, count: int = FRAMES) -> Path:
    """Draws the film of a row."""
    matrix = MATRICES[row.matrix]
    with open(path, "wb") as raw, av.open(raw, "w", format=row.container, options=row.muxing) as out:
        stream: Any = out.add_stream(row.codec, rate=row.fps, options={"strict": "experimental"} | row.options)
        stream.width, stream.height = row.size
        stream.pix_fmt = row.pixels
        stream.bit_rate = 0 if "crf" in row.options else 8_000_000
        context = stream.codec_context
        if row.pixels.startswith(("yuv", "gray")) and (row.matrix, row.color_range) != ("BT.601", LIMITED):
            context.colorspace, context.color_range = matrix, row.color_range
        if row.aspect != 1:
            context.sample_aspect_ratio = row.aspect
        if row.turn != (0, False):
            stream.set_display_rotation(row.turn[0], hflip=row.turn[1])
        base = Fraction(1, 1000) if row.times else 1 / row.fps
        if row.times:
            stream.time_base = context.time_base = base
        for index in range(count):
            frame = stored(picture(index, row.size), row.pixels, matrix, row.color_range)
            frame.pts, frame.time_base = row.times[index] if row.times else index, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


H264 = {"preset": "ultrafast", "crf": "6"}
REORDERED = {"preset": "veryfast", "bf": "3", "b-adapt": "0", "crf": "6"}
HEVC = {"preset": "ultrafast", "x265-params": "log-level=none:crf=8"}
VP = {"cpu-used": "8", "deadline": "realtime"}
AV1 = {"preset": "10"}
CIF = Fraction(12, 11)  # H.263 states it by the size
PAL: dict[str, Any] = {"size": (720, 576), "fps": Fraction(25), "aspect": Fraction(16, 15)}
NTSC: dict[str, Any] = {"size": (720, 480), "fps": Fraction(30000, 1001), "aspect": Fraction(8, 9)}
UNKNOWN = "not a video that can be read: unknown or damaged container"

CODECS = [
    *(Format(container, "libx264", options=H264) for container in
      ("mp4", "mov", "matroska", "avi", "mpegts", "flv", "f4v", "3gp", "ismv", "ipod", "asf", "nut", "wtv", "h264")),
    Format("mxf", "libx264", fps=Fraction(25), options=H264),
    *(Format(container, "libx265", options=HEVC) for container in
      ("mp4", "mov", "matroska", "mpegts", "flv", "hevc")),
    *(Format(container, "libsvtav1", options=AV1) for container in ("mp4", "matroska", "webm", "flv", "ivf")),
    Format("obu", "libsvtav1", fps=Fraction(25), options=AV1, oddity="no times: 25 frames a second are assumed"),
    *(Format(container, "libvpx-vp9", options=VP) for container in ("mp4", "matroska", "webm", "ivf")),
    *(Format(container, "libvpx", options=VP) for container in ("matroska", "webm", "ivf", "ogg")),
    *(Format(container, "mpeg4") for container in
      ("mp4", "mov", "matroska", "avi", "mpegts", "asf", "nut", "3gp", "3g2", "m4v")),
    *(Format(container, "mpeg2video") for container in
      ("mp4", "matroska", "avi", "mpegts", "mpeg", "vob", "dvd", "svcd", "wtv", "mpeg2video")),
    Format("mxf", "mpeg2video", "yuv422p", fps=Fraction(25)),
    *(Format(container, "mpeg1video") for container in ("mp4", "matroska", "mpegts", "mpeg", "vcd")),
    Format("mpeg1video", "mpeg1video", within=0.05, oddity="no times: libav's are right to a frame"),
    *(Format(container, "mjpeg", "yuvj420p", color_range=FULL) for container in
      ("mp4", "mov", "matroska", "avi", "asf")),
    *(Format(container, "h263", aspect=CIF) for container in ("mov", "3gp")),
    Format("flv", "flv"), Format("flv", "flashsv", "bgr24", 0), Format("flv", "flashsv2", "bgr24", 6),
    *(Format(container, codec) for container in ("avi", "asf") for codec in ("msmpeg4", "wmv1", "wmv2")),
    Format("rm", "rv10"), Format("rm", "rv20"),
    Format("avi", "msmpeg4v2"), Format("matroska", "msmpeg4"), Format("matroska", "snow"),
    Format("mov", "prores", "yuv422p10le"), Format("mov", "prores_ks", "yuv444p10le"),
    Format("mov", "prores_ks", "yuva444p10le"), Format("matroska", "prores_ks", "yuv422p10le"),
    Format("mxf", "prores_ks", "yuv422p10le", fps=Fraction(25)),
    *(Format(container, "dnxhd", "yuv422p", matrix="BT.709", fps=Fraction(25), options={"profile": "dnxhr_hq"})
      for container in ("mov", "mxf")),
    Format("mov", "dnxhd", "yuv422p10le", matrix="BT.709", options={"profile": "dnxhr_hqx"}),
    Format("mov", "dnxhd", "yuv444p10le", matrix="BT.709", options={"profile": "dnxhr_444"}),
    Format("mov", "cfhd", "yuv422p10le"), Format("mov", "cfhd", "gbrp12le"),
    *(Format(container, "dvvideo", **PAL) for container in ("dv", "mov", "avi", "mxf")),
    Format("mov", "dvvideo", "yuv411p", **NTSC), Format("mov", "dvvideo", "yuv422p", **PAL),
    *(Format(container, "jpeg2000", fps=Fraction(25)) for container in ("mp4", "mov", "mxf")),
    *(Format(container, codec, matrix="BT.709") for container in ("mp4", "matroska") for codec in ("dirac", "vc2")),
    *(Format(container, "ffv1") for container in ("mp4", "matroska", "avi", "nut")),
    Format("mxf", "ffv1", fps=Fraction(25)),
    *(Format("avi", codec) for codec in ("ffvhuff", "utvideo", "magicyuv", "asv1", "asv2")),
    Format("avi", "ljpeg", "yuvj420p", color_range=FULL),
    Format("avi", "huffyuv", "yuv422p"), Format("avi", "huffyuv", "rgb24", 0), Format("mov", "magicyuv"),
    Format("avi", "zlib", "bgr24", 0), Format("avi", "zmbv", "bgr0", 0), Format("avi", "y41p", "yuv411p"),
    Format("avi", "cljr", "yuv411p", 20), Format("avi", "msvideo1", "rgb555le", 10),
    *(Format(container, "cinepak", "rgb24") for container in ("mov", "avi")),
    Format("mov", "svq1", "yuv410p"), Format("mov", "rpza", "rgb555le", 10), Format("mov", "dxv", "rgba"),
    Format("mov", "qtrle", "rgb24", 0), Format("mov", "qtrle", "argb", 0), Format("mov", "targa", "bgr24", 0),
    Format("mov", "tiff"), *(Format(container, "png", "rgb24", 0) for container in ("mp4", "mov")),
    Format("mov", "v210", "yuv422p10le"), Format("mov", "v410", "yuv444p10le"), Format("mov", "v308", "yuv444p"),
    Format("mov", "v408", "yuva444p"), Format("mov", "r210", "gbrp10le"), Format("mov", "r10k", "gbrp10le"),
    Format("mov", "avrp", "gbrp10le"),
    Format("mov", "rawvideo", "rgb24", 0), Format("mov", "rawvideo", "uyvy422"), Format("mov", "rawvideo", "yuyv422"),
    Format("avi", "rawvideo", "bgr24", 0), Format("avi", "rawvideo", "yuyv422"), Format("avi", "rawvideo"),
    Format("matroska", "rawvideo"), Format("nut", "rawvideo"), Format("yuv4mpegpipe", "rawvideo"),
    Format("gif", "gif", "rgb8", None, fps=Fraction(25)),
    Format("apng", "apng", "rgb24", 0), Format("webp", "libwebp_anim"),
]  # fmt: skip

PIXELS = [
    *(Format("mp4", "libx264", pixels, options=H264) for pixels in
      ("yuv422p", "yuv444p", "nv12", "yuv420p10le", "yuv422p10le", "yuv444p10le")),
    *(Format("mp4", "libx264", pixels, color_range=FULL, options=H264) for pixels in ("gray", "gray10le")),
    Format("mp4", "libx264", "yuvj420p", color_range=FULL, options=H264),
    Format("mp4", "libx264rgb", "rgb24", options=H264),
    *(Format("mp4", "libx265", pixels, options=HEVC) for pixels in
      ("yuv422p", "yuv444p", "gbrp", "yuv420p10le", "yuv422p10le", "gbrp10le", "yuv420p12le", "yuv444p12le")),
    *(Format("webm", "libvpx-vp9", pixels, options=VP) for pixels in ("yuv444p", "yuv440p", "yuva420p", "gbrp")),
    Format("webm", "libsvtav1", "yuv420p10le", options={"preset": "6"}),
    *(Format("matroska", "ffv1", pixels) for pixels in
      ("yuv410p", "yuv411p", "yuva444p", "yuv444p9le", "yuv422p10le", "yuv444p14le", "yuv420p16le", "bgr0",
       "gbrp12le", "rgb48le", "gray", "gray16le")),
    *(Format("mov", "png", pixels) for pixels in ("rgba", "gray", "rgb48be")),
    *(Format("avi", "mjpeg", pixels, color_range=FULL) for pixels in ("yuvj422p", "yuvj444p")),
    *(Format("avi", codec, "gbrp") for codec in ("utvideo", "magicyuv")),
    Format("avi", "huffyuv", "bgra", 0), Format("avi", "ffvhuff", "yuv420p10le"),
    Format("mov", "qtrle", "rgb555be", 10),
    Format("avi", "rawvideo", "gray"), Format("mov", "rawvideo", "gray"),
]  # fmt: skip

MATRIX = [
    *(Format("mp4", "libx264", matrix=matrix, color_range=color_range, options=H264)
      for matrix in MATRICES for color_range in (LIMITED, FULL) if (matrix, color_range) != ("BT.601", LIMITED)),
    *(Format("matroska", "libx265", "yuv420p10le", matrix=matrix, color_range=color_range, options=HEVC)
      for matrix in ("BT.709", "BT.2020") for color_range in (LIMITED, FULL)),
    *(Format("webm", "libvpx-vp9", matrix=matrix, color_range=color_range, options=VP)
      for matrix in ("BT.709", "BT.2020") for color_range in (LIMITED, FULL)),
    *(Format("webm", "libsvtav1", matrix="BT.709", color_range=color_range, options=AV1)
      for color_range in (LIMITED, FULL)),
    *(Format("mov", "prores_ks", "yuv422p10le", matrix=matrix) for matrix in ("BT.709", "BT.2020")),
    Format("mpegts", "mpeg2video", matrix="BT.709"),
    Format("matroska", "ffv1", "yuv444p", matrix="BT.709", color_range=FULL),
]  # fmt: skip

TURNED = [(degrees, mirrored) for mirrored in (False, True) for degrees in (0, 90, 180, 270) if degrees or mirrored]
UNEVEN = tuple(n * 41 + 7 * (n % 3) + 900 * (n > 12) for n in range(FRAMES))
ODD = [
    *(Format("mp4", "libx264", options=H264, turn=turn, oddity=f"rotated by {turn[0]} degrees" + ", mirrored" * turn[1])
      for turn in TURNED),
    *(Format("mp4", "libx264", options=H264, aspect=aspect, oddity=f"pixels of {aspect.numerator}:{aspect.denominator}")
      for aspect in (Fraction(12, 11), Fraction(1, 2), Fraction(2))),
    *(Format(container, "libx264", options=REORDERED, within=0.0025, oddity="B-frames")
      for container in ("mp4", "mov", "matroska", "mpegts", "avi", "flv", "asf", "nut", "h264")),
    Format("avi", "mpeg4", options={"bf": "2"}, oddity="B-frames"),
    *(Format(container, "libx264", options=H264, times=UNEVEN, oddity="uneven frame times and a pause")
      for container in ("mp4", "mov", "matroska", "flv", "mpegts")),
    *(Format(container, "libx264", options=H264, times=tuple(t + 7300 for t in UNEVEN), oddity="first frame at 7.3 s")
      for container in ("mp4", "matroska", "mpegts")),
    Format("mp4", "libx264", options=H264, muxing={"movflags": "faststart"}, oddity="index at the front"),
    Format("mp4", "libx264", options=H264 | {"g": "6"}, muxing={"movflags": "frag_keyframe+empty_moov"},
           oddity="fragmented"),
    Format("mp4", "libx264", options=H264 | {"g": "6"}, muxing={"movflags": "frag_keyframe+empty_moov+separate_moof"},
           oddity="fragmented as for DASH"),
    Format("matroska", "libx264", options=H264, muxing={"cues_to_front": "1", "reserve_index_space": "4096"},
           oddity="index at the front"),
    Format("mpegts", "libx264", options=H264, muxing={"mpegts_m2ts_mode": "1"}, oddity="packets of 192 bytes (M2TS)"),
    Format("mp4", "libx264", options=H264 | {"x264-params": "open-gop=1:keyint=6"}, oddity="open groups of pictures"),
    *(Format("mp4", "libx264", options=H264, fps=fps, oddity=f"{float(fps):.6g} frames a second")
      for fps in (Fraction(12), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(240))),
    *(Format("mp4", "libx264", options=H264, size=size, oddity=f"{size[0]} x {size[1]} pixels")
      for size in ((64, 36), (352, 70), (90, 640))),
    Format("mp4", "libx264", options=H264, size=(1920, 1080), matrix="BT.709", oddity="1920 x 1080 pixels"),
    Format("mp4", "libx265", options=HEVC, size=(354, 290), oddity="354 x 290 pixels: cropped from whole blocks"),
]  # fmt: skip

REFUSED = [
    Format("mpeg", "libx264", options=REORDERED, oddity="B-frames",
           fails="time stamps missing or running backward"),
    Format("mpegts", "jpeg2000", fails="no video stream"),
    Format("mov", "rawvideo", "yuv420p", fails="no frame could be decoded"),
    *(Format(container, codec, pixels, fails=UNKNOWN) for container, codec, pixels in (
        ("swf", "flv", "yuv420p"),
        ("roq", "roqvideo", "yuvj444p"),
        ("smjpeg", "mjpeg", "yuv420p"), ("mpjpeg", "mjpeg", "yuv420p"), ("film_cpk", "cinepak", "rgb24"),
        ("h261", "h261", "yuv420p"), ("h263", "h263", "yuv420p"), ("dirac", "dirac", "yuv420p"))),
]  # fmt: skip
PICTURES = [
    Format("mjpeg", "mjpeg", "yuvj420p", color_range=FULL, frames=1, levels=20, oddity="taken for its first picture"),
    Format("avif", "libsvtav1", options=AV1, frames=1, oddity="taken for its first picture"),
]


HEAD = ["container", "encoder", "pixel format", "matrix, range", "oddity", "frames", "colours", "refused with"]
TABLES = {"codecs": CODECS, "pixels": PIXELS, "matrices": MATRIX, "oddities": ODD, "refused": REFUSED + PICTURES}


def table(rows: list[Format]) -> tuple[list[str], list[list[str]]]:
    """Head and rows as docs/sources.md shows them: formats that differ in the container alone share a row.

    Columns that would say the same of every row, or nothing, are left out.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        matrix = f"{row.matrix}, {'full' if row.color_range == FULL else 'limited'}"
        colour = "not compared" if row.levels is None else f"within {row.levels}"
        read = ("", "", f'"{row.fails}"') if row.fails else (str(row.frames), colour, "")
        found.setdefault((f"`{row.codec}`", f"`{row.pixels}`", matrix, row.oddity, *read), []).append(row.container)
    cells = [[", ".join(f"`{name}`" for name in dict.fromkeys(names)), *key] for key, names in found.items()]
    shown = [0, 1, 2, *(n for n in range(3, len(HEAD)) if len({row[n] for row in cells}) > 1)]
    return [HEAD[n] for n in shown], [[row[n] for n in shown] for row in cells]
