"""Pictures that carry their number, so that a test sees which frame of a film it was given."""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT, BITS = 192, 112, 12


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(h, w, 3) uint8 RGB: a pattern that moves, and the number as black and white blocks in its top rows."""
    y, x = np.mgrid[0:height, 0:width]
    colours = [(x + 3 * number) % 256, (2 * number + y) % 256, (x + y + 5 * number) % 256]
    picture = np.stack(colours, -1).astype(np.uint8) // 2 + 40
    block = width // BITS
    for bit in range(BITS):
        picture[4 : 4 + height // 5, bit * block + 1 : (bit + 1) * block - 1] = 235 if number >> bit & 1 else 16
    return picture


def film(count: int, width: int = WIDTH, height: int = HEIGHT):
    return (numbered(number, width, height) for number in range(count))


def number_of(picture: np.ndarray) -> int:
    """The number in a picture (h, w, 3) of any size, as displayed upright."""
    height, width = picture.shape[:2]
    block = width / BITS
    row = round(height * (4 + HEIGHT / 10) / HEIGHT)
    places = [round((bit + 0.5) * block) for bit in range(BITS)]
    return sum(int(picture[row, place].mean() > 126) << bit for bit, place in enumerate(places))
