"""Rows of `sources` that get a wider type or other cells: whole before or after, whenever a run dies."""

import itertools
import os
import shutil
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.errors import UserError
from curate.run.verify import verify
from tests.curate.catalog.test_fencing import OVERTAKEN, asleep, stored_files
from tests.curate.ledgers import SCHEMAS, before_each_change, commit, expected, in_child, open_ledger, seen

OLD = dict.fromkeys("abcd", "old")
CHANGED = [None, "new", None, None]  # recipes of the four sources, which had none


def change(uri, what="widen", environment=None, at=0, after=False):
    """Gives `clips` of `sources` the type of fractions, or `recipe` another text in two of the four files.

    kill -9 comes before or after the `at`th change of any kind.
    """
    os.environ.update(environment or {})
    changes = 0

    def die(now):
        nonlocal changes
        changes += not now
        if changes == at and now == after:
            os.kill(os.getpid(), signal.SIGKILL)

    with before_each_change(lambda _: die(False), lambda _: die(True)), open_ledger(uri) as ledger:
        if what == "widen":
            ledger.widen_columns({"clips": pa.float64(), "no such column": pa.float64()})
        else:
            changed = os.path.join(os.path.dirname(uri), "changed.parquet")
            pq.write_table(pa.table({"source_id": ["b", "d", "nobody"], "recipe": ["new", None, "new"]}), changed)
            ledger.change_rows(changed)


def child(environment, *arguments):
    what, uri, at, after = arguments
    change(uri, what, environment, at, after)


def made(uri):
    with open_ledger(uri) as ledger:
        for key in OLD:
            commit(ledger, {key: "old"})
    return uri


def columns(uri, *names):
    """(type, cells) of each column of `sources`."""
    with connect(Catalog.open(uri)) as sql:
        kinds = {row[0]: row[1] for row in sql.execute("DESCRIBE sources").fetchall()}
        rows = sql.execute(f"SELECT {', '.join(names)} FROM sources ORDER BY source_id").fetchall()
    return tuple((kinds[name], [row[at] for row in rows]) for at, name in enumerate(names))


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("what", ["widen", "change rows"])
def test_a_run_killed_while_it_changes_sources_leaves_the_old_table_or_the_new_one(tmp_path, what, after):
    whole = made(str(tmp_path / "whole"))
    before = columns(whole, "clips", "recipe")
    for at in itertools.count(1, 2):
        uri = str(shutil.copytree(whole, tmp_path / str(at) / "catalog"))
        kinds = (("DOUBLE", before[0][1]), before[1]) if what == "widen" else (before[0], ("VARCHAR", CHANGED))
        process = in_child(child, what, uri, at, after)
        process.join()
        found = columns(uri, "clips", "recipe")
        assert found in (before, kinds)
        assert seen(uri) == expected(OLD) and verify(Catalog.open(uri)) == []
        if process.exitcode == 0:
            assert found == kinds
            break
        change(uri, what)
        assert columns(uri, "clips", "recipe") == kinds
        assert verify(Catalog.open(uri)) == []
    assert at > 4


def test_a_widened_table_takes_new_rows_and_a_second_widening_changes_nothing(tmp_path):
    uri = made(str(tmp_path))
    change(uri)
    before = Catalog.open(uri).snapshot()
    change(uri)
    assert Catalog.open(uri).snapshot() == before
    with open_ledger(uri) as ledger:
        ledger.begin({name: SCHEMAS[name] for name in ("clips", "thumbnails")})
        assert ledger.schema("sources").field("clips").type == pa.float64()


def test_an_empty_table_is_widened_too(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        ledger.begin(SCHEMAS)
    change(uri)
    assert columns(uri, "clips") == (("DOUBLE", []),)


def test_a_run_that_lost_its_lease_widens_nothing(tmp_path):
    uri = made(str(tmp_path))
    with asleep(uri) as first, open_ledger(uri) as second:
        second.begin(SCHEMAS)
        before = stored_files(second.catalog)
        with pytest.raises(UserError, match=OVERTAKEN):
            first.widen_columns({"clips": pa.float64()})
        assert stored_files(second.catalog) == before
    assert columns(uri, "clips")[0][0] == "BIGINT"
