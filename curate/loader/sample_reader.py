"""Reads the samples of a dataset from its shards, and compares their bytes with the hashes in the index."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from curate.datasets.files import Dataset
from curate.errors import UserError
from curate.loader.errors import BadSample, log
from curate.loader.local_shards import Span
from curate.loader.shard_reader import ShardReader

Verify = Literal["auto", "off", "first", "always"]


class SampleReader:
    """Reads fields of samples, by their rows in the index, and compares them with their hashes.

    `verify`: 'first' the first time this process reads a sample (so that each is checked in the first epoch, and
    again after a restart), 'always', 'off'; 'auto' is 'first' where xxhash is installed, else 'off' with a warning.
    """

    def __init__(self, dataset: Dataset, shards: ShardReader, fields: Sequence[str], verify: Verify):
        self.dataset, self.shards, self.fields = dataset, shards, tuple(fields)
        self.hash = _hash_function(verify)
        self.always = verify == "always"
        hashes = [f"{field}_xxh3" for field in fields] if self.hash else []
        columns = dataset.columns(["clip_id", "shard", *(f"{field}_offset" for field in fields), *hashes])
        self.clip_ids = columns["clip_id"].combine_chunks()
        self.shard = columns["shard"].to_numpy()
        self.offset = {field: columns[f"{field}_offset"].to_numpy() for field in fields}
        self.xxh3 = {field: columns[f"{field}_xxh3"].to_numpy() for field in fields if self.hash}
        # A bit for each field that was checked: not every read takes the same fields.
        self.bit = {field: 1 << number for number, field in enumerate(fields)}
        self.checked = np.zeros(dataset.samples, np.uint32)
        self.bad: dict[tuple[int, str], str] = {}  # the reasons of bad fields, by row and field

    def has(self, field: str, row: int) -> bool:
        """Whether the sample has this field."""
        return bool(self.offset[field][row] >= 0)

    def read(self, row: int, into: Mapping[str, memoryview]) -> None:
        """Fills the memory given for each field, which is as long as the field. BadSample, with the reason, every time
        that a bad sample is read.
        """
        if self.bad:
            for field in into:
                if (row, field) in self.bad:
                    raise BadSample(self.bad[row, field])
        spans = sorted([(self.offset[field].item(row), view) for field, view in into.items()], key=_offset)
        unchecked = self._unchecked(row, into)
        shard = self.shard.item(row)
        try:
            self.shards.read(shard, spans)
            damaged = self._damaged(row, into, unchecked)
            if damaged and self.shards.forget(shard, spans):  # a cached copy: the shard itself may be whole
                self.shards.read(shard, spans)
                damaged = self._damaged(row, into, unchecked)
        except (OSError, EOFError) as error:
            damaged = {field: f"it can't be read ({error})" for field in into}
        if damaged:
            raise BadSample(self._note(row, damaged))
        for field in unchecked:
            self.checked[row] = self.checked.item(row) | self.bit[field]

    def _unchecked(self, row: int, fields: Iterable[str]) -> list[str]:
        """The fields that must be compared with their hashes now."""
        if self.hash is None:
            return []
        known = 0 if self.always else self.checked.item(row)
        return [field for field in fields if not known & self.bit[field]]

    def _damaged(self, row: int, into: Mapping[str, memoryview], fields: Sequence[str]) -> dict[str, str]:
        """The reason for each of `fields` whose bytes have another hash than the index says."""
        if self.hash is None:
            return {}
        return {
            field: f"its {field} is not what was written (the hash differs)"
            for field in fields
            if self.hash(into[field]) != self.xxh3[field].item(row)
        }

    def _note(self, row: int, damaged: Mapping[str, str]) -> str:
        """Remembers bad fields; returns the message of the first."""
        shard = self.dataset.shards[int(self.shard[row])].path
        for field, why in damaged.items():
            self.bad[row, field] = f"clip {self.clip_ids[row]} of shard {shard}: {why}"
        return self.bad[row, next(iter(damaged))]


def _offset(span: Span) -> int:
    return span[0]


def _hash_function(verify: Verify) -> Callable[[memoryview], int] | None:
    if verify not in ("auto", "off", "first", "always"):
        raise UserError(f"verify {verify!r}: expected auto, off, first or always")
    if verify == "off":
        return None
    if importlib.util.find_spec("xxhash") is None:
        if verify != "auto":
            raise UserError(f"verify {verify!r} needs the package xxhash: pip install xxhash, or verify='off'")
        log.warning("samples are not compared with their hashes, since xxhash is not installed: pip install xxhash")
        return None
    import xxhash

    return xxhash.xxh3_64_intdigest
