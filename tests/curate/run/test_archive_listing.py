"""What a listing makes of archives: an entry for each film, with the columns that the archive says of it."""

import datetime
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.catalog.schema import BASE
from curate.errors import UserError
from curate.run.archive_listing import ALONE, BROKEN, FORK, NESTED, NO_VIDEOS, NOT_TEXT, PLACE, key
from curate.run.listing import Listing
from curate.run.loose_columns import fit_together
from curate.run.pending import PendingSources
from stages.unit import Source
from tests.archives import samples, write_tar, write_zip


def entries(*inputs, **settings):
    listing = Listing(tuple(map(str, inputs)), **settings)
    listing.check()
    return list(listing), listing


def names(found, folder):
    return [entry["uri"].removeprefix(f"{folder}/") for entry in found]


def columns(entry):
    return {name: value for name, value in entry.items() if name not in ("uri", PLACE)}


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_each_film_has_the_json_and_the_text_of_its_key_as_columns(tmp_path, write):
    path = write(tmp_path / ("x.tar" if write is write_tar else "x.zip"), samples(3))
    found, listing = entries(path)
    assert names(found, tmp_path) == [f"{path.name}#{n:09d}.mp4" for n in range(3)] and not listing.left_out
    assert [columns(entry) for entry in found] == [
        {"key": f"{n:09d}", "caption": f"film {n}", "status": "success", "clips": [[0.0, 2.0]], "txt": f"text of {n}"}
        for n in range(3)
    ]


def test_text_is_the_caption_where_no_json_has_one(tmp_path):
    found, _ = entries(write_tar(tmp_path / "x.tar", [("a.mp4", b"v"), ("a.txt", b" a red ball\n"), ("a.json", b"{}")]))
    assert columns(found[0]) == {"txt": "a red ball", "caption": "a red ball"}


def test_keys_end_at_the_first_dot_of_the_base_name_as_webdataset_has_them(tmp_path):
    from webdataset.tariterators import base_plus_ext

    for name in ("a.b.mp4", "d.x/a.b.mp4", "./a.mp4", "../a.mp4", "/x/a.mp4"):
        assert key(name) == base_plus_ext(name)[0]
    members = [("d.x/a.left.mp4", b"l"), ("d.x/a.right.mp4", b"r"), ("d.x/a.json", b'{"n": 1}'),
               ("b.1.mp4", b"b"), ("b.1.txt", b"its own"), ("b.txt", b"of the key")]  # fmt: skip
    found, _ = entries(write_tar(tmp_path / "x.tar", members))
    assert [columns(entry).get("n") for entry in found] == [1, 1, None]
    assert found[2]["txt"] == "its own"


def test_what_is_no_film_is_counted_by_its_reason(tmp_path):
    members = [
        ("a.mp4", b"v"), ("a.json", b"{broken"), ("b.mp4", b"v"), ("b.json", b"[1]"), ("c.mp4", b"v"),
        ("c.txt", b"\xff\xfe\xff"), ("d.json", b"{}"), ("e.npy", b"n"), ("inner.tar", b"t"), ("f.tar.gz", b"g"),
        ("__MACOSX/._a.mp4", b"m"),
    ]  # fmt: skip
    found, listing = entries(write_tar(tmp_path / "x.tar", members))
    assert names(found, tmp_path) == ["x.tar#a.mp4", "x.tar#b.mp4", "x.tar#c.mp4"]
    assert all(not columns(entry) for entry in found)
    assert listing.left_out == {
        BROKEN: 2, NOT_TEXT: 1, ALONE: 1, NESTED: 1, FORK: 1, "not a media file by its name (.npy)": 1,
        "compressed tar: decompress it to a plain .tar": 1,
    }  # fmt: skip


def test_a_folder_opens_its_archives_in_their_place_of_the_order(tmp_path):
    write_tar(tmp_path / "b.tar", [("1.mp4", b"v"), ("2.webm", b"v")])
    write_zip(tmp_path / "c.zip", [("1.mp4", b"v")])
    for name in ("a.mp4", "d.mp4", "e.tar.gz"):
        (tmp_path / name).write_bytes(b"v")
    pq.write_table(pa.table({"uri": ["a.mp4"]}), tmp_path / "m.parquet")
    everything = ["a.mp4", "b.tar#1.mp4", "b.tar#2.webm", "c.zip#1.mp4", "d.mp4"]
    found, listing = entries(tmp_path)
    assert names(found, tmp_path) == everything
    assert listing.left_out == {NO_VIDEOS: 1, "compressed tar: decompress it to a plain .tar": 1}
    assert names(entries(tmp_path, extensions=(".webm", ".tar"))[0], tmp_path) == ["b.tar#2.webm"]
    assert names(entries(tmp_path, extensions=(".mp4",))[0], tmp_path) == ["a.mp4", "d.mp4"]
    assert names(entries(f"{tmp_path}/*.tar")[0], tmp_path) == everything[1:3]


def test_a_member_may_be_an_input_or_the_name_in_a_manifest(tmp_path):
    write_tar(tmp_path / "x.tar", samples(2))
    assert names(entries(tmp_path / "x.tar#000000001.mp4")[0], tmp_path) == ["x.tar#000000001.mp4"]
    (tmp_path / "m.jsonl").write_text(json.dumps({"uri": "x.tar#000000000.mp4", "mine": 1}))
    found, _ = entries(tmp_path / "m.jsonl")
    assert names(found, tmp_path) == ["x.tar#000000000.mp4"]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.TAR.zst"])
def test_a_compressed_tar_as_input_is_refused_in_one_line_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="decompress it to a plain") as caught:
        entries(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such input"):
        entries(tmp_path / "none.tar")
    with pytest.raises(UserError, match="no such input"):
        entries(tmp_path / "none.tar#a.mp4")


def test_an_archive_that_can_t_be_listed_is_itself_what_fails(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"no tar" * 1000)
    (tmp_path / "y.zip").write_bytes(b"")
    (tmp_path / "z.parquet").write_bytes(b"PAR1")
    write_tar(tmp_path / "empty.tar", [])
    write_zip(tmp_path / "empty.zip", [])
    found, listing = entries(tmp_path)
    assert names(found, tmp_path) == ["x.tar", "y.zip", "z.parquet"]
    assert listing.left_out == {"empty archive": 2}


def test_columns_of_hugging_face_parquet_come_along_without_the_bytes(tmp_path):
    features = {"thumb": {"_type": "Image"}, "clip": {"_type": "Video"}, "caption": {"dtype": "string"}}
    table = pa.table(
        {
            "thumb": [{"bytes": b"i", "path": "i.png"}] * 5,
            "clip": [{"bytes": b"v", "path": f"v{n}.mp4"} for n in range(5)],
            "caption": [f"c{n}" for n in range(5)],
            "uri": ["http://origin"] * 5,
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet", row_group_size=2)
    for given in (tmp_path, tmp_path / "train-00000-of-00001.parquet", f"{tmp_path}/*.parquet"):
        found, _ = entries(given)
        assert names(found, tmp_path) == [f"train-00000-of-00001.parquet#clip/{n}" for n in range(5)]
        assert columns(found[3]) == {"caption": "c3", "clip_path": "v3.mp4", "manifest_uri": "http://origin"}
        assert len({entry[PLACE].together for entry in found}) == 3  # row groups


def test_a_parquet_manifest_with_other_binary_columns_is_still_a_manifest(tmp_path):
    table = pa.table({"uri": ["a.mp4"], "one": [b"x"], "other": [b"y"]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert names(entries(tmp_path / "m.parquet")[0], tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    "stored", [pa.schema({}), pa.schema({"rate": pa.float64(), "n": pa.int64(), "t": pa.string()})]
)
def test_a_json_value_of_another_type_goes_into_a_column_beside_and_none_is_lost(stored):
    rows = [
        {"rate": 25, "n": 1, "t": "x"},
        {"rate": 29.97, "n": 2, "t": True},
        {"rate": None, "n": 2**70, "T": [1], "t": "y", "width": 3, "at": datetime.date(2024, 1, 31)},
    ]
    sources = [Source(str(number), "u", row) for number, row in enumerate(rows)]
    fit_together(sources, stored)
    assert [source.columns for source in sources] == [
        {"rate": 25.0, "n": 1, "t": "x"},
        {"rate": 29.97, "n": 2, "t_flag": True},
        {"rate": None, "n_text": str(2**70), "t": "[1]", "t_2": "y", "manifest_width": 3, "at": "2024-01-31"},
    ]
    assert [type(source.columns["rate"]) for source in sources[:2]] == [float, float]


def test_json_of_mixed_types_does_not_stop_a_listing(tmp_path):
    said = [{"fps": 25}, {"fps": 29.97}, {"fps": "?"}, {"fps": None, "FPS": 3}, {"fps": 1}]
    members = [(f"{n}.{ending}", data) for n, one in enumerate(said)
               for ending, data in (("mp4", b"v"), ("json", json.dumps(one).encode()))]  # fmt: skip
    listing = Listing((str(write_zip(tmp_path / "x.zip", members, zipfile.ZIP_DEFLATED)),))
    seen = []
    units = list(
        PendingSources(listing, see_inside=lambda sources: seen.append(fit_together(sources, BASE["sources"])))
    )
    assert len(units) == 5
    text, number = pa.string(), pa.float64()
    assert {field.name: field.type for field in seen[0]} == {
        "manifest_fps": number, "manifest_fps_text": text, "manifest_fps_2": pa.int64(),
    }  # fmt: skip
    assert units[2].source.columns == {"manifest_fps_text": "?"}
