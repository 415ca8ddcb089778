"""Samples of the frames of a scan for the measures, and a bounded store of pictures for later stages."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from stages.decode.pictures import MadePicture
from stages.frames import SAMPLE_SECONDS, SAMPLE_SIDE, Frame, FrameRequest, Kept, Sample, Span

TRAIL_STEP_S = 1 / 12  # seconds between the frames of a trail, or a little more
_ROUNDING_S = 0.005  # containers round time stamps: 25 fps has steps of 0.080 s, not 0.0833 s
_GRID_ROUNDING_S = 0.001  # a frame stamped 0.4995 s is the one at 0.5 s
_TRAIL_KEEP_S = 0.5  # small frames older than this are dropped, unless the source has fewer than three in that time

_SPARES = 192  # small frames kept for clips that are too short to hold a picture

THUMBNAIL_SIDE = 320  # long side of a thumbnail, pixels
THUMBNAIL_QUALITY = 80  # JPEG, 0-100


class Sampler:
    """Takes a Sample every SAMPLE_SECONDS from the frames of a source, given in order.

    Samples are on a grid of PTS: the first frame at or after each k * SAMPLE_SECONDS from the first frame. A frame
    that is no sample costs a comparison and a reference to its small picture.
    """

    def __init__(self) -> None:
        self._origin: float | None = None
        self._slot = 0  # the next sample is the first frame at or after this slot of the grid
        self._recent: deque[tuple[float, np.ndarray]] = deque()  # (seconds, small BGR picture)

    def observe(self, frame: Frame) -> Sample | None:
        """The Sample of this frame, None where it is none. Keeps no buffer of the frame itself."""
        seconds = frame.seconds
        if self._origin is None:
            self._origin = seconds
        self._remember(seconds, frame.small)
        since_origin = seconds - self._origin + _GRID_ROUNDING_S
        if since_origin < self._slot * SAMPLE_SECONDS:
            return None
        self._slot = int(since_origin / SAMPLE_SECONDS) + 1
        return self._sample(frame)

    def _remember(self, seconds: float, small: np.ndarray) -> None:
        recent = self._recent
        if recent and seconds <= recent[-1][0]:
            recent.clear()  # time ran backwards: no trail across that
        recent.append((seconds, small))
        while len(recent) > 3 and recent[0][0] < seconds - _TRAIL_KEEP_S:
            recent.popleft()

    def _sample(self, frame: Frame) -> Sample:
        row_luma, column_luma = frame.luma_means()
        return Sample(
            pts=frame.pts,
            seconds=frame.seconds,
            small=frame.small,
            gray=frame.gray(SAMPLE_SIDE),
            row_luma=row_luma,
            column_luma=column_luma,
            trail=self._trail(),
        )

    def _trail(self) -> list[tuple[float, np.ndarray]]:
        """Up to three small gray frames, oldest first, each the newest at least TRAIL_STEP_S before the next."""
        chosen: list[tuple[float, np.ndarray]] = []
        for seconds, small in reversed(self._recent):
            if not chosen or seconds <= chosen[-1][0] - TRAIL_STEP_S + _ROUNDING_S:
                chosen.append((seconds, cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)))
            if len(chosen) == 3:
                break
        return chosen[::-1]


class Candidates:
    """A bounded store of pictures from which a clip's frames are taken once its span is known.

    It is offered every frame (or only the samples) and keeps one per `interval_s`, `capacity` in all. When it is full,
    it drops the picture, of those older than `recent_s`, whose neighbours are closest together. So memory does not
    grow with a scene's length, and the newest pictures stay dense, because a cut among them may not be known yet. If
    clips are closed when they are complete, a picture is found within 4 % of the length of a clip of three seconds or
    more from any position (8 % with `interval_s` 0.5). Small frames, which exist anyway, are kept in between: one of
    them stands for a clip that is too short to hold a picture.
    """

    def __init__(self, long_side: int, capacity: int = 48, interval_s: float = 0.25, recent_s: float = 4.0):
        self.long_side = long_side
        self._capacity = capacity
        self._interval_s = interval_s
        self._recent_s = recent_s
        self._kept: list[tuple[float, Kept]] = []  # (seconds, picture to be made), in order of time
        self._spares: deque[tuple[float, np.ndarray]] = deque(maxlen=_SPARES)  # (seconds, small BGR picture)

    def __len__(self) -> int:
        return len(self._kept)

    def offer(self, frame: Frame) -> None:
        """Keeps the frame's picture if the last one is `interval_s` ago. A frame that isn't kept costs a comparison."""
        seconds = frame.seconds
        if self._kept and seconds < self._kept[-1][0] + self._interval_s - _GRID_ROUNDING_S:
            self._spares.append((seconds, frame.small))
            return
        self._kept.append((seconds, frame.kept(self.long_side)))
        if len(self._kept) > self._capacity:
            self._drop_one(seconds - self._recent_s)

    def take(self, span: Span, request: FrameRequest, *, spare: bool = False) -> list[tuple[float, np.ndarray]]:
        """For each position asked for the nearest kept frame inside the clip: (seconds, BGR (h, w, 3)).

        Empty where the clip holds no kept frame; with `spare` a small frame is taken then. Drops the pictures before
        the clip, but not those of the clip (see `forget`).
        """
        self.forget(span.start_s)
        end_s = max(span.end_s, span.start_s + 2e-6)  # an image has no length but its one frame
        inside = self._kept[: self._count_before(end_s)]
        if not inside and spare:
            inside = [(at, MadePicture(small)) for at, small in self._spares if at < end_s - 1e-6]
        if not inside:
            return []
        wanted = [span.start_s + share * (span.end_s - span.start_s) for share in request.positions]
        nearest = [_nearest(inside, at) for at in wanted]
        return [(seconds, shrink(picture.made(), request.long_side)) for seconds, picture in nearest]

    def forget(self, before_s: float) -> None:
        """Drops all pictures before that time."""
        del self._kept[: self._count_before(before_s)]
        while self._spares and self._spares[0][0] < before_s - 1e-6:
            self._spares.popleft()

    def _drop_one(self, recent_s: float) -> None:
        kept = self._kept
        old = range(1, max(2, min(self._count_before(recent_s), len(kept) - 1)))
        del kept[min(old, key=lambda i: kept[i + 1][0] - kept[i - 1][0])]

    def _count_before(self, seconds: float) -> int:
        return next((i for i, kept in enumerate(self._kept) if kept[0] >= seconds - 1e-6), len(self._kept))


def _nearest(pictures: list[tuple[float, Kept]], seconds: float) -> tuple[float, Kept]:
    return min(pictures, key=lambda picture: abs(picture[0] - seconds))


def shrink(picture: np.ndarray, long_side: int) -> np.ndarray:
    """The picture (h, w, 3) with at most that long side, area-averaged; never enlarged."""
    height, width = picture.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def encode_jpeg(picture: np.ndarray, long_side: int = THUMBNAIL_SIDE, quality: int = THUMBNAIL_QUALITY) -> bytes:
    """A JPEG of the BGR picture (h, w, 3) uint8, its long side at most `long_side`: a clip's thumbnail."""
    _, encoded = cv2.imencode(".jpg", shrink(picture, long_side), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()
