"""The ledger: nothing lost, nothing doubled, whatever dies when."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BIGINT, TEXT, rows_to_table
from curate.catalog.state import Owner, owner
from curate.catalog.table_files import Compaction
from curate.catalog.views import connect
from curate.errors import UserError
from curate.run.verify import verify
from tests.catalog_rows import commit_rows, overwrite
from tests.curate.ledgers import (
    SCHEMAS,
    clips_of,
    commit,
    expected,
    files_of,
    in_child,
    known_of,
    open_ledger,
    rows_of,
    seen,
    work,
    work_and_die,
    work_in_peace,
)

pytestmark = pytest.mark.slow

KEYS = [f"{i:02d}'" for i in range(7)]  # a quote in a key must not matter
OLD = dict.fromkeys(KEYS, "old")
NEW = OLD | dict.fromkeys(KEYS[2:], "new") | {"later": "new"}


def die(uri, wanted, at, after, files=False) -> bool:
    """True if the change number `at` came, and the run died of it."""
    child = in_child(work_and_die, uri, wanted, at, after, files)
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def check(uri, *allowed) -> dict[str, tuple[str, int, int]]:
    """Every source is whole at one of the allowed states, or absent; verify is content. What is seen."""
    if not os.path.exists(uri) and "://" not in uri:
        return {}
    now = seen(uri)
    for key, state in now.items():
        assert state in [expected(wanted).get(key) for wanted in allowed]
    assert verify(Catalog.open(uri)) == []
    return now


def finish(uri, wanted) -> None:
    child = in_child(work_in_peace, uri, wanted)
    child.join()
    assert child.exitcode == 0
    assert seen(uri) == expected(wanted)
    assert verify(Catalog.open(uri)) == []


def test_a_run_killed_at_any_commit_loses_and_doubles_nothing(tmp_path):
    for at in itertools.count(0):  # death before a change leaves what death after the one before it leaves
        uri = str(tmp_path / f"{at}")
        if not die(uri, OLD, max(at, 1), after=at > 0):
            break
        if os.path.exists(os.path.join(uri, "catalog.json")):
            check(uri, OLD)
        finish(uri, OLD)
    assert at > 18  # commits of three batches in three tables were all tried


def test_a_replacement_killed_at_any_commit_leaves_each_source_old_or_new(tmp_path):
    work(str(tmp_path / "before"), OLD)
    for at in itertools.count(0):
        uri = str(shutil.copytree(tmp_path / "before", tmp_path / f"{at}"))
        if not die(uri, NEW, max(at, 1), after=at > 0):
            break
        assert set(check(uri, OLD, NEW)) >= set(OLD)  # none was given up before its new rows were whole
        finish(uri, NEW)
    assert at > 20


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(1, 20), st.booleans(), st.booleans()), min_size=2, max_size=4))
def test_deaths_while_recovering_from_the_death_before_are_recovered_from_too(tmp_path_factory, deaths):
    uri = str(tmp_path_factory.mktemp("catalog"))
    wanted = OLD
    for at, after, newer in deaths:
        wanted = NEW if newer else wanted
        die(uri, wanted, at, after)
        check(uri, OLD, NEW)
    finish(uri, NEW)


def test_kill_9_at_random_moments_loses_nothing(tmp_path):
    uri = str(tmp_path / "catalog")
    wanted = {f"{i:03d}": "old" for i in range(150)}
    killed = 0
    for delay in (0.01, 0.02, 0.05, 0.08, 0.12):
        child = in_child(work_in_peace, uri, wanted)
        child.join(delay)
        child.kill()  # which does nothing to a child that was done before
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if os.path.exists(os.path.join(uri, "catalog.json")):
            check(uri, wanted)
    assert killed >= 3
    finish(uri, wanted)


def test_a_catalog_whose_making_was_killed_can_be_made(tmp_path):
    (tmp_path / ".catalog.json.123.part").write_text("{")
    work(str(tmp_path), OLD)
    assert seen(str(tmp_path)) == expected(OLD)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sets(st.sampled_from(KEYS), min_size=1), st.booleans()), min_size=2, max_size=6))
def test_whatever_is_made_again_and_whenever_it_is_pruned_the_latest_rows_are_seen(tmp_path_factory, batches):
    catalog = Catalog.open_or_create(str(tmp_path_factory.mktemp("catalog")))
    now: dict[str, str] = {}
    with Ledger(catalog, "sources", "source_id", "r") as ledger:
        for number, (keys, maintain) in enumerate(batches):
            wanted = dict.fromkeys(keys, f"version {number}")
            commit(ledger, wanted, redone=bool(keys & set(now)))
            now |= wanted
            if maintain:
                ledger.maintain()
            assert seen(catalog.uri) == expected(now)
        ledger.maintain()
        assert known_of(ledger) == now
    assert verify(catalog) == []
    stored = sum(part.num_rows for part in catalog.read(catalog.table("clips")))
    assert stored == sum(clips for _, clips, _ in expected(now).values())  # old rows are gone, not only hidden


def results(clips, **columns) -> list[dict]:
    """Rows of a stage on clips; each column gives a value a clip."""
    return [
        {"clip_id": clip, "source_id": clip[0], "status": "done", "settings": "done"}
        | {name: values[index] for name, values in columns.items()}
        for index, clip in enumerate(clips)
    ]


def test_one_run_keeps_several_state_tables_at_once(tmp_path):
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    keys = [key for key in "abcdefgh" if clips_of(key, "old")]
    clips = [f"{key}-0" for key in keys]
    with (
        Ledger(catalog, "sources", "source_id", "r") as sources,
        Ledger(catalog, "embeddings", "clip_id", "r") as embeddings,
        Ledger(catalog, "duplicates", "clip_id", "r") as duplicates,
    ):
        for key, clip in zip(keys, clips, strict=True):
            commit(sources, {key: "old"})
            commit_rows(embeddings, {"embeddings": results([clip], score=[0.5])})
        overwrite(duplicates, rows_to_table("duplicates", results(clips, duplicate_of=clips)))
        commit_rows(embeddings, {"embeddings": results(clips[:2], score=[0.75] * 2)}, redone=True)
        with pytest.raises(UserError, match=r"run r on .* has been writing 'embeddings'"):
            Ledger(catalog, "embeddings", "clip_id", "other").__enter__()
        for ledger in (sources, embeddings, duplicates):
            ledger.maintain()
    assert verify(catalog) == []
    with Ledger(catalog, "embeddings", "clip_id", "later") as embeddings:
        known = pa.concat_tables(embeddings.known())
    assert known.column_names == ["clip_id", "status", "settings"]
    assert sorted(known["clip_id"].to_pylist()) == clips
    with connect(catalog) as sql:
        scores = sql.execute("SELECT score, count(*) FROM clips WHERE score > 0 GROUP BY ALL ORDER BY ALL").fetchall()
        assert scores == [(0.5, len(clips) - 2), (0.75, 2)]
        assert sql.execute("SELECT count(*) FROM clips WHERE duplicate_of = clip_id").fetchall() == [(len(clips),)]


@pytest.mark.parametrize("count", [2, 700])
def test_clips_that_are_no_more_can_be_forgotten(tmp_path, count):
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    clips = [f"{i:03d}'" for i in range(800)]
    with Ledger(catalog, "embeddings", "clip_id", "r") as ledger:
        ledger.forget(clips)  # nothing is there yet
        commit_rows(ledger, {"embeddings": results(clips[:400])})
        commit_rows(ledger, {"embeddings": results(clips[400:])})
        ledger.forget([*clips[-count:], "unknown"])
        left = [clip for part in ledger.known() for clip in part["clip_id"].to_pylist()]
    assert sorted(left) == clips[:-count]


@pytest.mark.parametrize("after", [False, True])
def test_an_overwrite_shows_the_old_table_or_the_new_one(tmp_path, monkeypatch, after):
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    real = DeltaTable.create_write_transaction

    def clusters(clips, cluster, kind=TEXT):
        return rows_to_table("clusters", results(clips, cluster=cluster), {"clip_id": TEXT, "cluster": kind})

    def shown():
        with connect(catalog) as sql:
            return sql.execute("SELECT clip_id, cluster FROM clusters ORDER BY 1").fetchall()

    def failing(table, actions, *args, **kwargs):
        if not actions:  # a pass is taken
            return real(table, actions, *args, **kwargs)
        if after:
            real(table, actions, *args, **kwargs)
        raise OSError("no answer")

    with Ledger(catalog, "clusters", "clip_id", "r", pauses=(0,)) as ledger:
        overwrite(ledger, clusters(["a", "b"], [1, 2], BIGINT))
        assert shown() == [("a", 1), ("b", 2)]
        monkeypatch.setattr(DeltaTable, "create_write_transaction", failing)
        if after:  # the commit was made, its answer lost
            overwrite(ledger, clusters(["b", "c"], ["x", "y"]))
        else:
            with pytest.raises(UserError, match="can't write table 'clusters'"):
                overwrite(ledger, clusters(["b", "c"], ["x", "y"]))
            assert shown() == [("a", 1), ("b", 2)]
        monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
        if not after:
            overwrite(ledger, clusters(["b", "c"], ["x", "y"]))
        assert shown() == [("b", "x"), ("c", "y")]
        commit_rows(ledger, {"clusters": results(["d"], cluster=["z"])})
        assert shown() == [("b", "x"), ("c", "y"), ("d", "z")]
        overwrite(ledger, clusters([], []))
        assert shown() == []
    assert owner(catalog.table("clusters")) == Owner("clusters", "clip_id")


@pytest.mark.parametrize(("at", "after"), [(9, False), (21, True)])
def test_a_run_killed_on_s3_is_resumed_there(bucket, at, after):
    uri = f"{bucket}/a catalog"
    die(uri, OLD, at, after)
    check(uri, OLD)
    work(uri, OLD)
    die(uri, NEW, at, after)
    check(uri, OLD, NEW)
    finish(uri, NEW)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(tmp_path, monkeypatch):
    uri, real = str(tmp_path / "catalog"), DeltaTable.create_write_transaction
    calls = []

    def lossy(*args, **kwargs):
        calls.append(args)
        if len(calls) % 3 == 2:
            raise OSError("connection reset before the request was sent")
        real(*args, **kwargs)
        if len(calls) % 3 == 0:
            raise OSError("connection reset before the answer came")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lossy)
    work(uri, OLD)
    assert len(calls) > 9
    assert seen(uri) == expected(OLD)
    assert verify(Catalog.open(uri)) == []


def test_a_ledger_goes_on_after_a_commit_that_failed_half_way(tmp_path, monkeypatch):
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    real = DeltaTable.create_write_transaction
    with open_ledger(catalog.uri) as ledger:
        commit(ledger, {KEYS[0]: "old"})
        files = files_of(ledger, ledger.begin(SCHEMAS), dict.fromkeys(KEYS[1:4], "old"))

        def full(table, *args, **kwargs):
            if "sources" in table.table_uri:
                raise OSError("No space left on device")
            real(table, *args, **kwargs)

        monkeypatch.setattr(DeltaTable, "create_write_transaction", full)
        with pytest.raises(UserError, match=r"can't write table 'sources'.*No space left"):
            ledger.commit(files)
        assert seen(catalog.uri) == expected({KEYS[0]: "old"})
        monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
        ledger.commit(files)
    assert seen(catalog.uri) == expected(dict.fromkeys(KEYS[:4], "old"))
    assert verify(catalog) == []


def test_a_reader_sees_only_whole_commits_while_a_run_makes_sources_again(tmp_path):
    uri = str(tmp_path / "catalog")
    work(uri, OLD)
    stop = threading.Event()

    def turn():
        wanted = itertools.cycle([NEW | OLD, OLD | dict.fromkeys(KEYS, "new")])
        while not stop.is_set():
            work(uri, next(wanted), maintain=False)

    writer = threading.Thread(target=turn)
    writer.start()
    try:
        for _ in range(30):
            seen(uri)  # asserts that clips, thumbnails and sources agree
    finally:
        stop.set()
        writer.join()


def test_many_keys_are_made_again_at_once(tmp_path):
    uri = str(tmp_path / "catalog")
    catalog = Catalog.open_or_create(uri)
    before, now = ({f"{i:05d}": v for i in range(3000)} for v in ("old", "new"))
    with Ledger(catalog, "sources", "source_id", "r") as ledger:
        commit(ledger, before)
        commit(ledger, now, redone=True)
    assert seen(uri) == expected(now)


def test_compaction_merges_small_files_and_keeps_every_version_of_the_week(tmp_path):
    uri = str(tmp_path / "catalog")
    catalog = Catalog.open_or_create(uri)
    with open_ledger(uri, compaction=Compaction(small_files=4)) as ledger:
        for key in KEYS[:5]:
            commit(ledger, {key: "new"})
        early = catalog.snapshot()
        commit(ledger, {KEYS[5]: "new"})
        ledger.maintain()
        compacted = catalog.snapshot()
        ledger.maintain()
        assert catalog.snapshot() == compacted  # nothing left to do
    assert len(catalog.table("sources").file_uris()) == 1
    assert seen(uri) == expected(dict.fromkeys(KEYS[:6], "new"))
    with connect(catalog, at=early) as sql:
        assert sql.execute("SELECT count(*) FROM sources").fetchall() == [(5,)]


def test_later_commits_may_bring_new_columns(tmp_path):
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    first, second, third = (rows_of({key: "old"}) for key in "abc")
    second["sources"][0]["licence"] = "CC0"
    third["sources"][0] |= {"licence": None, "empty": None}
    with Ledger(catalog, "sources", "source_id", "r") as ledger:
        for tables in (first, second, third):
            commit_rows(ledger, tables)
    with connect(catalog) as sql:
        rows = sql.execute("SELECT source_id, licence FROM sources ORDER BY 1").fetchall()
    assert rows == [("a", None), ("b", "CC0"), ("c", None)]


def test_a_changed_type_is_refused_before_anything_is_written(tmp_path):
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    first, second, third = (rows_of({key: "new"}) for key in "abc")
    first["sources"][0]["score"] = 1.5
    second["sources"][0]["score"] = "high"
    third["sources"][0]["score"] = 2  # an integer is a number too
    with Ledger(catalog, "sources", "source_id", "r") as ledger:
        commit_rows(ledger, first)
        before = {name: set(catalog.table(name).file_uris()) for name in catalog.tables()}
        with pytest.raises(UserError, match="'score' of sources is DOUBLE in the catalog, but now comes as VARCHAR"):
            commit_rows(ledger, second)
        assert {name: set(catalog.table(name).file_uris()) for name in catalog.tables()} == before
        commit_rows(ledger, third, {"sources": {"score": "double"}})
    assert set(seen(catalog.uri)) == {"a", "c"}
