"""The demo's films to train on: what a small network can learn to draw from text in minutes.

A film holds many takes of one subject: a plain shape of one colour that moves in one direction over a plain ground.
Takes differ in size, place, speed and ground. All takes of a film have its caption, which is in the text file beside
it; they have one length, so that a `fixed` cut splits them exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from curate.demo import files
from curate.demo.films import FilmTruth
from curate.demo.scenes import COLOURS, outline

PALETTE = {name: COLOURS[name] for name in ("red", "green", "blue", "yellow", "white")}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x, y
SIDE, FPS = 64, 8  # pixels of a frame's side, frames a second
TAKE_SECONDS = 1.25  # a window of nine frames is encoded
TAKES = 12  # in one film
SIZES = (17.5, 20.0)  # least and greatest side in pixels of a square with the area of the shape
SPEEDS = (22.0, 25.0)  # least and greatest, pixels a second
MOST_OFFSET = 7.0  # pixels from the middle of the picture
# Darkest and lightest grounds in grey levels, of one take and of the next: cuts are visible, no ground looks like the
# bars of a letterbox, and every colour stands out.
GROUNDS = ((34, 40), (56, 62))
AREAS = {"circle": np.pi, "square": 2.0, "triangle": 3 * np.sqrt(3) / 4}  # of the shape in a circle of radius one
FINER = 4  # factor by which masks are drawn larger: for smooth edges, and places between pixels


@dataclass(frozen=True)
class Subject:
    """What every take of a film shows."""

    colour: str
    shape: str
    direction: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} moving {self.direction}"

    @property
    def film(self) -> str:
        return f"{self.colour}_{self.shape}_{self.direction}.mp4"


@dataclass(frozen=True)
class Take:
    """One movement of a shape. Lengths in pixels; (x, y) is the middle of the shape's box after half of the take."""

    subject: Subject
    size: float  # side of a square of this area
    x: float
    y: float
    speed: float  # pixels a second
    ground: tuple[int, int, int]  # RGB


def subjects() -> list[Subject]:
    """Every combination of a colour, a shape and a direction."""
    return [Subject(*words) for words in product(PALETTE, SHAPES, DIRECTIONS)]


def draw_shape_films(
    folder: Path | str,
    seed: int = 0,
    takes: int = TAKES,
    progress: Callable[[int, int], None] | None = None,
) -> list[FilmTruth]:
    """Draws a film of `takes` takes of each subject, and NAME.txt with its caption, into `folder`; returns the truth
    about them. The same seed gives the same film, whatever else is drawn. Films that exist are not drawn again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truth = []
    for done, subject in enumerate(subjects()):
        path = folder / subject.film
        if not path.exists():
            path.with_suffix(".txt").write_text(subject.caption + "\n", encoding="utf-8")
            part = path.with_name(f".{path.stem}.part.mp4")  # PyAV takes the format from the ending
            files.write_video(part, frames_of_takes(film_takes(subject, seed, takes)), FPS)
            part.replace(path)
        truth.append(film_truth(subject, takes))
        if progress:
            progress(done + 1, len(subjects()))
    return truth


def film_takes(subject: Subject, seed: int, count: int) -> list[Take]:
    """The takes of one film."""
    rng = np.random.default_rng([seed, *subject.film.encode()])
    return [random_take(subject, rng, number) for number in range(count)]


def random_take(subject: Subject, rng: np.random.Generator, number: int = 0) -> Take:
    """A random take with the whole shape inside the picture in every frame. Its ground is one for the take of this
    `number` in a film.
    """
    size, speed = rng.uniform(*SIZES), rng.uniform(*SPEEDS)
    box = _box(subject.shape, size)
    middle = []
    for extent, step in zip(box, DIRECTIONS[subject.direction], strict=True):
        room = max((SIDE - extent - abs(step) * speed * TAKE_SECONDS) / 2 - 1, 0.0)
        middle.append(SIDE / 2 + rng.uniform(-1, 1) * min(room, MOST_OFFSET))
    level, tint = rng.uniform(*GROUNDS[number % len(GROUNDS)]), rng.uniform(-6, 6, 3)
    red, green, blue = (int(each) for each in np.clip(level + tint, 0, 255))
    x, y = middle
    return Take(subject, size, x, y, speed, (red, green, blue))


def frames_of_takes(takes: list[Take]) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, (SIDE, SIDE, 3) uint8 RGB) of every frame of the takes, one after another."""
    frames = round(TAKE_SECONDS * FPS)
    for number, take in enumerate(takes):
        for index, picture in enumerate(take_frames(take, frames)):
            yield (number * frames + index) / FPS, picture


def take_frames(take: Take, frames: int = round(TAKE_SECONDS * FPS)) -> np.ndarray:
    """The first `frames` frames of a take, (frames, SIDE, SIDE, 3) uint8 RGB."""
    ground, colour = np.array(take.ground, np.float32), np.array(PALETTE[take.subject.colour], np.float32)
    coverage = np.stack([_coverage(take, index / FPS) for index in range(frames)])[..., None]
    return (ground + coverage * (colour - ground)).round().astype(np.uint8)


def film_truth(subject: Subject, takes: int) -> FilmTruth:
    """The truth about a film of a subject: one shot for each take."""
    shown = {"caption": subject.caption, "shape": subject.shape, "colour": subject.colour}
    shown |= {"movement": f"moving {subject.direction}", "ground": "", "title": ""}
    spans = [(number * TAKE_SECONDS, (number + 1) * TAKE_SECONDS) for number in range(takes)]
    return FilmTruth(
        subject.film,
        shots=[{"start_s": start, "end_s": end, **shown} for start, end in spans],
        joints=[{"kind": "cut", "start_s": start, "end_s": start} for start, _ in spans[1:]],
        width=SIDE,
        height=SIDE,
        fps=float(FPS),
        caption_file=f"{Path(subject.film).stem}.txt",
    )


def _coverage(take: Take, seconds: float) -> np.ndarray:
    """(SIDE, SIDE) float32, the share of each pixel that the shape covers."""
    distance = take.speed * (seconds - TAKE_SECONDS / 2)
    middle = np.array((take.x, take.y)) + np.array(DIRECTIONS[take.subject.direction]) * distance
    return polygon_coverage(shape_corners(take.subject.shape, take.size) + middle, SIDE)


def shape_corners(shape: str, size: float) -> np.ndarray:
    """(corners, 2) x, y in pixels of a shape of area `size` squared, around the middle of its box."""
    corners = np.array(outline(shape)) * size / np.sqrt(AREAS[shape])
    return corners - (corners.min(0) + corners.max(0)) / 2


def polygon_coverage(corners: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32: the share of each pixel inside a polygon, whose corners are x, y in pixels."""
    mask = np.zeros((side * FINER, side * FINER), np.uint8)
    # OpenCV counts from the middle of the first pixel, and takes coordinates in 16ths of a pixel.
    points = ((corners * FINER - 0.5) * 16).round().astype(np.int32)
    cv2.fillPoly(mask, [points], 255, shift=4)
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _box(shape: str, size: float) -> np.ndarray:
    """Width and height of the shape in pixels."""
    return np.ptp(shape_corners(shape, size), axis=0)
