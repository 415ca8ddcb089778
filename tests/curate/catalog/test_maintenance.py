"""Maintenance: garbage goes and nothing else does, small files are merged once, logs stay short and hold no text."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.schema import rows_to_table
from curate.catalog.table_files import Compaction
from curate.catalog.views import connect
from curate.errors import UserError
from curate.run.verify import verify
from tests.catalog_rows import commit_rows, overwrite, write_files
from tests.curate.ledgers import (
    SCHEMAS,
    TABLES,
    clips_of,
    commit,
    expected,
    files_of,
    known_of,
    open_ledger,
    rows_of,
    seen,
    work,
)

OLD = dict.fromkeys("abcde", "old")
SECRET = "Zebra crossing 4711"


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def uri(request, tmp_path):
    """A place for a catalog, on disk and in a bucket."""
    return str(tmp_path / "c") if request.param == "folder" else f"{request.getfixturevalue('bucket')}/c"


def lying(catalog: Catalog) -> dict[str, set[str]]:
    """The files in the folder of each table, but for its log."""
    return {name: {file for file in catalog.file_names(name) if file != "_delta_log"} for name in TABLES}


def current(catalog: Catalog, name: str) -> set[str]:
    table = catalog.table(name)
    assert table is not None
    return {path.rsplit("/", 1)[-1] for path in table.file_uris()}


def put(catalog: Catalog, table: str, name: str) -> str:
    catalog.fs.pipe_file(f"{catalog.path}/{table}/{name}", b"PAR1")
    return name


def test_uncommitted_files_of_dead_runs_are_deleted_at_the_next_start_and_no_others(uri):
    work(uri, OLD)
    catalog = Catalog.open(uri)
    before = lying(catalog)
    with open_ledger(uri) as ledger:
        files = files_of(ledger, ledger.begin(SCHEMAS), {"x": "lost"})  # and here it died
    put(catalog, "clips", f".{uuid.uuid4().hex}-9-{uuid.uuid4().hex}.parquet.0123456789abcdef.part")
    kept = put(catalog, "clips", "part-of-another-program.parquet")
    assert lying(catalog) != before
    with open_ledger(uri):
        left = lying(catalog)
    assert left == before | {"clips": before["clips"] | {kept}}
    assert not any(file.name in left[file.table] for file in files)
    assert seen(uri) == expected(OLD)
    assert verify(catalog) == []


def test_files_of_a_run_that_holds_a_lease_stay(uri):
    work(uri, OLD)
    catalog, run = Catalog.open(uri), uuid.uuid4().hex
    name = put(catalog, "clips", f"{run}-5-{uuid.uuid4().hex}.parquet")
    with Ledger(catalog, "embeddings", "clip_id", run), open_ledger(uri):
        assert name in lying(catalog)["clips"]
    with open_ledger(uri):
        assert name not in lying(catalog)["clips"]


def test_a_start_with_nothing_to_do_commits_nothing(uri):
    work(uri, OLD)
    catalog = Catalog.open(uri)
    before = {name: catalog.table(name).version() for name in catalog.tables()}
    with open_ledger(uri) as ledger:
        assert known_of(ledger) == OLD
        ledger.maintain()
    assert {name: catalog.table(name).version() for name in catalog.tables()} == before


def test_time_travel_reads_what_was_superseded_compacted_and_forgotten_since(uri):
    with open_ledger(uri) as ledger:
        for key in OLD:
            commit(ledger, {key: "old"})
        early = ledger.catalog.snapshot()
        commit(ledger, dict.fromkeys("abc", "new"), redone=True)
        ledger.maintain()
        ledger.forget(["d"])
        ledger.maintain()
    with open_ledger(uri):  # which looks for garbage
        pass
    now = OLD | dict.fromkeys("abc", "new")
    del now["d"]
    assert seen(uri) == expected(now)
    with connect(Catalog.open(uri), at=early) as sql:
        assert dict(sql.execute("SELECT source_id, settings FROM sources").fetchall()) == OLD
        clips = sql.execute("SELECT count(*) FROM clips").fetchall()
        assert clips == [(sum(clips_of(key, "old") for key in OLD),)]
    assert verify(Catalog.open(uri)) == []


def test_compaction_lowers_the_number_of_files_and_merges_nothing_twice(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri, compaction=Compaction(small_files=2, small_rows=5)) as ledger:
        catalog = ledger.catalog
        for key in OLD:
            commit(ledger, {key: "old"})
        assert len(current(catalog, "sources")) == len(OLD)
        ledger.maintain()
        merged = {name: current(catalog, name) for name in TABLES}
        assert {len(files) for files in merged.values()} == {1}
        for key in "xy":
            commit(ledger, {key: "old"})
        ledger.maintain()
        assert merged["sources"] < current(catalog, "sources")
        assert len(current(catalog, "sources")) == 2
    assert seen(uri) == expected(OLD | dict.fromkeys("xy", "old"))


def test_a_group_of_small_files_is_no_larger_than_the_target(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        for key in OLD:
            commit(ledger, {key: "old"})
        size = max(file["size_bytes"] for file in _actions(ledger.catalog, "sources"))
    with open_ledger(uri, compaction=Compaction(small_files=2, target_bytes=3 * size)) as ledger:
        jobs = []
        ledger.maintain(lambda job: jobs.append(job) or job())
    of_sources = [len(job.paths) for job in jobs if job.table == "sources"]
    assert sum(of_sources) == len(OLD)
    assert max(of_sources) <= 4
    assert seen(uri) == expected(OLD)


def _actions(catalog: Catalog, name: str) -> list[dict]:
    return pa.table(catalog.table(name).get_add_actions(flatten=True)).to_pylist()


def test_files_say_which_passes_they_hold_after_compaction_too(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        for key in "ab":
            commit(ledger, {key: "old"})
        first = min(file["min.pass"] for file in _actions(ledger.catalog, "sources"))
        ledger.maintain()
        last = ledger.taken[0]
    (file,) = _actions(Catalog.open(uri), "sources")
    assert (file["min.pass"], file["max.pass"], file["num_records"]) == (first, last, 2)


def test_forgetting_rewrites_only_files_that_hold_the_keys(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        for key in OLD:
            commit(ledger, {key: "old"})
        before = {name: current(ledger.catalog, name) for name in TABLES}
        ledger.forget(["a"])
        after = {name: current(ledger.catalog, name) for name in TABLES}
    for name in TABLES:
        assert len(before[name] - after[name]) == (1 if name == "sources" or clips_of("a", "old") else 0)
    assert set(seen(uri)) == set(OLD) - {"a"}


@pytest.mark.slow
def test_a_log_gets_checkpoints_and_can_be_read_before_and_after_them(tmp_path):
    uri = str(tmp_path)
    with open_ledger(uri) as ledger:
        writer = ledger.begin(SCHEMAS)
        for number in range(60):
            ledger.commit(files_of(ledger, writer, {f"{number:02d}": "old"}))
            if number == 10:
                early = ledger.catalog.snapshot()
    for name in TABLES:
        log = os.listdir(tmp_path / name / "_delta_log")
        assert any(file.endswith(".checkpoint.parquet") for file in log)
    assert seen(uri) == expected({f"{number:02d}": "old" for number in range(60)})
    with connect(Catalog.open(uri), at=early) as sql:
        assert sql.execute("SELECT count(*) FROM sources").fetchall() == [(11,)]
    with open_ledger(uri) as ledger:
        before = ledger.taken[0]
        commit(ledger, {"later": "old"})
        assert ledger.taken[0] == before + 1  # numbers are in checkpoints too
    assert verify(Catalog.open(uri)) == []


def in_log(folder: Path, text: str) -> list[Path]:
    """The files of Delta logs below a folder that hold a text."""
    found = [path for path in folder.rglob("_delta_log/*.json") if text in path.read_text()]
    checkpoints = list(folder.rglob("_delta_log/*.checkpoint.parquet"))
    assert checkpoints
    return found + [path for path in checkpoints if text in str(pq.read_table(path).to_pylist())]


def test_no_text_of_a_row_stands_in_a_log_or_checkpoint(tmp_path):
    uri = str(tmp_path)
    rows = rows_of({SECRET: "old"})
    with open_ledger(uri) as ledger:
        commit_rows(ledger, rows)
        commit_rows(ledger, rows_of({"a": "old"}))
        ledger.maintain()
        ledger.forget([SECRET])
        for table in ledger.tables.values():
            table.create_checkpoint()
        catalog = ledger.catalog
    with Ledger(catalog, "clusters", "clip_id", "r") as ledger:
        overwrite(ledger, rows_to_table("clusters", [{"clip_id": SECRET, "cluster": SECRET}]))
    for _ in range(40):
        catalog.start_run({"run_id": SECRET, "recipe_text": SECRET, "inputs": SECRET})
    catalog.compact_own_tables()
    assert in_log(tmp_path, "numRecords")
    assert in_log(tmp_path, SECRET) == []


def test_a_file_that_is_gone_or_cut_short_is_not_committed(uri):
    work(uri, OLD)
    before = Catalog.open(uri).snapshot()
    with open_ledger(uri) as ledger:
        fs, folder = ledger.catalog.fs, ledger.catalog.path
        for damage in (lambda path: fs.rm_file(path), lambda path: fs.pipe_file(path, b"PAR1")):
            files = files_of(ledger, ledger.begin(SCHEMAS), {"x": "new"})
            damage(f"{folder}/{files[0].table}/{files[0].name}")
            with pytest.raises(UserError, match=rf"{files[0].name} .* was not committed: run the same command again"):
                ledger.commit(files)
        assert seen(uri) == expected(OLD)
        commit(ledger, {"x": "new"})
    assert seen(uri) == expected(OLD | {"x": "new"})
    assert Catalog.open(uri).snapshot() != before


def test_data_tables_are_never_cut_off_from_their_units(tmp_path):
    with open_ledger(str(tmp_path)) as ledger:
        commit(ledger, OLD)
        sources = rows_to_table("sources", rows_of(OLD)["sources"])
        with pytest.raises(ValueError, match="data tables"):
            ledger.overwrite(write_files(ledger.begin(SCHEMAS), {"sources": sources}), sources.schema)
        ledger.forget([*"ab", "unknown"])
    assert set(seen(str(tmp_path))) == set(OLD) - {*"ab"}
    assert verify(Catalog.open(str(tmp_path))) == []
