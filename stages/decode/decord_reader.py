"""Reads a video with decord (optional): pixels by decord, header and exact PTS by PyAV.

decord opens a path by itself and without the limits of `stages.decode.containers`. So it is given only containers
whose first bytes rule out a playlist, by /proc/self/fd of a descriptor that is open already, or by a temporary copy
of a remote source. It deadlocks on files that state more frames than they have: run it only inside
`stages.decode.child`. Its colours are swscale's: BT.601 whatever the file states. It neither tone-maps nor
deinterlaces, and refuses what would need it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator

import cv2

from stages.decode.audio_track import AudioTrack
from stages.decode.display import Display
from stages.decode.picture_frame import PictureFrame
from stages.decode.pyav_reader import FALLBACK_FPS, PyAVReader
from stages.decode.reading import SafeFile
from stages.decode.rendering import STANDARD, Rendering
from stages.decode.timeline import shortfall
from stages.frames import SourceError

try:
    import decord
except ImportError as error:
    raise ImportError("this needs the package decord: pip install 'clipmill[decord]'") from error


class DecordReader:
    """Iterates once over the frames of a video (see `readers.Reader`). Raises SourceError for what can't be decoded.

    The frames' times are the sorted PTS of the packets, which one demuxing pass reads beforehand.
    """

    def __init__(self, file: SafeFile, threads: int = 1, rendering: Rendering = STANDARD, *, hear: bool = False):
        self.left_out = 0
        self.frames = 0
        self.decode_errors = 0
        self.disordered = None
        _must_be_binary_container(file)
        self._packets = PyAVReader(file, hear=hear)
        self.info = self._packets.info
        self._copy = None
        if self._packets.turned:
            self.close()
            raise SourceError("decord shows turned videos wrongly: use the pyav backend")
        if self.info.video_streams > 1:
            self.close()
            raise SourceError("decord may choose another of the video streams: use the pyav backend")
        if self.info.hdr and rendering.hdr != "leave":
            self.close()
            raise SourceError("decord can't bring HDR to standard range: use the pyav backend, or hdr: leave")
        if self.has_interlaced and rendering.deinterlace == "auto":
            self.close()
            raise SourceError("decord can't deinterlace: use the pyav backend, or deinterlace: off")
        try:
            self._pts = sorted(set(self._packets.demuxed_pts()))
            if file.local_descriptor is not None:
                path = f"/proc/self/fd/{file.local_descriptor}"
            else:
                self._copy = tempfile.NamedTemporaryFile(suffix=".video")  # noqa: SIM115 (closed by close)
                file.seek(0)
                shutil.copyfileobj(file, self._copy, 2**20)
                self._copy.flush()
                path = self._copy.name
            self._video = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=threads)
        except (decord.DECORDError, RuntimeError) as error:
            self.close()
            raise SourceError(f"decord can't open it: {_first_line(error)}") from error
        except BaseException:
            self.close()
            raise
        if len(self._video) != len(self._pts):
            self.close()
            raise SourceError(f"decord counts {len(self._video)} frames, the container {len(self._pts)}")

    def __iter__(self) -> Iterator[PictureFrame]:
        tick = float(self.info.time_base)
        display: Display | None = None
        for pts in self._pts:
            try:
                rgb = self._video.next().asnumpy()
            except StopIteration:
                return
            except decord.DECORDError:  # it can't go on after an error
                self.decode_errors += 1
                return
            if rgb.ndim != 3 or rgb.shape[2] != 3:  # of a video 2 pixels wide it makes rows of bytes
                raise SourceError(f"decord gives a picture of the shape {rgb.shape}: use the pyav backend")
            pixels = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            if display is None:
                height, width = pixels.shape[:2]
                display = Display(self.info.width, self.info.height, 0, False, width, height)
            self.frames += 1
            yield PictureFrame(pixels, pts, pts * tick, display)

    @property
    def audio(self) -> AudioTrack | None:
        return self._packets.audio

    @property
    def field_order(self) -> str | None:
        """As the header and the first frame say."""
        return self._packets.field_order

    @property
    def has_interlaced(self) -> bool:
        """Whether the first frame is."""
        return self._packets.has_interlaced

    @property
    def last_end_pts(self) -> int | None:
        """PTS at which the last frame so far ends, by the step before it."""
        if not self.frames:
            return None
        last = self._pts[self.frames - 1]
        if self.frames > 1:
            return 2 * last - self._pts[self.frames - 2]
        return last + max(1, round(1 / ((self.info.fps or FALLBACK_FPS) * self.info.time_base)))

    @property
    def truncated(self) -> str | None:
        """After the iteration: a line when clearly less was decoded than the header states, else None."""
        end = self.last_end_pts
        if end is None:
            return "no frame decoded"
        decoded = float((end - self._pts[0]) * self.info.time_base)
        return shortfall(decoded, self.info.duration_s)

    def packets_bytes(self, start_pts: int, end_pts: int) -> int:
        """Bytes of the packets with start_pts <= PTS < end_pts; forgets every packet before end_pts."""
        return self._packets.packets_bytes(start_pts, end_pts)

    def damaged_frames(self, start_pts: int, end_pts: int) -> None:
        """None: decord does not tell."""

    def close(self) -> None:
        self._video = None
        self._packets.close()
        if self._copy is not None:
            self._copy.close()


def _must_be_binary_container(file: SafeFile) -> None:
    """MP4/MOV, Matroska/WebM or AVI by their first bytes, none of which any playlist can begin with."""
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    boxes = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
    is_mp4 = head[:1] == b"\0" and head[4:8] in boxes
    if not (is_mp4 or head.startswith(b"\x1aE\xdf\xa3") or (head[:4] == b"RIFF" and head[8:] == b"AVI ")):
        raise SourceError("the decord backend takes MP4, MOV, Matroska, WebM and AVI only")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = re.sub(
        r"^\[[\d:]+\] \S+: (Error: )?",
        "",
        lines[0].strip(),
        # without the time of day, and a path of the machine that built decord
    )
    return re.sub(r"/proc/self/fd/\d+\W*", "the file", said)[:200]
