"""Connected components of links between clips."""

from __future__ import annotations

import numpy as np


def components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For each of `count` clips the smallest number of its component (count,) int32; links (m,) and (m,) ints.

    Every root hooks onto the smallest root that a link joins it with, then paths are shortened, until no link
    joins two roots: the parallel form of union-find (Shiloach and Vishkin 1982), a few rounds of whole arrays.
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
