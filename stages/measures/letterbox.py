"""Letterbox: the black border of a clip, as the box to crop to and as a share of its area."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np

from stages.base import Column
from stages.frames import Sample
from stages.measures.base import ClipFacts, Measure, Timed

STRIPS = 16  # the picture is cut in so many strips, to tell a text in the border from the picture's edge
BLACK = 28.0  # luma up to which an outermost row may be border (16 is what unmarked limited range leaves)
ABOVE = 4.0  # luma above the border's own level at which a row is no longer border
CONTRAST = 6.0  # least luma between border and picture that makes an edge certain
STRONG = 25.0  # the same where no border on the other side confirms it
DARK = 24.0  # luma; clips that stay darker in every row say nothing, nor do darker ones without an edge
RISE = 0.4  # share of the contrast that an edge reaches at once
FLAT = 0.25  # of which the border just outside has at most this share
FULL = 0.8  # share of the strips that must be lit just inside a true edge: a line of text is shorter
TALLEST = 0.15  # share of a side that one block of text in the border may take
DEEPEST = 0.45  # a border takes at most this share of a side


class BorderProfile(NamedTuple):
    """What one sample, or the maximum of several, shows of its borders. All luma, 0-255."""

    rows: np.ndarray  # (H,) float32, means of the full-size rows
    columns: np.ndarray  # (W,) float32
    row_strips: np.ndarray  # (STRIPS, h) uint8, means of each row within vertical strips, at sample size
    column_strips: np.ndarray  # (STRIPS, w) uint8


class Letterbox(Measure):
    """Finds black bars above, below, left and right, from the brightest that each row and column ever gets.

    A bar is a run of rows, from the outside, at one black level; it ends at an edge that is sharp and
    nearly as wide as the picture. Subtitles and logos in a bar are islands that black rows surround. Dark
    scenes have no such edge, and a fade is bright somewhere. (ffmpeg's cropdetect looks at the same row
    means, alone.) All columns are None where the clip is too dark to tell.
    """

    name = "letterbox"
    version = 2
    columns: ClassVar[dict[str, Column]] = {
        "letterbox": Column(
            "double", "area under black bars", "share of the area, 0-1", also=("bars", "black_bars", "borders")
        ),
        "crop_x": Column("int64", "left edge of the picture inside the bars", "px, even"),
        "crop_y": Column("int64", "top edge of the picture inside the bars", "px, even"),
        "crop_w": Column("int64", "width of the picture inside the bars", "px, even"),
        "crop_h": Column("int64", "height of the picture inside the bars", "px, even"),
    }
    unknown = "the clip is too dark to tell"
    most_kept = 240

    def observe(self, sample: Sample, previous: Sample | None) -> BorderProfile:
        row_strips = strip_means(sample.gray, 1)
        column_strips = strip_means(sample.gray, 0)
        return BorderProfile(sample.row_luma, sample.column_luma, row_strips, column_strips)

    def merge(self, earlier: BorderProfile, later: BorderProfile) -> BorderProfile:
        if any(a.shape != b.shape for a, b in zip(earlier, later, strict=True)):
            return later  # the picture changed its size in the middle of the stream
        return BorderProfile(*map(np.maximum, earlier, later))

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        if not values:
            return dict.fromkeys(self.columns)
        brightest = values[0][1]
        for _, seen in values[1:]:
            brightest = self.merge(brightest, seen)
        if max(brightest.rows.max(), brightest.columns.max()) < DARK:
            return dict.fromkeys(self.columns)
        top, bottom = borders(brightest.rows, brightest.row_strips)
        left, right = borders(brightest.columns, brightest.column_strips)
        if not (top or bottom or left or right) and brightest.rows.mean() < DARK:
            return dict.fromkeys(self.columns)  # a title on black: its border may be anywhere
        coded_w, coded_h = len(brightest.columns), len(brightest.rows)
        share = 1.0 - (coded_w - left - right) * (coded_h - top - bottom) / (coded_w * coded_h)
        x, crop_w = _even(left, right, coded_w, clip.width)
        y, crop_h = _even(top, bottom, coded_h, clip.height)
        return dict(zip(self.columns, (share, x, y, crop_w, crop_h), strict=True))


@dataclass(frozen=True)
class _Edge:
    depth: int  # rows of border
    contrast: float  # luma between border and picture


def strip_means(gray: np.ndarray, axis: int) -> np.ndarray:
    """(STRIPS, n) uint8: means along the axis within so many strips, of each of the n lines across it."""
    length = gray.shape[axis]
    if length < STRIPS:
        gray, length = np.repeat(gray, STRIPS, axis), STRIPS * length
    if axis == 1 and length % STRIPS == 0:  # strips of one width: the pieces of all lines are lines themselves
        pieces = np.ascontiguousarray(gray).reshape(-1, length // STRIPS)
        return cv2.reduce(pieces, 1, cv2.REDUCE_AVG).reshape(-1, STRIPS).T
    ends = [round(k * length / STRIPS) for k in range(STRIPS + 1)]
    parts = (gray[a:b] if axis == 0 else gray[:, a:b] for a, b in pairwise(ends))
    return np.array([cv2.reduce(part, axis, cv2.REDUCE_AVG).ravel() for part in parts])


def borders(profile: np.ndarray, strips: np.ndarray) -> tuple[int, int]:
    """How many rows at start and end are border. `profile` (n,) are row means, `strips` (STRIPS, m)."""
    start = _edges(profile, strips)
    end = _edges(profile[::-1], strips[:, ::-1])
    alike = max(2.0, 0.01 * len(profile))
    pairs = [(a, b) for a in start for b in end if abs(a.depth - b.depth) <= alike]
    if pairs:  # the same on both sides: certain
        a, b = max(pairs, key=lambda pair: pair[0].depth)
        return a.depth, b.depth
    return _strongest(start), _strongest(end)


def _strongest(edges: list[_Edge]) -> int:
    """The innermost edge that needs no confirmation from the other side."""
    return max((edge.depth for edge in edges if edge.contrast >= STRONG), default=0)


def _edges(profile: np.ndarray, strips: np.ndarray) -> list[_Edge]:
    """All places where a border that begins at index 0 may end, outermost first."""
    n = len(profile)
    deepest = int(n * DEEPEST)
    level = float(profile[: max(2, n // 200)].min())
    if level > BLACK or deepest < 4:
        return []
    within = max(4, n // 20)  # the picture just inside an edge is judged on so many rows
    scale = strips.shape[1] / n
    lit = strips.astype(np.float32) > level + ABOVE + 2
    active = lit.any(axis=1)  # strips that hold any picture: the others are pillars
    dark = profile[:deepest] <= level + ABOVE
    edges = []
    at = 0
    while at < deepest:
        run = _run_length(dark[at:])
        if run < (2 if at == 0 else max(2, n // 200)) or at + run >= deepest:
            break
        edge, contrast = _edge_near(profile - level, at + run, within)
        first = int(np.ceil((edge + 1) * scale))
        rows = slice(first, max(int((edge + within) * scale), first + 2))
        full = lit[active, rows].any(axis=1).mean() if active.any() else 0.0
        if contrast >= CONTRAST and full >= FULL:
            edges.append(_Edge(edge, contrast))
        # Go on behind an island: a few rows of which two strips are black throughout, then black rows again.
        island = _run_length(~dark[at + run :])
        seen = strips[active][:, int((at + run) * scale) : int(np.ceil((at + run + island) * scale))]
        if not seen.size or len(seen) < 3 or island > TALLEST * n:
            break
        if np.partition(seen, 1, axis=0)[1].max() > level + ABOVE + 2:
            break
        at += run + island
    return edges


def _edge_near(above: np.ndarray, start: int, within: int) -> tuple[int, float]:
    """Where the edge lies whose first bright row is `start`, and its contrast: 0 where it is no sharp edge.

    `above` (n,) is luma over black. Coarse quantisation smears an edge over some rows, but far less than the
    border is deep: light that falls off gradually is told by that.
    """
    smear = min(max(2, start // 4), max(3, len(above) // 60))
    inside = float(np.median(above[start + smear : start + smear + within]))
    outside, risen = above[max(0, start - 1 - smear)], above[start + smear]
    if risen < RISE * inside or outside > FLAT * risen:
        return start, 0.0
    bright = above[start : start + smear + 1] >= 0.35 * inside
    return start + int(np.argmax(bright)), inside


def _run_length(flags: np.ndarray) -> int:
    """How many leading flags are set."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def _even(before: int, after: int, coded: int, displayed: int) -> tuple[int, int]:
    """Start and length of the crop in display pixels, even and never outside the picture proper."""
    scale = displayed / coded  # 1, save for pixels that are not square
    first = int(np.ceil(before * scale))
    first += first % 2
    last = int((coded - after) * scale)
    length = max(0, last - first)
    return first, length - length % 2
