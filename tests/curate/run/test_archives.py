"""Whole runs on archives: films inside tars, zips and Parquet files are sources like others, in a bucket too."""

import tarfile
import zipfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.exports.clips import run_export_clips
from curate.exports.latents import export_parquet
from curate.query.search import run_search
from curate.run.command import RunOptions, run_recipes
from curate.run.relocate import relocate
from curate.run.verify import verify
from curate.run.verify_sources import source_problems
from curate.shards.verify import shard_problems
from tests.archives import film, samples, write_tar, write_zip
from tests.clip_model import clip_folder
from tests.curate.running import INLINE, ask, ingest
from tests.s3 import fetched
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow

FILMS = 200
RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {}
      - cut: {}
      - measure: [motion, phash]
  vectors:
    select: SELECT * FROM clips
    stages: [{embed: {model: %(model)s}}]
  captions:
    select: SELECT * FROM clips
    stages: [{caption: {manifest: {column: txt}}}]
  latents:
    select: SELECT * FROM clips
    stages: [{encode: {vae: %(vae)s, buckets: [9x32x48], fps: 8, max_upscale: 2}}]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    made = folder / "pipelines.yaml"
    made.write_text(RECIPES % {"model": clip_folder(), "vae": vae_folder(folder / "tiny")})
    return made


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    return write_tar(tmp_path_factory.mktemp("tar") / "00000.tar", samples(FILMS, width=192, height=128))


def put(tar, bucket):
    """The URI of a folder in the bucket with the tar."""
    import s3fs

    s3fs.S3FileSystem().put(str(tar), f"{bucket}/set/00000.tar")
    return f"{bucket}/set"


def test_a_tar_of_200_films_in_a_bucket_is_read_about_once_by_every_pass(bucket, s3_server, tmp_path, file, tar):
    folder = put(tar, bucket)
    uri, size, catalog = f"{folder}/00000.tar", tar.stat().st_size, str(tmp_path / "catalog")
    before, passes = 0, {}
    for recipe in ("ingest", "vectors", "captions", "latents"):
        assert run_recipes([recipe], catalog, [folder] if recipe == "ingest" else None, file, (), INLINE) == 0
        now, _ = fetched(s3_server, uri)
        passes[recipe], before = (now - before) / size, now
    assert 0.9 < passes["ingest"] <= 1.1 and passes["captions"] == 0  # the text came with the listing
    assert 0.9 < passes["vectors"] <= 1.1 and 0.9 < passes["latents"] <= 1.1
    assert ask(catalog, "SELECT status, count(*) FROM sources GROUP BY 1") == [("done", FILMS)]
    for table in ("embeddings", "captions", "latents"):
        assert ask(catalog, f"SELECT count(*) FROM {table} WHERE status = 'done'") == [(FILMS,)]
    assert ask(catalog, "SELECT caption FROM clips WHERE uri LIKE '%#000000007.mp4'") == [("text of 7",)]
    clips, files, problems = export_parquet(Catalog.open(catalog), str(tmp_path / "out"))
    assert clips == FILMS and files and not problems
    assert run_search(catalog, "a film", k=5, form="json", output=str(tmp_path / "sheet.png")) == 0
    assert fetched(s3_server, uri)[0] == before  # of shards, vectors and thumbnails alone
    assert verify(Catalog.open(catalog)) == []
    assert run_export_clips(catalog, str(tmp_path / "clips"), None, "caption", None, {}) == 0
    assert len(list((tmp_path / "clips").glob("*.mp4"))) == FILMS
    assert 0.9 < (fetched(s3_server, uri)[0] - before) / size <= 1.1


@pytest.mark.parametrize("kind", ["zip", "deflated", "parquet"])
def test_other_archives_in_a_bucket_are_read_about_once_too(bucket, s3_server, tmp_path, file, kind):
    import s3fs

    films = samples(20, width=384, height=256)
    path = tmp_path / ("x.parquet" if kind == "parquet" else "x.zip")
    if kind == "parquet":
        column = [{"bytes": data, "path": name} for name, data in films if name.endswith(".mp4")]
        pq.write_table(pa.table({"video": column, "caption": ["c"] * len(column)}), path, row_group_size=6)
    else:
        write_zip(path, films, zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED)
    uri = f"{bucket}/{path.name}"
    s3fs.S3FileSystem().put(str(path), uri)
    assert ingest(tmp_path / "catalog", uri, file=file) == 0
    assert ask(tmp_path / "catalog", "SELECT count(*) FROM sources WHERE status = 'done'") == [(20,)]
    assert 0.9 < fetched(s3_server, uri)[0] / path.stat().st_size <= 1.1


@pytest.mark.ray
def test_ids_are_the_same_whatever_the_engine_and_ray_reads_the_tar_once_too(bucket, s3_server, tmp_path, file, tar):
    folder, found = put(tar, bucket), {}
    uri, before = f"{folder}/00000.tar", 0
    for engine in ("inline", "ray"):
        catalog = str(tmp_path / engine)
        assert run_recipes(["ingest"], catalog, [folder], file, (), RunOptions(engine=engine)) == 0  # not quiet
        now, _ = fetched(s3_server, uri)
        assert (now - before) / tar.stat().st_size <= 1.1
        before = now
        found[engine] = ask(
            catalog, "SELECT source_id, uri, archive_offset, content_hash, caption FROM sources ORDER BY 1"
        )
        found[engine] += ask(catalog, "SELECT clip_id, motion, phash FROM clips ORDER BY 1")
    assert found["ray"] == found["inline"] and len(found["ray"]) == 2 * FILMS


def test_every_stage_reads_a_film_where_it_lies_as_it_reads_the_file_itself(tmp_path, file):
    films = [(f"{n}.mp4", film(n)) for n in range(4)]
    for folder in ("loose", "there"):
        (tmp_path / folder).mkdir()
    for name, data in films:
        (tmp_path / "loose" / name).write_bytes(data)
    write_tar(tmp_path / "there" / "x.tar", films)
    write_zip(tmp_path / "there" / "stored.zip", films)
    write_zip(tmp_path / "there" / "deflated.zip", films, zipfile.ZIP_DEFLATED)
    column = [{"bytes": data, "path": name} for name, data in films]
    pq.write_table(pa.table({"video": column}), tmp_path / "there" / "x.parquet", row_group_size=3)
    for folder in ("loose", "there"):
        catalog = str(tmp_path / f"catalog_{folder}")
        assert run_recipes(["ingest"], catalog, [str(tmp_path / folder)], file, (), INLINE) == 0
        assert run_recipes(["vectors"], catalog, None, file, (), INLINE) == 0
        assert run_recipes(["latents"], catalog, None, file, ("encode.sample=2",), INLINE) == 0
    opened = Catalog.open(str(tmp_path / "catalog_there"))
    assert ask(opened.uri, "SELECT count(*) FROM clips") == [(16,)]
    for query in (
        "SELECT content_hash, bytes, frames, duration_s, codec FROM sources",
        "SELECT content_hash, start_pts, end_pts, motion, phash FROM clips JOIN sources USING (source_id)",
        "SELECT content_hash, hex(embedding) FROM embeddings",
        "SELECT sha256(jpeg) FROM thumbnails",
        "SELECT content_hash, status, bucket FROM latents",
    ):
        there, loose = (ask(tmp_path / f"catalog_{folder}", query) for folder in ("there", "loose"))
        assert sorted(there) == sorted(4 * loose)
    with connect(opened) as sql:
        found = shard_problems(opened, sql, redecode=2)
    assert found.problems == [] and found.notes == []  # clips were decoded again from the archives


def test_a_film_of_one_archive_that_is_cut_off_or_a_bomb_costs_itself_alone(tmp_path, file):
    films = samples(4)
    whole = write_tar(tmp_path / "whole.tar", films).read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    with tarfile.open(tmp_path / "whole.tar") as opened:
        last = opened.getmember("000000003.mp4")
    (folder / "cut.tar").write_bytes(whole[: last.offset_data + last.size // 2])
    write_zip(folder / "bomb.zip", [("bomb.mp4", bytes(30_000_000)), ("a.mp4", film(9))], zipfile.ZIP_DEFLATED)
    (folder / "no.tar").write_bytes(b"no tar" * 999)
    catalog = tmp_path / "catalog"
    assert ingest(catalog, folder, file=file) == 1
    rows = ask(catalog, "SELECT uri, reason FROM sources WHERE status = 'failed' ORDER BY uri")
    failed = {uri.rpartition("/")[2]: reason for uri, reason in rows}
    assert list(failed) == ["bomb.zip#bomb.mp4", "cut.tar#000000003.mp4", "no.tar"]
    assert "more than 100 times" in failed["bomb.zip#bomb.mp4"]
    half = f"{last.size // 2} of its {last.size} bytes are there"
    assert failed["cut.tar#000000003.mp4"] == f"the archive ends within it: {half}"
    assert failed["no.tar"].startswith("no tar")
    assert ask(catalog, "SELECT count(*) FROM sources WHERE status = 'done'") == [(4,)]
    (folder / "cut.tar").write_bytes(whole)
    write_tar(folder / "no.tar", [("b.mp4", film(8))])
    write_zip(folder / "bomb.zip", [("a.mp4", film(9))])
    retry = replace(INLINE, retry_failed=True)
    assert ingest(catalog, folder, file=file, options=retry) == 0
    assert ask(catalog, "SELECT uri FROM sources WHERE status = 'failed'") == [(f"{folder}/bomb.zip#bomb.mp4",)]
    assert ask(catalog, "SELECT count(*) FROM sources WHERE status = 'done'") == [(6,)]


def test_a_tar_that_changed_after_it_was_listed_gives_no_wrong_pixels(tmp_path, file):
    path, catalog = tmp_path / "x.tar", tmp_path / "catalog"
    write_tar(path, [("a.mp4", film(1)), ("b.mp4", film(2)), ("c.mp4", film(3))])
    assert ingest(catalog, path, file=file) == 0
    write_tar(path, [("new.mp4", film(7)), ("a.mp4", film(1)), ("b.mp4", film(2) + b"0")])  # moved; another; gone
    assert run_recipes(["vectors"], str(catalog), None, file, (), INLINE) == 1
    rows = ask(catalog, "SELECT uri, e.status, e.reason FROM embeddings e JOIN clips USING (clip_id) ORDER BY uri")
    assert [row[1] for row in rows] == ["done", "failed", "failed"]
    assert "has changed" in rows[1][2] and "no member 'c.mp4'" in rows[2][2]


def test_verify_sources_names_members_that_are_gone_or_others_and_relocate_moves_their_folder(tmp_path, file):
    old, catalog = tmp_path / "old", tmp_path / "catalog"
    old.mkdir()
    films = [("a.mp4", film(1)), ("b.mp4", film(2)), ("c.mp4", film(3))]
    write_tar(old / "x.tar", films)
    assert ingest(catalog, old, file=file) == 0
    opened = Catalog.open(str(catalog))
    assert list(source_problems(opened, hashes=True)) == []
    new = old.rename(tmp_path / "new")
    assert len(list(source_problems(opened))) == 3
    assert relocate(opened, str(old), str(new)) == 0
    assert list(source_problems(opened, hashes=True)) == []
    assert run_recipes(["vectors"], str(catalog), None, file, (), INLINE) == 0
    assert ingest(catalog, new, file=file) == 0
    assert ask(catalog, "SELECT count(*) FROM sources") == [(3,)]
    write_tar(new / "x.tar", [films[0], ("b.mp4", film(9))])
    problems = list(source_problems(opened))
    assert len(problems) == 2 and "b.mp4 has" in str(problems[0]) and "c.mp4 is gone" in str(problems[1])
