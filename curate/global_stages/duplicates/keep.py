"""Which clips are kept, and which kept clip a dropped one is a duplicate of: what divides components into clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

ROUNDS = 100  # clips kept of one component, at most, before all that are left in it are kept

Alike = Callable[[np.ndarray, np.ndarray], np.ndarray]  # clips (m,), clips (m,) -> (m,) bool


def rule_order(area: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The place (n,) of each clip by the rule: largest picture, then best score (NaN last), then smallest id."""
    best = np.where(np.isnan(score), -np.inf, score)
    order = np.lexsort((np.arange(len(area)), -best, -area))
    place = np.empty(len(area), np.int64)
    place[order] = np.arange(len(area))
    return place


def keep(
    component: np.ndarray, members: np.ndarray, place: np.ndarray, kinds: Sequence[Alike]
) -> tuple[np.ndarray, np.ndarray]:
    """(duplicate of (n,), kind (n,)) for the clips `members` of whole components; -1 for kept and for all others.

    The first clip of a component by the rule is kept and stands for those that are alike with it, by the first
    of `kinds` that says so. In a chain (A like B, B like C) some are not: the first of these is kept too, and
    so on. So every dropped clip is itself a duplicate of the kept clip that it names. (Star clustering, Aslam et
    al. 2004.)
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
            untold = np.flatnonzero(kind[left] < 0)
            same = untold[alike(leaders[untold], left[untold])]
            duplicate_of[left[same]], kind[left[same]] = leaders[same], number
        left = left[kind[left] < 0]
    for number in reversed(range(len(kinds))):  # a kept clip tells the strongest kind of those it stands for
        kind[duplicate_of[(duplicate_of >= 0) & (kind == number)]] = number
    return duplicate_of, kind
