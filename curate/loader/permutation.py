"""Shuffled orders that are computed, not stored: a keyed permutation of range(n), and a shuffle by blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ROUNDS = 6
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def key(*numbers: int) -> int:
    """One 64-bit key from several integers; their order counts."""
    state = 0
    for number in numbers:
        state = (state + _GOLDEN + (number & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def mixed(numbers: np.ndarray, by: int) -> np.ndarray:
    """Uniform uint64 for each number under a key (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = numbers.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(by)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(numbers: np.ndarray, by: int) -> np.ndarray:
    """float64 in [0, 1) for each number under a key."""
    return (mixed(numbers, by) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


class Permutation:
    """A permutation of range(n), another for every key: a Feistel network over the next power of four, applied again
    until the result is below n (cycle walking, Black & Rogaway 2002).
    """

    def __init__(self, n: int, by: int):
        self.n = n
        self.half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self.low = (np.uint64(1) << self.half) - np.uint64(1)
        self.keys = [key(by, turn) for turn in range(ROUNDS)]

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """The image of each index (int64, in range(n))."""
        return self._walk(index, self._forward)

    def inverse(self, index: np.ndarray) -> np.ndarray:
        """The index whose image each of these is."""
        return self._walk(index, self._backward)

    def _walk(self, index: np.ndarray, step: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        x = step(index.astype(np.uint64))
        outside = np.flatnonzero(x >= self.n)
        while outside.size:
            x[outside] = step(x[outside])
            outside = outside[x[outside] >= self.n]
        return x.astype(np.int64)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        left, right = x >> self.half, x & self.low
        for by in self.keys:
            left, right = right, left ^ (mixed(right, by) & self.low)
        return (left << self.half) | right

    def _backward(self, x: np.ndarray) -> np.ndarray:
        left, right = x >> self.half, x & self.low
        for by in reversed(self.keys):
            left, right = right ^ (mixed(left, by) & self.low), left
        return (left << self.half) | right


class Shuffle:
    """A permutation of range(n) with few long jumps, for reading from a disk: blocks of `block` neighbours in a new
    order, and the samples of every `window` successive blocks shuffled among themselves.

    All of range(n) is shuffled at once if it fits into one window. Memory does not grow with n.
    """

    def __init__(self, n: int, by: int, block: int, window: int):
        self.n, self.by, self.block, self.window = n, by, block, window
        self.blocks = -(-n // block)
        self.order = Permutation(self.blocks, key(by, 0))
        # One block is shorter than the others, and the windows after it begin so much earlier.
        self.lacking = self.blocks * block - n
        self.short = int(self.order.inverse(np.array([self.blocks - 1]))[0])

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The element at each position (int64, in range(n))."""
        span = self.window * self.block
        cut = (self.short // self.window + 1) * span - self.lacking  # where the window of the short block ends
        windows = np.where(positions < cut, positions, positions + self.lacking) // span
        found = np.empty_like(positions)
        for number in np.unique(windows):
            here = windows == number
            found[here] = self._in_window(int(number), positions[here])
        return found

    def inverse(self, elements: np.ndarray) -> np.ndarray:
        """The position at which each of these elements (int64, in range(n)) comes."""
        blocks, offsets = np.divmod(elements, self.block)
        places = self.order.inverse(blocks)
        numbers = places // self.window
        found = np.empty_like(elements)
        by_window = np.argsort(numbers, kind="stable")
        for here in np.split(by_window, np.flatnonzero(np.diff(numbers[by_window])) + 1):
            if here.size:
                found[here] = self._to_positions(int(numbers[here[0]]), places[here], offsets[here])
        return found

    def _in_window(self, number: int, positions: np.ndarray) -> np.ndarray:
        first, start, holds_short, permutation = self._of_window(number)
        local = permutation(positions - start)
        if holds_short:
            end = (self.short - first + 1) * self.block - self.lacking
            local = np.where(local < end, local, local + self.lacking)
        return self.order(first + local // self.block) * self.block + local % self.block

    def _to_positions(self, number: int, places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The positions of elements `offsets` in blocks whose places in the new order lie in this window."""
        first, start, holds_short, permutation = self._of_window(number)
        local = (places - first) * self.block + offsets
        if holds_short:
            local = np.where(places > self.short, local - self.lacking, local)
        return start + permutation.inverse(local)

    def _of_window(self, number: int) -> tuple[int, int, bool, Permutation]:
        """(place of its first block in the new order, its first position, whether it holds the short block, how its
        samples are shuffled).
        """
        first = number * self.window
        start = first * self.block - (self.lacking if self.short < first else 0)
        places = min(self.window, self.blocks - first)
        holds_short = first <= self.short < first + places
        size = places * self.block - (self.lacking if holds_short else 0)
        return first, start, holds_short, Permutation(size, key(self.by, 1, number))
