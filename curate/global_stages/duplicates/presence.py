"""Which clips lie in sources that are gone: a duplicate that can still be read is kept before one that can't."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.storage import is_local
from stages.decode.sources import file_status
from stages.frames import SourceError

THREADS = 16


def gone(connection: duckdb.DuckDBPyConnection, source_ids: pa.Array, members: np.ndarray) -> np.ndarray:
    """(n,) bool: which of `members`, clips that have duplicates, lie in a local file that is not there.

    Sources in stores count as there: to ask for each of millions would cost hours. A folder that this machine can't
    see is gone as a whole, which changes no order within it.
    """
    found = np.zeros(len(source_ids), bool)
    if not len(members):
        return found
    sources = source_ids.take(pa.array(members))
    connection.register("clipmill_members", pa.table({"source_id": pc.unique(sources)}))
    rows = connection.execute(
        "SELECT source_id, uri FROM sources WHERE source_id IN (SELECT source_id FROM clipmill_members)"
    ).fetchall()
    connection.unregister("clipmill_members")
    local = [(source, uri) for source, uri in rows if is_local(uri)]
    with ThreadPoolExecutor(THREADS) as pool:
        there = list(pool.map(lambda row: _is_there(row[1]), local))
    missing = pa.array(
        [source for (source, _), is_there in zip(local, there, strict=True) if not is_there], pa.string()
    )
    found[members] = pc.is_in(sources, pa.array(missing, pa.string())).to_numpy(zero_copy_only=False)
    return found


def _is_there(uri: str) -> bool:
    try:
        return file_status(uri) is not None
    except SourceError:
        return False
