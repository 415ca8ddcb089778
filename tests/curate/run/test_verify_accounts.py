"""`clipmill verify` accounts for every source, clip and byte: each fault is planted, and told on the command line."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from deltalake import write_deltalake

import curate.engines.inline as inline
from curate.catalog.catalog import Catalog
from curate.cli.main import main
from tests.catalog_rows import note_version
from tests.curate.running import ask, ingest, make_folder, pipelines
from tests.shard_catalogs import make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """A catalog of three films and a broken file."""
    folder = tmp_path_factory.mktemp("accounts")
    ingest(folder / "catalog", make_folder(folder / "films", 3), file=pipelines(folder))
    return folder


@pytest.fixture
def place(ingested, tmp_path):
    """A copy of it, films and all."""
    shutil.copytree(ingested, tmp_path, dirs_exist_ok=True)
    moved = [str(each / "films") for each in (ingested, tmp_path)]
    assert main(["relocate", *moved, "--catalog", str(tmp_path / "catalog")]) == 0
    return tmp_path


def verify(catalog: Path | str, capsys, *more: str, code: int = 1) -> str:
    capsys.readouterr()
    assert main(["verify", "--catalog", str(catalog), *more]) == code
    return capsys.readouterr().out


def counts(catalog: Path) -> dict:
    return json.loads(ask(catalog, "SELECT counts FROM runs ORDER BY started_at DESC LIMIT 1")[0][0])


def test_listed_sources_are_done_failed_or_pending_after_every_run(place, capsys):
    found = counts(place / "catalog")
    assert [found[n] for n in ("listed", "listed_done", "listed_failed", "pending")] == [4, 3, 1, 0]
    (place / "films" / "late.mp4").symlink_to(place / "films" / "film_0.mp4")  # of the same bytes: another source
    shutil.copy(place / "films/film_1.mp4", place / "films/later.mp4")
    (place / "films/film_2.mp4").unlink()
    run = ["run", "ingest", "--catalog", str(place / "catalog"), "--input", str(place / "films")]
    run += ["--pipelines", str(place / "pipelines.yaml"), "--engine", "inline"]
    for more, expected in (
        (["--limit", "1"], {"pending": 1}),
        ([], {"pending": 0}),
        (["--rebuild", "--limit", "2"], {"pending": 0}),
        (["--retry-failed"], {"pending": 0}),
    ):
        main([*run, *more])
        found = counts(place / "catalog")
        assert found["listed"] == found["listed_done"] + found["listed_failed"] + found["pending"], (more, found)
        assert found["pending"] == expected["pending"]
        verify(place / "catalog", capsys, code=0)


def test_a_source_that_an_engine_loses_is_a_mismatch_of_that_run(place, monkeypatch, capsys):
    for number in range(3):
        shutil.copy(place / "films/film_0.mp4", place / f"films/more_{number}.mp4")
    made = inline.execute

    def losing(stages, units):
        return made(stages, (unit for unit in units if not unit.source.uri.endswith("more_1.mp4")))

    monkeypatch.setattr(inline, "execute", losing)
    ingest(place / "catalog", place / "films", file=place / "pipelines.yaml")
    said = verify(place / "catalog", capsys)
    assert "a run's listing is not what it left done, failed and pending: " in said
    assert "(listed 7: done 5, failed 1, pending 0, purged 0)" in said and said.count("\n") == 2


def test_gates_by_which_no_clip_can_be_judged_are_a_mismatch(place, capsys):
    table = Catalog.open(str(place / "catalog")).table("gates")
    table.update(updates={"condition": "'random() < 0.5'"}, predicate="name = 'bright'")
    said = verify(place / "catalog", capsys)
    assert "the gates in force judge no clip: Binder Error: TRY can not be used in combination with a volatile" in said


def test_a_clip_that_the_view_shows_twice_or_not_at_all_is_a_mismatch(tmp_path, capsys):
    catalog = make(tmp_path / "made")
    table = catalog.table("latents")
    rows = table.to_pyarrow_table()
    table.delete(f"clip_id = '{rows['clip_id'][0]}'")
    write_deltalake(catalog.table("latents"), rows.slice(0, 1), mode="append")
    write_deltalake(catalog.table("latents"), rows.slice(0, 1), mode="append")
    note_version(catalog, "latents", "latents")
    said = verify(catalog.uri, capsys)
    assert "kept and dropped clips are not those of the table: clips (5 kept and 0 dropped, of 4)" in said


def test_every_row_of_latents_has_its_bytes_and_every_byte_its_row(tmp_path, capsys):
    catalog = make(tmp_path / "made")
    assert "agree" in verify(catalog.uri, capsys, code=0)
    shards = sorted(Path(catalog.uri, "shards/latents").rglob("*.tar"))
    stray = shards[0].with_name("stray.tar")
    shutil.copy(shards[0], stray)
    assert f"such as {stray}" in verify(catalog.uri, capsys, code=0), "no reader sees it, and the next run deletes it"
    stray.unlink()
    gone = ask(catalog.uri, "SELECT min(clip_id) FROM latents")[0][0]
    catalog.table("latents").delete(f"clip_id = '{gone}'")
    assert f"holds the clip {gone}, which no row names" in verify(catalog.uri, capsys)
    shards[1].unlink()
    said = verify(catalog.uri, capsys)
    assert f"the shard {shards[1].relative_to(catalog.uri)}" in said


def test_sources_that_vanished_or_changed_are_named_by_size_time_and_hash_at_a_rate(place, capsys):
    films = [place / f"films/film_{number}.mp4" for number in range(3)]
    catalog = place / "catalog"
    assert "sources agree" in verify(catalog, capsys, "--sources", code=0)
    os.utime(films[0], (1, 1))
    assert "sources agree" in verify(catalog, capsys, "--sources", code=0), "the same bytes at another time"
    films[0].unlink()
    with films[1].open("ab") as file:
        file.write(b"more")
    about = films[2].stat()
    content = bytearray(films[2].read_bytes())
    content[-1] ^= 1
    films[2].write_bytes(content)
    began = time.monotonic()
    said = verify(catalog, capsys, "--sources", "--rate", "4")
    assert time.monotonic() - began >= 2 / 4  # the third is looked at half a second after the first
    for film, what in zip(films, ("is gone", "bytes, and had", "has other bytes"), strict=True):
        assert any(f"source {film} " in line and what in line for line in said.splitlines()), said
    assert said.splitlines()[-1] == "3 mismatches"
    os.utime(films[2], ns=(about.st_atime_ns, about.st_mtime_ns))
    assert f"source {films[2]}" not in verify(catalog, capsys, "--sources")
    assert f"source {films[2]} has other bytes" in verify(catalog, capsys, "--sources", "--hashes")
