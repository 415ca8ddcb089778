"""Planted duplicates with known truth: copies of films, and how many of them a judgement finds.

A copy keeps the time of the film it is of, so which clips show the same is known without looking at a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import cv2

MOSTLY = 0.5  # of the shorter of two clips: what they have to share to count as duplicates


@dataclass(frozen=True)
class Change:
    """What a copy does to a film. `scale` is of its sides; `start` and `end` are seconds of what is taken."""

    crf: int = 26
    scale: float = 1.0
    gain: float = 1.0
    lift: float = 0.0  # grey levels
    start: float = 0.0
    end: float = float("inf")
    codec: str = "libx264"


QUALITIES = {
    "fine": Change(crf=20),
    "middling": Change(crf=32, scale=0.5),
    "poor": Change(crf=40, scale=0.4),
}
COPIES = QUALITIES | {
    "brighter": Change(gain=1.1, lift=18),
    "darker": Change(gain=0.75, lift=-5),
    "mpeg4": Change(codec="mpeg4", scale=0.75),
    "without its first seconds": Change(crf=30, start=1.13),
    "its middle": Change(crf=30, start=1.37, end=4.61, scale=0.5),
}


@dataclass(frozen=True)
class Shown:
    """What a clip shows: seconds of a film."""

    film: str
    start: float
    end: float


def write_copy(film: Path, path: Path, change: Change) -> float | None:
    """Writes a copy and returns how many seconds of the film come before its first frame; None where there
    is none to copy.
    """
    first = None
    with av.open(str(film)) as original, av.open(str(path), "w") as container:
        given = original.streams.video[0]
        rate = Fraction(given.average_rate).limit_denominator(1000)
        stream = None
        for frame in original.decode(given):
            if not change.start <= frame.time < change.end:
                continue
            size = [max(2, int(side * change.scale) // 2 * 2) for side in (frame.width, frame.height)]
            picture = frame.reformat(width=size[0], height=size[1], format="bgr24").to_ndarray()
            if change.gain != 1 or change.lift:
                picture = cv2.convertScaleAbs(cv2.max(picture * change.gain + change.lift, 0))
            if first is None:
                first = frame.time
                stream = container.add_stream(change.codec, rate=rate)
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                quality = {"crf": str(change.crf), "preset": "veryfast"} if change.codec == "libx264" else {}
                stream.options = {"threads": "1", "b": "600k"} | quality
                stream.codec_context.time_base = Fraction(1, 1000)
            made = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
            made.pts, made.time_base = round((frame.time - first) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(made))
        if stream is not None:
            container.mux(stream.encode(None))
    if first is None:
        path.unlink(missing_ok=True)
    return first


def plant(films: Iterable[Path], folder: Path, changes: Mapping[str, Change]) -> dict[str, tuple[str, float]]:
    """Writes every copy of every film; (film, seconds before its first frame) of every file's name."""
    films = list(films)
    truth = {film.name: (film.name, 0.0) for film in films}
    for film in films:
        for name, change in changes.items():
            path = folder / f"{film.stem} {name}.{'avi' if change.codec == 'mpeg4' else 'mp4'}"
            before = write_copy(film, path, change)
            if before is not None:
                truth[path.name] = (film.name, before)
    return truth


@dataclass
class Found:
    """Pairs of clips: planted ones, found ones among them, and pairs that were said to be duplicates and are not."""

    planted: int = 0
    found: int = 0
    false: int = 0

    @property
    def recall(self) -> float:
        return self.found / max(1, self.planted)

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.false)


def compare(clusters: Mapping[str, str], shown: Mapping[str, Shown]) -> Found:
    """`clusters` is the cluster of each clip, `shown` what it shows. Pairs that share less than most of the
    shorter clip, but something, are neither wanted nor wrong.
    """
    result = Found()
    for one, other in combinations(sorted(shown), 2):
        a, b = shown[one], shown[other]
        both = min(a.end, b.end) - max(a.start, b.start) if a.film == b.film else -1.0
        together = clusters[one] == clusters[other]
        if both >= MOSTLY * min(a.end - a.start, b.end - b.start):
            result.planted += 1
            result.found += together
        elif both <= 0:
            result.false += together
    return result


def shown_by(sql: Any, truth: Mapping[str, tuple[str, float]]) -> dict[str, Shown]:
    """What every kept clip of a catalog shows."""
    rows = sql.execute(
        "SELECT clip_id, parse_filename(uri), start_s, end_s FROM clips WHERE media = 'video' AND verdict = 'kept'"
    ).fetchall()
    return {
        clip: Shown(truth[name][0], start + truth[name][1], end + truth[name][1]) for clip, name, start, end in rows
    }
