"""One catalog and one dataset of it, for all tests that only read."""

from pathlib import Path

import pytest

from curate.datasets.create import run_dataset_create
from tests.curate.loader.latents import make_catalog
from tests.shared_folder import made_once


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a catalog of 17 clips in two buckets and five shards."""
    return made_once(tmp_path_factory, "latents", lambda folder: make_catalog(folder / "catalog"))[1]


@pytest.fixture(scope="session")
def dataset(catalog: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a dataset of all of them."""

    def make(folder: Path) -> None:
        run_dataset_create("all", catalog, "SELECT clip_id FROM clips", output=str(folder))

    return made_once(tmp_path_factory, "latent_datasets", make)[0] / "all"
