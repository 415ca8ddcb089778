"""Columns of `sources` that are given a wider type: whole before or after, whenever a run dies or loses its lease."""

import itertools
import os
import signal

import pyarrow as pa
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.errors import UserError
from curate.run.verify import verify
from tests.curate.catalog.test_fencing import OVERTAKEN, asleep, stored_files
from tests.curate.ledgers import SCHEMAS, before_each_change, commit, expected, in_child, open_ledger, seen

OLD = dict.fromkeys("abcd", "old")


def widen(uri, environment=None, at=0, after=False):
    """Gives `clips` of `sources` the type of fractions; kill -9 before or after the `at`th change of any kind."""
    os.environ.update(environment or {})
    changes = 0

    def die(now):
        nonlocal changes
        changes += not now
        if changes == at and now == after:
            os.kill(os.getpid(), signal.SIGKILL)

    with before_each_change(lambda _: die(False), lambda _: die(True)), open_ledger(uri) as ledger:
        ledger.widen_columns({"clips": pa.float64(), "no such column": pa.float64()})


def child(environment, uri, at, after):
    widen(uri, environment, at, after)


def made(uri):
    with open_ledger(uri) as ledger:
        for key in OLD:
            commit(ledger, {key: "old"})
    return uri


def column(uri):
    with connect(Catalog.open(uri)) as sql:
        kind = {row[0]: row[1] for row in sql.execute("DESCRIBE sources").fetchall()}["clips"]
        return kind, [row[0] for row in sql.execute("SELECT clips FROM sources ORDER BY source_id").fetchall()]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_run_killed_while_it_widens_a_column_leaves_the_old_table_or_the_new_one(tmp_path, after):
    counts = None
    for at in itertools.count(1):
        uri = made(str(tmp_path / str(at)))
        counts = counts or column(uri)[1]
        process = in_child(child, uri, at, after)
        process.join()
        kind, values = column(uri)
        assert kind in ("BIGINT", "DOUBLE") and values == counts
        assert seen(uri) == expected(OLD) and verify(Catalog.open(uri)) == []
        if process.exitcode == 0:
            break
        widen(uri)
        assert column(uri) == ("DOUBLE", counts)
        assert verify(Catalog.open(uri)) == []
    assert at > 4


def test_a_widened_table_takes_new_rows_and_a_second_widening_changes_nothing(tmp_path):
    uri = made(str(tmp_path))
    widen(uri)
    before = Catalog.open(uri).snapshot()
    widen(uri)
    assert Catalog.open(uri).snapshot() == before
    with open_ledger(uri) as ledger:
        ledger.begin({name: SCHEMAS[name] for name in ("clips", "thumbnails")})
        assert ledger.schema("sources").field("clips").type == pa.float64()


def test_an_empty_table_is_widened_too(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        ledger.begin(SCHEMAS)
    widen(uri)
    assert column(uri) == ("DOUBLE", [])


def test_a_run_that_lost_its_lease_widens_nothing(tmp_path):
    uri = made(str(tmp_path))
    with asleep(uri) as first, open_ledger(uri) as second:
        second.begin(SCHEMAS)
        before = stored_files(second.catalog)
        with pytest.raises(UserError, match=OVERTAKEN):
            first.widen_columns({"clips": pa.float64()})
        assert stored_files(second.catalog) == before
    assert column(uri)[0] == "BIGINT"
