"""Chooses the reader of a source: still images by their first bytes, video by the backend of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from stages.decode.animated_webp import AnimatedWebp
from stages.decode.audio_track import AudioTrack
from stages.decode.images import ImageReader, is_animated_webp, is_image
from stages.decode.reading import SafeFile
from stages.decode.rendering import STANDARD, Rendering
from stages.frames import Frame, SourceInfo

Backend = Literal["pyav", "decord"]


class Reader(Protocol):
    """Iterates once over the frames of a source, in strictly rising PTS. Raises SourceError."""

    info: SourceInfo
    frames: int  # given so far

    def __iter__(self) -> Iterator[Frame]: ...

    @property
    def decode_errors(self) -> int:
        """Packets and frames that are damaged, so far."""

    @property
    def audio(self) -> AudioTrack | None:
        """The sound; None where there is none, or nobody asked to hear it."""

    @property
    def field_order(self) -> str | None:
        """Of the frames so far: progressive, mixed, interlaced, or tt, bb, tb, bt; None where nothing says."""

    @property
    def has_interlaced(self) -> bool:
        """Whether a frame so far is interlaced."""

    @property
    def left_out(self) -> int:
        """Frames without a place in time, so far."""

    @property
    def last_end_pts(self) -> int | None:
        """PTS at which the last frame so far ends."""

    @property
    def disordered(self) -> str | None:
        """After the iteration: a line when many frames have no place in time, else None."""

    @property
    def truncated(self) -> str | None:
        """After the iteration: a line when clearly less was decoded than the header states, else None."""

    def packets_bytes(self, start_pts: int, end_pts: int) -> int:
        """Bytes of the packets with start_pts <= PTS < end_pts; forgets every packet before end_pts."""

    def damaged_frames(self, start_pts: int, end_pts: int) -> int | None:
        """Frames with start_pts <= PTS < end_pts that are damaged, or refer to such; forgets those before end_pts.

        None where nobody can tell.
        """

    def close(self) -> None: ...


def open_reader(
    file: SafeFile,
    backend: Backend = "pyav",
    threads: int = 1,
    rendering: Rendering = STANDARD,
    *,
    hear: bool = False,
) -> Reader:
    """The reader of an open file; with `hear` it decodes the sound too. Raises SourceError."""
    if is_image(file):
        return ImageReader(file)
    if is_animated_webp(file):
        return AnimatedWebp(file)
    if backend == "decord":
        from stages.decode.decord_reader import DecordReader

        return DecordReader(file, threads, rendering, hear=hear)
    from stages.decode.pyav_reader import PyAVReader

    return PyAVReader(file, threads, rendering, hear=hear)
