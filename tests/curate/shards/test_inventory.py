"""Files of shards: what no row names is collected, and nothing else; stores; what the docs say about reading them."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest

from curate.catalog import lease
from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.exports.latents import export_parquet
from curate.shards.inventory import collect_orphans, orphans
from tests import shard_catalogs as made
from tests.curate.exports.test_latents import CONTRACT, catalog_of
from tests.curate.shards.test_verify import look, one

pytest_plugins = ("tests.s3",)


@pytest.fixture
def catalog(tmp_path):
    """One with two shards."""
    return catalog_of(tmp_path, CONTRACT)[0]


def stray(catalog):
    """Files that an interrupted run may leave, and that no row names."""
    folder = f"{catalog.path}/shards/latents/5x32x32"
    names = [f"{'d' * 32}.tar", f"{'d' * 32}.parquet", f"{'e' * 32}.parquet", f".{'f' * 32}.part"]
    paths = [f"{folder}/{name}" for name in (*names, "odd/deep.tar")]
    for path in paths:
        catalog.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        catalog.fs.pipe_file(path, b"left")
    return sorted(paths)


def test_orphans_are_told_and_collected_and_shards_with_rows_never(catalog):
    before = sorted(catalog.fs.find(f"{catalog.path}/shards"))
    assert orphans(catalog, "latents") == ([], [])
    left = stray(catalog)
    assert [orphan.path for orphan in orphans(catalog, "latents")[0]] == left
    found = look(catalog)
    assert found.problems == []
    one(found.notes, "5 files under shards/latents/ (20 bytes) that no row names")
    with Ledger(catalog, "latents", "clip_id", uuid.uuid4().hex) as ledger:
        one(look(catalog).notes, "were not looked for, since a run is at work")
        assert [orphan.path for orphan in collect_orphans(ledger)] == left
        assert collect_orphans(ledger) == []
    assert sorted(catalog.fs.find(f"{catalog.path}/shards")) == before
    assert not [line for line in look(catalog).notes if "no row names" in line]


def test_nothing_is_collected_without_rows_or_without_the_lease(catalog, monkeypatch):
    """A table that is gone must not cost its shards; a run that lost its lease must not delete another's."""
    left = stray(catalog)

    def lost(self):
        raise lease.UserError("another run took over")

    with Ledger(catalog, "latents", "clip_id", uuid.uuid4().hex) as ledger:
        monkeypatch.setattr(lease.LocalLease, "check", lost)
        with pytest.raises(lease.UserError):
            collect_orphans(ledger)
        monkeypatch.undo()
    assert set(left) <= set(catalog.fs.find(f"{catalog.path}/shards"))
    before = sorted(catalog.fs.find(f"{catalog.path}/shards"))
    shutil.rmtree(os.path.join(catalog.uri, "latents"))
    with Ledger(catalog, "latents", "clip_id", uuid.uuid4().hex) as ledger:
        assert collect_orphans(ledger) == []
    assert sorted(catalog.fs.find(f"{catalog.path}/shards")) == before


def test_shards_in_an_object_store_are_verified_and_collected(bucket):
    uri = f"{bucket}/catalog"
    catalog = Catalog.open_or_create(uri)
    parts = [("a" * 32, {"mean": np.zeros((4, 2, 4, 4), np.float16)}, {"source_id": "s", "start_s": 0.0}, None)]
    done = made.publish(uri, CONTRACT, parts, "", decode_psnr={})
    made.commit(catalog, made.rows_of(done, CONTRACT, parts))
    found = look(catalog)
    assert found.problems == []
    one(found.notes, "the path of the VAE is not recorded")
    left = stray(catalog)
    with Ledger(catalog, "latents", "clip_id", uuid.uuid4().hex) as ledger:
        assert [orphan.path for orphan in collect_orphans(ledger)] == left
    path = f"{catalog.path}/shards/latents/{done.shard}"
    content = bytearray(catalog.fs.cat_file(path))
    content[-2000] ^= 1
    catalog.fs.pipe_file(path, bytes(content))
    one(look(catalog).problems, done.shard, "has the hash", done.hash)
    catalog.fs.rm_file(path)
    one(look(catalog).problems, done.shard, "is missing")


def test_the_code_in_the_docs_runs(catalog, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    os.symlink(catalog.uri, "demo/catalog")  # which the page reads
    export_parquet(catalog, "latents")
    text = (Path(__file__).parents[3] / "docs" / "shards.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/shards.md", "exec"), {})
    said = capsys.readouterr().out
    for number in range(8):
        assert f"{number:032x} (4, 2, 4, 4) float16 clip „{number}“" in said
    assert said.count("[4, 2, 4, 4]") == 8
