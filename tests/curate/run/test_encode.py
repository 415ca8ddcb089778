"""The recipe `latents`: kept clips to shards of latents, each clip once, none lost, nothing half-written."""

import errno
import json
import os
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import stages.encode.network as network
from curate.catalog.catalog import Catalog
from curate.datasets.create import run_dataset_create
from curate.errors import DamagedError, UserError
from curate.run.command import RunOptions, run_recipes
from curate.run.verify import verify
from models.saved.vae_files import load
from stages.encode.settings import EncodeSettings
from stages.encode.stage import Encode
from stages.shards.contract import Contract
from stages.shards.format import read_header, read_index, read_sample
from stages.windows.prefetch import WindowPrefetcher
from stages.windows.window import Window
from tests.clip_model import clip_folder
from tests.curate.running import INLINE, ask, cut_film
from tests.stages.vaes import folder
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow

FILMS = 4
RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0.5}
      - cut: {min_seconds: 1, max_seconds: 20}
      - measure: [motion, letterbox]
      - gate: {moving: "motion >= %(motion)s"}
  captions:
    select: %(select)s
    stages:
      - caption: {manifest: {sidecar: .txt}}
      - caption: {as: short, manifest: {sidecar: .json}}
  latents:
    select: %(select)s
    stages:
      - encode: %(encode)s
"""
KEPT = "SELECT * FROM clips WHERE verdict = 'kept'"
ROWS = "SELECT clip_id, shard, bucket, status, reason FROM latents ORDER BY clip_id"


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return vae_folder(tmp_path_factory.mktemp("vae") / "tiny")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """(films, a catalog with 2 clips of each)."""
    folder = tmp_path_factory.mktemp("encode")
    (folder / "films").mkdir()
    for number in range(FILMS):
        cut_film(folder / "films" / f"film_{number}.mp4", number)
        (folder / "films" / f"film_{number}.txt").write_text(f"take {number}: a square moves over a coloured ground")
        (folder / "films" / f"film_{number}.json").write_text(json.dumps({"caption": f"square {number}"}))
    file = folder / "pipelines.yaml"
    file.write_text(RECIPES % {"motion": 0, "select": KEPT, "encode": '{vae: "x", buckets: ["9x32x48"]}'})
    assert run_recipes(["ingest", "captions"], str(folder / "catalog"), [str(folder / "films")], file, (), INLINE) == 0
    return folder


@pytest.fixture
def go(tmp_path, ingested, vae):
    """Runs `latents` (or other recipes) on a catalog of its own; returns the exit code."""
    shutil.copytree(ingested / "catalog", tmp_path / "catalog")

    def run(*names, select=KEPT, motion=0, options=INLINE, sets=(), films=None, **settings):
        encode = {"vae": str(vae), "buckets": ["9x32x48"], "fps": 8, "batch_clips": 3, "max_upscale": 2} | settings
        file = tmp_path / "pipelines.yaml"
        file.write_text(RECIPES % {"motion": motion, "select": select, "encode": json.dumps(encode)})
        inputs = [str(films or ingested / "films")] if "ingest" in names else None
        return run_recipes(list(names or ["latents"]), str(tmp_path / "catalog"), inputs, file, tuple(sets), options)

    return run


def catalog(tmp_path):
    return Catalog.open(str(tmp_path / "catalog"))


def shards(tmp_path):
    return sorted((tmp_path / "catalog" / "shards").rglob("*.tar"))


def clips_of(shard):
    return [
        name.split(".")[0] for name in tarfile.open(shard).getnames() if name.endswith(".json") and "__" not in name
    ]


def samples(shard):
    """Every sample of a shard by clip id, in order."""
    found = {}
    for row in read_index(str(shard)).to_pylist():
        found.setdefault(row["clip_id"], []).append(row)
    return {clip: read_sample(str(shard), rows) for clip, rows in found.items()}


def test_every_kept_clip_is_in_one_shard_and_the_table_says_in_which(go, tmp_path):
    assert go() == 0
    rows = ask(tmp_path / "catalog", ROWS)
    kept = {row[0] for row in ask(tmp_path / "catalog", "SELECT clip_id FROM clips WHERE verdict = 'kept'")}
    assert {row[0] for row in rows} == kept and len(rows) == len(kept) == 2 * FILMS
    (shard,) = shards(tmp_path)
    assert {row[1] for row in rows} == {str(shard.relative_to(tmp_path / "catalog"))}
    assert sorted(clips_of(shard)) == sorted(kept)
    assert verify(catalog(tmp_path)) == []


def test_conditions_that_nobody_named_are_the_short_list_and_are_printed(go, tmp_path, capsys):
    assert go() == 0
    names = ["fps", "width", "height", "crop_x", "crop_y", "crop_w", "crop_h", "motion"]
    for shard in shards(tmp_path):
        assert all(sorted(sample["json"]["conditions"]) == sorted(names) for sample in samples(shard).values())
    assert f"encode: conditions beside the latents: {', '.join(names)}\n" in capsys.readouterr().err


def test_stored_latents_are_those_of_the_vae_for_the_clip_s_own_frames(go, tmp_path, vae):
    go(dtype="float16", sample=2)
    coder, (shard,) = load(vae), shards(tmp_path)
    index = read_index(str(shard))
    for row in index.to_pylist():
        if row["field"] != "json":
            continue
        clip = row["clip_id"]
        sample = read_sample(str(shard), [r for r in index.to_pylist() if r["clip_id"] == clip])
        info = sample["json"]
        span = ask(
            tmp_path / "catalog",
            f"SELECT start_pts, end_pts, time_base_num, time_base_den, start_s, end_s, crop_x, crop_y, crop_w, crop_h "
            f"FROM clips WHERE clip_id = '{clip}'",
        )[0]
        base = Fraction(span[2], span[3])
        crop = tuple(span[6:]) if span[6] is not None else None
        offset = info["start_s"] - span[4]
        window = Window(clip, info["uri"], None, span[0], span[1], base, offset, 8.0, 9, crop, 32, 48)
        with WindowPrefetcher() as pool:
            ((_, pixels),) = pool.fetch([window])
        assert list(pixels.pts) == info["pts"] and span[0] <= info["pts"][0] <= info["pts"][-1] < span[1]
        video = torch.from_numpy(pixels.video).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with torch.inference_mode():
            wanted = coder.encode(video)
        np.testing.assert_allclose(sample["mean"], wanted.mean[0].numpy(), atol=2e-3)
        np.testing.assert_allclose(sample["logvar"], wanted.logvar[0].numpy(), atol=1e-2)
    assert len(read_header(str(shard))["decode_psnr"]) == 2
    psnr = dict(ask(tmp_path / "catalog", "SELECT clip_id, decode_psnr FROM latents WHERE decode_psnr IS NOT NULL"))
    assert psnr == pytest.approx(read_header(str(shard))["decode_psnr"])


def test_captions_are_embedded_each_and_the_empty_prompt_once(go, tmp_path):
    text = {"model": str(clip_folder()), "captions": ["caption"]}
    assert go("latents", text=text) == 0
    (shard,) = shards(tmp_path)
    with tarfile.open(shard) as tar:
        names = tar.getnames()
    assert names.count("__contract__/empty_text.npy") == 1
    contract = Contract.from_dict(read_header(str(shard))["contract"])
    assert contract.text["fields"] == {"text": "caption"}
    index = read_index(str(shard)).to_pylist()
    by_clip = {r["clip_id"]: r for r in index if r["field"] == "text"}
    assert len(by_clip) == 2 * FILMS and all(r["shape"][1] == contract.text["dim"] for r in by_clip.values())
    clip = next(iter(by_clip))
    sample = read_sample(str(shard), [r for r in index if r["clip_id"] == clip])
    assert sample["json"]["captions"]["caption"].startswith("take")
    assert sample["text_mask"].tolist() == [1] * sample["text"].shape[0]


def test_a_clip_s_captions_are_each_stored_and_embedded(go, tmp_path):
    assert go("latents", text={"model": str(clip_folder()), "captions": ["caption", "short_caption"]}) == 0
    for fields in samples(shards(tmp_path)[0]).values():
        said = fields["json"]["captions"]
        assert said["caption"].startswith("take") and said["short_caption"].startswith("square")
        assert len(fields["text_short_caption"]) < len(fields["text"])


def test_a_clip_without_a_caption_is_unfit_and_the_shard_goes_on_without_it(go, tmp_path, ingested):
    films = tmp_path / "films"
    shutil.copytree(ingested / "films", films)
    (films / "film_0.txt").write_text("")
    shutil.rmtree(tmp_path / "catalog")
    go("ingest", "captions", films=films)
    assert go("latents", text={"model": str(clip_folder()), "captions": ["caption"]}) == 0
    rows = ask(tmp_path / "catalog", ROWS)
    unfit = [row for row in rows if row[3] == "unfit"]
    assert len(unfit) == 2 and all("no caption" in row[4] and row[1] is None for row in unfit)
    (shard,) = shards(tmp_path)
    assert sorted(clips_of(shard)) == sorted(row[0] for row in rows if row[3] == "done")
    assert verify(catalog(tmp_path)) == []


def test_a_source_that_is_gone_costs_its_own_clips(go, tmp_path, ingested):
    films = tmp_path / "films"
    shutil.copytree(ingested / "films", films)
    shutil.rmtree(tmp_path / "catalog")
    go("ingest", films=films)
    (films / "film_1.mp4").rename(films / "away.mp4")
    assert go() == 1
    rows = ask(tmp_path / "catalog", ROWS)
    assert [row[3] for row in rows].count("failed") == 2
    assert verify(catalog(tmp_path)) == []
    (films / "away.mp4").rename(films / "film_1.mp4")
    assert go(options=RunOptions(engine="inline", quiet=True, retry_failed=True)) == 0
    assert [row[3] for row in ask(tmp_path / "catalog", ROWS)] == ["done"] * 2 * FILMS
    assert len(shards(tmp_path)) == 2
    assert verify(catalog(tmp_path)) == []


def test_what_is_encoded_is_not_encoded_again_and_new_clips_get_a_shard_of_their_own(go, tmp_path, ingested):
    first = "SELECT * FROM clips WHERE uri LIKE '%film_0%' OR uri LIKE '%film_1%'"
    go(select=first)
    before = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    go(select=first)
    assert {path: path.stat().st_mtime_ns for path in shards(tmp_path)} == before
    go()
    assert len(shards(tmp_path)) == 2 and set(before) < set(shards(tmp_path))
    assert sorted(clip for shard in shards(tmp_path) for clip in clips_of(shard)) == sorted(
        row[0] for row in ask(tmp_path / "catalog", "SELECT clip_id FROM clips WHERE verdict = 'kept'")
    )


def test_clips_gather_by_the_shape_that_fits_them_and_by_size(go, tmp_path):
    assert go(buckets=["9x32x48", "5x48x32"], shard_clips=3) == 0
    buckets = ask(tmp_path / "catalog", "SELECT bucket, count(*), count(DISTINCT shard) FROM latents GROUP BY 1")
    assert buckets == [("9x32x48", 8, 3)]
    assert sorted(len(clips_of(shard)) for shard in shards(tmp_path)) == [2, 3, 3]


def test_other_weights_or_scaling_are_another_contract_and_never_mixed(go, tmp_path, vae):
    go()
    other = vae_folder(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"encode.*->.*--rebuild"):
        go(vae=str(other))
    scaled = vae_folder(tmp_path / "scaled", seed=0, scaling=False)
    with pytest.raises(UserError, match=r"--rebuild"):
        go(vae=str(scaled))
    old = shards(tmp_path)
    assert go(vae=str(other), options=RunOptions(engine="inline", quiet=True, rebuild=True)) == 0
    assert go(vae=str(other)) == 0  # collects what the rebuild left behind
    assert len(shards(tmp_path)) == 1 and shards(tmp_path) != old
    assert verify(catalog(tmp_path)) == []


def test_latents_under_another_name_stand_beside_the_first_and_are_verified_like_them(go, tmp_path):
    go()
    assert go(**{"as": "wide", "buckets": ["9x24x48"]}) == 0
    assert verify(catalog(tmp_path)) == []
    (wide,) = (tmp_path / "catalog" / "shards" / "wide").rglob("*.tar")
    run_dataset_create("d", str(tmp_path / "catalog"), "SELECT clip_id FROM clips", output=str(tmp_path), table="wide")
    assert json.loads((tmp_path / "d" / "dataset.json").read_text())["samples"] == 2 * FILMS
    orphan = shutil.copy(wide, wide.with_name("e" * 32 + ".tar"))
    go(**{"as": "wide", "buckets": ["9x24x48"]})
    assert not Path(orphan).exists()
    content = bytearray(wide.read_bytes())
    content[len(content) // 2] ^= 1
    wide.write_bytes(content)
    assert any("wide" in line for line in verify(catalog(tmp_path)))
    wide.unlink()
    assert any("wide" in line and "missing" in line for line in verify(catalog(tmp_path)))
    with pytest.raises(DamagedError, match="is missing"):
        run_dataset_create(
            "e", str(tmp_path / "catalog"), "SELECT clip_id FROM clips", output=str(tmp_path), table="wide"
        )


def test_what_no_row_names_is_collected_by_the_next_run(go, tmp_path):
    go()
    (shard,) = shards(tmp_path)
    orphan = shard.with_name("f" * 32 + ".tar")
    shutil.copy(shard, orphan)
    shutil.copy(shard.with_suffix(".parquet"), orphan.with_suffix(".parquet"))
    notes = []
    assert verify(catalog(tmp_path), notes) == []
    assert any("2 files" in line and "no row names" in line for line in notes)
    go()
    assert shards(tmp_path) == [shard] and not orphan.with_suffix(".parquet").exists()
    assert verify(catalog(tmp_path)) == []


@pytest.mark.ray
def test_both_engines_write_the_same_samples(go, tmp_path):
    go()
    inline = samples(shards(tmp_path)[0])
    shutil.rmtree(tmp_path / "catalog" / "latents")
    shutil.rmtree(tmp_path / "catalog" / "shards")
    assert go(options=RunOptions(engine="ray", quiet=True)) == 0
    ray = samples(shards(tmp_path)[0])
    assert list(ray) == list(inline)
    for clip, fields in inline.items():
        assert ray[clip]["json"] == fields["json"]
        for name in ("mean", "logvar"):  # workers have other numbers of threads, and round otherwise
            np.testing.assert_allclose(ray[clip][name], fields[name], atol=2e-2)


def test_clips_encoded_in_pieces_give_the_latents_of_whole_ones(go, tmp_path):
    assert go() == 0
    whole = samples(shards(tmp_path)[0])
    shutil.rmtree(tmp_path / "catalog" / "shards")
    assert go(options=RunOptions(engine="inline", quiet=True, rebuild=True), chunk=4) == 0
    for clip, fields in samples(shards(tmp_path)[0]).items():
        np.testing.assert_allclose(fields["mean"], whole[clip]["mean"], atol=2e-3)  # float16


def test_where_memory_ends_the_batch_is_halved_and_said(go, tmp_path, monkeypatch, capfd):
    seen = []
    whole = network.Network._encode

    def little_memory(self, videos):
        seen.append(len(videos))
        if len(videos) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
        return whole(self, videos)

    monkeypatch.setattr(network.Network, "_encode", little_memory)
    assert go(batch_clips=4) == 0
    assert seen[:3] == [4, 2, 1] and max(seen[3:]) == 1
    assert "going on with 2" in capfd.readouterr().err
    assert len(ask(tmp_path / "catalog", ROWS)) == 2 * FILMS


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_nothing_half_written(go, tmp_path, monkeypatch):
    import stages.shards.writer as shard_writer

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(shard_writer.ShardWriter, "_member", full)
        with pytest.raises(UserError, match=r"shards can't be written to .*No space left"):
            go()
    assert not [path for path in (tmp_path / "catalog").rglob("*") if path.is_file() and "shards" in path.parts]
    assert go() == 0
    assert verify(catalog(tmp_path)) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vae": "/no/such/vae"}, "no such folder"),
        ({"buckets": ["10x32x48"]}, r"10x32x48.*1 \+ 4 ?n"),
        ({"buckets": ["9x30x48"]}, "multiples of 8"),
        ({"buckets": ["nine"]}, "nine"),
        ({"conditions": ["uri"]}, "no number"),
        ({"conditions": ["beauty"]}, "no column 'beauty'"),
        ({"text": {"model": "/no/model"}}, "no such folder"),
        ({"text": {"model": str(clip_folder()), "captions": ["motion"]}}, "no text to embed"),
        ({"fps": 1e-9}, "fps"),
        ({"chunk": 3}, "chunk 3: at least 4 frames"),
        ({"vae": str(folder("wan")), "chunk": 8}, "chunk 8: AutoencoderKLWan goes through a clip in its own way"),
    ],
)
def test_settings_that_can_t_work_are_told_before_any_work(go, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        go(**settings)
    assert not shards(tmp_path)


def test_a_catalog_without_kept_clips_is_said(go, tmp_path):
    with pytest.raises(UserError, match="gives no clip of this catalog"):
        go(select="SELECT * FROM clips WHERE verdict = 'kept' AND motion > 1e9")


def test_a_bucket_that_no_clip_fits_is_named(go, tmp_path, capfd):
    assert go(buckets=["9x32x48", "81x32x48"]) == 0
    assert "no clip" in (said := capfd.readouterr().err) and "81x32x48" in said
    assert go(buckets=["81x32x48"], options=RunOptions(engine="inline", quiet=True, rebuild=True)) == 0
    reasons = {row[4] for row in ask(tmp_path / "catalog", ROWS) if row[3] == "unfit"}
    assert len(reasons) == 1 and "81" in reasons.pop()


def test_encode_stands_alone_in_its_recipe(tmp_path, vae):
    file = tmp_path / "pipelines.yaml"
    encode = f"encode: {{vae: {vae}, buckets: [9x32x48]}}"
    file.write_text(f"recipes: {{r: {{select: {KEPT!r}, stages: [{{{encode}}}, duplicates]}}}}")
    with pytest.raises(UserError, match="stands alone"):
        run_recipes(["r"], str(tmp_path), None, file)


def test_settings_that_decide_no_latent_are_no_part_of_the_contract(vae):
    base = EncodeSettings(vae=str(vae), buckets=("9x32x48",))
    other = EncodeSettings(vae=str(vae), buckets=("9x32x48",), shard_mb=1, batch_clips=7)
    assert Encode(base).contract == Encode(other).contract
    assert Encode(base).versions() == Encode(other).versions()
    assert base.model_dump(mode="json") == other.model_dump(mode="json")
    assert Path(Encode(base).info.path).is_absolute()
