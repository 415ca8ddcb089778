"""Training data of the tiny model: pictures of drawn scenes, and texts about them.

A picture is processed like a film's frame: drawn, darkened, compressed, and preprocessed by OpenCLIP. A text mentions
some of what a scene shows, and is true of every picture that shows all of it. The direction of a movement can't be
seen in one frame, so texts may mention it without effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from curate.demo.scenes import COLOURS, MOVEMENTS, SHAPES, TITLES, Painter, Scene, with_article

ATTRIBUTES = {  # values by attribute; an index of -1 is "none" in a picture, "not mentioned" in a text
    "shape": SHAPES,
    "colour": tuple(c for c in COLOURS if c not in ("grey", "black")),
    "ground": tuple(c for c in COLOURS if c != "black"),
    "title": TITLES,
}
ANY_TITLE = len(TITLES)  # index for a text that mentions a title, but not which
SIZES = ((200, 120), (224, 126), (160, 120), (108, 180), (120, 120))  # width, height
SIZE_SHARES = (0.45, 0.2, 0.2, 0.1, 0.05)
SYNONYMS = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "purple": ("purple", "violet"),
    "grey": ("grey", "gray"),
    "ground": ("ground", "background"),
    "over": ("over", "on", "in front of"),
}
OPENINGS = ("", "", "", "a film of ", "a video of ", "a clip of ", "a picture of ")


@dataclass
class Examples:
    """`pictures` are (n, side, side, 3) uint8 RGB; `shown` (n, 4) holds the index of each of ATTRIBUTES."""

    pictures: np.ndarray
    shown: np.ndarray


def random_scene(rng: np.random.Generator) -> Scene:
    """A random scene as in the films, with a title in one of four."""
    colour, ground = rng.choice(ATTRIBUTES["colour"]), rng.choice(ATTRIBUTES["ground"])
    while ground == colour:
        ground = rng.choice(ATTRIBUTES["ground"])
    return Scene(
        shape=str(rng.choice(SHAPES)),
        colour=str(colour),
        movement=str(rng.choice((*MOVEMENTS, "standing still"))),
        ground=str(ground),
        seed=int(rng.integers(2**31)),
        pan=float(rng.choice((0.0, 0.04))),
        light=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.15 else 1.0,
        title=str(rng.choice(TITLES)) if rng.random() < 0.25 else "",
    )


def shown_by(scene: Scene) -> list[int]:
    """The index of each of ATTRIBUTES in a scene."""
    return [options.index(value) if (value := getattr(scene, name)) else -1 for name, options in ATTRIBUTES.items()]


def frames_of(scene: Scene, moments: tuple[float, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Frames (h, w, 3) uint8 RGB at `moments` (0 to 1) of a shot of three seconds, in a random size and compression."""
    width, height = SIZES[rng.choice(len(SIZES), p=SIZE_SHARES)]
    painter = Painter(scene, width, height)
    bars = int(height * 0.15) if rng.random() < 0.05 else 0
    quality = int(rng.integers(30, 95))
    gain = float(rng.uniform(0.75, 1.3)) if rng.random() < 0.3 else 1.0
    frames = []
    for moment in moments:
        picture = np.clip(painter.frame(moment, 3 * moment, int(rng.integers(4))) * gain, 0, 255).astype(np.uint8)
        framed = cv2.copyMakeBorder(picture, bars, bars, 0, 0, cv2.BORDER_CONSTANT)
        _, data = cv2.imencode(".jpg", framed, [cv2.IMWRITE_JPEG_QUALITY, quality])
        # OpenCV swaps the order of colours when it writes and when it reads, so it stays RGB.
        frames.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    return frames


def draw_examples(
    rng: np.random.Generator, scenes: int, moments: int, fit: Callable[[np.ndarray], np.ndarray], side: int
) -> Examples:
    """`moments` pictures of each scene, one after another; `fit` makes (side, side, 3) of a frame of any size."""
    examples = Examples(np.empty((scenes * moments, side, side, 3), np.uint8), np.empty((scenes * moments, 4), int))
    for index in range(scenes):
        scene = random_scene(rng)
        at = tuple(float(share) for share in (np.arange(moments) + rng.random(moments)) / moments * 0.9 + 0.05)
        rows = slice(index * moments, (index + 1) * moments)
        examples.pictures[rows] = [fit(frame) for frame in frames_of(scene, at, rng)]
        examples.shown[rows] = shown_by(scene)
    return examples


def describe(shown: np.ndarray, rng: np.random.Generator) -> tuple[str, list[int]]:
    """(a text that is true of a picture with these attributes, (4,) indices of those that it mentions, else -1)."""
    shape, colour, ground, title = (
        options[i] if i >= 0 else "" for options, i in zip(ATTRIBUTES.values(), shown, strict=True)
    )
    shape, colour, ground = (_pick(word, rng) for word in (shape, colour, ground))
    says_shape, says_colour, says_ground = rng.random(3) < (0.8, 0.7, 0.55)
    says_title = bool(title) and rng.random() < 0.6
    if not (says_shape or says_colour or says_ground or says_title):
        says_shape = says_colour = True
    if says_colour and not says_shape:
        says_shape = says_ground or rng.random() < 0.5  # "something red" alone, not over a ground
    parts = []
    if says_shape or says_colour:
        noun = f"{colour} {shape}" if says_colour and says_shape else shape if says_shape else f"something {colour}"
        parts.append(with_article(noun) if says_shape and rng.random() < 0.8 else noun)
        if rng.random() < 0.3:
            parts.append(str(rng.choice((*MOVEMENTS, "standing still"))))
    if says_ground:
        if parts:
            parts.append(_pick("over", rng))
        parts.append(f"{with_article(ground)} {_pick('ground', rng)}")
    named = says_title and rng.random() < 0.7
    if says_title:
        words = f'the title "{title}"' if named else str(rng.choice(("a title", "a title card", "words", "text")))
        parts.append(f"with {words}" if parts else words)
    text = str(rng.choice(OPENINGS)) + " ".join(parts)
    if rng.random() < 0.1:  # so that unknown words change nothing
        split = text.split()
        split.insert(int(rng.integers(len(split) + 1)), "unheard-of")
        text = " ".join(split)
    told = [(says_shape, 0), (says_colour, 1), (says_ground, 2), (named, 3)]
    mentioned = [int(shown[i]) if says else -1 for says, i in told]
    if says_title and not named:
        mentioned[3] = ANY_TITLE
    return text, mentioned


def matches(shown: np.ndarray, mentioned: np.ndarray) -> np.ndarray:
    """(m, n) bool: which pictures, `shown` (n, 4), show all that each text, `mentioned` (m, 4), mentions."""
    said = mentioned[:, None, :]
    there = (said < 0) | (said == shown[None, :, :])
    there[..., 3] |= (said[..., 3] == ANY_TITLE) & (shown[None, :, 3] >= 0)
    return there.all(-1)


def vocabulary() -> list[str]:
    """Every word of captions and texts of scenes, in lower case, sorted."""
    texts = [*COLOURS, *SHAPES, *MOVEMENTS, "standing still", *TITLES, *OPENINGS]
    texts += [word for words in SYNONYMS.values() for word in words]
    texts += ["a an the with something title card words text and of"]
    return sorted({word for text in texts for word in text.lower().split()})


def _pick(word: str, rng: np.random.Generator) -> str:
    options = SYNONYMS.get(word, (word,))
    return str(options[0] if rng.random() < 0.6 else rng.choice(options))
