"""A purge of a catalog in a bucket: rows, old versions, logs, shards and notes of its objects."""

import pytest

from curate.catalog.catalog import Catalog
from curate.cli.main import main
from curate.datasets.create import run_dataset_create
from curate.datasets.files import open_dataset
from curate.loader.loader import Loader
from tests.curate.loader.latents import BUCKETS, clip_ids, fields_of, make_catalog
from tests.curate.running import ask

pytestmark = pytest.mark.slow


def test_nothing_of_a_purged_clip_is_left_in_a_bucket(bucket, tmp_path):
    uri = make_catalog(f"{bucket}/catalog")
    catalog, gone = Catalog.open(uri), clip_ids(BUCKETS)["5x16x24"][1]
    old = tmp_path / "old"
    assert run_dataset_create("old", uri, "SELECT clip_id FROM clips", output=str(tmp_path)) == 0
    contract = open_dataset(old).contract
    latent = fields_of(gone, contract.latent_shape("5x16x24"), contract)["mean"].tobytes()
    assert any(latent in content for content in _objects(catalog).values())
    before = {path for path in _objects(catalog) if "/_delta_log/" in path}
    assert main(["purge", "--catalog", uri, "--where", f"clip_id = '{gone}'", "--yes"]) == 0
    now = _objects(catalog)
    assert not any(latent in content or gone.encode() in content for content in now.values())
    assert not any(gone in path for path in now)
    assert not before & {path for path in now if "/runs/" not in path}
    assert ask(uri, f"SELECT count(*) FROM clips WHERE clip_id = '{gone}'") == [(0,)]
    assert ask(uri, "SELECT count(*) FROM latents") == [(16,)]
    with Loader(
        open_dataset(old).retired["successor"], batch_size=1, text=None, verify="always", cache=str(tmp_path / "c")
    ) as loader:
        assert len({next(loader).clip_ids[0] for _ in range(16)}) == 16


def _objects(catalog):
    return {path: catalog.fs.cat_file(path) for path in catalog.fs.find(catalog.path)}
