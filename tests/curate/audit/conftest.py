"""A planted catalog, counted again in Python, and audits of it: of the whole and of a dataset."""

import pytest

from curate.catalog.catalog import Catalog
from tests.curate.audit.made import GATES, audit, planted, write_dataset
from tests.curate.audit.recount import Recount, index_row


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    catalog = planted().write(folder / "catalog")
    films = folder / "films"
    films.mkdir()
    (films / "pending.mp4").touch()
    run = {"recipe": "ingest", "recipe_text": "recipes: {ingest: {stages: []}}", "inputs": [str(films)]}
    run |= {"settings": {"sources": "s1"}}
    opened = Catalog.open(catalog)
    for listed in (40, 41):
        opened.start_run(run | {"run_id": f"r{listed}"})
        counts = {"listed": listed, "left_out": {"hidden": 3}, "seconds": 2.0, "stage_seconds": {"decode": 1.5}}
        opened.end_run(f"r{listed}", {"status": "finished", "counts": counts})
    counted = Recount(catalog, list(GATES.values()))
    chosen = [clip for clip in counted.clips if counted.encoded(clip)][::2]
    weights = {clip["clip_id"]: float(number % 4) for number, clip in enumerate(chosen)}
    rows = [index_row(clip, counted) | {"weight": weights[clip["clip_id"]]} for clip in chosen]
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
