"""Verify: every kind of damage is told, an undamaged catalog is not."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake
from fsspec.implementations.local import LocalFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import ParquetFile

from curate.catalog.catalog import Catalog, file_paths
from curate.catalog.ledger import Ledger
from curate.catalog.parquet import damage
from curate.catalog.schema import rows_to_table
from curate.run.verify import verify
from tests.catalog_rows import commit_rows, note_version
from tests.curate.ledgers import clips_of, seen, work

pytestmark = pytest.mark.slow

KEYS = [key for key in "abcdefghijk" if clips_of(key, "new") >= 2][:3]


@pytest.fixture
def catalog(tmp_path):
    uri = str(tmp_path / "catalog")
    work(uri, dict.fromkeys(KEYS, "new"))
    assert verify(Catalog.open(uri)) == []
    return Catalog.open(uri)


def row(name, **values):
    table = rows_to_table(name, [values])
    return table.select([n for n in table.column_names if n in values])


def tamper(catalog, name, sql=None, **values):
    """Changes a table behind the ledger's back."""
    table = catalog.table(name)
    if sql:
        table.update(updates=values, predicate=sql)
    else:
        write_deltalake(table, row(name, **values), mode="append", schema_mode="merge")
    if name != "sources":
        note_version(catalog, "sources", name)


SPAN = {"start_pts": 100, "end_pts": 110, "start_s": 10.0, "end_s": 11.0}


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (
            ("sources", {"source_id": KEYS[0], "status": "failed", "reason": "x"}),
            "a source_id stands more than once",
        ),
        (("sources", {"source_id": "new", "status": "failed", "clips": 0}), "a failed source has no reason"),
        (("sources", {"source_id": "new", "status": "odd", "clips": 0}), "neither done nor failed"),
        (("clips", {"clip_id": "x", "source_id": "nobody", **SPAN}), "a clip has no source"),
        (
            ("clips", {"clip_id": f"{KEYS[0]}-0", "source_id": KEYS[0], **SPAN}),
            "a clip_id stands more than once",
        ),
        (("clips", {"clip_id": "x", "source_id": KEYS[0], **SPAN}), "another number of clips than it says"),
        (
            ("clips", {"clip_id": "x", "source_id": KEYS[0], **SPAN, "start_pts": 5}),
            "clips of one source overlap",
        ),
        (("clips", {"clip_id": "x", "source_id": KEYS[0], **SPAN, "end_pts": 99}), "ends before it begins"),
        (("clips", {"clip_id": "x", "source_id": KEYS[0], **SPAN}), "another pass than its source"),
        (("thumbnails", {"clip_id": "x", "source_id": KEYS[0]}), "a thumbnail has no clip"),
        (("thumbnails", {"clip_id": f"{KEYS[0]}-0", "source_id": KEYS[0]}), "more than one thumbnail"),
    ],
)
def test_added_rows_are_found(catalog, change, claim):
    name, values = change
    tamper(catalog, name, **values)
    found = verify(catalog)
    assert any(claim in problem for problem in found), found


def test_a_source_that_failed_but_has_clips_is_found(catalog):
    tamper(catalog, "sources", f"source_id = '{KEYS[1]}'", status="'failed'", reason="'why'")
    (found,) = verify(catalog)
    assert found.startswith("a clip's source is not done: ")
    assert f"{KEYS[1]}-0" in found


def test_lost_clips_are_found(catalog):
    catalog.table("clips").delete(f"clip_id = '{KEYS[2]}-0'")
    assert verify(catalog) == []  # no commit names that version
    note_version(catalog, "sources", "clips")
    found = verify(catalog)
    assert len(found) == 2
    assert f"a source has another number of clips than it says: {KEYS[2]} (says" in found[0]
    assert "a thumbnail has no clip" in found[1]


def test_missing_and_cut_files_are_found(catalog):
    paths = {name: file_paths(DeltaTable(catalog.table_uri(name)))[0] for name in ("clips", "sources")}
    os.unlink(paths["clips"])
    os.truncate(paths["sources"], 10)
    found = verify(catalog)
    assert any(f"{paths['clips']} is missing" in problem for problem in found)
    assert any("sources" in problem and "has 10 bytes, not" in problem for problem in found)
    assert len(found) == 2


def test_garbage_of_the_right_size_is_found(catalog):
    path = file_paths(catalog.table("clips"))[0]
    with open(path, "r+b") as file:
        file.write(b"\xa5" * os.path.getsize(path))
    (found,) = verify(catalog)
    assert found.startswith(f"table clips: the file {path} can't be read (")
    assert "\n" not in found


@pytest.fixture(scope="module")
def clips_file(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("flipped") / "catalog")
    work(uri, dict.fromkeys(KEYS, "new"))
    return file_paths(Catalog.open(uri).table("clips"))[0]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_flipped_bit_in_any_page_is_noticed_or_changes_nothing(clips_file, data):
    """A bit of a page's header may say nothing of its content."""
    before = ParquetFile(clips_file).read()
    whole = Path(clips_file).read_bytes()
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(4, pages - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = f"{clips_file}.flipped"
    Path(path).write_bytes(damaged)
    assert damage(LocalFileSystem(), path) or ParquetFile(path).read().equals(before)


def test_a_flipped_bit_of_a_signal_is_found(catalog):
    path = file_paths(catalog.table("clips"))[0]
    column = ParquetFile(path).metadata.row_group(0)
    (index,) = [i for i in range(column.num_columns) if column.column(i).path_in_schema == "end_s"]
    begin = column.column(index).dictionary_page_offset or column.column(index).data_page_offset
    content = Path(path).read_bytes()
    packed = content.index(b"\x1f\x8b\x08", begin) + 16
    Path(path).write_bytes(content[:packed] + bytes([content[packed] ^ 4]) + content[packed + 1 :])
    (found,) = verify(catalog)
    assert found.startswith(f"table clips: the file {path} can't be read (")


LOG = "_delta_log/{:020d}.json"


@pytest.mark.parametrize("content", [b"", b'{"add":{"path":"par', b"\x00" * 40, b'{"foo":1}\n'])
def test_a_damaged_log_entry_is_named_with_what_can_be_done(catalog, content, capsys):
    version = catalog.table("sources").version()
    path = os.path.join(catalog.uri, "sources", LOG.format(version))
    with open(path, "wb") as file:
        file.write(content)
    (found,) = verify(catalog)
    assert f"the log entry {path} is" in found
    assert "delete it" in found if version else "restore it from a backup" in found


def test_a_damaged_log_is_one_line_for_every_command(tmp_path, capsys):
    from curate.cli.main import main
    from tests.curate.running import make_folder, pipelines

    uri = str(tmp_path / "catalog")
    work(uri, {f"{i:02d}": "old" for i in range(9)})  # three commits
    path = os.path.join(uri, "sources", LOG.format(Catalog.open(uri).table("sources").version()))
    films, file = make_folder(tmp_path / "films", films=1), pipelines(tmp_path)
    run = ["run", "ingest", "--input", str(films), "--pipelines", str(file), "--engine", "inline"]
    for content in (b"", b"\xff\xff", b'{"add"'):
        with open(path, "wb") as log:
            log.write(content)
        for command in (["verify"], ["sql", "SELECT 1"], run, ["status"]):
            assert main([*command, "--catalog", uri]) == 1
            said = "".join(capsys.readouterr())
            assert f"the log entry {path} is" in said
            assert "it is the last one: delete it" in said
            assert "Traceback" not in said
    os.unlink(path)  # as it says
    assert verify(Catalog.open(uri)) == []
    work(uri, {f"{i:02d}": "old" for i in range(9)})
    assert len(seen(uri)) == 9
    assert verify(Catalog.open(uri)) == []


def test_a_damaged_checkpoint_is_found_and_can_be_done_without(catalog):
    catalog.table("clips").create_checkpoint()
    log = os.path.join(catalog.uri, "clips", "_delta_log")
    (path,) = [os.path.join(log, name) for name in os.listdir(log) if name.endswith(".parquet")]
    with open(path, "r+b") as file:
        file.write(b"\x00" * os.path.getsize(path))
    (found,) = verify(catalog)
    assert f"the checkpoint {path} can't be read" in found
    assert f"delete it and {log}/_last_checkpoint: the entries before it say the same" in found
    os.unlink(path)
    os.unlink(os.path.join(log, "_last_checkpoint"))
    assert verify(catalog) == []


@pytest.mark.parametrize(
    ("row", "claim"),
    [
        ({"status": "failed", "reason": " "}, "embeddings: a row that is not done has no reason"),
        ({"status": "odd"}, "embeddings: a row is neither done nor failed"),
        ({"clip_id": "nobody's"}, "embeddings: a row has no clip: nobody's"),
        ({}, None),
    ],
)
def test_tables_that_mark_clips_are_reconciled_too(catalog, row, claim):
    whole = {"clip_id": f"{KEYS[0]}-0", "source_id": KEYS[0], "status": "done", "reason": None, "settings": "s"}
    table = rows_to_table("embeddings", [whole | row], {"reason": "string"})
    with Ledger(catalog, "embeddings", "clip_id", "r") as ledger:
        commit_rows(ledger, {"embeddings": [whole | row]}, {"embeddings": {"reason": "string"}})
    found = verify(catalog)
    assert found == [] if claim is None else found[0].startswith(claim)
    write_deltalake(catalog.table("embeddings"), table, mode="append", schema_mode="merge")
    assert any("embeddings: a clip_id stands more than once" in problem for problem in verify(catalog))


def test_rows_of_a_source_that_was_made_again_since_may_have_no_clip(catalog):
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for number, expected in ((0, 0), (2, 1)):
        catalog.table("sources").update(updates={"committed_at": "TIMESTAMP '2026-01-02T00:00:00Z'"})
        row = {"clip_id": "gone", "source_id": KEYS[0], "status": "done", "settings": "s"}
        row["committed_at"] = day + datetime.timedelta(days=number)
        with Ledger(catalog, "embeddings", "clip_id", "r") as ledger:
            ledger.forget(["gone"])
            commit_rows(ledger, {"embeddings": [row]})
            claim = f"embeddings: a row has no clip: gone (pass {ledger.taken[0]})"
        assert verify(catalog) == [claim] * expected


def test_examples_are_few_and_the_whole_is_counted(catalog):
    for index in range(6):
        tamper(catalog, "thumbnails", clip_id=f"x{index}", source_id="nobody")
    (found,) = verify(catalog)
    assert found == "a thumbnail has no clip: x0 (pass NULL); x1 (pass NULL); x2 (pass NULL) and 3 more"


def test_a_missing_state_table_is_told_and_never_recovered_away(tmp_path):
    import shutil

    from curate.errors import UserError
    from curate.run.command import RunOptions
    from tests.curate.running import ask, ingest, make_folder, pipelines

    folder = make_folder(tmp_path / "films", films=2)
    file, catalog = pipelines(tmp_path), tmp_path / "catalog"
    for _ in range(2):  # two commits
        ingest(catalog, folder, file=file, options=RunOptions("inline", limit=2, quiet=True))
    shutil.move(catalog / "sources", tmp_path / "sources")
    assert any("sources" in problem for problem in verify(Catalog.open(str(catalog))))
    with pytest.raises(UserError, match="'sources' is missing"):
        ingest(catalog, folder, file=file)
    shutil.move(tmp_path / "sources", catalog / "sources")
    assert ask(catalog, "SELECT count(*) FROM clips") == [(6,)]
    assert verify(Catalog.open(str(catalog))) == []
