"""Members of archives are read in place, byte for byte; what can't be read says why and costs nothing else."""

import io
import os
import struct
import tarfile
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode.archives import zip as zips
from stages.decode.archives.files import SparseReader, open_file
from stages.decode.archives.index import DOUBLED, LINK
from stages.decode.archives.members import index
from stages.decode.archives.uri import member_uri
from stages.decode.child import Child
from stages.decode.sources import file_status, open_handle, open_source
from stages.frames import SourceError
from stages.unit import Place
from tests.archives import write_tar, write_zip
from tests.stages.decode.child_tasks import HERE

NOISE = np.random.default_rng(1).bytes(3_000_000)
MEMBERS = [("a.mp4", NOISE[:70_001]), ("deep/er/b c#%20.mp4", NOISE[7:]), ("none.mp4", b""), ("é.mp4", NOISE[:512])]


def held(path, name, place=None):
    with open_source(member_uri(str(path), name), place) as file:
        data = file.read()
        assert file.content_hash() and len(data) == file.size
        return data


def reason(path, name=None):
    with pytest.raises(SourceError) as caught:
        open_source(member_uri(str(path), name) if name else str(path)).close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def listed(path):
    with open_file(str(path)) as file:
        return index(file, str(path), lambda name: name.endswith((".json", ".txt")))


@pytest.fixture(params=["ustar", "gnu", "pax", "stored", "deflated"])
def archive(request, tmp_path):
    forms = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    if request.param in forms:
        return write_tar(tmp_path / "x.tar", MEMBERS, forms[request.param])
    method = zipfile.ZIP_STORED if request.param == "stored" else zipfile.ZIP_DEFLATED
    return write_zip(tmp_path / "x.zip", MEMBERS, method)


def test_every_member_has_the_bytes_that_were_put_in(archive):
    for name, data in MEMBERS:
        assert held(archive, name) == data
        assert file_status(member_uri(str(archive), name)) == (len(data), archive.stat().st_mtime)
    assert file_status(member_uri(str(archive), "c.mp4")) is None
    assert "no member 'c.mp4'" in reason(archive, "c.mp4")


def test_a_member_in_a_store_has_the_same_bytes(archive):
    uri = f"memory://members/{archive.name}"
    with fsspec.open(uri, "wb") as out:
        out.write(archive.read_bytes())
    for name, data in MEMBERS:
        assert held(uri, name) == data
    with open_source(member_uri(uri, MEMBERS[1][0])) as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == NOISE[-5:]
        file.seek(1_000_000)
        assert file.read(10) == NOISE[1_000_007:1_000_017]


def test_a_child_reads_a_member_through_the_descriptor_of_its_archive(archive):
    with Child() as child:
        for name, data in MEMBERS[:2]:
            read = child.call(
                f"{HERE}:whole", None, lambda message: message.arrays[0].tobytes(),
                source=member_uri(str(archive), name),
            )  # fmt: skip
            assert list(read) == [data]


def test_nothing_outside_a_member_can_be_read_through_it(tmp_path):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    handle = open_handle(member_uri(str(path), "a.mp4"))
    with handle.channel, open_source(member_uri(str(path), "a.mp4")) as file:
        assert handle.start == 512 and handle.size == 70_001
        file.seek(70_000)
        assert file.read(10) == NOISE[70_000:70_001] and file.read(10) == b""
        file.seek(80_000)
        assert file.read(10) == b""


def test_a_place_saves_the_listing_and_is_not_believed_when_the_archive_was_replaced(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    members = listed(path).members
    places = {name: Place(member.offset, member.length) for name, member in members.items()}
    with monkeypatch.context() as patch:
        patch.setattr("stages.decode.archives.members.index", None)  # would be called for a listing
        for name, data in MEMBERS:
            assert held(path, name, places[name]) == data
    write_tar(path, [("a.mp4", NOISE[:70_001]), ("x", b"0" * 9), *MEMBERS[1:]])
    for name, data in MEMBERS:
        assert held(path, name, places[name]) == data
    write_tar(path, [("b.mp4", NOISE[:70_001])])
    with pytest.raises(SourceError, match="no member"):
        open_source(member_uri(str(path), "a.mp4"), places["a.mp4"])


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_absolute_names_and_names_that_climb_are_only_names(tmp_path, form):
    names = ["x" * 150 + ".mp4", "/etc/passwd.mp4", "../../up.mp4", "./dot.mp4", "new\nline 🎬.mp4", "b\udce9.mp4"]
    path = write_tar(tmp_path / "x.tar", [(name, name.encode("utf-8", "replace")) for name in names], form)
    found = listed(path)
    assert list(found.members) == [*names[:-1], "b%E9.mp4"] and found.fault is None
    for name, member in found.members.items():
        place = Place(member.offset, member.length)
        assert held(path, name, place) == held(path, name) != b""
    assert sorted(os.listdir(tmp_path)) == ["x.tar"]  # nothing was unpacked


def test_of_two_members_with_one_name_the_last_counts_and_the_other_is_counted(tmp_path):
    for path in (
        write_tar(tmp_path / "x.tar", [("a.mp4", b"old"), ("b.mp4", b"b"), ("a.mp4", b"new!")]),
        write_zip(tmp_path / "x.zip", [("a.mp4", b"old"), ("b.mp4", b"b"), ("a.mp4", b"new!")]),
    ):
        found = listed(path)
        assert list(found.members) == ["b.mp4", "a.mp4"] and found.left_out == {DOUBLED: 1}
        assert held(path, "a.mp4") == b"new!"


def test_links_and_folders_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("l.mp4", tarfile.SYMTYPE), ("h.mp4", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = listed(tmp_path / "x.tar")
    assert not found.members and found.left_out == {LINK: 2} and found.fault is None


def test_a_sparse_member_is_refused_and_those_after_it_are_read(tmp_path):
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("sparse.mp4")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0%011o\0" % (1024, 512)  # one part of 512 bytes behind a hole of 1024
    head[483:495] = b"%011o\0" % 1536
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    rest = write_tar(tmp_path / "rest.tar", MEMBERS[:1]).read_bytes()
    path.write_bytes(bytes(head) + b"x" * 512 + rest)
    found = listed(path)
    assert list(found.members) == ["sparse.mp4", "a.mp4"] and found.fault is None
    assert "sparse" in reason(path, "sparse.mp4")
    assert held(path, "a.mp4") == MEMBERS[0][1]


@settings(max_examples=60)
@given(data=st.data())
def test_a_tar_cut_anywhere_costs_its_last_member_alone(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    members = [(f"{n}.mp4", NOISE[n : n + 700 * n + 1]) for n in range(6)]
    whole = write_tar(folder / "whole.tar", members).read_bytes()
    cut = data.draw(st.integers(1, len(whole)))
    path = folder / "x.tar"
    path.write_bytes(whole[:cut])
    found = listed(path)
    lost = []
    for name, expected in members:
        try:
            assert held(path, name) == expected
        except SourceError:
            lost.append(name)
    rest = members[len(members) - len(lost) :]
    assert lost == [name for name, _ in rest]  # a tail, of which
    assert len(set(lost) & set(found.members)) <= 1  # at most one has a header that says so
    seen = set(lost) & set(found.members)
    assert seen <= {found.cut_off}
    if lost and not seen and cut % 512:
        assert found.fault is not None


def test_damage_in_the_middle_is_told_and_costs_what_follows(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.mp4", b"a"), ("b.mp4", b"b"), ("c.mp4", b"c")])
    data = bytearray(path.read_bytes())
    data[1024 + 20] ^= 0xFF  # in the header of b
    path.write_bytes(data)
    found = listed(path)
    assert list(found.members) == ["a.mp4"] and "damaged at byte 1024" in found.fault
    assert "damaged at byte 1024" in reason(path)


def test_tars_that_were_joined_by_cat_are_told(tmp_path):
    one = write_tar(tmp_path / "1.tar", MEMBERS[:1]).read_bytes()
    (tmp_path / "x.tar").write_bytes(one + one)
    found = listed(tmp_path / "x.tar")
    assert list(found.members) == ["a.mp4"] and "--concatenate" in found.fault


def test_a_compressed_or_foreign_file_says_what_it_is(tmp_path):
    import gzip

    (tmp_path / "x.tar").write_bytes(gzip.compress(write_tar(tmp_path / "p.tar", MEMBERS).read_bytes()))
    assert "compressed with gzip" in reason(tmp_path / "x.tar") and "gzip" in reason(tmp_path / "x.tar", "a.mp4")
    (tmp_path / "y.tar").write_bytes(b"no tar at all" * 400)
    assert reason(tmp_path / "y.tar").startswith("no tar")
    (tmp_path / "z.zip").write_bytes(b"no zip at all" * 400)
    assert reason(tmp_path / "z.zip").startswith("no zip")
    (tmp_path / "e.tar").write_bytes(b"")
    assert "empty file" in reason(tmp_path / "e.tar")
    (tmp_path / "q.parquet").write_bytes(b"PAR1 not")
    assert reason(tmp_path / "q.parquet").startswith("no Parquet file")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_store_that_fails_is_told_from_an_archive_that_is_damaged(tmp_path, kind):
    path = (write_tar if kind == "tar" else write_zip)(tmp_path / f"x.{kind}", MEMBERS)
    with open_file(str(path)) as file:

        def fails(position, length):
            raise OSError("the bucket is on fire")

        file.read_at = fails
        assert index(file, str(path)).fault == "reading failed: the bucket is on fire"


def test_a_header_that_claims_anything_is_refused_without_reading_or_hanging(tmp_path):
    def header(name, kind, size):
        info = tarfile.TarInfo(name)
        info.type = kind
        head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        head[124:136] = size
        head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
        return bytes(head)

    huge, negative = b"\x80" + (2**40).to_bytes(11, "big"), b"\xff" + (2**88 - 1024).to_bytes(11, "big")
    for kind, size in ((tarfile.XHDTYPE, huge), (tarfile.GNUTYPE_LONGNAME, huge), (tarfile.REGTYPE, negative),
                       (b"9", negative), (tarfile.XHDTYPE, negative)):  # fmt: skip
        path = write_tar(tmp_path / "x.tar", [("a.mp4", b"a")])
        path.write_bytes(path.read_bytes()[:1024] + header("b.mp4", kind, size) + b"\0" * 4096)
        found = listed(path)
        assert "a.mp4" in found.members and held(path, "a.mp4") == b"a"
        assert found.fault is not None or found.cut_off is not None


def test_a_zip_that_unpacks_to_a_thousand_times_its_size_costs_a_reason_and_no_room(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "x.zip", [("bomb.mp4", b"\0" * 50_000_000), ("a.mp4", NOISE)], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 3_100_000
    unpacked = []
    monkeypatch.setattr(zips, "inflated", lambda *given: unpacked.append(given))
    said = reason(path, "bomb.mp4")
    assert "more than 100 times" in said and not unpacked


@pytest.mark.parametrize("stated", [5000, 400_000])
def test_a_zip_whose_sizes_lie_is_stopped_at_what_it_states(tmp_path, stated):
    path = write_zip(tmp_path / "x.zip", [("a.mp4", NOISE[:100_000])], zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 100_000), struct.pack("<I", stated)))
    assert "unpacks to" in reason(path, "a.mp4")


def test_a_damaged_deflated_member_is_not_given_out(tmp_path):
    path = write_zip(tmp_path / "x.zip", [("a.mp4", NOISE), ("b.mp4", NOISE)], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[500_000] ^= 1
    path.write_bytes(data)
    assert "damaged" in reason(path, "a.mp4") or "unpacked" in reason(path, "a.mp4")
    assert held(path, "b.mp4") == NOISE


def test_an_encrypted_or_oddly_compressed_member_says_so(tmp_path):
    path = write_zip(tmp_path / "x.zip", [("a.mp4", NOISE[:999])], zipfile.ZIP_BZIP2)
    assert "method 12" in reason(path, "a.mp4")
    path = write_zip(tmp_path / "y.zip", [("a.mp4", NOISE[:999])])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in reason(path, "a.mp4")


def test_deflated_members_wait_in_a_file_without_a_name(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "x.zip", [("a.mp4", NOISE)], zipfile.ZIP_DEFLATED)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "room"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "room").mkdir()
    with open_source(member_uri(str(path), "a.mp4")) as file:
        assert file.read(9) == NOISE[:9] and os.listdir(tmp_path / "room") == []


@pytest.mark.parametrize("cell", ["struct", "binary", "large"])
def test_rows_of_parquet_are_videos_whatever_the_column_is_called_that_holds_them(tmp_path, cell):
    values = [NOISE[n : n + 1000 * n + 1] for n in range(7)]
    values[3] = None
    kinds = {"binary": pa.binary(), "large": pa.large_binary()}
    if cell == "struct":
        column = pa.array([{"bytes": value, "path": f"{n}.mp4"} for n, value in enumerate(values)])
    else:
        column = pa.array(values, kinds[cell])
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"clip": column, "n": range(7)}), path, row_group_size=3)
    for number in (6, 0, 1, 4, 5, 2):
        assert held(path, f"clip/{number}") == values[number]
    assert "null" in reason(path, "clip/3")
    assert file_status(f"{path}#clip/6") == (None, path.stat().st_mtime) and file_status(f"{path}#clip/7") is None
    for name in ("clip/7", "clip/-1", "other/0", "0", "clip/x"):
        assert "7 rows of 'clip'" in reason(path, name)


def test_a_parquet_row_group_that_would_unpack_to_very_much_more_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"video": [bytes(40_000_000)] * 2}), path, compression="zstd")
    assert path.stat().st_size < 400_000
    assert "would unpack to" in reason(path, "video/0")


@given(
    reads=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 3000)), max_size=30),
    least=st.sampled_from([1, 64, 1024]),
)
def test_a_sparse_reader_gives_what_the_file_holds(tmp_path_factory, reads, least):
    path = tmp_path_factory.getbasetemp() / "sparse.bin"
    if not path.exists():
        path.write_bytes(NOISE[:8000])
    with open_file(str(path)) as file:
        reader, plain = SparseReader(file, least), io.BytesIO(NOISE[:8000])
        for place, length in reads:
            reader.seek(place), plain.seek(place)
            assert reader.read(length) == plain.read(length) and reader.tell() == plain.tell()
