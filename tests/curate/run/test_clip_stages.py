"""Stages on clips: inside ingest or over a selection, each resumed, judged and refused by itself."""

import json
import shutil

import pytest

from curate.catalog.catalog import Catalog
from curate.errors import UserError
from curate.run.command import RunOptions, run_recipes
from curate.run.verify import verify
from tests.curate import brightness
from tests.curate.running import INLINE, ask, make_folder

pytestmark = pytest.mark.slow

DECODE = """
      - probe: {min_seconds: 0.5}
      - cut: {min_seconds: 1, max_seconds: 20}
      - measure: [motion, exposure]"""
RECIPES = """\
recipes:
  ingest:
    stages:%(decode)s
      - gate: {bright: "luma_mean >= %(luma)s"}
%(stages)s
  later:
    select: %(select)s
    stages:
      - brightness: %(settings)s
%(gates)s
"""
STAGE = "      - brightness: %s"
KEPT = "SELECT * FROM clips WHERE verdict = 'kept'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("in") / "films", films=3)


@pytest.fixture(autouse=True)
def _brightness(monkeypatch):
    brightness.register(monkeypatch)


@pytest.fixture
def go(tmp_path, folder):
    """Runs recipes of a file made of what the test gives; returns the exit code."""

    def run(*names, stages="", settings="{}", select=KEPT, gates="", luma=0, options=INLINE, sets=(), inputs=folder):
        file = tmp_path / "pipelines.yaml"
        given = {"stages": stages, "settings": settings, "select": select, "gates": gates, "luma": luma}
        file.write_text(RECIPES % ({"decode": DECODE} | given))
        taken = [str(inputs)] if "ingest" in names else None
        return run_recipes(list(names), str(tmp_path / "catalog"), taken, file, tuple(sets), options)

    return run


def scores(tmp_path, table="brightness"):
    return dict(ask(tmp_path / "catalog", f"SELECT clip_id, {table} FROM {table} WHERE status = 'done'"))


def test_inside_ingest_and_later_over_a_selection_the_scores_agree(go, tmp_path):
    assert go("ingest", stages=STAGE % "{}") == 1  # the broken file
    within = scores(tmp_path)
    assert go("later", settings="{as: again, log: %s}" % (tmp_path / "log")) == 0
    later = scores(tmp_path, "again")
    kept = {row[0] for row in ask(tmp_path / "catalog", "SELECT clip_id FROM clips WHERE verdict = 'kept'")}
    assert set(within) == set(later) == kept
    assert len(kept) == 6
    assert all(abs(within[clip] - later[clip]) < 6 for clip in kept)
    row = ask(tmp_path / "catalog", "SELECT brightness, again, brightness_model, again_model FROM clips LIMIT 1")[0]
    assert row[2:] == ("green", "green")
    assert verify(Catalog.open(str(tmp_path / "catalog"))) == []


def test_what_is_committed_is_not_scored_again(go, tmp_path):
    log = tmp_path / "log"
    for _ in range(2):
        go("ingest", stages=STAGE % f"{{log: {log}}}")
    go("later", settings=f"{{log: {log}}}")
    lines = log.read_text().split()
    assert len(lines) == len(set(lines)) == 6


def test_a_stage_added_to_ingest_scores_old_clips_and_cuts_nothing_again(go, tmp_path):
    go("ingest")
    before = ask(tmp_path / "catalog", "SELECT uri, committed_at FROM sources ORDER BY uri")
    assert go("ingest", stages=STAGE % "{}") == 0
    assert ask(tmp_path / "catalog", "SELECT uri, committed_at FROM sources ORDER BY uri") == before
    assert len(scores(tmp_path)) == 6


def test_a_clip_newly_kept_gets_the_stages_it_lacks_at_the_next_run(go, tmp_path):
    go("ingest", stages=STAGE % "{}", luma=300)
    assert ask(tmp_path / "catalog", "SELECT count(*) FROM brightness") == [(0,)]
    go("ingest", stages=STAGE % "{}", luma=0)
    assert len(scores(tmp_path)) == 6


def test_other_settings_are_refused_and_made_again_only_when_asked(go, tmp_path):
    go("ingest", "later")
    first = scores(tmp_path)
    with pytest.raises(UserError, match=r"brightness\.gain: 1\.0 -> 2\.0.*`as:`.*--rebuild"):
        go("later", settings="{gain: 2}")
    assert scores(tmp_path) == first
    go("later", settings="{gain: 2}", options=RunOptions(engine="inline", quiet=True, rebuild=True))
    again = scores(tmp_path)
    assert {clip: pytest.approx(2 * value) for clip, value in first.items()} == again
    assert verify(Catalog.open(str(tmp_path / "catalog"))) == []


def test_settings_that_decide_no_result_may_change(go, tmp_path):
    go("ingest", "later")
    assert go("later", settings="{batch_clips: 1}") == 0


def test_another_model_s_scores_live_beside_the_first_s(go, tmp_path):
    go("ingest", stages=STAGE % "{}" + "\n" + STAGE % "{as: double, gain: 2}")
    rows = ask(tmp_path / "catalog", "SELECT brightness, double, double_frames FROM clips WHERE verdict = 'kept'")
    assert len(rows) == 6
    assert all(two == pytest.approx(2 * one) and frames == 2 for one, two, frames in rows)


def test_a_clip_that_fails_says_why_and_is_tried_again_only_when_asked(go, tmp_path):
    go("ingest")
    assert go("later", settings="{refuse: film_1}") == 1
    query = "SELECT status, reason, count(*) FROM brightness GROUP BY ALL ORDER BY 1"
    assert ask(tmp_path / "catalog", query) == [("done", None, 4), ("failed", "too ugly: 7 of 10", 2)]
    log = tmp_path / "log"
    again = f"{{refuse: film_1, log: {log}}}"
    assert go("later", settings=again) == 0
    assert not log.exists()
    go("later", settings=again, options=RunOptions(engine="inline", quiet=True, retry_failed=True))
    assert len(log.read_text().split()) == 2
    assert ask(tmp_path / "catalog", query)[1][2] == 2
    assert verify(Catalog.open(str(tmp_path / "catalog"))) == []


def test_a_gate_behind_a_stage_spares_the_stages_behind_it(go, tmp_path):
    log = tmp_path / "log"
    unclear = "      - gate: {light: {where: 'brightness > 50 AND start_s < 1', unknown: drop}}\n"
    stages = STAGE % "{}" + "\n" + unclear + STAGE % f"{{as: second, log: {log}}}"
    go("ingest", stages=stages)
    verdicts = dict(ask(tmp_path / "catalog", "SELECT clip_id, verdict FROM clips WHERE brightness IS NOT NULL"))
    first = {row[0] for row in ask(tmp_path / "catalog", "SELECT clip_id FROM clips WHERE start_s < 1")}
    assert len(first) == 3
    assert {clip for clip, verdict in verdicts.items() if verdict == "kept"} == first == set(log.read_text().split())
    go("ingest", stages=stages)  # a second run judges as the first did
    assert len(log.read_text().split()) == len(first)


def test_a_recipe_s_own_gates_do_not_decide_what_it_selects(go, tmp_path):
    gates = "      - gate: {dim: 'brightness < 0'}"
    go("ingest", "later", gates=gates)
    assert ask(tmp_path / "catalog", "SELECT count(*) FROM clips WHERE verdict = 'kept'") == [(0,)]
    assert go("later", gates=gates) == 0  # still selects the six that it dropped itself
    assert len(scores(tmp_path)) == 6


def test_sources_cut_again_leave_no_rows_of_clips_that_are_no_more(go, tmp_path):
    go("ingest", stages=STAGE % "{}")
    before = set(scores(tmp_path))
    rebuild = RunOptions(engine="inline", quiet=True, rebuild=True)
    go("ingest", stages=STAGE % "{}", options=rebuild, sets=["cut.max_seconds=1.2"])
    clips = {row[0] for row in ask(tmp_path / "catalog", "SELECT clip_id FROM clips WHERE verdict = 'kept'")}
    assert set(scores(tmp_path)) == clips != before
    assert ask(tmp_path / "catalog", "SELECT count(*) - count(DISTINCT clip_id) FROM brightness") == [(0,)]
    assert verify(Catalog.open(str(tmp_path / "catalog"))) == []


def test_limit_takes_so_many_clips(go, tmp_path):
    go("ingest")
    go("later", options=RunOptions(engine="inline", quiet=True, limit=2))
    assert len(scores(tmp_path)) == 2
    go("later")
    assert len(scores(tmp_path)) == 6


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"select": "SELECT clip_id FROM clip"}, ["select", "clip"]),
        ({"select": "SELECT uri FROM clips"}, ["select", "clip_id"]),
        ({"select": "SELECT 5 AS clip_id"}, ["select", "clip_id, a text", "INTEGER"]),
        ({"select": "SELECT 'nope' AS clip_id"}, ["select", "gives no clip of this catalog"]),
        ({"select": "SELECT error('x') AS clip_id"}, ["select"]),
        ({"select": "SELECT clip_id FROM clips WHERE false"}, ["select", "gives no clip"]),
        ({"gates": "      - gate: {x: 'beauty > 1'}"}, ["gate 'x'", "beauty"]),
        ({"settings": "{gian: 2}"}, ["brightness.gian", "did you mean 'gain'"]),
        ({"settings": "{as: clips}"}, ["'clips' is taken"]),
        ({"settings": "{as: 'No good'}"}, ["brightness.as"]),
    ],
)
def test_what_is_wrong_with_a_recipe_over_clips_is_one_line_with_its_place(go, tmp_path, given, words):
    go("ingest")
    with pytest.raises(UserError) as caught:
        go("later", **given)
    text = str(caught.value)
    assert "pipelines.yaml:" in text
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_recipe_over_clips_needs_a_catalog_and_takes_no_input(go, tmp_path, folder):
    with pytest.raises(UserError, match="no catalog at"):
        go("later")
    file = tmp_path / "pipelines.yaml"
    with pytest.raises(UserError, match="--input is for recipes that take sources"):
        run_recipes(["later"], str(tmp_path / "catalog"), [str(folder)], file, options=INLINE)


def test_the_runs_table_says_what_each_table_was_made_by(go, tmp_path):
    go("ingest", "later")
    runs = ask(tmp_path / "catalog", "SELECT recipe, stages, settings, counts FROM runs ORDER BY started_at")
    assert [list(json.loads(stages)) for _, stages, _, _ in runs] == [["sources"], ["brightness"]]
    assert json.loads(runs[1][3])["tables"] == {"brightness done": 6}
    (settings,) = ask(tmp_path / "catalog", "SELECT DISTINCT settings FROM brightness")[0]
    assert json.loads(runs[1][2]) == {"brightness": settings}


def test_a_file_that_was_replaced_loses_its_old_scores_when_it_is_ingested_again(go, tmp_path, folder):
    films = tmp_path / "films"
    shutil.copytree(folder, films)
    log = tmp_path / "log"
    settings = f"{{log: {log}}}"
    go("ingest", "later", settings=settings, inputs=films)
    shutil.copy(films / "film_0.mp4", films / "film_1.mp4")
    log.unlink()
    go("ingest", settings=settings, inputs=films, options=RunOptions(engine="inline", quiet=True, rebuild=True))
    go("later", settings=settings, inputs=films)
    again = set(log.read_text().split())
    uris = ask(tmp_path / "catalog", "SELECT clip_id, parse_filename(uri) FROM clips WHERE verdict = 'kept'")
    assert again == {clip for clip, name in uris if name == "film_1.mp4"}
    assert len(scores(tmp_path)) == 6
    assert verify(Catalog.open(str(tmp_path / "catalog"))) == []


def test_a_finished_rebuild_leaves_no_row_of_other_settings(go, tmp_path):
    go("ingest", "later")
    rebuild = RunOptions(engine="inline", quiet=True, rebuild=True)
    go("later", select="SELECT clip_id FROM clips WHERE start_s < 1", settings="{gain: 2}", options=rebuild)
    rows = ask(tmp_path / "catalog", "SELECT count(*), count(DISTINCT settings) FROM brightness")
    assert rows == [(3, 1)]


def test_settings_under_which_nothing_was_done_may_be_corrected(go, tmp_path):
    go("ingest")
    assert go("later", settings="{refuse: film}") == 1
    assert go("later", settings="{refuse: nothing}") == 0
    assert len(scores(tmp_path)) == 6


@pytest.mark.parametrize(
    "name", ["status", "clip_id", "verdict", "motion", "x" * 70, "thumbnails", "brightness_frames"]
)
def test_a_name_that_would_hide_another_column_or_table_is_refused(go, tmp_path, name):
    go("ingest", stages=STAGE % "{}")
    with pytest.raises(UserError, match="give this stage another `as`"):
        go("later", settings=f"{{as: {name}}}")
    assert ask(tmp_path / "catalog", "SELECT count(*) FROM clips WHERE verdict = 'kept'") == [(6,)]


def test_a_table_may_be_called_what_the_views_call_clips_themselves(go, tmp_path):
    go("ingest")
    assert go("later", settings="{as: c}") == 0
    assert ask(tmp_path / "catalog", "SELECT count(c) FROM clips") == [(6,)]


def test_two_stages_of_one_column_are_refused(go):
    stages = STAGE % "{as: wm}" + "\n" + STAGE % "{as: wm_frames}"
    with pytest.raises(UserError, match="column 'wm_frames' is there already, in wm"):
        go("ingest", stages=stages)
