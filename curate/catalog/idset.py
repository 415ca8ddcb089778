"""A set of 128-bit ids in 16 bytes each: what is committed already, and what this listing named before."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

ID = np.dtype([("high", ">u8"), ("low", ">u8")])


def pack(ids: list[str]) -> np.ndarray:
    """(n,) of ID from n strings of 32 hex digits."""
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=ID)


def pack_column(ids: pa.ChunkedArray) -> np.ndarray:
    """The same from a column of text without NULL, without a Python object for each id."""
    import pyarrow as pa

    text = ids.combine_chunks().cast(pa.large_binary())
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    return np.frombuffer(binascii.unhexlify(text.buffers()[2][offsets[0] : offsets[-1]]) if len(text) else b"", ID)


class IdSet:
    """Sorted runs that merge as they grow, so that adding n ids costs O(n log n) and no Python objects."""

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []  # (high, low), each sorted by high then low

    def __len__(self) -> int:
        return sum(len(high) for high, _ in self._runs)

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the (n,) ids are in the set."""
        high, low = ids["high"].astype(np.uint64), ids["low"].astype(np.uint64)
        found, order = np.zeros(len(ids), dtype=bool), np.argsort(high)
        for run_high, run_low in self._runs:
            first = np.empty(len(high), np.intp)
            first[order] = np.searchsorted(run_high, high[order], "left")  # in order: neighbours are in the cache
            there = first < len(run_high)
            there[there] = run_high[first[there]] == high[there]
            found[there] |= run_low[first[there]] == low[there]
            following = np.minimum(first + 1, len(run_high) - 1)
            for at in np.flatnonzero(there & (following > first) & (run_high[following] == high)):
                last = np.searchsorted(run_high, high[at], "right")  # equal upper halves: almost never
                found[at] |= bool(np.any(run_low[first[at] : last] == low[at]))
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
