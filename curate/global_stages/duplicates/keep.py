"""Divides components into clusters: chooses the clips to keep, and for each other clip the one it duplicates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

ROUNDS = 100  # after so many clips of one component are kept, all that are left in it are kept

Alike = Callable[[np.ndarray, np.ndarray], np.ndarray]  # clips (m,), clips (m,) -> (m,) bool


def rule_order(gone: np.ndarray, area: np.ndarray, score: np.ndarray, captioned: np.ndarray) -> np.ndarray:
    """(n,): the place of each clip in order: those of sources that are not `gone`, then the largest picture, then the
    best score (NaN last), then those with a caption, then the smallest id.
    """
    best = np.where(np.isnan(score), -np.inf, score)
    order = np.lexsort((np.arange(len(area)), ~captioned, -best, -area, gone))
    place = np.empty(len(area), np.int64)
    place[order] = np.arange(len(area))
    return place


def keep(
    component: np.ndarray, members: np.ndarray, place: np.ndarray, kinds: Sequence[Alike]
) -> tuple[np.ndarray, np.ndarray]:
    """(duplicate_of (n,), kind (n,)): which clip each of `members` duplicates, and by which of `kinds`. Both are -1 for
    kept clips and for clips outside `members`, which are all the clips of some components.

    Star clustering (Aslam et al. 2004): the first clip of a component in the order `place` is kept, and those that
    are like it are its duplicates, by the first kind that applies. In a chain (A like B, B like C) some are not like
    it: the first of these is kept too, and so on. So every dropped clip is like the kept clip that it names.
    """
    duplicate_of, kind = np.full(len(component), -1, np.int64), np.full(len(component), -1, np.int8)
    left = members[np.lexsort((place[members], component[members]))]
    for _ in range(ROUNDS):
        begins = np.ones(len(left), bool)
        begins[1:] = component[left[1:]] != component[left[:-1]]
        leaders = left[begins][np.cumsum(begins) - 1]
        left, leaders = left[~begins], leaders[~begins]
        if not len(left):
            break
        for number, alike in enumerate(kinds):
            unmatched = np.flatnonzero(kind[left] < 0)
            same = unmatched[alike(leaders[unmatched], left[unmatched])]
            duplicate_of[left[same]], kind[left[same]] = leaders[same], number
        left = left[kind[left] < 0]
    for number in reversed(range(len(kinds))):  # a kept clip gets the strongest kind among its duplicates
        kind[duplicate_of[(duplicate_of >= 0) & (kind == number)]] = number
    return duplicate_of, kind
