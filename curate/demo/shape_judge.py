"""Measures from its pixels what a clip of one moving shape shows: colour, shape and direction.

No network is involved. The ground is the colour of most of the picture. The share of a pixel that the shape covers
follows from how far its colour is between the ground's and the shape's. The shape is the outline that, drawn at the
same size and place, is nearest to that coverage; the direction is that of the middle of the coverage over time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np

from curate.demo.shapes import DIRECTIONS, PALETTE, SHAPES, Subject, polygon_coverage, shape_corners

LEAST_CONTRAST = 24.0  # least difference of shape and ground in grey levels (root of the summed squares)
LEAST_AREA, MOST_AREA = 0.01, 0.4  # of the shape, as shares of the picture
LEAST_DISTANCE = 0.06  # that a moving shape moves, as a share of the picture's side
LEAST_COVERAGE = 0.08  # less is noise of the ground
DENOISING = 1 / 80  # standard deviation of the blur against noise, as a share of the picture's side
BLURS = (0.0, 0.02, 0.04, 0.06)  # that outlines are tried with, as shares of the picture's side
SCALES = (0.93, 1.0, 1.08)  # that outlines are tried with, as factors of the size that follows from the area


@dataclass(frozen=True)
class Seen:
    """What a clip shows, in words of curate.demo.shapes; '' if nothing stands out, or nothing moves."""

    colour: str = ""
    shape: str = ""
    direction: str = ""

    def right(self, wanted: Subject) -> dict[str, bool]:
        """Which of the three are as in `wanted`."""
        return {each.name: getattr(self, each.name) == getattr(wanted, each.name) for each in fields(self)}


def judge(video: np.ndarray) -> Seen:
    """What a video (T, side, side, 3) uint8 RGB of one shape on a plain ground shows. ValueError for another shape."""
    if video.ndim != 4 or video.shape[3] != 3 or video.shape[1] != video.shape[2]:
        raise ValueError(f"a video of shape {video.shape}: the judge takes (T, side, side, 3)")
    pixels = video.astype(np.float32)
    ground = np.median(pixels, axis=(1, 2), keepdims=True)  # (T, 1, 1, 3): a shape covers less than half of a frame
    away = pixels - ground
    distance = np.sqrt((away**2).sum(-1))
    colour = _shape_colour(away, distance)
    if colour is None:
        return Seen()
    # The projection on the line from ground to shape removes noise in other directions of colour.
    share = (away @ colour) / (colour @ colour)
    coverage = np.clip([cv2.GaussianBlur(each, (0, 0), DENOISING * len(each)) for each in share], 0, 1)
    coverage = np.where(coverage < LEAST_COVERAGE, 0, coverage)
    areas = coverage.sum((1, 2))
    seen = (areas > LEAST_AREA * coverage[0].size) & (areas < MOST_AREA * coverage[0].size)
    if not seen.any():
        return Seen()
    said = _nearest_colour(colour + np.median(ground, axis=0)[0, 0])
    middles = np.array([_middle(each) for each in coverage])
    return Seen(said, _shape(coverage[seen], middles[seen], areas[seen]), _direction(middles, seen, video.shape[1]))


def _shape_colour(away: np.ndarray, distance: np.ndarray) -> np.ndarray | None:
    """(3,) float32, the shape's colour minus its ground's: the median of the pixels farthest from the ground.

    None if nothing stands out.
    """
    strong = np.quantile(distance.reshape(len(distance), -1), 0.985, axis=1)
    level = float(np.median(strong))
    if level < LEAST_CONTRAST:
        return None
    return np.median(away[distance >= 0.8 * level], axis=0)


def _nearest_colour(colour: np.ndarray) -> str:
    """The name of the nearest colour. Lightness weighs less: a colour that is paler or darker is still that colour."""
    shown = _lab(colour)
    weights = np.array([0.4, 1.0, 1.0], np.float32)
    return min(PALETTE, key=lambda name: float((((_lab(np.array(PALETTE[name])) - shown) * weights) ** 2).sum()))


def _lab(colour: np.ndarray) -> np.ndarray:
    """(3,) CIE L*a*b* of RGB in 0 to 255."""
    pixel = np.clip(colour, 0, 255).astype(np.float32).reshape(1, 1, 3) / 255
    return cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB)[0, 0]


def _middle(coverage: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of the coverage, in pixels from the picture's corner."""
    total = max(float(coverage.sum()), 1e-6)
    ys, xs = np.arange(coverage.shape[0]) + 0.5, np.arange(coverage.shape[1]) + 0.5
    return float((coverage.sum(0) * xs).sum() / total), float((coverage.sum(1) * ys).sum() / total)


def _shape(coverage: np.ndarray, middles: np.ndarray, areas: np.ndarray) -> str:
    """The name of the outline that is nearest to the mean of all frames, with the shape moved to the middle of each,
    at the best of some sizes and blurs.
    """
    side, size = coverage.shape[1], float(np.sqrt(np.median(areas)))
    moved = [_moved(each, side / 2 - middle) for each, middle in zip(coverage, middles, strict=True)]
    found = np.mean(moved, axis=0)

    def error(shape: str, scale: float, blur: float) -> float:
        corners = shape_corners(shape, size * scale) + side / 2
        drawn = polygon_coverage(corners, side)
        drawn = _moved(drawn, side / 2 - np.array(_middle(drawn)))
        drawn = cv2.GaussianBlur(drawn, (0, 0), float(np.hypot(DENOISING, blur)) * side)
        drawn = drawn * float((drawn * found).sum() / (drawn * drawn).sum())
        return float(((drawn - found) ** 2).sum())

    def least(shape: str) -> float:
        return min(error(shape, scale, blur) for scale in SCALES for blur in BLURS)

    return min(SHAPES, key=least)


def _moved(picture: np.ndarray, way: np.ndarray) -> np.ndarray:
    """The picture moved by (x, y) pixels, with linear interpolation."""
    place = np.array([[1, 0, way[0]], [0, 1, way[1]]], np.float32)
    return cv2.warpAffine(picture, place, picture.shape[::-1], flags=cv2.INTER_LINEAR)


def _direction(middles: np.ndarray, seen: np.ndarray, side: int) -> str:
    """The direction of the line through the middles over time (least squares)."""
    times = np.flatnonzero(seen)
    if len(times) < 2:
        return ""
    rates = np.polyfit(times, middles[seen], 1)[0]  # (2,) pixels a frame
    way = rates * (times[-1] - times[0])
    if float(np.abs(way).max()) < LEAST_DISTANCE * side:
        return ""
    return max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], way)))
