"""A set of 128-bit ids in 16 bytes each: what is committed already, and what this listing named before."""

from __future__ import annotations

import numpy as np

ID = np.dtype([("high", ">u8"), ("low", ">u8")])


def pack(ids: list[str]) -> np.ndarray:
    """(n,) of ID from n strings of 32 hex digits."""
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=ID)


class IdSet:
    """Sorted runs that merge as they grow, so that adding n ids costs O(n log n) and no Python objects."""

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []  # (high, low), each sorted by high then low

    def __len__(self) -> int:
        return sum(len(high) for high, _ in self._runs)

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the (n,) ids are in the set."""
        high, low = ids["high"].astype(np.uint64), ids["low"].astype(np.uint64)
        found = np.zeros(len(ids), dtype=bool)
        for run_high, run_low in self._runs:
            first = np.searchsorted(run_high, high, "left")
            last = np.searchsorted(run_high, high, "right")
            single = last - first == 1
            found[single] |= run_low[first[single]] == low[single]
            for at in np.flatnonzero(last - first > 1):  # equal upper halves: almost never
                found[at] |= bool(np.any(run_low[first[at] : last[at]] == low[at]))
        return found

    def add(self, ids: np.ndarray) -> np.ndarray:
        """Adds (n,) ids; returns (n,) bool: which were new (the first of equal ones counts as new)."""
        new = ~self.contains(ids)
        _, firsts = np.unique(ids, return_index=True)
        once = np.zeros(len(ids), dtype=bool)
        once[firsts] = True
        new &= once
        self._push(ids[new]["high"].astype(np.uint64), ids[new]["low"].astype(np.uint64))
        return new

    def _push(self, high: np.ndarray, low: np.ndarray) -> None:
        if not len(high):
            return
        while self._runs and len(self._runs[-1][0]) <= 2 * len(high):
            other_high, other_low = self._runs.pop()
            high, low = np.concatenate([high, other_high]), np.concatenate([low, other_low])
        order = np.lexsort((low, high))
        self._runs.append((high[order], low[order]))
