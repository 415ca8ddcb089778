"""Splits a dataset in memory into the clips held out of training for validation, and the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pyarrow as pa

from curate.datasets.files import Dataset
from curate.datasets.pseudonyms import held_out_hash
from curate.errors import UserError
from train.config.training import ValidationConfig

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


def split(dataset: Dataset, validation: ValidationConfig) -> tuple[Dataset, Subset | None]:
    """(to train on, held out), see `held_out_ids`. UserError if nothing is held out."""
    if not validation.share:
        return dataset, None
    ids = dataset.columns([BY[validation.by]])[BY[validation.by]].combine_chunks().dictionary_encode()
    names = ids.dictionary.to_pylist()
    chosen = held_out_ids(names, validation.share, validation.least)
    if not chosen:
        raise UserError(
            f"validation.share {validation.share} holds out none of {len(names):,} {validation.by}s: take a larger "
            "share or `least` (share 0 is no validation)"
            + (", or validation.by clip" if validation.by == "source" else "")
        )
    held = np.array([name in chosen for name in names])[ids.indices.to_numpy()]
    return subset(dataset, np.flatnonzero(~held)), subset(dataset, np.flatnonzero(held))


def held_out_ids(ids: Iterable[str], share: float, least: int) -> set[str]:
    """Those of distinct ids that are held out: by a hash of each, so that an id is on the same side in every dataset.

    Where the share gives fewer than `least`, more follow in the order of their hashes, up to half of all. One at least
    is not held out.
    """
    order = sorted((_place(name), name) for name in ids)
    count = max(sum(place < share for place, _ in order), min(least, len(order) // 2)) if share else 0
    return {name for _, name in order[: min(count, len(order) - 1)]}


def one_source_note(sources: int) -> str:
    """What a figure on held-out clips of a single source is worth; '' for several."""
    return "; a figure on clips of one source says how that one goes, and little of others" if sources == 1 else ""


def _place(name: str) -> float:
    """A hash of the id, from 0 to 1."""
    return int(held_out_hash(name), 16) / 2**64
