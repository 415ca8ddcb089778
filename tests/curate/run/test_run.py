"""Whole runs on small films: accounting, resuming, re-judging, refusing."""

import json
import os
import shutil

import pytest

from curate.catalog.catalog import Catalog
from curate.cli.main import main
from curate.errors import UserError
from curate.run.command import RunOptions, run_recipes
from curate.run.verify import verify
from tests.curate.running import CLIPS, INLINE, PIPELINES, ask, ingest, make_folder, pipelines
from tests.hostile import make_hostile_folder, moving_square, write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("run") / "films")


@pytest.fixture(scope="module")
def file(folder):
    return pipelines(folder.parent)


@pytest.fixture(scope="module")
def made(folder, file):
    """A finished catalog; tests that change one copy it."""
    catalog = folder.parent / "catalog"
    assert ingest(catalog, folder, file=file) == 1  # one broken file
    return catalog


@pytest.fixture
def catalog(made, tmp_path):
    return shutil.copytree(made, tmp_path / "catalog")


def test_a_changed_shortest_length_needs_no_film(folder, file, tmp_path, capsys):
    films, catalog = shutil.copytree(folder, tmp_path / "films"), str(tmp_path / "catalog")
    asked = ["run", "ingest", "--catalog", catalog, "--pipelines", str(file), "--engine", "inline"]
    main([*asked, "--input", str(films)])
    for film in films.iterdir():
        film.write_bytes(b"gone")  # still listed, and nothing that could be decoded
    short = "SELECT count(*) FROM clips WHERE dropped_by = 'cut.min_seconds'"
    assert ask(catalog, short) == [(5,)]
    capsys.readouterr()
    assert main([*asked, "--input", str(films), "--set", "cut.min_seconds=0.25"]) == 0
    assert "in this run: 0 done, 0 failed" in capsys.readouterr().out
    assert ask(catalog, short) == [(0,)]


def test_every_source_is_done_or_failed_with_its_reason_and_every_clip_kept_or_dropped(made):
    assert dict(ask(made, "SELECT status, count(*) FROM sources GROUP BY 1")) == {"done": 5, "failed": 1}
    assert ask(made, "SELECT reason FROM sources WHERE status = 'failed'") == [("text, not a video",)]
    clips = ask(made, "SELECT verdict, dropped_by, failed_gates, motion IS NULL FROM clips")
    assert len(clips) == 15
    for verdict, dropped_by, failed, _ in clips:
        assert (verdict == "dropped") == bool(failed) == (dropped_by is not None)
    assert {gate for _, gate, _, _ in clips if gate} >= {"cut.min_seconds"}
    assert verify(Catalog.open(str(made))) == []


def test_spans_are_exact_and_dropped_clips_keep_their_scores(made):
    rows = ask(
        made,
        "SELECT start_pts * time_base_num / time_base_den, start_s, round(end_s - start_s, 6), luma_mean, frames "
        "FROM clips ORDER BY uri, scene",
    )
    assert [row[2] for row in rows[:3]] == [1.5, 1.5, 0.5]
    for start, start_s, length, luma, frames in rows:
        assert start == start_s
        assert frames == round(length * 24)
        assert luma is not None


def test_what_is_committed_is_not_done_again(catalog, folder, file):
    before = Catalog.open(str(catalog)).snapshot()
    assert ingest(catalog, folder, file=file) == 0  # what failed before is named, and is no failure of this run
    after = Catalog.open(str(catalog)).snapshot()
    assert {name for name in after if after[name] != before[name]} == {"runs"}


def test_new_files_are_added_and_only_they_are_decoded(catalog, folder, file, tmp_path):
    (tmp_path / "new").mkdir()
    write_video(tmp_path / "new" / "late.mp4", moving_square(48))
    old = dict(ask(catalog, "SELECT uri, run_id FROM sources"))
    ingest(catalog, folder, tmp_path / "new", file=file)
    now = dict(ask(catalog, "SELECT uri, run_id FROM sources"))
    assert {uri for uri in now if now[uri] != old.get(uri)} == {str(tmp_path / "new" / "late.mp4")}


def test_a_changed_gate_judges_every_clip_again_and_decodes_nothing(catalog, folder, tmp_path):
    def version():
        return Catalog.open(str(catalog)).snapshot()["clips"]

    before, was = version(), ask(catalog, "SELECT count(*) FROM clips WHERE verdict = 'kept'")[0][0]
    everything = PIPELINES.replace("luma_mean >= 90", "luma_mean >= 255")
    ingest(catalog, folder, file=pipelines(tmp_path, everything))
    assert was > 0
    assert ask(catalog, "SELECT count(*) FROM clips WHERE verdict = 'kept'") == [(0,)]
    assert {gate for (gate,) in ask(catalog, "SELECT DISTINCT dropped_by FROM clips")} == {
        "bright",
        "cut.min_seconds",
    }
    ingest(catalog, folder, file=pipelines(tmp_path))
    assert ask(catalog, "SELECT count(*) FROM clips WHERE verdict = 'kept'")[0][0] == was
    assert version() == before


def test_changed_stages_are_refused_by_name_until_rebuild(catalog, folder, file):
    with pytest.raises(UserError, match=r"cut\.max_seconds: 20\.0 -> 1\.0.*--rebuild"):
        ingest(catalog, folder, file=file, sets=["cut.max_seconds=1", "cut.min_seconds=0.25"])
    assert {c for (c,) in ask(catalog, "SELECT DISTINCT name FROM gates WHERE condition LIKE '%0.25%'")} == set()
    rebuild = RunOptions(engine="inline", quiet=True, rebuild=True)
    ingest(catalog, folder, file=file, sets=["cut.max_seconds=1", "cut.min_seconds=0.25"], options=rebuild)
    assert ask(catalog, "SELECT count(*), count(DISTINCT settings) FROM sources") == [(6, 1)]
    assert ask(catalog, "SELECT count(*) FROM clips") == [(25,)]  # the takes of 1.5 s are halved
    assert ask(catalog, "SELECT count(*) FROM clips WHERE dropped_by = 'cut.min_seconds'") == [(0,)]
    assert verify(Catalog.open(str(catalog))) == []


def test_a_changed_shortest_length_judges_anew_and_decodes_nothing(catalog, folder, file):
    before = ask(catalog, "SELECT uri, committed_at FROM sources ORDER BY uri")
    ids = ask(catalog, "SELECT clip_id FROM clips ORDER BY 1")
    assert ask(catalog, "SELECT count(*) FROM clips WHERE dropped_by = 'cut.min_seconds'") == [(5,)]
    ingest(catalog, folder, file=file, sets=["cut.min_seconds=0.25"])
    assert ask(catalog, "SELECT count(*) FROM clips WHERE dropped_by = 'cut.min_seconds'") == [(0,)]
    ingest(catalog, folder, file=file, sets=["cut.min_seconds=1.6"])
    assert ask(catalog, "SELECT count(*) FROM clips WHERE dropped_by = 'cut.min_seconds'") == [(15,)]
    assert ask(catalog, "SELECT uri, committed_at FROM sources ORDER BY uri") == before
    assert ask(catalog, "SELECT clip_id FROM clips ORDER BY 1") == ids


def test_a_rebuild_takes_every_source_of_the_catalog_not_only_the_input(catalog, folder, file):
    rebuild = RunOptions(engine="inline", quiet=True, rebuild=True)
    ingest(catalog, folder / "film_0.mp4", file=file, sets=["cut.max_seconds=15"], options=rebuild)
    assert ask(catalog, "SELECT count(*), count(DISTINCT settings) FROM sources") == [(6, 1)]


def test_a_rebuild_makes_every_source_again_whether_or_not_its_stages_changed(catalog, folder, file):
    before = dict(ask(catalog, "SELECT source_id, run_id FROM sources"))
    ingest(catalog, folder, file=file, options=RunOptions(engine="inline", quiet=True, rebuild=True))
    after = dict(ask(catalog, "SELECT source_id, run_id FROM sources"))
    assert set(before) == set(after)
    assert all(before[source] != after[source] for source in after)
    assert verify(Catalog.open(str(catalog))) == []


def test_no_engine_is_started_with_nothing_to_do(catalog, folder, file, monkeypatch):
    def never(*_):
        raise AssertionError("an engine was started")

    monkeypatch.setattr("curate.engines.ray_engine.RayEngine.__init__", never)
    assert ingest(catalog, folder, file=file, options=RunOptions(engine="ray", quiet=True)) == 0


def test_recipes_that_would_mix_their_rows_are_refused_before_the_first_runs(tmp_path, folder):
    other = PIPELINES.split("recipes:\n")[1].replace("ingest:", "other:").replace("max_seconds: 20", "max_seconds: 9")
    file = pipelines(tmp_path, PIPELINES + other)
    with pytest.raises(UserError, match="'ingest' and 'other'"):
        run_recipes(["ingest", "other"], str(tmp_path / "catalog"), [str(folder)], file, options=INLINE)
    assert not (tmp_path / "catalog").exists()


def test_failed_sources_are_taken_again_only_when_asked(tmp_path, file):
    folder = make_folder(tmp_path / "films", films=1)
    catalog = tmp_path / "catalog"
    assert ingest(catalog, folder, file=file) == 1
    write_video(folder / "broken.mp4", moving_square(48))
    assert ingest(catalog, folder, file=file) == 0
    assert ask(catalog, "SELECT count(*) FROM sources WHERE status = 'failed'") == [(1,)]
    assert ingest(catalog, folder, file=file, options=RunOptions("inline", quiet=True, retry_failed=True)) == 0
    assert ask(catalog, "SELECT status, count(*) FROM sources GROUP BY 1") == [("done", 2)]
    assert verify(Catalog.open(str(catalog))) == []


def test_a_limit_takes_so_many_and_the_next_run_goes_on(tmp_path, folder, file):
    catalog = tmp_path / "catalog"
    for expected in (2, 4):
        ingest(catalog, folder, file=file, options=RunOptions("inline", limit=2, quiet=True))
        assert ask(catalog, "SELECT count(*) FROM sources") == [(expected,)]


def test_the_order_of_listing_changes_nothing(made, folder, file, tmp_path):
    manifest = tmp_path / "backward.jsonl"
    names = sorted(folder.iterdir(), reverse=True)
    manifest.write_text("\n".join(json.dumps({"uri": str(name), "licence": "cc0"}) for name in names))
    ingest(tmp_path / "catalog", manifest, file=file)
    same = f"SELECT * EXCLUDE (licence) FROM ({CLIPS})"
    assert ask(tmp_path / "catalog", same) == ask(made, same)
    for table in ("sources", "clips"):
        assert ask(tmp_path / "catalog", f"SELECT DISTINCT licence FROM {table}") == [("cc0",)]


def test_every_file_of_a_hostile_folder_is_done_or_failed_with_a_reason(tmp_path, file):
    expected = make_hostile_folder(tmp_path / "hostile")
    assert ingest(tmp_path / "catalog", tmp_path / "hostile", tmp_path / "hostile" / "NULL", file=file) == 1
    found = {
        os.path.relpath(uri, tmp_path / "hostile"): (status, reason)
        for uri, status, reason in ask(tmp_path / "catalog", "SELECT uri, status, reason FROM sources")
    }
    assert set(found) >= set(expected)
    for name, outcome in expected.items():
        status, reason = found[name]
        assert outcome in (status, "either"), (name, status, reason)
        assert (status == "failed") == bool(reason)
        assert "\n" not in (reason or "")
    assert verify(Catalog.open(str(tmp_path / "catalog"))) == []


def test_an_image_is_a_source_with_one_clip_of_one_frame(tmp_path, file):
    import cv2
    import numpy as np

    folder = tmp_path / "images"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(100, 255, (90, 160, 3)).astype(np.uint8)
    for ending in ("jpg", "png", "webp"):
        cv2.imwrite(str(folder / f"a.{ending}"), picture)
    assert ingest(tmp_path / "catalog", folder, file=file) == 0
    rows = ask(tmp_path / "catalog", "SELECT media, frames, motion, luma_mean > 0, verdict, unknown_gates FROM clips")
    assert rows == [("image", 1, None, True, "kept", ["moving"])] * 3


def test_a_source_shorter_than_probe_allows_is_a_dropped_clip_and_is_not_decoded(tmp_path):
    write_video(tmp_path / "short.mp4", moving_square(12))
    text = PIPELINES.replace("probe: {min_seconds: 0.5}", "probe: {min_seconds: 2}")
    assert ingest(tmp_path / "catalog", tmp_path / "short.mp4", file=pipelines(tmp_path, text)) == 0
    assert ask(tmp_path / "catalog", "SELECT verdict, dropped_by, luma_mean, frames FROM clips") == [
        ("dropped", "probe.min_seconds", None, None)
    ]
    assert ask(tmp_path / "catalog", "SELECT status, frames FROM sources") == [("done", None)]


def test_a_source_that_a_lower_limit_of_probe_lets_pass_is_decoded_then_wherever_it_is_listed(tmp_path):
    films, catalog = tmp_path / "films", tmp_path / "catalog"
    films.mkdir()
    write_video(films / "short.mp4", moving_square(30))
    write_video(films / "long.mp4", moving_square(72))
    file = pipelines(tmp_path, PIPELINES.replace("probe: {min_seconds: 0.5}", "probe: {min_seconds: 2}"))
    ingest(catalog, films, file=file)
    rows = "SELECT parse_filename(uri), frames, committed_at FROM sources ORDER BY 1"
    (long, frames, when), (short, undecoded, _) = ask(catalog, rows)
    assert (long, frames, short, undecoded) == ("long.mp4", 72, "short.mp4", None)
    ingest(catalog, films / "long.mp4", file=file, sets=["probe.min_seconds=1"])
    assert ask(catalog, rows)[0] == (long, frames, when)  # what was decoded is judged anew
    assert ask(catalog, rows)[1][1] == 30
    assert ask(catalog, "SELECT count(*) FROM clips WHERE luma_mean IS NULL") == [(0,)]
    ingest(catalog, films, file=file, sets=["probe.min_seconds=2.5"])
    assert ask(catalog, "SELECT parse_filename(uri), verdict FROM clips ORDER BY 1") == [
        ("long.mp4", "kept"),
        ("short.mp4", "dropped"),
    ]
    assert verify(Catalog.open(str(catalog))) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            PIPELINES.replace("luma_mean >= 90", "luma_maen >= 90"),
            r"pipelines.yaml:8: gate 'bright'.*luma_maen",
        ),
        (PIPELINES.replace("luma_mean >= 90", "luma_mean >="), r"pipelines.yaml:8: gate 'bright'"),
        (PIPELINES.replace("luma_mean >= 90", "luma_mean"), r"gives DOUBLE, not true or false"),
        (PIPELINES.replace("motion, exposure", "exposure"), r"pipelines.yaml:9: gate 'moving'.*motion"),
    ],
)
def test_a_wrong_gate_is_told_before_any_work(tmp_path, folder, text, words):
    with pytest.raises(UserError, match=words):
        ingest(tmp_path / "catalog", folder, file=pipelines(tmp_path, text))
    assert not (tmp_path / "catalog").exists()


def test_a_run_in_a_folder_of_its_own_models_does_no_harm(tmp_path, folder, file, monkeypatch):
    for name in ("models", "stages", "curate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    (tmp_path / "train.py").write_text("raise RuntimeError('the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert ingest("catalog", folder / "film_0.mp4", file=file, options=INLINE) == 0


def test_stages_may_change_freely_as_long_as_nothing_was_made(tmp_path, file):
    (tmp_path / "empty").mkdir()
    for sets in ([], ["cut.max_seconds=15"]):
        with pytest.raises(UserError, match="no videos found"):
            ingest(tmp_path / "catalog", tmp_path / "empty", file=file, sets=sets)


def test_a_stopped_rebuild_goes_on_without_being_asked_again(catalog, folder, file):
    part = RunOptions(engine="inline", quiet=True, rebuild=True, limit=2)
    ingest(catalog, folder, file=file, sets=["cut.max_seconds=15"], options=part)
    assert ask(catalog, "SELECT count(DISTINCT settings) FROM sources") == [(2,)]
    ingest(catalog, folder, file=file, sets=["cut.max_seconds=15"])
    assert ask(catalog, "SELECT count(*), count(DISTINCT settings) FROM sources") == [(6, 1)]
