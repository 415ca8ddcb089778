import json
import os

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from curate.errors import UserError
from curate.run.listing import Listing
from curate.run.pending import PendingSources


def uris(*inputs, **settings):
    listing = Listing(tuple(str(i) for i in inputs), **settings)
    listing.check()
    return [entry["uri"] for entry in listing], listing


def first_unit(manifest):
    listing = Listing((str(manifest),))
    listing.join_columns({})
    return next(iter(PendingSources(listing)))


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.mp4",
        "a.MKV",
        "c.jpg",
        "notes.txt",
        "sub/d.webm",
        "sub/e",
        "we ird\n'; DROP TABLE 🎬.mp4",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def test_a_folder_gives_its_media_files_and_counts_what_it_leaves_out(folder):
    found, listing = uris(folder)
    names = [os.path.relpath(uri, folder) for uri in found]
    assert sorted(names) == sorted(["a.MKV", "b.mp4", "c.jpg", "we ird\n'; DROP TABLE 🎬.mp4", "sub/d.webm"])
    assert sum(listing.left_out.values()) == 2


def test_a_link_to_a_folder_is_counted_and_not_followed_and_a_link_to_a_file_is_a_source(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "self.mp4").symlink_to(folder / "self.mp4")
    (folder / "again.mp4").symlink_to(folder / "b.mp4")
    found, listing = uris(folder)
    assert any("link to a folder" in reason for reason in listing.left_out)
    assert {"self.mp4", "again.mp4"} <= {os.path.basename(uri) for uri in found}


def test_a_glob_takes_what_it_matches_whatever_its_ending(folder):
    found, _ = uris(folder / "*.txt")
    assert [os.path.basename(uri) for uri in found] == ["notes.txt"]


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(tmp_path):
    (tmp_path / "take [1]").mkdir()
    (tmp_path / "take [1]" / "a.mp4").write_bytes(b"x")
    assert len(uris(tmp_path / "take [1]")[0]) == 1


def test_every_manifest_carries_its_extra_columns_and_resolves_names_from_its_own_folder(folder):
    rows = [
        {"uri": "b.mp4", "caption": "a red ball", "licence": "cc0"},
        {"uri": "sub/d.webm", "caption": "x", "licence": "cc0"},
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "m.parquet")
    csv.write_csv(table, folder / "m.csv")
    (folder / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for name in ("m.parquet", "m.csv", "m.jsonl"):
        listing = Listing((str(folder / name),))
        listing.join_columns({})
        entries = list(listing)
        assert [entry["uri"] for entry in entries] == [str(folder / row["uri"]) for row in rows]
        assert [entry["caption"] for entry in entries] == ["a red ball", "x"]


def test_a_manifests_own_status_does_not_pass_for_the_measured_one(folder):
    (folder / "m.jsonl").write_text(json.dumps({"uri": "b.mp4", "status": "done", "Width": 3, "caption": "c"}))
    unit = first_unit(folder / "m.jsonl")
    assert unit.source.columns["manifest_status"] == "done"
    assert unit.source.columns["manifest_Width"] == 3
    assert unit.source.columns["caption"] == "c"


def test_a_source_named_twice_is_one_unit(folder):
    pending = PendingSources(Listing((str(folder), str(folder), str(folder / "*.mp4"))))
    assert len({unit.unit_id for unit in pending}) == pending.listed == 5


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.jsonl", "{", r"m.jsonl:1: not valid JSON"),
        ("m.jsonl", "[1]", r"m.jsonl:1: expected an object"),
        ("m.jsonl", '{"name": "x"}', "no column `uri`"),
        ("m.jsonl", '{"uri": 3}', "uri is 3"),
        ("m.csv", "name\nx\n", "no column `uri`"),
        ("m.parquet", "no parquet", "can't read the manifest"),
    ],
)
def test_a_wrong_manifest_is_one_clear_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        Listing((str(tmp_path / name),)).read_columns()


@pytest.mark.parametrize("missing", ["nowhere", "nowhere/*.mp4", "nowhere.csv", "nowhere.mp4"])
def test_an_input_that_is_not_there_is_said_before_any_work(tmp_path, missing):
    with pytest.raises(UserError, match="nowhere"):
        Listing((str(tmp_path / missing),)).check()


def test_the_order_of_listing_changes_no_id(folder):
    forward = {unit.unit_id for unit in PendingSources(Listing((str(folder),)))}
    backward = {unit.unit_id for unit in PendingSources(reversed(list(Listing((str(folder),)))))}
    assert forward == backward


@pytest.mark.parametrize("name", ["", " ", "pass", "Pass", "Clip_ID", "status", "a\nb", "\ud800"])
def test_no_name_of_a_manifest_column_can_harm_the_catalog(folder, tmp_path, name):
    from curate.catalog.schema import rows_to_table

    row = json.dumps({"uri": "b.mp4", name: {"deep": [[[1]]]}})
    (folder / "m.jsonl").write_text(row)
    unit = first_unit(folder / "m.jsonl")
    table = rows_to_table("sources", [unit.source.columns])
    assert [json.loads(v) for v in unit.source.columns.values()] == [{"deep": [[[1]]]}]
    assert all(column and column.isprintable() for column in table.column_names)
    assert not {"pass", "clip_id"} & {column.lower() for column in table.column_names}
