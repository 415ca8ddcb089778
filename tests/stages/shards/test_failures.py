"""Shards that can't be written: nothing half-written is seen, on disks and in stores, and the reason is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet
import pytest
import xxhash

from stages.shards.folder import WriteError
from stages.shards.format import ShardError, index_path, read_empty, read_header, read_index, read_sample
from stages.shards.writer import HEADER_ROOM, ShardWriter
from tests.stages.shards.test_writer import BUCKET, CONTRACT, clip, files, write

pytest_plugins = ("tests.s3",)


FILL = """
import resource, sys
import numpy as np
from stages.shards.writer import ShardWriter
from tests.stages.shards.test_writer import BUCKET, CONTRACT, EMPTY, clip, write
folder, limit = sys.argv[1], int(sys.argv[2])
print(write(folder, [7]).shard)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with ShardWriter(folder, CONTRACT, BUCKET, None, EMPTY) as writer:
        for number in range(1000):
            writer.add(*clip(number))
        writer.publish()
except Exception as error:
    print(type(error).__name__, error)
"""


def fill(folder, limit):
    """(lines printed, files left) of a process that writes more than there is room for."""
    found = subprocess.run([sys.executable, "-c", FILL, str(folder), str(limit)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines(), files(folder)


@pytest.mark.parametrize("limit", [HEADER_ROOM + 1000, 4_000_000])
def test_a_write_that_fails_is_one_line_and_leaves_no_file(tmp_path, limit):
    (shard, error), left = fill(tmp_path, limit)
    assert error.startswith("WriteError can't write the shard of 5x16x16") and "File too large" in error
    good = str(tmp_path / shard)
    assert left == sorted([good, index_path(good)])


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        (shard, error), left = fill(disk, 0)
        assert error.startswith("WriteError") and "No space left on device" in error and str(disk) in error
        good = str(disk / shard)
        assert left == sorted([good, index_path(good)]) and len(read_index(good)) == 5
    finally:
        subprocess.run(["umount", disk], check=True)


KILL = """
import os, random, signal, sys, time
from stages.shards.writer import ShardWriter
from tests.stages.shards.test_writer import BUCKET, CONTRACT, clip, write
folder = sys.argv[1]
clips = [clip(number) for number in range(12)]
write(folder + "/warm")
began = time.monotonic()
write(folder + "/warm", range(12))
usual = time.monotonic() - began
os.makedirs(f"{folder}/{BUCKET}")
kill, seen = 0, []
while kill < 10 or seen.count("tar") < 4 or "part" not in seen:
    kill += 1
    child = os.fork()
    if not child:
        for number in range(9999):
            with ShardWriter(folder, CONTRACT, BUCKET, {"kill": kill, "number": number}) as writer:
                for one in clips:
                    writer.add(*one)
                writer.publish()
    time.sleep(random.Random(kill).uniform(0, 2) * usual)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen = [name.rpartition(".")[2] for name in os.listdir(f"{folder}/{BUCKET}")]
"""


def test_a_writer_killed_at_any_moment_leaves_whole_shards_and_temporary_files_alone(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILL, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = os.listdir(tmp_path / BUCKET)
    tars = [name for name in names if name.endswith(".tar")]
    assert len(tars) >= 4 and {name.rpartition(".")[2] for name in names} == {"tar", "parquet", "part"}
    for name in tars:
        path = str(tmp_path / BUCKET / name)
        content = Path(path).read_bytes()
        assert len(read_index(path)) == 12 * 5
        about = pyarrow.parquet.read_schema(index_path(path)).metadata
        assert about[b"tar_xxh3_128"].decode() == xxhash.xxh3_128_hexdigest(content)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"can't write the shard of 5x16x16 in .*file"):
        ShardWriter(str(tmp_path / "file"), CONTRACT, BUCKET)


def test_shards_go_to_an_object_store_and_are_read_from_it(bucket, tmp_path):
    local, remote = write(tmp_path), write(f"{bucket}/shards")
    assert local == remote
    place = f"{bucket}/shards/{remote.shard}"
    index = read_index(place)
    assert index.equals(read_index(str(tmp_path / local.shard)))
    assert read_header(place)["digest"] == CONTRACT.digest and set(read_empty(place)) == {"text"}
    key, fields, _ = clip(1)
    assert np.array_equal(read_sample(place, index.filter(pc.equal(index["clip_id"], key)))["mean"], fields["mean"])
    with pytest.raises(ShardError, match=r"gone\.tar is missing"):
        read_header(f"{bucket}/shards/gone.tar")


def test_what_a_killed_upload_left_on_this_machine_is_removed_after_a_day(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = [tmp_path / ".clipmill-young.part", tmp_path / "clipmill-other.part"]
    for path in (*kept, old := tmp_path / ".clipmill-old.part"):
        path.write_text("")
    for path in (kept[1], old):
        os.utime(path, (0, 0))
    write(f"{bucket}/shards")
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_an_upload_that_fails_leaves_no_shard(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    import fsspec
    import s3fs

    url_to_fs = fsspec.core.url_to_fs

    class Stumbling:
        """A store whose uploads of tars fail."""

        def __init__(self, store):
            self.store = store

        def put_file(self, part, target):
            if target.endswith(".tar"):
                raise OSError("connection reset")
            self.store.put_file(part, target)

        def __getattr__(self, name):
            return getattr(self.store, name)

    def stumbling(uri, **options):
        store, path = url_to_fs(uri, **options)
        return Stumbling(store), path

    monkeypatch.setattr(fsspec.core, "url_to_fs", stumbling)
    with pytest.raises(WriteError, match="connection reset"):
        write(f"{bucket}/shards")
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    assert [path.rpartition(".")[2] for path in fs.find(bucket)] == ["parquet"]  # alone it stands for nothing
    assert files(tmp_path) == []
