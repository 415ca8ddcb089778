"""The hash of a manifest's cells: a worker and DuckDB compute the same one."""

import datetime
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.schema import TIME
from curate.run.manifests.clip_cells import ClipCells
from curate.run.manifests.kinds import LARGE
from stages.unit import cells_hash

TIMES = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1))
CELLS = {
    "text": (pa.string(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "large": (LARGE, st.integers(0, 2**64 - 1).map(Decimal)),
    "fraction": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "truth": (pa.bool_(), st.booleans()),
    "day": (pa.date32(), st.dates(datetime.date(1970, 1, 1), datetime.date(2100, 1, 1))),
    "shot at": (TIME, TIMES.map(lambda at: at.replace(tzinfo=datetime.UTC))),
}
ROWS = st.fixed_dictionaries({name: st.none() | cells for name, (_, cells) in CELLS.items()})


@pytest.fixture(scope="module")
def sql():
    """DuckDB with tables as the views of a catalog have them."""
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA raw")
        yield connection


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_a_cell_hashes_alike_in_a_worker_and_in_sql(sql, row):
    names, at = [*CELLS, "in no manifest"], '"shot at"'
    table = pa.table({name: pa.array([row[name]], kind) for name, (kind, _) in CELLS.items()})
    sql.register("given", table.append_column("source_id", pa.array(["s"])))
    sql.execute(
        f"CREATE OR REPLACE TABLE sources AS SELECT * REPLACE (make_timestamp(epoch_us({at})) AS {at}) FROM given"
    )
    made = cells_hash(row, names)
    made_of = f"SELECT 's' AS source_id, 'c' AS clip_id, '{made}' AS manifest_hash"
    sql.execute(f"CREATE OR REPLACE TABLE raw.captions AS {made_of}")
    cells = ClipCells(sql)
    unchanged = cells.unchanged_sql("captions", "m", names)
    assert sql.execute(f"SELECT {unchanged} FROM raw.captions AS m{cells.joins('m')}").fetchall() == [(True,)]


def test_no_cells_have_no_hash_and_an_empty_cell_is_no_empty_text():
    assert cells_hash({"a": "x"}, ()) is None
    assert len({cells_hash({"a": cell, "b": "x"}, ("a", "b")) for cell in (None, "", "x")}) == 3
