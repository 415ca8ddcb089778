"""Folders that move or are reached by a link: ids stay, nothing is done twice, every command finds the files."""

import json
import os
import shutil

import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.lease import acquire
from curate.cli.main import main
from tests.curate.running import CLIPS, pipelines
from tests.hostile import moving_square, write_video
from tests.vae_models import vae_folder

RECIPES = """\
recipes:
  ingest:
    stages:
      - cut: {detector: fixed, seconds: 0.5, min_seconds: 0}
      - measure: [exposure]
      - gate: {in_b: "uri NOT LIKE '%unwanted%'"}
"""


def film(path, frames=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, moving_square(frames))


class Desk:
    """The command line on one catalog, in a folder with two films in a/."""

    def __init__(self, tmp_path, capsys):
        self.at, self.capsys = tmp_path, capsys
        self.file = pipelines(tmp_path, RECIPES)
        self.a, self.b, self.c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
        film(self.a / "one.mp4")
        film(self.a / "below" / "two.mp4", 36)

    def __call__(self, command, *arguments, code=0):
        assert main([command, *map(str, arguments), "--catalog", str(self.at / "catalog")]) == code
        said = self.capsys.readouterr()
        return said.err if code == 2 else said.out

    def ingest(self, *inputs, code=0, **sets):
        engine = ("--pipelines", self.file, "--engine", "inline")
        return self("run", "ingest", "--input", *inputs, *engine, code=code)

    def ask(self, query):
        return [tuple(row.values()) for row in json.loads(self("sql", query, "--format", "json"))]

    def uris(self):
        return [uri.removeprefix(f"{self.at}/") for (uri,) in self.ask("SELECT uri FROM sources ORDER BY uri")]


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk(tmp_path, capsys)


def done(before, now):
    return f"before this run: {before} done, 0 failed; in this run: {now} done, 0 failed"


def test_a_renamed_folder_keeps_its_ids_and_nothing_is_done_again(desk):
    desk.ingest(desk.a)
    ids = desk.ask("SELECT clip_id, source_id FROM clips ORDER BY ALL")
    desk.a.rename(desk.b)
    assert "2 sources with 5 clips" in desk("relocate", desk.a, desk.b, "--dry-run")
    assert desk.uris() == ["a/below/two.mp4", "a/one.mp4"], "a dry run changes nothing"
    assert "2 sources with 5 clips" in desk("relocate", desk.a, f"{desk.b}/")
    assert done(2, 0) in desk.ingest(desk.b)
    assert desk.ask("SELECT clip_id, source_id FROM clips ORDER BY ALL") == ids
    assert desk.uris() == ["b/below/two.mp4", "b/one.mp4"]
    assert desk.ask("SELECT DISTINCT uri FROM clips ORDER BY 1") == desk.ask("SELECT uri FROM sources ORDER BY 1")
    assert "0 failed, 0 pending" in desk("status")
    assert "sources agree" in desk("verify", "--sources")


def test_new_files_and_files_made_again_get_the_ids_they_would_have_had(desk):
    desk.ingest(desk.a)
    desk.a.rename(desk.b)
    desk("relocate", desk.a, desk.b)
    film(desk.b / "three.mp4", 40)
    assert done(2, 1) in desk.ingest(desk.b)
    moved = desk.ask("SELECT source_id FROM sources ORDER BY 1")
    assert done(0, 3) in desk("run", "ingest", "--rebuild", "--input", desk.b, "--pipelines", desk.file)
    assert desk.ask("SELECT source_id FROM sources ORDER BY 1") == moved
    assert desk.uris() == ["b/below/two.mp4", "b/one.mp4", "b/three.mp4"]
    desk.b.rename(desk.a)
    shutil.rmtree(desk.at / "catalog")
    desk.ingest(desk.a)
    assert desk.ask("SELECT source_id FROM sources ORDER BY 1") == moved
    desk("verify")


def test_moves_chain_and_are_taken_back(desk):
    desk.ingest(desk.a)
    rows = desk.ask(CLIPS)
    for old, new in ((desk.a, desk.b), (desk.b, desk.c), (desk.c, desk.a)):
        old.rename(new)
        desk("relocate", old, new)
        assert done(2, 0) in desk.ingest(new)
        assert "sources agree" in desk("verify", "--sources")
    assert desk.ask(CLIPS) == rows


def test_a_folder_inside_a_moved_one_moves_on_by_itself(desk):
    desk.ingest(desk.a)
    desk.a.rename(desk.b)
    desk("relocate", desk.a, desk.b)
    (desk.b / "below").rename(desk.c)
    desk("relocate", desk.b / "below", desk.c)
    assert desk.uris() == ["b/one.mp4", "c/two.mp4"]
    assert done(2, 0) in desk.ingest(desk.b, desk.c)
    desk.c.rename(desk.b / "below")
    desk("relocate", desk.c, desk.b / "below")
    assert done(2, 0) in desk.ingest(desk.b)


def test_two_folders_that_become_one_keep_all_sources_apart(desk):
    film(desk.b / "three.mp4", 40)
    desk.ingest(desk.a, desk.b)
    shutil.copytree(desk.a, desk.b, dirs_exist_ok=True)
    shutil.rmtree(desk.a)
    desk("relocate", desk.a, desk.b)
    assert done(3, 0) in desk.ingest(desk.b)
    assert desk.uris() == ["b/below/two.mp4", "b/one.mp4", "b/three.mp4"]


def test_a_folder_that_was_ingested_under_both_names_is_refused(desk):
    desk.ingest(desk.a)
    desk.a.rename(desk.b)
    desk.ingest(desk.b)
    said = desk("relocate", desk.a, desk.b, code=2)
    assert "2 of the sources" in said and "b/below/two.mp4" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("aa", "b", ["no source of", "aa", "its sources lie in"]),
        ("a", "nowhere", ["none of them is under", "nowhere", "--unseen"]),
        ("a", "a/", ["same place"]),
        ("/", "b", ["'/'", "no folder or bucket"]),
    ],
)
def test_a_wrong_move_is_one_clear_line_and_changes_nothing(desk, monkeypatch, old, new, words):
    monkeypatch.chdir(desk.at)
    desk.ingest(desk.a)
    said = desk("relocate", old, new, code=2)
    assert said.startswith("clipmill: ") and said.count("\n") == 1
    assert all(word in said for word in words), said
    assert desk.ask("FROM places") == []


def test_a_place_that_this_machine_cant_see_is_taken_at_the_users_word(desk):
    desk.ingest(desk.a)
    desk("relocate", desk.a, desk.b, "--unseen")
    assert desk.uris() == ["b/below/two.mp4", "b/one.mp4"]


def test_an_input_that_has_moved_is_one_line_that_says_where_to(desk):
    desk.ingest(desk.a)
    desk.a.rename(desk.b)
    desk("relocate", desk.a, desk.b)
    film(desk.a / "one.mp4", 50)  # another film by an old name
    for text in (desk.a, desk.a / "below"):
        said = desk.ingest(text, code=2)
        assert f"was relocated to {desk.b}" in said and said.count("\n") == 1


def test_a_manifest_of_old_names_finds_the_files_where_they_are(desk):
    desk.a.rename(desk.b)
    (desk.at / "films.csv").write_text(f"uri,licence\n{desk.b}/one.mp4,CC0\n")
    desk.ingest(desk.at / "films.csv")
    desk.b.rename(desk.a)
    desk("relocate", desk.b, desk.a)
    (desk.at / "films.csv").write_text(f"uri,licence\n{desk.b}/one.mp4,CC0\n{desk.b}/below/two.mp4,CC0\n")
    assert done(1, 1) in desk.ingest(desk.at / "films.csv")
    assert desk.uris() == ["a/below/two.mp4", "a/one.mp4"]


def test_gates_judge_the_place_of_today_in_a_run_and_in_the_view(desk):
    desk.ingest(desk.a)
    desk.a.rename(desk.at / "unwanted")
    desk("relocate", desk.a, desk.at / "unwanted")
    film(desk.at / "unwanted" / "three.mp4", 40)
    desk.ingest(desk.at / "unwanted")
    assert desk.ask("SELECT DISTINCT verdict FROM clips") == [("dropped",)]


def test_no_move_is_noted_while_a_run_is_at_work(desk):
    desk.ingest(desk.a)
    lease = acquire(Catalog.open(str(desk.at / "catalog")).uri, "sources", "another")
    try:
        assert "another" in desk("relocate", desk.a, desk.b, "--unseen", code=2)
    finally:
        lease.release()


def test_a_folder_moves_into_a_bucket_and_back(desk, bucket):
    import s3fs

    desk.ingest(desk.a)
    store = s3fs.S3FileSystem()
    store.put(str(desk.a), f"{bucket}/films", recursive=True)
    shutil.rmtree(desk.a)
    desk("relocate", desk.a, f"{bucket}/films/")
    assert desk.ask("SELECT uri FROM sources ORDER BY 1")[1] == (f"{bucket}/films/one.mp4",)
    assert done(2, 0) in desk.ingest(f"{bucket}/films")
    assert "sources agree" in desk("verify", "--sources"), "another time of change, the same bytes"
    store.rm(f"{bucket}/films/one.mp4")
    assert f"source {bucket}/films/one.mp4 is gone" in desk("verify", "--sources", code=1)
    store.get(f"{bucket}/films/below", str(desk.b / "below"), recursive=True)
    film(desk.b / "one.mp4")
    desk("relocate", f"{bucket}/films", desk.b)
    assert done(2, 0) in desk.ingest(desk.b)
    assert "sources agree" in desk("verify", "--sources")


def test_a_folder_and_a_link_to_it_are_the_same_sources_whichever_comes_first(desk):
    link = desk.at / "link"
    link.symlink_to(desk.a)
    desk.ingest(link)
    assert desk.uris() == ["link/below/two.mp4", "link/one.mp4"], "sources have the name that was given"
    assert done(2, 0) in desk.ingest(desk.a)
    assert done(2, 0) in desk.ingest(f"{link}/**/*.mp4")
    assert done(2, 0) in desk.ingest(desk.a, link)
    shutil.rmtree(desk.at / "catalog")
    desk.ingest(desk.a)
    assert done(2, 0) in desk.ingest(link)
    assert done(2, 0) in desk.ingest(link / "below", link)
    shutil.rmtree(desk.at / "catalog")
    assert done(0, 2) in desk.ingest(desk.a, link)


def test_a_link_above_the_folder_and_one_of_the_same_name_are_seen(desk):
    elsewhere = desk.at / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a").symlink_to(desk.a)
    (desk.at / "all").symlink_to(elsewhere)
    desk.ingest(desk.at / "all" / "a")
    assert desk.ask("SELECT kind, old, new FROM places") == [("link", str(desk.at / "all" / "a"), str(desk.a))]
    assert done(2, 0) in desk.ingest(desk.a)


def test_a_link_that_leads_elsewhere_than_before_is_told(desk):
    film(desk.b / "one.mp4", 50)
    link = desk.at / "current"
    link.symlink_to(desk.a)
    desk.ingest(link)
    link.unlink()
    link.symlink_to(desk.b)
    assert main(["run", "ingest", "--input", str(link), "--pipelines", str(desk.file), "--engine", "inline",
                 "--catalog", str(desk.at / "catalog")]) == 0  # fmt: skip
    assert f"{link} leads to {desk.b}, and led to {desk.a}" in desk.capsys.readouterr().err
    assert done(0, 1) in desk.ingest(desk.b), "its real name takes it as another source"


def test_sources_that_are_gone_or_changed_are_found_by_size_time_and_bytes(desk):
    extra = film(desk.a / "three.mp4", 40)
    desk.ingest(desk.a)
    one, two = desk.a / "one.mp4", desk.a / "below" / "two.mp4"
    data = bytearray(one.read_bytes())
    data[-1] ^= 1
    one.write_bytes(data)
    two.write_bytes(two.read_bytes() + b"!")
    extra.unlink()
    said = desk("verify", "--sources", "--rate", "1000", code=1)
    assert f"source {one} has other bytes" in said
    assert f"source {two} has {two.stat().st_size:,} bytes, and had {two.stat().st_size - 1:,}" in said
    assert f"source {extra} is gone" in said and "3 mismatches" in said
    assert "--sources" in desk("verify", "--hashes", code=2)


def test_bytes_that_changed_behind_an_unchanged_time_are_found_by_hashes(desk):
    desk.ingest(desk.a)
    one = desk.a / "one.mp4"
    before = one.stat()
    data = bytearray(one.read_bytes())
    data[-1] ^= 1
    one.write_bytes(data)
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "agree" in desk("verify", "--sources")
    assert f"source {one} has other bytes" in desk("verify", "--sources", "--hashes", code=1)


@pytest.mark.slow
def test_later_stages_and_the_checks_of_their_shards_read_the_new_place(desk):
    vae = vae_folder(desk.at / "vae")
    encode = json.dumps({"vae": str(vae), "buckets": ["5x32x48"], "fps": 16, "max_upscale": 2, "shard_clips": 3})
    desk.file.write_text(f"{RECIPES}  latents:\n    select: SELECT * FROM clips\n    stages: [encode: {encode}]\n")
    desk.ingest(desk.a)
    engine = ("--pipelines", desk.file, "--engine", "inline")
    desk("run", "latents", "--limit", "3", *engine)
    desk.a.rename(desk.b)
    assert "not at hand" in desk("verify"), "the clip of the first shard can't be decoded again"
    desk("relocate", desk.a, desk.b)
    desk("run", "latents", *engine)
    assert desk.ask("SELECT status, count(*) FROM latents GROUP BY 1") == [("done", 5)]
    said = desk("verify", "--sources")
    assert "agree" in said and "note:" not in said, "shards made before the move and after it"
