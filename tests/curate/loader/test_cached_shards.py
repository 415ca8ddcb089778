"""Shards of a remote store through the local cache: the same bytes, and never more of them than allowed."""

import os
import shutil
from itertools import islice

import fsspec
import pytest

from curate.datasets.create import run_dataset_create
from curate.datasets.files import open_dataset
from curate.errors import UserError
from curate.loader import Loader
from curate.loader.cached_shards import CachedShards
from tests.curate.loader.latents import make_catalog

PIECE = 4096
SMALL = 6 * PIECE / 2**30  # GB, of a cache that holds six pieces


@pytest.fixture(scope="module")
def remote(catalog):
    """URI of a store that holds the catalog's shards."""
    store = fsspec.filesystem("memory")
    store.put(f"{catalog}/shards", "/bucket/shards", recursive=True)
    yield "memory://bucket"
    store.rm("/bucket", recursive=True)


class Store:
    """A filesystem that notes what is fetched, and fails the first `failures` times."""

    def __init__(self, fs, failures=0):
        self.fs, self.failures, self.fetched = fs, failures, []

    def cat_file(self, path, start, end):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the network is down")
        self.fetched.append((path, start))
        return self.fs.cat_file(path, start=start, end=end)


def small_pieces(dataset, remote, folder, gb=0.01, failures=0):
    """Shards through a cache of small pieces that does not wait between attempts; its store is a `Store`."""
    shards = CachedShards(remote, open_dataset(dataset).shards, str(folder), gb, PIECE, sleep=lambda seconds: None)
    shards.fs = Store(shards.fs, failures)
    return shards


def cached(folder):
    return [path for path in folder.iterdir() if path.suffix not in (".lock", ".part")]


def bytes_of(batch):
    return [batch.clip_ids, *(tensor.numpy().tobytes() for tensor in (*batch.latents.values(), batch.text))]


def local_batches(dataset, count):
    with Loader(dataset, batch_size=4) as loader:
        return [bytes_of(batch) for batch in islice(loader, count)]


def test_a_remote_dataset_gives_what_a_local_one_does_and_the_cache_keeps_to_its_limit(dataset, remote, tmp_path):
    shards = small_pieces(dataset, remote, tmp_path, SMALL)
    with Loader(dataset, batch_size=4, shards=shards, threads=3) as loader:
        for wanted in local_batches(dataset, 25):
            assert bytes_of(next(loader)) == wanted
            with shards.lock():  # no piece appears or goes meanwhile
                assert sum(path.stat().st_size for path in cached(tmp_path)) <= 6 * PIECE
    assert cached(tmp_path)


def test_what_is_cached_is_not_fetched_again_by_this_or_another_loader(dataset, remote, tmp_path):
    fetched = []
    for _ in range(2):
        shards = small_pieces(dataset, remote, tmp_path)
        with Loader(dataset, batch_size=4, shards=shards) as loader:
            for _ in islice(loader, 12):
                pass
        fetched += shards.fs.fetched
        assert len(fetched) == len(set(fetched)) == len(cached(tmp_path))


def test_a_piece_that_was_damaged_on_this_machine_is_fetched_again(dataset, remote, tmp_path):
    with Loader(dataset, batch_size=4, shards=small_pieces(dataset, remote, tmp_path)) as loader:
        list(islice(loader, 8))
    for path in cached(tmp_path):
        path.write_bytes(bytes(path.stat().st_size))
    with Loader(dataset, batch_size=4, shards=small_pieces(dataset, remote, tmp_path)) as loader:
        assert [bytes_of(batch) for batch in islice(loader, 8)] == local_batches(dataset, 8)


def test_a_fetch_that_fails_is_tried_again_and_a_store_that_stays_away_is_one_line(dataset, remote, tmp_path):
    shards = small_pieces(dataset, remote, tmp_path / "a", failures=2)
    with Loader(dataset, batch_size=4, shards=shards, threads=1) as loader:
        assert bytes_of(next(loader)) == local_batches(dataset, 1)[0]
    shards = small_pieces(dataset, remote, tmp_path / "b", failures=10**9)
    with (
        Loader(dataset, batch_size=4, shards=shards, threads=1) as loader,
        pytest.raises(UserError, match=r"can't be read .*the network is down"),
    ):
        next(loader)


def test_a_store_without_the_shards_is_one_line(dataset, tmp_path):
    with pytest.raises(UserError, match="1 of 5 shards are missing below memory://elsewhere"):
        Loader(dataset, batch_size=4, root="memory://elsewhere", cache=str(tmp_path))
    with pytest.raises(UserError, match="no store is known for nothing://"):
        Loader(dataset, batch_size=4, root="nothing://elsewhere", cache=str(tmp_path))


def test_a_cache_that_is_too_small_or_can_not_be_written_is_refused(dataset, remote, tmp_path):
    with pytest.raises(UserError, match="cache_gb 0"):
        Loader(dataset, batch_size=4, root=remote, cache=str(tmp_path), cache_gb=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="say where with cache="):
        Loader(dataset, batch_size=4, root=remote, cache=str(tmp_path / "file"))


def test_unfinished_pieces_of_killed_processes_are_removed(dataset, remote, tmp_path):
    old, new = tmp_path / ".old.part", tmp_path / ".new.part"
    old.write_bytes(b"x"), new.write_bytes(b"x")
    os.utime(old, (0, 0))
    with Loader(dataset, batch_size=4, root=remote, cache=str(tmp_path)) as loader:
        next(loader)
    assert not old.exists()
    assert new.exists()


def test_a_file_uri_is_read_where_it_lies(dataset, catalog, tmp_path):
    shutil.copytree(f"{catalog}/shards", tmp_path / "with space" / "shards")
    root = (tmp_path / "with space").as_uri()
    assert open_dataset(dataset).root == catalog
    with Loader(dataset, batch_size=4, root=root) as loader:
        assert bytes_of(next(loader)) == local_batches(dataset, 1)[0]


def test_pieces_of_the_usual_size_give_the_same(dataset, remote, tmp_path):
    with Loader(dataset, batch_size=4, root=remote, cache=str(tmp_path), cache_gb=0.1) as loader:
        for wanted in local_batches(dataset, 9):
            assert bytes_of(next(loader)) == wanted


def test_a_dataset_of_a_catalog_in_a_bucket_is_made_and_read(dataset, bucket, tmp_path):
    uri = make_catalog(f"{bucket}/catalog")
    run_dataset_create("all", uri, "SELECT clip_id FROM clips", output=str(tmp_path))
    with Loader(tmp_path / "all", batch_size=4, cache=str(tmp_path / "cache")) as loader:
        for wanted in local_batches(dataset, 9):
            assert bytes_of(next(loader)) == wanted
