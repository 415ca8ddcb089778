"""Perceptual hashes of the frames of all clips, and which pairs of clips share enough of them."""

from __future__ import annotations

import binascii
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

DIGITS = 16  # hex digits of one hash in the column `phash_frames`
PLAIN = 12  # with fewer bits set most of the picture's coefficients were noise: it shows next to nothing
AT_ONCE = 4_000_000  # pairs of frames compared at a time


class FrameHashes:
    """The distinct 64-bit hashes of every clip's frames, without those of plain pictures (black, white, fog).

    `values` (f,) uint64 are sorted by clip; `counts` (n,) says how many each clip has, `starts` (n,) where they begin.
    """

    def __init__(self, clips: np.ndarray, values: np.ndarray, count: int):
        """`clips` (f,) are the numbers, below `count`, of the clips that `values` (f,) belong to, in any order."""
        telling = np.bitwise_count(values) >= PLAIN
        clips, values = clips[telling], values[telling]
        order = np.lexsort((values, clips))
        clips, values = clips[order], values[order]
        first = np.ones(len(values), bool)  # of equal hashes of a clip
        first[1:] = (clips[1:] != clips[:-1]) | (values[1:] != values[:-1])
        self.clips, self.values = clips[first].astype(np.int32), values[first]
        self.counts = np.bincount(self.clips, minlength=count)
        self.starts = np.cumsum(self.counts) - self.counts

    @classmethod
    def read(cls, batches: Iterable[pa.RecordBatch], count: int) -> FrameHashes:
        """From batches with the columns `clip` (int) and `phash_frames` (text, NULL where unknown)."""
        clips, values = [np.zeros(0, np.int32)], [np.zeros(0, np.uint64)]
        for batch in batches:
            text = batch.column("phash_frames").cast(pa.large_binary()).fill_null(b"")
            offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
            digits = text.buffers()[2][offsets[0] : offsets[-1]] if offsets[-1] > offsets[0] else b""
            found = np.frombuffer(binascii.unhexlify(digits), ">u8").astype(np.uint64)
            clips.append(np.repeat(batch.column("clip").to_numpy().astype(np.int32), np.diff(offsets) // DIGITS))
            values.append(found)
        return cls(np.concatenate(clips), np.concatenate(values), count)

    def shared(self, first: np.ndarray, second: np.ndarray, bits: int, share: float) -> np.ndarray:
        """(m,) bool for pairs of clips `first` and `second` (m,): whether more than `share` of the frames of one are
        also in the other, by hashes that differ in at most `bits` bits. A clip whose frames are all plain matches none.
        """
        alike = np.zeros(len(first), bool)
        work = np.cumsum(self.counts[first] * self.counts[second])
        start = 0
        while start < len(first):
            done = work[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(work, done + AT_ONCE, side="right")))
            alike[start:end] = self._shares(first[start:end], second[start:end], bits) > share
            start = end
        return alike

    def _shares(self, first: np.ndarray, second: np.ndarray, bits: int) -> np.ndarray:
        ours, theirs = self.counts[first], self.counts[second]
        pairs = np.repeat(np.arange(len(first)), ours * theirs)
        within = np.arange(len(pairs)) - np.repeat(np.cumsum(ours * theirs) - ours * theirs, ours * theirs)
        i, j = np.divmod(within, theirs[pairs])
        one, other = self.values[self.starts[first[pairs]] + i], self.values[self.starts[second[pairs]] + j]
        near = np.bitwise_count(one ^ other) <= bits
        return np.maximum(_share(pairs[near], i[near], ours), _share(pairs[near], j[near], theirs))


def _share(pairs: np.ndarray, frames: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(m,): for each pair the share of a clip's `counts` frames that are among the matched `frames` of `pairs`."""
    matched = np.zeros(int(counts.sum()), bool)
    matched[(np.cumsum(counts) - counts)[pairs] + frames] = True
    pair = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(pair[matched], minlength=len(counts)) / np.maximum(counts, 1)
