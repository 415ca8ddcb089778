"""Test films with known truth: takes (real or drawn) joined by cuts, cross-fades and dips, written by PyAV.

A take is asked for its picture at a time, so one film can be written at any frame rate, or at uneven times.
Real takes come from the folder that `videos()` finds; drawn takes need nothing and are the same for one seed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, Protocol

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

TICKS = Fraction(1, 30000)  # time base of the films: whole ticks at 16, 24, 25, 30, 50 and 60 fps

# One-take stretches of the real files, (file, from second, to second), checked by eye.
REAL_TAKES = (
    ("one_take_press_480p.mp4", 0.0, 7.0),
    ("one_take_ride_2160p.mp4", 0.0, 4.0),
    ("handheld_kitchen_240p.mkv", 0.0, 8.5),
    ("cartoon_subtitles_watermark_360p.mp4", 1.0, 5.9),
    ("cartoon_subtitles_watermark_360p.mp4", 6.4, 9.8),
    ("trailer_many_cuts_480p.mp4", 4.4, 5.8),
    ("trailer_many_cuts_480p.mp4", 10.5, 11.8),
    ("trailer_many_cuts_480p.mp4", 17.4, 18.2),
    ("trailer_many_cuts_480p.mp4", 20.6, 21.7),
    ("trailer_many_cuts_480p.mp4", 24.0, 25.3),
)


class Take(Protocol):
    seconds: float  # how long it can run

    def picture(self, t: float, size: tuple[int, int]) -> np.ndarray:
        """(h, w, 3) uint8 BGR, `t` seconds after the take's start, for size (w, h)."""


@dataclass
class Footage:
    """A stretch of a real file; frames are held at the size first asked for."""

    path: Path
    start: float
    end: float
    _held: dict = field(default_factory=dict, repr=False)

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def picture(self, t: float, size: tuple[int, int]) -> np.ndarray:
        if size not in self._held:
            self._held[size] = self._read(size)
        times, frames = self._held[size]
        return frames[max(0, int(np.searchsorted(times, t + 1e-6, side="right")) - 1)]

    def _read(self, size):
        times, frames = [], []
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                if frame.time >= self.end:
                    break
                if frame.time >= self.start - 0.05:
                    times.append(frame.time - self.start)
                    frames.append(cv2.resize(frame.to_ndarray(format="bgr24"), size, interpolation=cv2.INTER_AREA))
        return np.array(times), frames


@dataclass
class Drawn:
    """A camera moving over a textured plane with a few shapes of its own, and sensor noise.

    `pan` is in picture widths per second, `zoom` the factor per second, `shake` in picture widths,
    `flicker` the amplitude of random exposure per frame, `flash` the seconds at which one or two frames are
    nearly white, `still` a plane without moving shapes.
    """

    seed: int
    seconds: float = 4.0
    pan: tuple[float, float] = (0.05, 0.0)
    zoom: float = 1.0
    shake: float = 0.0
    noise: float = 2.0
    flicker: float = 0.0
    flash: Sequence[float] = ()
    still: bool = False
    _plane: np.ndarray | None = field(default=None, repr=False)

    def picture(self, t: float, size: tuple[int, int]) -> np.ndarray:
        if self._plane is None:
            self._plane = _plane(self.seed)
        w, h = size
        side = self._plane.shape[0]
        scale = side / 4 / w * self.zoom ** (-t)  # plane pixels per picture pixel
        x = side / 2 + self.pan[0] * t * side / 4
        y = side / 2 + self.pan[1] * t * side / 4
        tick = np.random.default_rng((self.seed, round(t * 1000)))
        sway = self.shake * side / 4 * np.array([np.sin(7.1 * t + self.seed), np.cos(9.3 * t)])
        matrix = np.array([[scale, 0, x + sway[0] - w / 2 * scale], [0, scale, y + sway[1] - h / 2 * scale]])
        picture = cv2.warpAffine(
            self._plane,
            matrix,
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        if not self.still:
            self._shapes(picture, t)
        gain = 1 + self.flicker * tick.uniform(-1, 1)
        lift = 170 if any(0 <= t - at < 0.07 for at in self.flash) else 0
        noise = np.empty(picture.shape, np.float32)
        cv2.setRNGSeed((self.seed * 7919 + round(t * 1000)) % (1 << 31))
        cv2.randn(noise, 0, self.noise)
        return np.clip(picture * np.float32(gain) + lift + noise, 0, 255).astype(np.uint8)

    def _shapes(self, picture, t):
        h, w = picture.shape[:2]
        rng = np.random.default_rng((self.seed, 1))
        for _ in range(3):
            place, speed, radius = rng.uniform(0, 1, 2), rng.uniform(-0.25, 0.25, 2), rng.uniform(0.05, 0.14)
            colour = tuple(int(c) for c in rng.integers(20, 236, 3))
            at = np.abs((place + speed * t) % 2 - 1) * (w, h)
            cv2.circle(picture, (int(at[0]), int(at[1])), int(radius * w), colour, -1)


@lru_cache(maxsize=64)  # 3 MB each
def _plane(seed: int) -> np.ndarray:
    """(1024, 1024, 3) uint8 texture: five octaves of smooth noise about a colour of its own."""
    rng = np.random.default_rng(seed)
    plane = np.zeros((1024, 1024, 3), np.float32)
    for octave, weight in ((6, 50), (12, 40), (32, 25), (96, 14), (256, 8)):
        grain = rng.standard_normal((octave, octave, 3)).astype(np.float32)
        grain = 0.7 * grain.mean(axis=2, keepdims=True) * 1.7 + 0.5 * grain  # mostly luma, some colour
        plane += weight * cv2.resize(grain, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    return np.clip(plane + rng.uniform(70, 180) + rng.uniform(-25, 25, 3), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Join:
    """How one shot goes over into the next. `seconds` is the length of all blended frames without `hold`."""

    kind: Literal["cut", "fade", "black", "white"] = "cut"
    seconds: float = 0.0
    hold: float = 0.0  # time fully black or white, for a dip


@dataclass
class Truth:
    """What was composed. `pts` of every frame in `time_base`; `shot` of every frame, -1 inside a
    transition.
    """

    path: Path
    time_base: Fraction
    pts: list[int]
    shot: list[int]

    @property
    def cuts(self) -> list[int]:
        """PTS of the first frame of each shot that begins with a hard cut."""
        pairs = zip(self.shot, self.shot[1:], self.pts[1:], strict=False)
        return [pts for before, after, pts in pairs if before != after and before >= 0 and after >= 0]

    @property
    def fades(self) -> list[tuple[int, int]]:
        """(PTS of the first blended frame, PTS of the first clean frame after) of each transition."""
        out, start = [], None
        for pts, shot in zip(self.pts, self.shot, strict=True):
            if shot < 0 and start is None:
                start = pts
            elif shot >= 0 and start is not None:
                out.append((start, pts))
                start = None
        return out

    def index(self, pts: int) -> int:
        """The number of the frame at or after `pts`."""
        return int(np.searchsorted(self.pts, pts))


def compose(
    path: Path,
    shots: Sequence[Take | tuple[Take, float, float]],
    joins: Sequence[Join] | Join = Join(),
    fps: float | Fraction = 24,
    size: tuple[int, int] = (256, 144),
    *,
    uneven: int | None = None,
    crf: int = 23,
) -> Truth:
    """Write `shots` one after another as an H.264 film and return its truth.

    A shot is a take, or (take, from second, to second). One join for all, or one between each two shots; its
    blended frames come out of the shots on both sides. `uneven` seeds a variable frame rate: frame times at
    0.4 to 1.6 of the even distance, one in twelve with a pause of three frames.
    """
    spans = [shot if isinstance(shot, tuple) else (shot, 0.0, shot.seconds) for shot in shots]
    joins = [joins] * (len(spans) - 1) if isinstance(joins, Join) else list(joins)
    if len(joins) != len(spans) - 1:
        raise ValueError(f"{len(spans)} shots need {len(spans) - 1} joins, not {len(joins)}")
    for k, (_, begin, end) in enumerate(spans):
        taken = sum(_share(join) for join in joins[max(0, k - 1) : k + 1])
        if end - begin < taken:
            raise ValueError(f"shot {k} of {end - begin:.2f} s is shorter than its joins, {taken:.2f} s")
    starts, clock = [], 0.0
    for i, (_, begin, end) in enumerate(spans):
        starts.append(clock)
        clock += end - begin
        if i < len(joins):
            clock += joins[i].hold if joins[i].kind in ("black", "white") else 0.0
            clock -= joins[i].seconds if joins[i].kind == "fade" else 0.0
    film = _Film(spans, joins, starts)
    ticks = _ticks(clock, Fraction(fps), uneven)
    labels: list[int] = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = TICKS
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "threads": "1"}
        to_yuv = VideoReformatter()  # one for all frames: a frame sets up one of its own
        for tick in ticks:
            picture, label = film.at(float(tick * TICKS), size)
            labels.append(label)
            frame = to_yuv.reformat(av.VideoFrame.from_ndarray(picture, format="bgr24"), format="yuv420p", threads=1)
            frame.pts, frame.time_base = tick, TICKS
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        time_base = stream.time_base
    pts = [round(tick * TICKS / time_base) for tick in ticks]
    return Truth(Path(path), time_base, pts, labels)


@dataclass
class _Film:
    spans: list
    joins: list[Join]
    starts: list[float]

    def at(self, t: float, size: tuple[int, int]) -> tuple[np.ndarray, int]:
        """The picture at `t` and its shot, -1 where it is blended."""
        i = max(k for k, start in enumerate(self.starts) if t >= start - 1e-6)
        join = self.joins[i - 1] if i > 0 else Join()
        into = t - self.starts[i]
        if join.kind == "fade" and 1e-6 < into < join.seconds - 1e-6:
            a = into / join.seconds
            return _mix(self._shot(i - 1, t, size), self._shot(i, t, size), a), -1
        if join.kind in ("black", "white") and into < join.seconds / 2 - 1e-6:
            return _mix(_flat(join.kind, size), self._shot(i, t, size), max(0.0, into) / (join.seconds / 2)), -1
        if i < len(self.joins) and self.joins[i].kind in ("black", "white"):
            after = self.joins[i]
            end = self.starts[i] + self.spans[i][2] - self.spans[i][1]
            a = (t - (end - after.seconds / 2)) / max(after.seconds / 2, 1e-9)
            if a > 1e-6 or t >= end - 1e-6:
                return _mix(self._shot(i, t, size), _flat(after.kind, size), min(1.0, a)), -1
        if join.kind == "fade" and into <= 1e-6:
            return self._shot(i - 1, t, size), i - 1  # nothing of the next shot is seen yet
        return self._shot(i, t, size), i

    def _shot(self, i, t, size):
        take, begin, _ = self.spans[i]
        return take.picture(begin + t - self.starts[i], size)


def _ticks(seconds: float, fps: Fraction, uneven: int | None) -> list[int]:
    step = 1 / fps / TICKS
    if uneven is None:
        count = int(Fraction(seconds).limit_denominator(10**6) * fps + Fraction(1, 1000))
        return [round(k * step) for k in range(count)]
    rng, ticks, at = np.random.default_rng(uneven), [], 0.0
    while at * TICKS < seconds - float(1 / fps) / 2:
        ticks.append(int(at))
        at += float(step) * (3 if rng.random() < 1 / 12 else rng.uniform(0.4, 1.6))
    return ticks


def _share(join: Join) -> float:
    """The seconds that a join blends of the shot on either side."""
    return join.seconds if join.kind == "fade" else join.seconds / 2


def _mix(first: np.ndarray, second: np.ndarray, a: float) -> np.ndarray:
    return cv2.addWeighted(first, 1 - a, second, a, 0)


def _flat(kind: str, size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), 0 if kind == "black" else 255, np.uint8)


def videos() -> Path | None:
    """The folder of real videos: $CLIPMILL_VIDEOS, else ../shared/videos beside the repository, else None."""
    root = os.environ.get("CLIPMILL_VIDEOS")
    folder = Path(root) if root else Path(__file__).resolve().parents[2] / "shared" / "videos"
    return folder if folder.is_dir() else None


@cache
def real_takes() -> tuple[Footage, ...]:
    """The one-take stretches of the real files that are there; decoded once for each size."""
    folder = videos()
    if folder is None:
        return ()
    return tuple(Footage(folder / n, a, b) for n, a, b in REAL_TAKES if (folder / n).exists())
