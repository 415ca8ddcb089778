"""The catalog: opening, leases, runs, gates in force, and what SQL sees and may not do."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest

import curate.catalog.lease
from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.lease import acquire, live_runs
from curate.catalog.ledger import Ledger
from curate.catalog.rights import RIGHTS
from curate.catalog.schema import BASE, rows_to_table
from curate.catalog.views import connect, query
from curate.errors import UserError
from curate.run.verify import verify
from curate.storage import filesystem, join
from tests.catalog_rows import commit_rows
from tests.curate.ledgers import rows_of, work


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A place for a catalog, on disk and in a bucket."""
    if request.param == "folder":
        return str(tmp_path / "a catalog's folder ünï")
    return f"{request.getfixturevalue('bucket')}/a catalog's folder ünï"


def ask(catalog, text):
    with connect(catalog) as sql:
        return query(sql, text)[1]


def test_a_missing_catalog_is_told_with_the_way_to_one(place):
    with pytest.raises(UserError, match=r"no catalog at .*run `clipmill|make one with `clipmill run ingest"):
        Catalog.open(place)


def test_opening_writes_nothing_until_there_is_something_to_keep(place):
    catalog = Catalog.open_or_create(place)
    assert not catalog.fs.exists(catalog.path)
    catalog.start_run({"run_id": "r"})
    assert Catalog.open(place).tables() == ["runs"]


def test_a_folder_with_other_files_is_no_place_for_a_catalog(tmp_path):
    (tmp_path / "holiday.mp4").write_bytes(b"")
    for path in (tmp_path, tmp_path / "holiday.mp4"):
        with pytest.raises(UserError, match="no catalog and not empty"):
            Catalog.open_or_create(str(path))
    with pytest.raises(UserError, match="Delta Lake does not read"):
        Catalog.open_or_create(str(tmp_path / "100%"))


def test_a_store_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if not installed
    with pytest.raises(UserError, match=r"gcsfs: pip install 'clipmill\[gcs\]'"):
        filesystem("gs://bucket/catalog")
    with pytest.raises(UserError, match="no store is known for nosuch://"):
        filesystem("nosuch://bucket")


def test_an_empty_catalog_answers_with_no_rows(place):
    catalog = Catalog.open_or_create(place)
    catalog.create()
    for name, schema in BASE.items():
        assert ask(catalog, f"SELECT * FROM {name}") == []
        if name in ("sources", "thumbnails"):
            with connect(catalog) as sql:
                rights = RIGHTS.names if name == "sources" else []
                assert query(sql, f"SELECT * FROM {name}")[0] == [*schema.names, *rights]
    assert ask(catalog, "SELECT verdict, dropped_by, failed_gates, unknown_gates FROM clips") == []
    assert verify(catalog) == []


def test_rows_come_back_as_they_went_in(place):
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    catalog = Catalog.open_or_create(place)
    tables = rows_of({"a": "new"})
    row = {"source_id": "a", "uri": "caf\udce9", "status": "done", "clips": len(tables["clips"])}
    row |= {"committed_at": now, "tags": ["x", "y"], "ratio": float("nan"), "free": True, "fps": 25}
    with Ledger(catalog, "sources", "source_id", "r") as ledger:
        commit_rows(ledger, tables | {"sources": [row]})
    text = "SELECT uri, committed_at, tags, free, fps FROM sources"
    assert ask(catalog, text) == [("caf\\udce9", now.replace(tzinfo=None), ["x", "y"], True, 25.0)]
    assert "pass" not in [name for name, *_ in ask(catalog, "DESCRIBE sources")]
    assert verify(catalog) == []


def test_rows_that_do_not_fit_name_the_column_and_the_types():
    with pytest.raises(UserError, match="'width' of sources is INTEGER, but got str"):
        rows_to_table("sources", [{"width": "wide"}])
    with pytest.raises(UserError, match=r"'width' of sources is INTEGER, but got float: 1\.5"):
        rows_to_table("sources", [{"width": 1.5}])
    with pytest.raises(UserError, match="'score' of sources mixes int, str"):
        rows_to_table("sources", [{"score": 1}, {"score": "high"}])
    with pytest.raises(UserError, match="'uri' and 'URI' of sources differ only in case"):
        rows_to_table("sources", [{"URI": "x"}])
    with pytest.raises(UserError, match="'fps' of clips is DOUBLE, not VARCHAR"):
        rows_to_table("clips", [], {"fps": pa.string()})


def test_the_gates_in_force_are_the_latest_of_each_recipe(place):
    catalog = Catalog.open_or_create(place)
    work(place, {"a": "new", "b": "new"})
    early, late = Gate(name="early", where="scene = 99"), Gate(name="late", where="scene = 98")
    other = Gate(name="other", where="true", unknown="drop")
    assert not catalog.put_gates("ingest", [], "r0")
    assert catalog.put_gates("ingest", [early], "r1")
    assert catalog.put_gates("second", [other], "r2")
    assert not catalog.put_gates("ingest", [early], "r3")
    assert catalog.gates() == [early, other]
    before = catalog.snapshot()
    assert catalog.put_gates("ingest", [late, early], "r4")
    assert catalog.gates() == [late, early, other]
    history = ask(catalog, "SELECT recipe, name, run_id, in_force FROM gates")
    assert history == [
        ("ingest", "early", "r1", False),
        ("second", "other", "r2", True),
        ("ingest", "late", "r4", True),
        ("ingest", "early", "r4", True),
    ]
    assert catalog.put_gates("ingest", [], "r5")
    assert not catalog.put_gates("ingest", [], "r6")
    assert catalog.gates() == [other]
    with connect(catalog, at=before) as sql:
        assert query(sql, "SELECT DISTINCT unknown_gates FROM clips")[1] == [(["early"],)]


def test_changed_gates_judge_again_and_write_no_clip(tmp_path):
    catalog = Catalog.open_or_create(str(tmp_path / "c"))
    work(catalog.uri, {f"{i}": "new" for i in range(6)})
    count = ask(catalog, "SELECT count(*) FROM clips")[0][0]
    version = catalog.snapshot()["clips"]
    for limit in (5, 15, 25):
        catalog.put_gates("ingest", [Gate(name="long", where=f"start_pts < {limit}")], "r")
        kept = ask(catalog, "SELECT count(*) FROM clips WHERE verdict = 'kept'")[0][0]
        assert kept == ask(catalog, f"SELECT count(*) FROM clips WHERE start_pts < {limit}")[0][0]
    assert kept == count > 0
    assert catalog.snapshot()["clips"] == version


def test_later_tables_of_one_row_a_clip_are_seen_in_clips(tmp_path):
    catalog = Catalog.open_or_create(str(tmp_path / "c"))
    work(catalog.uri, {f"{i}": "new" for i in range(6)})
    ids = [row[0] for row in ask(catalog, "SELECT clip_id FROM clips ORDER BY clip_id")]
    beauty = [{"clip_id": i, "aesthetic": 5.0, "fps": 1.0, "vector": [1.0]} for i in ids[1:]]
    words = [{"clip_id": ids[0], "word": word} for word in ("two", "rows")]
    with Ledger(catalog, "beauty", "clip_id", "r") as ledger:
        commit_rows(ledger, {"beauty": beauty, "words": words})
    catalog.put_gates("looks", [Gate(name="beauty", where="aesthetic > 6")], "r")
    rows = ask(catalog, "SELECT clip_id, aesthetic, beauty_fps, fps, verdict FROM clips ORDER BY clip_id")
    assert rows[0] == (ids[0], None, None, None, "kept")
    assert rows[1:] == [(i, 5.0, 1.0, None, "dropped") for i in ids[1:]]
    assert not {"vector", "word"} & {name for name, *_ in ask(catalog, "DESCRIBE clips")}
    assert ask(catalog, "SELECT count(*) FROM words") == [(2,)]


def test_a_run_is_one_row_running_finished_or_killed(tmp_path):
    catalog = Catalog.open_or_create(str(tmp_path / "c"))
    assert catalog.last_stages("sources") is None
    start = {"recipe": "ingest", "engine": "inline", "versions": {"python": "3"}}
    catalog.start_run(start | {"run_id": "dead", "settings": {"sources": "s1"}, "stages": {"sources": [1]}})
    catalog.start_run(start | {"run_id": "done", "settings": {"sources": "s2"}, "stages": {"sources": [2]}})
    catalog.end_run("done", {"status": "finished", "counts": {"kept": 3}})
    with Ledger(catalog, "sources", "source_id", "live"):
        catalog.start_run(start | {"run_id": "live", "settings": {"sources": "s3"}, "stages": {"sources": [3]}})
        states = dict(ask(catalog, "SELECT run_id, status FROM runs"))
    assert states == {"dead": "killed", "done": "finished", "live": "running"}
    assert catalog.last_stages("sources") == [3]
    assert catalog.last_stages("latents") is None
    ((counts, versions),) = ask(catalog, "SELECT counts, versions FROM runs WHERE run_id = 'done'")
    assert (json.loads(counts), json.loads(versions)) == ({"kept": 3}, {"python": "3"})
    with pytest.raises(ValueError, match="no colour"):
        catalog.start_run({"colour": "red"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT motio FROM clips", 'column "motio" not found.*Candidate bindings'),
        ("SELEC 1", "syntax error"),
        ("", "one SQL statement, not 0"),
        ("SELECT 1; SELECT 2", "one SQL statement, not 2"),
        ("COPY clips TO '{}/x.csv'", "only reads.*COPY"),
        ("EXPLAIN ANALYZE COPY clips TO '{}/x.csv'", "only reads"),
        ("EXPLAIN ANALYZE --x\nCOPY clips TO '{}/x.csv'", "only reads"),
        ("EXPLAIN --x\nANALYZE COPY clips TO '{}/x.csv'", "only reads"),
        ("EXPLAIN /* */ ANALYZE COPY clips TO '{}/x.csv'", "only reads|syntax error"),
        ("WITH x AS (COPY clips TO '{}/x.csv') FROM x", "only reads.*COPY"),
        ("EXPLAIN ANALYZE WITH x AS (COPY clips TO '{}/x.csv') FROM x", "only reads"),
        ("DROP VIEW clips", "only reads.*DROP"),
        ("CREATE TABLE x AS SELECT 1", "only reads.*CREATE"),
        ("ATTACH '{}/x.db'", "only reads.*ATTACH"),
        ("INSTALL httpfs", "only reads"),
        ("DELETE FROM sources", "only reads.*DELETE"),
    ],
)
def test_sql_reads_and_says_in_one_line_what_is_wrong(tmp_path, text, said):
    catalog = Catalog.open_or_create(str(tmp_path / "c"))
    work(catalog.uri, {"a": "new"})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=said) as caught:
        ask(catalog, text.format(tmp_path))
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("text", ["DESCRIBE clips", "SUMMARIZE sources", "SHOW TABLES", "EXPLAIN FROM clips"])
def test_sql_takes_every_way_of_reading(tmp_path, text):
    catalog = Catalog.open_or_create(str(tmp_path / "c"))
    work(catalog.uri, {"a": "new"})
    assert ask(catalog, text)


HOLD = """
import sys, time
from curate.catalog.lease import acquire
lease = acquire(sys.argv[1], "sources", "first")
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_run_is_refused_while_the_first_lives_and_let_in_when_it_was_killed(place):
    Catalog.open_or_create(place).create()
    first = subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"run first on .* \(pid {first.pid}\)"):
            acquire(place, "sources", "second")
        acquire(place, "latents", "other").release()  # each state table has its own
        assert live_runs(place) == {"first"}
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert live_runs(place) == set()
    second = acquire(place, "sources", "second")
    with pytest.raises(UserError, match="run second"):
        acquire(place, "sources", "third")
    second.check()
    second.release()
    acquire(place, "sources", "third").release()


def test_a_silent_holder_on_another_host_is_waited_for_and_then_replaced(bucket, monkeypatch):
    mine = curate.catalog.lease._boot()
    monkeypatch.setattr(curate.catalog.lease, "_boot", lambda: "another machine")
    first = acquire(bucket, "sources", "first")
    monkeypatch.setattr(curate.catalog.lease, "_boot", lambda: mine)
    with pytest.raises(UserError, match=r"run first .*its place is free 60 s after its last sign of life"):
        acquire(bucket, "sources", "second")
    monkeypatch.setattr(curate.catalog.lease, "STALE_SECONDS", 1.0)
    time.sleep(2.5)  # S3 tells times in whole seconds
    second = acquire(bucket, "sources", "second")
    with pytest.raises(UserError, match=r"run second .*lost its place"):
        first.check()
    second.check()
    first.release()
    second.check()
    second.release()
    fs, folder = filesystem(join(bucket, curate.catalog.lease.FOLDER))
    assert [name for name in fs.ls(folder) if "probe" in name] == []


def test_the_heartbeat_keeps_a_remote_lease(bucket, monkeypatch):
    mine = curate.catalog.lease._boot()
    monkeypatch.setattr(curate.catalog.lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(curate.catalog.lease, "_boot", lambda: "another machine")
    first = acquire(bucket, "sources", "first")
    monkeypatch.setattr(curate.catalog.lease, "_boot", lambda: mine)
    monkeypatch.setattr(curate.catalog.lease, "STALE_SECONDS", 2.0)
    time.sleep(3.5)
    with pytest.raises(UserError, match="run first"):
        acquire(bucket, "sources", "second")
    first.check()
    first.release()
    acquire(bucket, "sources", "second").release()


def test_a_child_of_a_killed_run_does_not_keep_its_lease(tmp_path):
    uri = str(tmp_path / "c")
    code = HOLD.replace(
        "time.sleep(60)", "import os; child = os.fork(); print(child or '', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    child = int(next(line for line in first.stdout if line.strip()))
    try:
        first.kill()
        first.wait()
        acquire(uri, "sources", "second").release()
    finally:
        os.kill(child, signal.SIGKILL)
        first.stdout.close()
