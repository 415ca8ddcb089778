"""Sources that failed or whose file is gone leave the catalog whole, and may come back; `status` counts them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.lease import acquire
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.cli.main import main
from curate.run.presence import Presence
from tests.catalog_rows import commit_rows
from tests.curate.run.test_relocate import Desk, film
from tests.shard_catalogs import clips_of, commit, encoded, publish, rows_of
from tests.vae_models import vae_folder


@pytest.fixture
def desk(tmp_path, capsys):
    """A catalog of two films in a/, of which one has a broken file beside it."""
    made = Desk(tmp_path, capsys)
    (made.a / "broken.mp4").write_bytes(b"no video" * 99)
    made.ingest(made.a, code=1)
    return made


def forget(desk, where, *options, code=0):
    return desk("forget", "--where", where, *options, code=code)


def states(desk):
    return dict(desk.ask("SELECT status, count(*) FROM sources GROUP BY 1 ORDER BY 1"))


def test_a_failed_source_is_forgotten_and_is_pending_again(desk):
    said = forget(desk, "status = 'failed'", "--dry-run")
    assert "broken.mp4: " in said and "nothing was changed" in said and states(desk) == {"done": 2, "failed": 1}
    assert "1 sources with 0 clips" in forget(desk, "status = 'failed'", "--yes")
    assert states(desk) == {"done": 2}
    assert "2 done" in (said := desk("status")) and "0 failed, 1 pending" in said
    desk("verify")
    desk.ingest(desk.a, code=1)
    assert states(desk) == {"done": 2, "failed": 1}


def test_the_name_of_a_file_forges_no_line_and_no_colour_of_the_terminal(desk):
    (desk.a / "bad\x1b]0;owned\x07\nclipmill: all well.mp4").write_bytes(b"no video" * 90)
    desk.ingest(desk.a, code=1)
    said = forget(desk, "status = 'failed'", "--dry-run")
    assert "bad\\x1b]0;owned\\x07\\nclipmill: all well.mp4: " in said and "\x1b" not in said


def test_a_vanished_source_goes_with_its_clips_and_comes_back_with_the_same_ids(desk):
    before = desk.ask("SELECT clip_id, start_s, luma_mean FROM clips ORDER BY ALL")
    gone = desk.a / "below" / "two.mp4"
    gone.rename(desk.at / "two.mp4")
    said = forget(desk, "vanished", "--yes")
    assert "below/two.mp4" in said and "with them go 3 clips" in said
    assert desk.uris() == ["a/broken.mp4", "a/one.mp4"]
    for table in ("clips", "thumbnails"):
        assert desk.ask(f"SELECT count(*) FROM raw.{table}") == [(2,)]
    assert "0 pending" in desk("status") and "no longer there" not in desk("status")
    assert "sources agree" in desk("verify", "--sources")
    (desk.at / "two.mp4").rename(gone)
    assert "1 pending" in desk("status")
    desk.ingest(desk.a)
    assert desk.ask("SELECT clip_id, start_s, luma_mean FROM clips ORDER BY ALL") == before


def test_a_done_source_that_is_there_is_refused_and_nothing_changes(desk):
    (desk.a / "below" / "two.mp4").unlink()
    said = forget(desk, "uri LIKE '%mp4'", "--yes", code=2)
    assert said.count("\n") == 1 and "a/one.mp4" in said and "AND vanished" in said and "clipmill purge" in said
    assert states(desk) == {"done": 2, "failed": 1}
    forget(desk, "uri LIKE '%mp4' AND (vanished OR status = 'failed')", "--yes")
    assert desk.uris() == ["a/one.mp4"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("status = failed", ["quotes: 'failed'"]),
        ("state = 'failed'", ["state"]),
        ("status = 'lost'", ["no source of", "vanished"]),
        ("true; DROP TABLE sources", ["syntax error"]),
        ("uri", ["--where uri"]),
        (" ", ["empty"]),
    ],
)
def test_a_wrong_condition_is_one_clear_line(desk, where, words):
    if where == " ":
        with pytest.raises(SystemExit, match="2"):
            forget(desk, where, "--yes")
        said = desk.capsys.readouterr().err
    else:
        said = forget(desk, where, "--yes", code=2)
    assert said.startswith("clipmill") and said.count("\n") == 1 and all(word in said for word in words), said
    assert states(desk) == {"done": 2, "failed": 1}


def test_without_yes_and_a_terminal_nothing_goes(desk):
    said = forget(desk, "status = 'failed'", code=2)
    assert "--yes" in said and "--dry-run" in said and states(desk)["failed"] == 1


def test_a_run_at_work_keeps_its_sources(desk):
    lease = acquire(str(desk.at / "catalog"), "sources", "another")
    try:
        assert "another" in forget(desk, "status = 'failed'", "--yes", code=2)
    finally:
        lease.release()
    assert states(desk)["failed"] == 1


@pytest.mark.slow
def test_any_column_of_a_manifest_may_be_named(desk):
    rows = [{"uri": str(desk.a / "lost.mp4"), "shelf": 7}, {"uri": str(desk.a / "one.mp4"), "shelf": 3}]
    manifest = desk.at / "more.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    desk.ingest(manifest, code=1)
    assert "lost.mp4" in forget(desk, "shelf > 5", "--yes")
    assert desk.ask("SELECT shelf FROM sources WHERE shelf IS NOT NULL") == [(3,)]
    assert "1 pending" in desk("status"), "the manifest still names it"


def test_status_counts_what_is_gone_and_names_the_ways_out(desk):
    assert "no longer there" not in desk("status")
    (desk.a / "one.mp4").unlink()
    shutil.rmtree(desk.a / "below")
    for said in (desk("status"), desk("status", "--check")):
        assert "2 done sources are no longer there" in said and "clipmill forget --where vanished" in said
        assert "clipmill relocate" in said
    assert f"{desk.a / 'below'}/ with 1 of them is not there" in desk("status")
    assert f"the folder {desk.a / 'below'}/ with 1 of them" in forget(desk, "vanished", "--dry-run")


@pytest.mark.slow
def test_a_look_at_each_source_also_finds_changed_ones(desk):
    assert "all done sources are there" in desk("status", "--check")
    film(desk.a / "one.mp4", frames=40)
    assert "no longer there" not in desk("status")
    assert "1 done sources were changed" in desk("status", "--check")


@pytest.mark.slow
def test_a_folder_is_listed_once_and_no_file_is_looked_at(desk, monkeypatch):
    for number in range(3):
        shutil.copy(desk.a / "one.mp4", desk.a / f"{number}.mp4")
    desk.ingest(desk.a)
    (desk.a / "1.mp4").unlink()
    listed, looked_at, scandir, stat = [], [], os.scandir, os.stat
    with connect(Catalog.open(str(desk.at / "catalog"))) as sql, monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
        patch.setattr(os, "stat", lambda path, **more: looked_at.append(str(path)) or stat(path, **more))
        presence = Presence(sql)
        found = [source.uri for source in presence]
    assert found == [str(desk.a / "1.mp4")] and presence.sources == 5
    assert listed == [f"{desk.a}", f"{desk.a / 'below'}"]
    assert not [path for path in looked_at if path.endswith(".mp4")]


def test_an_unmounted_folder_is_not_taken_for_deleted_without_a_word(desk):
    desk.a.rename(desk.b)
    said = forget(desk, "status = 'done'", "--dry-run")
    assert f"the folder {desk.a}/ with 1 of them is not there" in said and "relocate" in said and "mount" in said


@pytest.mark.slow
def test_sources_in_a_bucket_are_listed_and_forgotten(desk, bucket):
    import fsspec

    store = fsspec.filesystem("s3")
    for name in ("one.mp4", "takes/two.mp4"):
        store.pipe_file(f"{bucket}/films/{name}".removeprefix("s3://"), (desk.a / "one.mp4").read_bytes())
    desk.ingest(f"{bucket}/films")
    assert "no longer there" not in desk("status")
    store.rm_file(f"{bucket}/films/takes/two.mp4".removeprefix("s3://"))
    assert "1 done sources are no longer there" in desk("status")
    assert f"{bucket}/films/takes/two.mp4" in forget(desk, "vanished", "--yes")
    assert "no longer there" not in desk("status")
    desk("verify")


@pytest.fixture
def latents(tmp_path):
    """A catalog of two films of two clips each, the first of which is gone: a shard of one of its clips, and one of its
    other clip beside those of the other film. A clip of that film is a duplicate of one that is gone.
    """
    vae = vae_folder(tmp_path / "vae")
    sources, clips = clips_of(tmp_path)
    contract, made = encoded(clips, sources, vae)
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    with Ledger(catalog, "sources", "source_id", "scan") as ledger:
        commit_rows(ledger, {"clips": clips, "sources": sources})
    for part in (made[:1], made[1:]):
        commit(catalog, rows_of(publish(catalog.uri, contract, part, vae), contract, part))
    like = [{"clip_id": clip["clip_id"], "status": "done", "duplicate_of": clips[0]["clip_id"]} for clip in clips[1:3]]
    with Ledger(catalog, "duplicates", "clip_id", "judge") as ledger:
        commit_rows(ledger, {"duplicates": like})
    os.unlink(sources[0]["uri"])
    return catalog


def shards(catalog):
    return sorted(path.name for path in Path(catalog.uri, "shards").rglob("*") if path.is_file())


def test_rows_of_every_stage_and_shards_of_nothing_else_go_and_the_rest_is_named(latents, tmp_path, capsys):
    asked = ["forget", "--catalog", latents.uri, "--where", "vanished"]
    assert main([*asked, "--dry-run"]) == 0
    said, there = capsys.readouterr().out, shards(latents)
    assert "2 clips" in said and "latents 2" in said and "duplicates 1" in said
    assert "the latents of 1 of these clips stay in 1 shards" in said
    assert "duplicates: 1 clips are duplicates of these" in said
    assert main([*asked, "--yes"]) == 0
    assert len(there) == 4 and len(shards(latents)) == 2, "a shard is a tar and its index"
    with connect(latents) as sql:
        for table in ("clips", "latents"):
            assert sql.execute(f"SELECT DISTINCT source_id FROM {table}").fetchall() == [(f"{1:032x}",)]
        assert sql.execute("SELECT count(*) FROM duplicates").fetchall() == [(1,)]
    capsys.readouterr()
    assert main(["verify", "--catalog", latents.uri]) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_a_dataset_is_told_of_and_keeps_its_shards(latents, tmp_path, capsys):
    datasets = ["-o", str(tmp_path / "datasets"), "--select", "FROM clips", "--catalog", latents.uri]
    assert main(["dataset", "create", "all", *datasets]) == 0
    assert main(["forget", "--catalog", latents.uri, "--where", "vanished", "--yes"]) == 0
    said = capsys.readouterr().out
    assert f"the dataset {tmp_path / 'datasets' / 'all'} holds 2 samples of these clips (4 in all)" in said
    assert len(shards(latents)) == 4
    shutil.rmtree(tmp_path / "datasets")
    os.unlink(tmp_path / "film1.mp4")
    assert main(["forget", "--catalog", latents.uri, "--where", "vanished", "--dry-run"]) == 0
    assert "it may hold some of these clips" in capsys.readouterr().out


@pytest.mark.slow
def test_a_crash_in_the_middle_is_finished_by_the_same_command(latents, capsys, monkeypatch):
    asked = ["forget", "--catalog", latents.uri, "--where", "vanished", "--yes"]
    whole = Ledger.forget

    def dies(ledger, keys, *more):
        if ledger.state == "sources":
            raise KeyboardInterrupt
        whole(ledger, keys, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "forget", dies)
        assert main(asked) == 130
    assert main(asked) == 0
    with connect(latents) as sql:
        assert sql.execute("SELECT count(*) FROM raw.sources").fetchall() == [(1,)]
    assert main(["verify", "--catalog", latents.uri]) == 0, capsys.readouterr().out
