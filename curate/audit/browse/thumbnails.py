"""Thumbnails by their place: which file, which row. DuckDB would look through all of them for each page of clips."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from curate.catalog.catalog import Catalog, file_paths
from curate.catalog.schema import PASS

PLACES = pa.schema({"clip_id": pa.string(), PASS: pa.int64(), "place": pa.int64()})
FILE_ROWS = 1 << 40  # a place is the number of its file times this, and its row


class Thumbnails:
    """`places` has a row for each clip with a thumbnail: clip_id, place. Of several passes, the latest counts."""

    def __init__(self, catalog: Catalog, versions: Mapping[str, int]):
        self._fs = catalog.fs
        table = catalog.table("thumbnails", versions["thumbnails"]) if "thumbnails" in versions else None
        self._paths = [] if table is None else file_paths(table)
        self._files: dict[int, ParquetFile] = {}
        self._lock = threading.Lock()
        parts = [self._places(number) for number in range(len(self._paths))]
        found = pa.concat_tables([PLACES.empty_table(), *parts])
        if len(pc.unique(found[PASS])) > 1:
            found = found.sort_by([(PASS, "descending")])
            first = np.unique(found["clip_id"].combine_chunks().dictionary_encode().indices, return_index=True)[1]
            found = found.take(first)
        self.places = found.drop_columns([PASS])

    def jpegs(self, places: Sequence[int]) -> dict[int, bytes]:
        """The pictures at these places, those that are there. Reads no more than the row groups that they lie in."""
        groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for place in places:
            number, row = divmod(place, FILE_ROWS)
            if number >= len(self._paths) or row >= self._file(number).metadata.num_rows:
                continue
            starts = self._starts(number)
            group = bisect_right(starts, row) - 1
            groups.setdefault((number, group), []).append((place, row - starts[group]))
        found: dict[int, bytes] = {}
        for (number, group), wanted in sorted(groups.items()):
            with self._lock:  # a file has one place of reading
                column = self._file(number).read_row_group(group, columns=["jpeg"])["jpeg"]
            found |= {place: value for place, row in wanted if (value := column[row].as_py())}
        return found

    def _places(self, number: int) -> pa.Table:
        rows = self._file(number).read(columns=[PASS, "clip_id"])
        at = np.arange(rows.num_rows, dtype=np.int64) + number * FILE_ROWS
        return pa.table({"clip_id": rows["clip_id"], PASS: rows[PASS], "place": at}).cast(PLACES)

    def _file(self, number: int) -> ParquetFile:
        if number not in self._files:
            self._files[number] = ParquetFile(self._fs.open(self._paths[number], "rb"), pre_buffer=False)
        return self._files[number]

    def _starts(self, number: int) -> list[int]:
        metadata = self._file(number).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return list(accumulate(sizes, initial=0))[:-1]
