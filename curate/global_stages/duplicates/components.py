"""Connected components of links between clips."""

from __future__ import annotations

import numpy as np


def components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(count,) int32: for each clip the smallest number in its component, from links between `first` and `second` (m,).

    The parallel form of union-find (Shiloach and Vishkin 1982) on whole arrays: every root is attached to the smallest
    root that a link joins it with, then paths are shortened, until no link joins two roots.
    """
    root = np.arange(count, dtype=np.int32)
    while len(first):
        one, other = root[first], root[second]
        apart = one != other
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above
    return root
