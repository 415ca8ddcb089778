"""The demo goes the whole way on films it draws, goes on where it was stopped, and tells when it is wrong."""

import duckdb
import pytest

from curate.demo.demo import demo
from curate.demo.films import FilmTruth, read_truth
from curate.demo.truth_check import compare, describe


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """(folder, exit code) of a demo that has run once."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo(folder, engine="inline")


def test_the_demo_finds_what_was_drawn(first_run, capsys):
    folder, code = first_run
    assert code == 0
    assert demo(folder, engine="inline") == 0
    told = capsys.readouterr().out
    truth = read_truth(folder / "films.jsonl")
    cuts = sum(joint["kind"] == "cut" for film in truth for joint in film.joints)
    assert f"cut: {cuts} of {cuts} found" in told
    assert "false cuts: 0" in told
    assert "duplicates: 2 of 2 pairs" in told
    assert "all 4 failed" in told


def test_a_second_run_draws_and_decodes_nothing(first_run, capsys):
    folder, _ = first_run
    before = {path: path.stat().st_mtime_ns for path in (folder / "films").iterdir()}
    assert demo(folder, engine="inline") == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "films").iterdir()} == before
    told = capsys.readouterr().out
    assert "are there already" in told and "now: 0 done, 0 failed" in told


def test_a_missing_film_is_drawn_again(first_run):
    folder, _ = first_run
    film = folder / "films" / "cuts_vp9.webm"
    before = film.read_bytes()
    film.unlink()
    assert demo(folder, engine="inline") == 0
    assert film.read_bytes() == before


def catalog_of(clips: list[tuple], failed: tuple[str, ...] = ()) -> duckdb.DuckDBPyConnection:
    """A stand-in for a catalog: clips (film, start, end, phash) and the names of failed sources."""
    sql = duckdb.connect()
    sql.execute("CREATE TABLE clips (uri TEXT, start_s DOUBLE, end_s DOUBLE, phash TEXT, media TEXT)")
    sql.execute("CREATE TABLE sources (uri TEXT, status TEXT)")
    for film, start, end, phash in clips:
        sql.execute("INSERT INTO clips VALUES (?, ?, ?, ?, 'video')", [f"/a/{film}", start, end, phash])
    for film in failed:
        sql.execute("INSERT INTO sources VALUES (?, 'failed')", [f"/a/{film}"])
    return sql


def film_with(kind: str, start: float, end: float) -> FilmTruth:
    return FilmTruth("a.mp4", fps=25.0, joints=[{"kind": kind, "start_s": start, "end_s": end}])


@pytest.mark.parametrize(
    ("kind", "joint", "clips", "found", "false"),
    [
        ("cut", (2.0, 2.0), [(0, 2.08), (2.08, 4)], 1, 0),  # two frames late
        ("cut", (2.0, 2.0), [(0, 2.16), (2.16, 4)], 0, 1),  # four frames late
        ("cut", (2.0, 2.0), [(0, 4)], 0, 0),
        ("cut", (2.0, 2.0), [(0, 1), (1, 2), (2, 4)], 1, 1),
        ("cross-fade", (2.0, 2.5), [(0, 1.8), (2.7, 5)], 1, 0),  # some frames more than the fade are out
        ("cross-fade", (2.0, 2.5), [(0, 2.25), (2.25, 5)], 0, 1),  # half the fade is in each clip
        ("cross-fade", (2.0, 2.5), [(0, 1.0), (3.5, 5)], 0, 1),  # a second on either side is lost
    ],
)
def test_a_joint_counts_as_found_only_where_it_is(kind, joint, clips, found, false):
    result = compare(catalog_of([("a.mp4", *span, None) for span in clips]), [film_with(kind, *joint)])
    assert (result.found[kind], len(result.false_cuts)) == (found, false)
    assert len(result.missed) == 1 - found


def test_failures_that_were_not_planted_are_named():
    truth = [FilmTruth("a.mp4", fps=25.0), FilmTruth("empty.mp4", "broken")]
    result = compare(catalog_of([("empty.mp4", 0, 1, None)], failed=("a.mp4",)), truth)
    assert not result.only_the_broken_failed
    told = describe(result)
    assert "  broken, but not failed: empty.mp4" in told and "  failed, but not broken: a.mp4" in told


def test_only_similar_hashes_make_a_pair():
    truth = [FilmTruth("a.mp4", fps=25.0), FilmTruth("b.mp4", duplicate_of="a.mp4")]
    one, near, far = "0" * 48, "0" * 47 + "7", "0f" * 24
    for other, pairs in ((near, {("a.mp4", "b.mp4")}), (far, set())):
        assert compare(catalog_of([("a.mp4", 0, 1, one), ("b.mp4", 0, 1, other)]), truth).duplicates_found == pairs
