"""A planted catalog, counted again in Python, and audits of it: of the whole and of a dataset."""

import pytest

from tests.curate.audit.made import GATES, audit, planted, write_dataset
from tests.curate.audit.recount import Recount


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    catalog = planted().write(folder / "catalog")
    counted = Recount(catalog, list(GATES.values()))
    chosen = [clip for clip in counted.clips if counted.encoded(clip)][::2]
    weights = {clip["clip_id"]: float(number % 4) for number, clip in enumerate(chosen)}
    rows = [{"clip_id": c["clip_id"], "source_id": c["source_id"], "weight": weights[c["clip_id"]]} for c in chosen]
    dataset = write_dataset(folder / "chosen", rows, catalog)
    other = write_dataset(folder / "other", [r | {"weight": 1.0} for r in rows[:9]], catalog)
    whole = audit(catalog, folder / "whole", held_out=0.3, other=other)
    return folder, catalog, counted, whole, dataset, weights


@pytest.fixture(scope="package")
def whole(made):
    return made[3]


@pytest.fixture(scope="package")
def counted(made):
    return made[2]


@pytest.fixture(scope="package")
def weighed(made):
    folder, catalog, _, _, dataset, _ = made
    return audit(catalog, folder / "weighed", dataset=dataset)
