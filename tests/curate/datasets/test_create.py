"""`clipmill dataset create`: what is frozen, what is refused, and that a folder is whole or absent."""

import json
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.datasets.create import run_dataset_create
from curate.datasets.files import open_dataset
from curate.errors import DamagedError, UserError
from stages.shards.format import index_path, read_index
from tests.catalog_rows import commit_rows
from tests.curate.loader.latents import EMPTY, clip_ids, contract, fields_of, make_catalog, source_of, write_shard

ALL = "SELECT clip_id FROM clips"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """17 clips with latents, and 3 without."""
    return make_catalog(tmp_path_factory.mktemp("made") / "catalog", lacking=3)


def create(catalog, folder, select=ALL, name="made", **options):
    """(dataset, its index as a table)"""
    assert run_dataset_create(name, catalog, select, output=str(folder), **options) == 0
    return open_dataset(folder / name), pq.read_table(folder / name / "index.parquet")


def test_a_dataset_says_what_it_was_made_of(catalog, tmp_path, capsys):
    dataset, index = create(catalog, tmp_path)
    about = json.loads((tmp_path / "made/dataset.json").read_text())
    assert (about["kind"], about["root"], about["select"], about["weight"]) == ("clipmill dataset", catalog, ALL, None)
    assert about["versions"] == Catalog.open(catalog).snapshot()
    assert dataset.contract == contract()
    assert about["digest"] == contract().digest
    assert about["buckets"] == {
        "1x16x16": {"samples": 6, "latent": [4, 1, 2, 2]},
        "5x16x24": {"samples": 11, "latent": [4, 2, 2, 3]},
    }
    assert dataset.samples == index.num_rows == 17
    assert dataset.seconds == pytest.approx((11 * 5 + 6 * 1) / 8)
    assert dataset.text["text"] == {"column": "caption", "dim": 6}
    assert dataset.conditions == ("motion",)  # the others of the default list are the same for every clip here
    assert np.array_equal(dataset.empty_text(), EMPTY)
    said = capsys.readouterr()
    assert "17 samples" in said.out
    assert "conditions: motion (fps, width, height: the same or unknown for every sample, left out)" in said.out
    assert "3 of 20 selected clips have no latents" in said.err


def test_every_row_points_to_the_bytes_that_were_written(catalog, tmp_path):
    dataset, index = create(catalog, tmp_path)
    assert sorted(index["clip_id"].to_pylist()) == [f"{number:032x}" for number in range(17)]
    for row in index.to_pylist():
        shard = dataset.shards[row["shard"]]
        assert Path(shard.path).parent.name == row["bucket"]
        content = Path(catalog, shard.path).read_bytes()
        assert len(content) == shard.bytes
        wanted = fields_of(row["clip_id"], dataset.contract.latent_shape(row["bucket"]), dataset.contract)
        for field in ("mean", "logvar", "text", "text_short"):
            if field in wanted:
                begin = row[f"{field}_offset"]
                assert content[begin : begin + row[f"{field}_length"]] == wanted[field].tobytes()
            else:
                assert row[f"{field}_offset"] == -1
        assert row["text_tokens"] == len(wanted["text"])
    assert "text_mask_offset" not in index.column_names  # the length says it


def test_every_row_has_the_hash_of_its_sources_content(catalog, tmp_path):
    _, index = create(catalog, tmp_path)
    with connect(Catalog.open(catalog)) as sql:
        hashes = dict(sql.execute("SELECT source_id, content_hash FROM sources").fetchall())
    assert len(hashes) > 1
    assert all(row["content_hash"] == hashes[row["source_id"]] for row in index.to_pylist())


def test_samples_of_a_bucket_lie_together_as_they_lie_in_their_shards(catalog, tmp_path):
    _, index = create(catalog, tmp_path)
    rows = [(r["bucket"], r["shard"], r["mean_offset"]) for r in index.to_pylist()]
    assert rows == sorted(rows)


def test_weights_are_sql_over_the_samples_alone(catalog, tmp_path):
    """Clips without latents, and those not selected, don't count."""
    _, index = create(catalog, tmp_path, "SELECT clip_id FROM clips WHERE motion IS NULL OR motion < 15 OR motion > 17",
                      weight="1 / sqrt(count(*) OVER (PARTITION BY source_id))")  # fmt: skip
    clips = index["clip_id"].to_pylist()
    sizes = {source: sum(source_of(clip) == source for clip in clips) for source in ("s0", "s1")}
    assert min(sizes.values()) > 2
    for clip, weight in zip(clips, index["weight"].to_pylist(), strict=True):
        assert weight == pytest.approx(sizes[source_of(clip)] ** -0.5)


def test_weights_may_use_what_the_selection_adds(catalog, tmp_path):
    select = "SELECT clip_id, 7 + length(source_id) AS own FROM clips WHERE motion < 9;"
    _, index = create(catalog, tmp_path, select, weight="own + width")
    assert set(index["weight"].to_pylist()) == {9.0 + 64}


def test_conditions_are_columns_of_clips_with_nan_for_unknown(catalog, tmp_path):
    dataset, index = create(catalog, tmp_path, conditions=["width", "motion"])
    assert dataset.conditions == ("width", "motion")  # what was asked for is kept, and it is said that it tells nothing
    for row in index.to_pylist():
        number = int(row["clip_id"], 16)
        assert row["width"] == 64
        assert row["motion"] == (None if number % 5 == 4 else number)


def test_what_the_user_can_mend_is_one_line_and_leaves_nothing(catalog, tmp_path):
    for select, options, said in [
        ("SELECT clip_id FROM clips WHERE motion > 1e9", {}, "no clip is chosen"),
        ("SELECT clip_id FROM nowhere", {}, "--select: .*nowhere"),
        ("SELECT uri FROM clips", {}, "--select must give clip_id; it gives uri"),
        ("SELECT clip_id FROM clips UNION ALL SELECT clip_id FROM clips", {}, "20 rows more than once"),
        ("DELETE FROM clips", {}, "--select must be one SELECT"),
        ("SELECT 1; SELECT 2", {}, "--select must be one SELECT"),
        ("WITH x AS (COPY clips TO '/dev/null') SELECT clip_id FROM clips, x", {}, "--select must be one SELECT"),
        ("SELEC clip_id", {}, "--select: "),
        (f"SELECT clip_id FROM clips WHERE clip_id = '{19:032x}'", {}, "none of the 1 selected clips has latents"),
        (ALL, {"weight": "brightness"}, "--weight: .*brightness"),
        (ALL, {"weight": "motion"}, "gives no number from 0 to 1e100 for 3 clips"),
        (ALL, {"weight": "-1"}, "gives no number from 0 to 1e100 for 17 clips"),
        (ALL, {"weight": "0"}, "gives 0 for every clip"),
        (ALL, {"conditions": ["beauty"]}, "condition 'beauty'"),
        (ALL, {"conditions": ["uri"]}, "is text"),
        (ALL, {"weight": "1e308"}, "from 0 to 1e100"),
        (ALL, {"table": "latents2"}, "no table 'latents2' of latents"),
        (ALL, {"name": "../x"}, "a dataset's name is"),
    ]:
        with pytest.raises(UserError, match=said) as error:
            create(catalog, tmp_path, select, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="made on this machine"):
        run_dataset_create("made", catalog, ALL, output="s3://bucket/datasets")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused_and_kept(catalog, tmp_path):
    create(catalog, tmp_path)
    before = (tmp_path / "made/dataset.json").read_text()
    with pytest.raises(UserError, match=r"is there already: .* take another name"):
        create(catalog, tmp_path, weight="2")
    assert (tmp_path / "made/dataset.json").read_text() == before


def test_a_full_disk_leaves_no_half_dataset(catalog, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        create(catalog, tmp_path)
    assert not list(tmp_path.iterdir())


def test_mixed_contracts_are_refused_naming_differences_and_clips(tmp_path):
    contracts = [contract(), contract(fingerprint="cd" * 32)]
    uri = make_catalog(tmp_path / "catalog", made=contracts)
    with pytest.raises(UserError) as error:
        create(uri, tmp_path / "datasets")
    said = str(error.value)
    assert "mixes latents of 2 contracts" in said
    assert "fingerprint: abababababab…, cdcdcdcdcdcd…" in said
    assert "such as 0000" in said
    for made in contracts:
        assert made.digest[:12] in said
    dataset, index = create(
        uri, tmp_path / "datasets", "SELECT clip_id FROM latents WHERE contains(contract, 'cdcdcd')"
    )
    assert dataset.contract == contracts[1]
    assert 0 < index.num_rows < 17


def test_an_index_that_is_missing_or_changed_is_named(tmp_path):
    uri = make_catalog(tmp_path / "catalog", buckets={"5x16x24": 4})
    path = next(Path(uri, "shards").rglob("*.parquet"))
    content = path.read_bytes()
    for damage in range(0, len(content), 331):
        path.write_bytes(content[:damage] + bytes([content[damage] ^ 4]) + content[damage + 1 :])
        with pytest.raises(DamagedError, match=path.name):
            create(uri, tmp_path / "datasets", conditions=[])
    path.unlink()
    with pytest.raises(DamagedError, match=f"{path.name} is missing"):
        create(uri, tmp_path / "datasets", conditions=[])
    assert not (tmp_path / "datasets" / "made").exists()


def test_the_shard_that_the_catalog_names_is_read_where_an_older_one_holds_the_clip_too(tmp_path):
    uri = make_catalog(tmp_path / "catalog", buckets={"5x16x24": 4})
    clips = clip_ids({"5x16x24": 4})["5x16x24"][:2]
    rows = write_shard(uri, "5x16x24", clips, contract())
    with Ledger(Catalog.open(uri), "latents", "clip_id", uuid.uuid4().hex) as ledger:
        commit_rows(ledger, {"latents": rows}, redone=True)
    dataset, index = create(uri, tmp_path / "datasets")
    found = {row["clip_id"]: dataset.shards[row["shard"]].path for row in index.to_pylist()}
    assert len(found) == 4
    assert [found[clip] for clip in clips] == [rows[0]["shard"]] * 2
    for path in set(found.values()):
        holds = read_index(index_path(f"{uri}/{path}"))["clip_id"].to_pylist()
        assert {clip for clip in found if found[clip] == path} <= set(holds)


def test_a_later_run_changes_no_dataset(tmp_path):
    uri = make_catalog(tmp_path / "catalog", buckets={"5x16x24": 4})
    dataset, index = create(uri, tmp_path / "datasets")
    with Ledger(Catalog.open(uri), "latents", "clip_id", uuid.uuid4().hex) as ledger:
        rows = write_shard(uri, "5x16x24", [f"{9:032x}"], contract())
        commit_rows(ledger, {"latents": rows})
    assert Catalog.open(uri).snapshot() != dataset.about["versions"]
    assert open_dataset(tmp_path / "datasets/made").columns(["clip_id"])["clip_id"].equals(index["clip_id"])
