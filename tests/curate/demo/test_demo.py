"""The demo goes the whole way on films it draws, goes on where it was stopped, and tells when it is wrong."""

import io
import re

import cv2
import duckdb
import pytest
from rich.console import Console

from curate.audit.figure import read_audit
from curate.demo.demo import demo, make_films, write_pipelines
from curate.demo.films import FilmTruth, read_truth
from curate.demo.truth_check import compare, describe

pytestmark = pytest.mark.slow


def test_the_demo_finds_what_was_drawn(demo_run, capsys):
    folder, code = demo_run
    assert code == 0
    assert demo(folder, engine="inline", learning=False) == 0
    told = capsys.readouterr().out
    truth = read_truth(folder / "films.jsonl")
    cuts = sum(joint["kind"] == "cut" for film in truth if not film.duplicate_of for joint in film.joints)
    assert f"cut: {cuts} of {cuts} found" in told
    assert "false cuts: 0" in told
    assert "duplicates: 16 of 16 pairs of shots found" in told and "not one of ours" not in told
    recall = float(re.search(r"search: 50 questions in words, recall@5 ([0-9.]+)", told)[1])
    assert recall >= 0.9
    assert cv2.imread(str(folder / "search.png")).shape[1] > 1000
    assert "all 4 failed" in told
    assert f"$ clipmill audit --catalog {folder / 'catalog'} -o {folder / 'audit'}" in told
    failed = read_audit(folder / "audit").figure("failures.sources")
    assert sum(failed.column("sources")) == 4
    assert (folder / "audit" / "index.html").read_text(encoding="utf-8").count("<svg") > 20


def test_a_second_run_draws_and_decodes_nothing(demo_run, capsys):
    folder, _ = demo_run
    before = {path: path.stat().st_mtime_ns for path in (folder / "films").iterdir()}
    assert demo(folder, engine="inline", learning=False) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "films").iterdir()} == before
    told = capsys.readouterr().out
    assert "are there already" in told and "in this run: 0 done, 0 failed" in told


def test_a_missing_film_is_drawn_again(demo_run):
    folder, _ = demo_run
    lost = [folder / "films" / name for name in ("cuts_vp9.webm", "one_shot_1.txt")]
    before = [file.read_bytes() for file in lost]
    truth = (folder / "films.jsonl").read_bytes()
    for file in lost:
        file.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "films").iterdir()}
    told = io.StringIO()
    make_films(folder / "films", folder / "films.jsonl", Console(file=told, width=200), shapes=False)
    assert "2 films drawn" in told.getvalue()
    assert [file.read_bytes() for file in lost] == before and (folder / "films.jsonl").read_bytes() == truth
    redrawn = {*lost, folder / "films" / "one_shot_1.mp4"}
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items() if path not in redrawn)


def catalog_of(clips: list[tuple], failed: tuple[str, ...] = ()) -> duckdb.DuckDBPyConnection:
    """A stand-in for a catalog: clips (film, start, end, cluster of duplicates) and names of failed sources."""
    sql = duckdb.connect()
    sql.execute(
        "CREATE TABLE clips (clip_id INT, uri TEXT, start_s REAL, end_s REAL, duplicate_cluster TEXT, media TEXT)"
    )
    sql.execute("CREATE TABLE sources (uri TEXT, status TEXT)")
    for number, (film, start, end, cluster) in enumerate(clips):
        sql.execute("INSERT INTO clips VALUES (?, ?, ?, ?, ?, 'video')", [number, f"/a/{film}", start, end, cluster])
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


def test_a_pair_of_duplicates_counts_where_its_shots_are_the_same():
    shots = [{"start_s": 0.0, "end_s": 2.0}, {"start_s": 2.0, "end_s": 4.0}]
    truth = [FilmTruth("a.mp4", fps=25.0, shots=shots), FilmTruth("b.mp4", duplicate_of="a.mp4", shots=shots)]
    clips = [("a.mp4", 0, 2, "x"), ("b.mp4", 0, 2, "x"), ("a.mp4", 2, 4, "y"), ("b.mp4", 2, 4, "z")]
    told = describe(compare(catalog_of(clips), truth))
    assert "duplicates: 1 of 2 pairs of shots found" in told
    assert "  not found: shot 1 of a.mp4 and shot 1 of b.mp4" in told
    crossed = [("a.mp4", 0, 2, "x"), ("b.mp4", 2, 4, "x")]
    assert "  not one of ours: shot 0 of a.mp4 and shot 1 of b.mp4" in describe(compare(catalog_of(crossed), truth))


def test_without_the_packages_of_models_the_demo_leaves_out_what_needs_them(tmp_path):
    from curate.recipe.load import load_recipes

    names = ["ingest", "captions", "duplicates"]
    stages = {}
    for with_model in (True, False):
        file = write_pipelines(tmp_path / "pipelines.yaml", with_model, tmp_path)
        recipes = load_recipes(file, names)
        stages[with_model] = [entry.name for recipe in recipes for entry in recipe.stages]
    assert stages[True] == ["probe", "cut", "measure", "embed", "gate", "caption", "duplicates"]
    assert [name for name in stages[True] if name != "embed"] == stages[False]
