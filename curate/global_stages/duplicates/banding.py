"""Candidates for near duplicates: clips with a frame whose hashes agree in two of six bands of bits.

The 64 bits are dealt out to six bands, and each of the 15 pairs of bands is a key. Two hashes that differ in up
to 4 bits agree in some key for sure, in 6 random bits in 75 of 100 cases, in 8 in 44; and a clip has several
frames. Manku et al. 2007 describe it for single hashes. DuckDB joins on one key at a time, on disk where
memory ends.
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
CROWD = 100  # hashes with one key; above it all are compared with the hubs alone, not each with each
HUBS = 10  # the hashes of a crowd, smallest clips first, that all others are compared with
AT_ONCE = 2_000_000  # hashes with their keys that are joined at a time, unless there are more under one key
MEMORY = "2GB"  # DuckDB's share; what does not fit goes to disk

_BITS = [sum(1 << bit for bit in range(band, 64, BANDS)) for band in range(BANDS)]
KEYS = [one | other for one, other in itertools.combinations(_BITS, 2)]  # masks over the 64 bits


class Found(NamedTuple):
    """`first` < `second` (m,) are candidates, each pair once. `unsettled` are clips of those not asked for, of
    which some pairs may be candidates no longer since the asked-for came (see `Banding.candidates`).
    """

    first: np.ndarray
    second: np.ndarray
    unsettled: np.ndarray


class Banding:
    """The hashes of all clips in a DuckDB of its own."""

    def __init__(self, frames: FrameHashes, sources: np.ndarray, bits: int, same_source: bool):
        self.count = len(sources)
        self.hashes = max(1, len(frames.values))
        self.bits = bits
        self._other = "true" if same_source else "a.source <> b.source"
        self._folder = tempfile.TemporaryDirectory(prefix="clipmill-")
        self._sql = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": self._folder.name})
        self._sql.sql("SET preserve_insertion_order = false")
        columns = {"clip": frames.clips, "source": sources[frames.clips], "hash": frames.values}
        self._take("given", columns)
        self._sql.sql("CREATE TABLE hashes AS SELECT * FROM given")
        self._sql.unregister("given")

    def close(self) -> None:
        self._sql.close()
        self._folder.cleanup()

    def candidates(self, asked: np.ndarray, among: np.ndarray) -> Found:
        """Pairs of a clip of `asked` and one of `among` (count,) bool, found in the crowds that all clips make.

        Where `asked` came after the rest, a key may have become a crowd by them, or some of them its hubs: of
        the others with that key fewer pairs are compared than before. They are the unsettled ones.
        """
        if not asked.any():
            return Found(*np.zeros((3, 0), np.int32))
        whole = bool(asked.all() and among.all())
        if not whole:
            self._take("marks", {"clip": np.arange(self.count, dtype=np.int32), "asked": asked, "among": among})
        pairs, unsettled = [], []
        at_once = max(1, AT_ONCE // self.hashes)
        for start in range(0, len(KEYS), at_once):
            hashes = self._crowds(KEYS[start : start + at_once], whole)
            pairs.append(self._fetch(_all_pairs(hashes, self._near) if whole else _some_pairs(hashes, self._near)))
            if not whole:
                unsettled.append(self._fetch(_unsettled(hashes))[0])
        joined = np.unique(np.concatenate([_packed(*pair) for pair in pairs]))
        empty = np.zeros(0, np.int32)
        return Found(
            (joined >> np.uint64(32)).astype(np.int32),
            (joined & np.uint64(0xFFFFFFFF)).astype(np.int32),
            np.unique(np.concatenate([empty, *unsettled])).astype(np.int32),
        )

    def _crowds(self, masks: list[int], whole: bool) -> str:
        """The name of a table of the hashes that matter, each with its `key` under each mask. Makes the tables
        `crowds`, of keys that too many have, and `hubs`, of some hashes of each.
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
                wanted AS (SELECT DISTINCT mask, key FROM keyed SEMI JOIN (FROM marks WHERE asked) USING (clip))
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

    def _take(self, name: str, columns: dict[str, np.ndarray]) -> None:
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
    ends = "(a.asked AND b.among OR b.asked AND a.among) AND a.clip <> b.clip"
    return f"""
        WITH few AS MATERIALIZED ({_few(hashes)})
        SELECT DISTINCT least(a.clip, b.clip) AS first, greatest(a.clip, b.clip) AS second
        FROM (FROM few WHERE asked) AS a JOIN few AS b ON {near}
        WHERE {ends}
        UNION ALL
        SELECT DISTINCT least(a.clip, b.clip), greatest(a.clip, b.clip) FROM hubs AS a JOIN {hashes} AS b ON {near}
        WHERE {ends}"""


def _few(hashes: str) -> str:
    """The hashes that are in no crowd. Left to itself DuckDB joins crowds with themselves, and drops them then."""
    return f"SELECT * FROM {hashes} ANTI JOIN crowds USING (mask, key)"


def _unsettled(hashes: str) -> str:
    """Clips not asked for, with a key that became a crowd or of whose hubs one was asked for."""
    return f"""
        SELECT DISTINCT clip FROM {hashes} SEMI JOIN (
            SELECT mask, key FROM {hashes} SEMI JOIN crowds USING (mask, key)
            GROUP BY mask, key HAVING count(*) FILTER (NOT asked) <= {CROWD}
            UNION SELECT mask, key FROM hubs WHERE asked
        ) USING (mask, key) WHERE NOT asked"""


def _packed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first.astype(np.uint64) << np.uint64(32)) | second.astype(np.uint64)
