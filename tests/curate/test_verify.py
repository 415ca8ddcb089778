"""Verify: every kind of damage is told, an undamaged catalog is not."""

from __future__ import annotations

import os

import pytest
from deltalake import DeltaTable, write_deltalake

from curate.catalog import Catalog, file_paths
from curate.tables import rows_to_table
from curate.verify import verify
from tests.curate.ledgers import clips_of, work

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


def damage(catalog, name, sql=None, **values):
    """Changes a table behind the ledger's back."""
    table = catalog.table(name)
    if sql:
        table.update(updates=values, predicate=sql)
    else:
        write_deltalake(table, row(name, **values), mode="append", schema_mode="merge")


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
        (("clips", {"clip_id": "x", "source_id": KEYS[0], **SPAN}), "another batch than its source"),
        (("thumbnails", {"clip_id": "x", "source_id": KEYS[0]}), "a thumbnail has no clip"),
        (("thumbnails", {"clip_id": f"{KEYS[0]}-0", "source_id": KEYS[0]}), "more than one thumbnail"),
    ],
)
def test_added_rows_are_found(catalog, change, claim):
    name, values = change
    damage(catalog, name, **values)
    found = verify(catalog)
    assert any(claim in problem for problem in found), found


def test_a_source_that_failed_but_has_clips_is_found(catalog):
    damage(catalog, "sources", f"source_id = '{KEYS[1]}'", status="'failed'", reason="'why'")
    (found,) = verify(catalog)
    assert found.startswith("a clip's source is not done: ")
    assert f"{KEYS[1]}-0" in found


def test_lost_clips_are_found(catalog):
    catalog.table("clips").delete(f"clip_id = '{KEYS[2]}-0'")
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


def test_examples_are_few_and_the_whole_is_counted(catalog):
    for index in range(6):
        damage(catalog, "thumbnails", clip_id=f"x{index}", source_id="nobody")
    (found,) = verify(catalog)
    assert found == "a thumbnail has no clip: x0 (batch NULL); x1 (batch NULL); x2 (batch NULL) and 3 more"


def test_a_missing_mark_table_is_told_and_never_healed_away(tmp_path):
    import shutil

    from curate.errors import UserError
    from curate.run import RunOptions
    from tests.curate.running import ask, ingest, make_folder, pipelines

    folder = make_folder(tmp_path / "films", films=2)
    file, catalog = pipelines(tmp_path), tmp_path / "catalog"
    for _ in range(2):  # two batches
        ingest(catalog, folder, file=file, options=RunOptions("inline", limit=2, quiet=True))
    shutil.move(catalog / "sources", tmp_path / "sources")
    assert any("sources" in problem for problem in verify(Catalog.open(str(catalog))))
    with pytest.raises(UserError, match="'sources' is missing"):
        ingest(catalog, folder, file=file)
    shutil.move(tmp_path / "sources", catalog / "sources")
    assert ask(catalog, "SELECT count(*) FROM clips") == [(6,)]
    assert verify(Catalog.open(str(catalog))) == []
