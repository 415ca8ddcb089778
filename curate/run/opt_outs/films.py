"""Reads the training assertion of C2PA from films that the catalog has already and that were not asked for it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import pyarrow as pa
import pyarrow.parquet as pq

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.rights import signal_columns
from curate.catalog.schema import TEXT, rows_to_table
from curate.catalog.views import connect
from curate.progress_bar import ProgressBar
from stages.decode.child import Child
from stages.scan.training_assertion import FROM, read_assertion
from stages.unit import Place, Row

READERS = 4  # children
AT_ONCE = 1024  # sources whose answers are committed together
KEYS: dict[str, pa.DataType] = {"source_id": TEXT} | signal_columns("c2pa")


def read_known_films(catalog: Catalog, ledger: Ledger, stopped: Callable[[], bool]) -> int:
    """Fills the columns of done sources that were never asked, and gives their number; goes on where it was stopped."""
    count = 0
    with connect(catalog) as sql, ThreadPoolExecutor(READERS) as pool:
        chosen = f"FROM sources WHERE status = 'done' AND {FROM} IS NULL"
        total = sql.execute(f"SELECT count(*) {chosen}").fetchall()[0][0]
        if not total:
            return 0
        reader = sql.sql(f"SELECT source_id, uri, archive_offset, bytes {chosen}").to_arrow_reader(AT_ONCE)
        rows = (row for batch in reader for row in batch.to_pylist())
        children: SimpleQueue[Child] = SimpleQueue()
        opened = [Child(imports=("stages.scan.training_assertion",)) for _ in range(READERS)]
        for child in opened:
            children.put(child)

        def ask(row: Row) -> Row:
            child = children.get()
            try:
                place = Place.known(row["archive_offset"], row["bytes"])
                return {"source_id": row["source_id"], **read_assertion(child, row["uri"], place)}
            finally:
                children.put(child)

        try:
            with ProgressBar("c2pa", total, "films") as bar:
                while not stopped() and (some := list(islice(rows, AT_ONCE))):
                    _keep(ledger, pool.map(ask, some))
                    count += len(some)
                    bar.update(count)
        finally:
            for child in opened:
                child.close()
    return count


def _keep(ledger: Ledger, answers: Iterator[Row]) -> None:
    with tempfile.TemporaryDirectory(prefix="clipmill-") as folder:
        path = Path(folder, "changed.parquet")
        made = rows_to_table("changed", list(answers), KEYS)
        pq.write_table(pa.table([made[name] for name in KEYS], schema=pa.schema(KEYS)), path)
        ledger.change_rows(str(path))
