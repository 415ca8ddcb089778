"""Finds candidates for near duplicates: clips with frames whose hashes agree in two of six bands of bits.

The 64 bits are divided into six bands, and each of the 15 pairs of bands is a key. Two hashes that differ in up to
4 bits always agree in some key; with 6 random bits they do in 75 of 100 cases, with 8 in 44; and a clip has several
frames. Manku et al. 2007 describe the method for single hashes. DuckDB joins on one key at a time, and on disk when
memory is full.
"""

from __future__ import annotations

import itertools
import tempfile
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from curate.global_stages.duplicates.frames import FrameHashes

BANDS = 6
CROWD = 100  # more hashes than this with one key are a crowd: they are compared with its hubs, not each with each
HUBS = 10  # so many hashes of a crowd, those of the smallest clips, are compared with all others in it
AT_ONCE = 2_000_000  # hashes with their keys that are joined at a time; more only where one key has more
MEMORY = "2GB"  # DuckDB's limit; the rest goes to disk

_BITS = [sum(1 << bit for bit in range(band, 64, BANDS)) for band in range(BANDS)]
KEYS = [one | other for one, other in itertools.combinations(_BITS, 2)]  # masks over the 64 bits


class Candidates(NamedTuple):
    """Pairs of clips `first` < `second` (m,), each pair once. `changed` are clips outside the query that may have lost
    some of their pairs because the queried clips were added (see `Banding.candidates`).
    """

    first: np.ndarray
    second: np.ndarray
    changed: np.ndarray


class Banding:
    """The hashes of all clips, in a DuckDB database of their own."""

    def __init__(self, frames: FrameHashes, sources: np.ndarray, bits: int, same_source: bool):
        self.count = len(sources)
        self.hashes = max(1, len(frames.values))
        self.bits = bits
        self._other = "true" if same_source else "a.source <> b.source"
        self._folder = tempfile.TemporaryDirectory(prefix="clipmill-")
        self._sql = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": self._folder.name})
        self._sql.sql("SET preserve_insertion_order = false")
        columns = {"clip": frames.clips, "source": sources[frames.clips], "hash": frames.values}
        self._register("given", columns)
        self._sql.sql("CREATE TABLE hashes AS SELECT * FROM given")
        self._sql.unregister("given")

    def close(self) -> None:
        self._sql.close()
        self._folder.cleanup()

    def candidates(self, queried: np.ndarray, among: np.ndarray) -> Candidates:
        """Pairs of a clip of `queried` and one of `among` (count,) bool; crowds are counted over all clips.

        If the queried clips were added after the rest, they may have turned the clips of a key into a crowd, or become
        hubs of it. Then fewer pairs of the other clips with that key are compared than before: those are `changed`.
        """
        if not queried.any():
            return Candidates(*np.zeros((3, 0), np.int32))
        whole = bool(queried.all() and among.all())
        if not whole:
            self._register("marks", {"clip": np.arange(self.count, dtype=np.int32), "queried": queried, "among": among})
        pairs, changed = [], []
        at_once = max(1, AT_ONCE // self.hashes)
        for start in range(0, len(KEYS), at_once):
            hashes = self._crowds(KEYS[start : start + at_once], whole)
            pairs.append(self._fetch(_all_pairs(hashes, self._near) if whole else _some_pairs(hashes, self._near)))
            if not whole:
                changed.append(self._fetch(_changed(hashes))[0])
        joined = np.unique(np.concatenate([_packed(*pair) for pair in pairs]))
        empty = np.zeros(0, np.int32)
        return Candidates(
            (joined >> np.uint64(32)).astype(np.int32),
            (joined & np.uint64(0xFFFFFFFF)).astype(np.int32),
            np.unique(np.concatenate([empty, *changed])).astype(np.int32),
        )

    def _crowds(self, masks: list[int], whole: bool) -> str:
        """The name of a table of the hashes to compare, each with its `key` under each mask. Also makes the tables
        `crowds` (keys that too many hashes have) and `hubs` (some hashes of each crowd).
        """
        run = self._sql.sql
        values = ", ".join(f"({mask}::UBIGINT)" for mask in masks)
        keyed = f"SELECT hashes.*, mask, hash & mask AS key FROM hashes, (VALUES {values}) AS masks(mask)"
        if whole:
            name = "every"
            run(f"CREATE OR REPLACE TEMP VIEW {name} AS {keyed}")
        else:
            name = "picked"
            run(f"""CREATE OR REPLACE TEMP TABLE {name} AS
                WITH keyed AS ({keyed}),
                wanted AS (SELECT DISTINCT mask, key FROM keyed SEMI JOIN (FROM marks WHERE queried) USING (clip))
                SELECT * FROM keyed SEMI JOIN wanted USING (mask, key) JOIN marks USING (clip)""")
        run(f"""CREATE OR REPLACE TEMP TABLE crowds AS
            SELECT mask, key FROM {name} GROUP BY mask, key HAVING count(*) > {CROWD}""")
        run(f"""CREATE OR REPLACE TEMP TABLE hubs AS SELECT * FROM {name} SEMI JOIN crowds USING (mask, key)
            QUALIFY row_number() OVER (PARTITION BY mask, key ORDER BY clip, hash) <= {HUBS}""")
        return name

    @property
    def _near(self) -> str:
        return f"a.mask = b.mask AND a.key = b.key AND {self._other} AND bit_count(xor(a.hash, b.hash)) <= {self.bits}"

    def _fetch(self, query: str) -> list[np.ndarray]:
        return list(self._sql.sql(query).fetchnumpy().values())

    def _register(self, name: str, columns: dict[str, np.ndarray]) -> None:
        self._sql.register(name, pa.table({k: pa.array(v) for k, v in columns.items()}))


def _all_pairs(hashes: str, near: str) -> str:
    return f"""
        WITH few AS MATERIALIZED ({_few(hashes)})
        SELECT DISTINCT a.clip AS first, b.clip AS second FROM few AS a JOIN few AS b ON {near}
        WHERE a.clip < b.clip
        UNION ALL
        SELECT DISTINCT least(a.clip, b.clip), greatest(a.clip, b.clip) FROM hubs AS a JOIN {hashes} AS b ON {near}
        WHERE a.clip <> b.clip"""


def _some_pairs(hashes: str, near: str) -> str:
    ends = "(a.queried AND b.among OR b.queried AND a.among) AND a.clip <> b.clip"
    return f"""
        WITH few AS MATERIALIZED ({_few(hashes)})
        SELECT DISTINCT least(a.clip, b.clip) AS first, greatest(a.clip, b.clip) AS second
        FROM (FROM few WHERE queried) AS a JOIN few AS b ON {near}
        WHERE {ends}
        UNION ALL
        SELECT DISTINCT least(a.clip, b.clip), greatest(a.clip, b.clip) FROM hubs AS a JOIN {hashes} AS b ON {near}
        WHERE {ends}"""


def _few(hashes: str) -> str:
    """The hashes that are in no crowd. Without this step DuckDB joins crowds with themselves before it drops them."""
    return f"SELECT * FROM {hashes} ANTI JOIN crowds USING (mask, key)"


def _changed(hashes: str) -> str:
    """Clips outside the query with a key that became a crowd, or that got a queried clip as a hub."""
    return f"""
        SELECT DISTINCT clip FROM {hashes} SEMI JOIN (
            SELECT mask, key FROM {hashes} SEMI JOIN crowds USING (mask, key)
            GROUP BY mask, key HAVING count(*) FILTER (NOT queried) <= {CROWD}
            UNION SELECT mask, key FROM hubs WHERE queried
        ) USING (mask, key) WHERE NOT queried"""


def _packed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first.astype(np.uint64) << np.uint64(32)) | second.astype(np.uint64)
