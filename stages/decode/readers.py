"""Which reader takes a source: still images by their first bytes, video by the backend of the recipe."""

from __future__ import annotations

from typing import Literal

from stages.decode.images import ImageReader, is_image
from stages.decode.reading import SafeFile

Backend = Literal["pyav", "decord"]


def open_reader(file: SafeFile, backend: Backend = "pyav", threads: int = 1):
    """The reader of an open file, which iterates over `stages.frames.Frame`s. Raises SourceError.

    Every reader has `info`, `frames`, `decode_errors`, `left_out`, `last_end_pts`, `truncated`,
    `packets_bytes(start_pts, end_pts)` and `close()`.
    """
    if is_image(file):
        return ImageReader(file)
    if backend == "decord":
        from stages.decode.decord_reader import DecordReader

        return DecordReader(file, threads)
    from stages.decode.pyav_reader import PyAVReader

    return PyAVReader(file, threads)
