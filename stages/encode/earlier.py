"""Reads samples that clips have in earlier shards, whose latents go into a new shard as they are."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from stages.shards.format import ShardError, fields_of, open_file, read_header, read_index


class EarlierSamples:
    """The shard of the last clip stays open, with its index: clips come in the order in which they were written."""

    def __init__(self, catalog_uri: str):
        self.uri = catalog_uri
        self.header: dict[str, Any] = {}  # of the open shard
        self._path = ""
        self._file: BinaryIO | None = None
        self._places: dict[str, tuple[int, int]] = {}  # clip -> its first row of the index, and how many it has

    def read(self, shard: str, clip_id: str) -> dict[str, Any]:
        """field -> array, or dict of 'json', each compared with its hash. `shard` is a path relative to the catalog.

        Raises ShardError for what is missing or damaged.
        """
        path = f"{self.uri}/{shard}"
        if path != self._path:
            self._open(path)
        if clip_id not in self._places or self._file is None:
            raise ShardError(f"{path} does not hold the clip {clip_id}")
        return fields_of(self._file, path, self._index.slice(*self._places[clip_id]).to_pylist())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path, self._file, self._places = "", None, {}

    def _open(self, path: str) -> None:
        self.close()
        self.header, self._index = read_header(path), read_index(path)
        clips = self._index["clip_id"].combine_chunks().dictionary_encode()  # the rows of a clip stand together
        codes = clips.indices.to_numpy()
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        counts = np.diff(starts, append=len(codes))
        names = clips.dictionary.take(clips.indices.take(starts)).to_pylist()
        self._places = dict(zip(names, zip(starts.tolist(), counts.tolist(), strict=True), strict=True))
        self._path, self._file = path, open_file(path)
