"""Draws scenes: one textured shape that moves over a textured ground, and titles.

Textures are sums of random grids at several scales, so that optical flow has something to follow, and cut detectors
see much difference between scenes and little between neighbouring frames, as in real video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {  # RGB
    "red": (214, 44, 38),
    "green": (52, 166, 70),
    "blue": (44, 84, 206),
    "yellow": (236, 204, 52),
    "purple": (140, 62, 170),
    "orange": (238, 130, 34),
    "white": (206, 206, 202),
    "grey": (122, 124, 126),
    "black": (14, 14, 16),
}
SHAPES = ("circle", "square", "triangle", "star")
MOVEMENTS = ("moving left", "moving right", "moving up", "moving down", "spinning", "growing", "shrinking")
TITLES = ("A SHORT FILM", "THE END", "PART TWO", "INTERMISSION")
GRAIN = 3.0  # standard deviation of the film grain, grey levels


@dataclass(frozen=True)
class Scene:
    """What a shot shows. `pan` moves the ground under the shape, in frame widths per second."""

    shape: str
    colour: str
    movement: str  # one of MOVEMENTS, or "standing still"
    ground: str
    seed: int
    pan: float = 0.0
    light: float = 1.0  # 1 is daylight, 0.03 is a lens cap
    grain: bool = True
    title: str = ""  # text laid over the picture

    @property
    def caption(self) -> str:
        words = f"{with_article(self.colour)} {self.shape} {self.movement} over {with_article(self.ground)} ground"
        return f'{words}, with the title "{self.title}"' if self.title else words


def with_article(words: str) -> str:
    """'a red circle', 'an orange square'."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


class Painter:
    """Draws one scene at one size. Its textures are made once; `frame` then costs about a millisecond."""

    def __init__(self, scene: Scene, width: int, height: int) -> None:
        self.scene, self.width, self.height = scene, width, height
        rng = np.random.default_rng(scene.seed)
        # The ground is wider than the frame, so that a pan has somewhere to go.
        self._ground = _textured(rng, COLOURS[scene.ground], width * 2, height, contrast=0.55)
        self._patch, self._alpha = _shape_patch(rng, scene, side=height // 2)
        if scene.title:
            self._letters = _letters(scene.title, width, height)
        self._grain = rng.normal(0, GRAIN, (4, height, width, 1)).astype(np.float32)

    def frame(self, progress: float, seconds: float, index: int) -> np.ndarray:
        """(height, width, 3) float32 RGB at `progress` (0 to 1) of the shot, `seconds` from its start."""
        offset = min(self.scene.pan * seconds, 1.0) * self.width
        picture = _shifted(self._ground, offset, self.width)
        self._lay_shape(picture, progress)
        if self.scene.title:
            picture *= 1 - self._letters[..., 1:]
            picture += self._letters[..., :1]
        picture *= self.scene.light
        if self.scene.grain:
            picture += self._grain[index % len(self._grain)]
        return picture

    def _lay_shape(self, picture: np.ndarray, progress: float) -> None:
        x, y, angle, scale = _pose(self.scene.movement, progress)
        half = self._patch.shape[0] / 2
        # From patch pixels to frame pixels: rotate and scale around the patch's middle, then move it to (x, y).
        place = cv2.getRotationMatrix2D((half, half), angle, scale)
        place[:, 2] += (x * self.width - half, y * self.height - half)
        size = (self.width, self.height)
        patch = cv2.warpAffine(self._patch, place, size, flags=cv2.INTER_LINEAR)
        alpha = cv2.warpAffine(self._alpha, place, size, flags=cv2.INTER_LINEAR)[..., None]
        picture *= 1 - alpha
        picture += patch * alpha


def _pose(movement: str, progress: float) -> tuple[float, float, float, float]:
    """Centre (shares of the frame), angle in degrees and scale of the shape at `progress` of its shot."""
    there, back = 0.22 + 0.56 * progress, 0.78 - 0.56 * progress
    match movement:
        case "moving left":
            return back, 0.5, 0.0, 1.0
        case "moving right":
            return there, 0.5, 0.0, 1.0
        case "moving up":
            return 0.5, back, 0.0, 1.0
        case "moving down":
            return 0.5, there, 0.0, 1.0
        case "spinning":
            return 0.5, 0.5, 300.0 * progress, 1.2
        case "growing":
            return 0.5, 0.5, 0.0, 0.5 + 1.2 * progress
        case "shrinking":
            return 0.5, 0.5, 0.0, 1.7 - 1.2 * progress
    return 0.5, 0.5, 0.0, 1.0


def _textured(
    rng: np.random.Generator, colour: tuple[int, int, int], width: int, height: int, contrast: float
) -> np.ndarray:
    """(height, width, 3) float32: the colour, lighter and darker by random grids of 4 to 64 cells across."""
    relief = np.zeros((height, width), np.float32)
    for cells in (4, 9, 20, 64):
        grid = rng.uniform(-1, 1, (max(2, cells * height // width), cells)).astype(np.float32)
        enlarged = np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
        relief += enlarged / math.sqrt(cells)
    relief *= contrast / (np.abs(relief).max() + 1e-6)
    tint = np.array(colour, np.float32) * (1 + relief[..., None]) + 60 * relief[..., None]
    return np.clip(tint, 0, 255)


def _shape_patch(rng: np.random.Generator, scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The shape's colours (side, side, 3) and its coverage (side, side), float32, coverage 0 to 1."""
    mask = np.zeros((side * 4, side * 4), np.uint8)  # drawn four times as large: smooth edges after resizing
    corners = np.array(outline(scene.shape)) * (side * 4 * 0.46) + side * 2
    cv2.fillPoly(mask, [corners.round().astype(np.int32)], 255)
    alpha = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return _textured(rng, COLOURS[scene.colour], side, side, contrast=0.45), alpha


def outline(shape: str) -> list[tuple[float, float]]:
    """Corners (x, y) of the shape in a circle of radius one."""
    corners = {"circle": 64, "square": 4, "triangle": 3, "star": 10}[shape]
    start = -math.pi / 4 if shape == "square" else -math.pi / 2
    radii = [1.0, 0.45] if shape == "star" else [1.0, 1.0]
    angles = [start + 2 * math.pi * i / corners for i in range(corners)]
    return [(radii[i % 2] * math.cos(a), radii[i % 2] * math.sin(a)) for i, a in enumerate(angles)]


def _shifted(ground: np.ndarray, offset: float, width: int) -> np.ndarray:
    """A window of the ground that starts `offset` pixels from its left edge, interpolated between pixels."""
    whole, part = int(offset), offset - int(offset)
    left = ground[:, whole : whole + width]
    if part == 0 or whole + width >= ground.shape[1]:
        return left.copy()
    return left * (1 - part) + ground[:, whole + 1 : whole + 1 + width] * part


def _letters(text: str, width: int, height: int) -> np.ndarray:
    """(height, width, 2) float32: the brightness of the text, 0 to 240, and its coverage with a dark rim."""
    font, layers = cv2.FONT_HERSHEY_DUPLEX, []
    (text_width, text_height), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = 0.7 * width / text_width
    at = (int(0.15 * width), int(height / 2 + text_height * scale / 2))
    for thickness in (2, 5):
        layer = np.zeros((height, width), np.uint8)
        cv2.putText(layer, text, at, font, scale, 240, thickness, cv2.LINE_AA)
        layers.append(layer.astype(np.float32))
    return np.stack([layers[0], layers[1] / 240], axis=-1)
