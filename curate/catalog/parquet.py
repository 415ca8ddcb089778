"""Parquet files with a checksum in every page, and a look at every page of one.

Delta's writer knows no page checksums, but a gzip stream ends with the CRC of what was packed: any reader that
unpacks a flipped bit is told. Level 1 is a little smaller and slower to scan than the usual snappy.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deltalake import WriterProperties

# Row groups are what a writer holds in memory and DuckDB scans with one thread each.
CHECKED = WriterProperties(compression="GZIP", compression_level=1, max_row_group_size=128 * 1024)


def damage(fs: Any, path: str, rows: int | None = None, columns: Collection[str] | None = None) -> str | None:
    """What is wrong with a Parquet file on a filesystem, in one line; None if every page can be read.

    `rows` is how many it should hold, `columns` those it may have. A flipped bit in the footer's statistics may
    stay unnoticed, as may one in pages that another program packed without a checksum.
    """
    from pyarrow.parquet import ParquetFile

    try:
        with fs.open(path) as file:
            opened = ParquetFile(file, page_checksum_verification=True)
            found = sum(batch.num_rows for batch in opened.iter_batches(use_threads=False))
    except FileNotFoundError:
        return "is missing"
    except Exception as error:  # pyarrow's own kinds are many, and a damaged footer can raise nearly any
        said = str(error).strip().splitlines()
        return f"can't be read ({said[0][:200] if said else type(error).__name__})"
    odd = set(opened.schema_arrow.names) - set(columns or opened.schema_arrow.names)
    if odd:
        return f"has a column {min(odd)!r}, which the table has not"
    promised = opened.metadata.num_rows if rows is None else rows
    if found != promised:
        return f"holds {found:,} rows, not {promised:,}"
    return None
