"""Still images (JPEG, PNG, WebP of one frame) as sources of one frame, so that image and video sets are curated alike.

The size is read from the header before anything is decoded, so that a decompression bomb is refused unread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

from stages.decode.animations import is_animated
from stages.decode.display import Display, check_size
from stages.decode.picture_frame import PictureFrame, PictureReader
from stages.decode.reading import SafeFile
from stages.frames import SourceError, SourceInfo

MAX_BYTES = 512 * 2**20  # a larger image file is refused

# EXIF orientation (TIFF tag 274) -> degrees clockwise, mirrored left-right before that
_ORIENTATIONS = {1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True),
                 5: (270, True), 6: (90, False), 7: (90, True), 8: (270, False)}  # fmt: skip
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start-of-frame markers


def image_kind(head: bytes) -> str | None:
    """'jpeg', 'png' or 'webp' by the first twelve bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def is_image(file: SafeFile) -> bool:
    """Whether it is a JPEG, PNG or WebP of one frame; goes back to the start."""
    file.seek(0)
    kind = image_kind(file.read(12))
    still = kind is not None and not is_animated(file, kind)
    file.seek(0)
    return still


def is_animated_webp(file: SafeFile) -> bool:
    """Whether it is a WebP of several frames; goes back to the start."""
    file.seek(0)
    moves = image_kind(file.read(12)) == "webp" and is_animated(file, "webp")
    file.seek(0)
    return moves


class ImageReader(PictureReader):
    """One frame at PTS 0 with time base 1 (see `readers.Reader`). Raises SourceError for what can't be decoded."""

    audio: None = None

    def __init__(self, file: SafeFile):
        self.frames = self.left_out = self.decode_errors = 0
        self.disordered = None
        self._bytes = file.size or 0
        if self._bytes > MAX_BYTES:
            raise SourceError(f"image file of {self._bytes} bytes is over the limit of {MAX_BYTES}")
        file.seek(0)
        data = file.read()
        kind = image_kind(data[:12]) or "unknown"
        try:
            width, height, exif = _HEADERS[kind](data)
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise SourceError(f"damaged {kind.upper()} header") from error
        check_size(width, height)
        self.truncated = None if _ENDS[kind](data) else f"truncated: {kind.upper()} without its end"
        try:
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            pixels = None
        if pixels is None:
            raise SourceError(f"{kind.upper()} that can't be decoded")
        check_size(pixels.shape[1], pixels.shape[0])
        rotation, mirrored = _ORIENTATIONS.get(_exif_orientation(exif), (0, False))
        self._pixels: np.ndarray = pixels
        self._display = Display.of(pixels.shape[1], pixels.shape[0], Fraction(1), rotation, mirrored)
        self.info = SourceInfo(
            media="image", container=kind, codec=kind, pixel_format="bgr24", width=self._display.width,
            height=self._display.height, rotation=rotation, sample_aspect_ratio=Fraction(1), fps=None,
            duration_s=None, time_base=Fraction(1),
        )  # fmt: skip

    def __iter__(self) -> Iterator[PictureFrame]:
        self.frames = 1
        yield PictureFrame(self._pixels, 0, 0.0, self._display)

    @property
    def last_end_pts(self) -> int:
        """1: the span of the one-frame clip is [0, 1)."""
        return 1

    def packets_bytes(self, start_pts: int, end_pts: int) -> int:
        """The file's bytes when the span holds PTS 0."""
        return self._bytes if start_pts <= 0 < end_pts else 0

    def close(self) -> None:
        self._pixels = np.empty((0, 0, 3), np.uint8)


def _jpeg_header(data: bytes) -> tuple[int, int, bytes]:
    """(width, height, EXIF block) by walking the segments up to the first start of frame."""
    exif, place = b"", 2
    while True:
        if data[place] != 0xFF:
            raise ValueError(place)
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height, exif
        if marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            exif = data[place + 10 : place + 2 + length]
        place += 2 + length


def _png_header(data: bytes) -> tuple[int, int, bytes]:
    if data[12:16] != b"IHDR":
        raise ValueError("IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    place = 8
    while place + 8 <= len(data):  # the EXIF chunk may come before or after the pixels
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"eXIf":
            return width, height, data[place + 8 : place + 8 + length]
        place += 12 + length
    return width, height, b""


def _webp_header(data: bytes) -> tuple[int, int, bytes]:
    kind, width, height, exif = data[12:16], 0, 0, b""
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    place = 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        if name == b"EXIF":
            exif = data[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
        place += 8 + length + length % 2
    return width, height, exif


def webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a WebP from its first bytes. Raises SourceError for an absurd one."""
    width, height, _ = _webp_header(data)
    check_size(width, height)
    return width, height


def _exif_orientation(exif: bytes) -> int:
    """TIFF tag 274 of the first directory; 1 (upright) where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * entry)
            if tag == 274:
                return value
    except struct.error:
        pass
    return 1


def _webp_is_whole(data: bytes) -> bool:
    return len(data) >= 8 + int.from_bytes(data[4:8], "little")


_HEADERS = {"jpeg": _jpeg_header, "png": _png_header, "webp": _webp_header}
_ENDS = {"jpeg": lambda data: b"\xff\xd9" in data[len(data) // 4 :], "png": lambda data: b"IEND" in data[-4096:],
         "webp": _webp_is_whole}  # fmt: skip
