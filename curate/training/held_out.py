"""Splits a dataset in memory into the clips held out of training for validation, and the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pyarrow as pa

from curate.datasets.files import Dataset
from curate.errors import UserError

BY = {"source": "source_id", "clip": "clip_id"}  # column by the unit that is held out


@dataclass(frozen=True)
class Subset(Dataset):
    """A dataset of some samples of another, those in the ascending `rows` of its index. It exists only in memory."""

    whole: Dataset = field(kw_only=True)
    rows: np.ndarray = field(kw_only=True, repr=False)

    def columns(self, names: Iterable[str]) -> dict[str, pa.ChunkedArray]:
        return {name: column.take(pa.array(self.rows)) for name, column in self.whole.columns(names).items()}


def subset(whole: Dataset, rows: np.ndarray) -> Subset:
    """The samples in the ascending `rows` of the index. Buckets without any of them are left out."""
    buckets, first = {}, 0
    for name, bucket in whole.buckets.items():
        inside = int(((rows >= bucket.first) & (rows < bucket.first + bucket.samples)).sum())
        if inside:
            buckets[name] = replace(bucket, samples=inside, first=first)
            first += inside
    same = {each.name: getattr(whole, each.name) for each in fields(Dataset)}
    return Subset(**{**same, "buckets": buckets, "samples": len(rows)}, whole=whole, rows=rows)


def split(dataset: Dataset, share: float, by: str) -> tuple[Dataset, Subset | None]:
    """(to train on, held out): about `share` of the sources, or of the clips, is held out by a hash of their ids, so
    that a clip is on the same side in every dataset. UserError if one side is empty.
    """
    if not share:
        return dataset, None
    ids = dataset.columns([BY[by]])[BY[by]].combine_chunks().dictionary_encode()
    chosen = np.array([_held_out(each, share) for each in ids.dictionary.to_pylist()])
    held = chosen[ids.indices.to_numpy()]
    if not held.any() or held.all():
        what = "none" if not held.any() else "all"
        hint = ", or validation.by clip" if by == "source" and len(chosen) < 100 else ""
        raise UserError(
            f"validation.share {share} holds out {what} of {len(chosen):,} {by}s: take another share (0 is no "
            f"validation){hint}"
        )
    return subset(dataset, np.flatnonzero(~held)), subset(dataset, np.flatnonzero(held))


def _held_out(name: str, share: float) -> bool:
    digest = hashlib.blake2b(f"held out/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share
