"""One catalog and one dataset of it, for all tests that only read."""

import pytest

from curate.datasets.create import run_dataset_create
from tests.curate.loader.latents import make_catalog


@pytest.fixture(scope="session")
def catalog(tmp_path_factory):
    """URI of a catalog of 17 clips in two buckets and five shards."""
    return make_catalog(tmp_path_factory.mktemp("latents") / "catalog")


@pytest.fixture(scope="session")
def dataset(catalog, tmp_path_factory):
    """Folder of a dataset of all of them."""
    folder = tmp_path_factory.mktemp("datasets")
    run_dataset_create("all", catalog, "SELECT clip_id FROM clips", output=str(folder))
    return folder / "all"
