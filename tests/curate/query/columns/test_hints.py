"""A name that is not there, wherever a command takes SQL or a column: one line with the name that is meant, or the
recipe that makes it.
"""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.cli.main import main
from curate.query.columns.hints import Names
from curate.query.columns.listing import empty_catalog
from curate.query.columns.words import documented
from tests.curate.running import pipelines
from tests.hostile import moving_square, write_video

RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0}
      - cut: {detector: fixed, seconds: 1, min_seconds: 0.5}
      - measure: [motion, exposure]
      - gate: {moving: "motion >= 0"}
  copies:
    select: SELECT * FROM clips
    stages:
      - duplicates: {near: null}
  chosen:
    select: SELECT * FROM clips WHERE %s
    stages:
      - duplicates: {as: others, near: null}
  gated:
    stages:
      - probe: {min_seconds: 0}
      - cut: {detector: fixed, seconds: 1, min_seconds: 0.5}
      - measure: [motion, exposure]
      - gate: {bright: "%s > 1"}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a.mp4, pipelines.yaml and a catalog of two clips."""
    place = tmp_path_factory.mktemp("hints")
    write_video(place / "a.mp4", moving_square(48, 96, 72))
    pipelines(place, RECIPES % ("brightness > 1", "brightness"))
    words = ["--catalog", place / "catalog", "--pipelines", place / "pipelines.yaml", "--engine", "inline"]
    assert main([str(word) for word in ["run", "ingest", "--input", place / "a.mp4", *words]]) == 0
    return place


@pytest.fixture
def refused(place, monkeypatch, capsys):
    """Runs a command in the folder, which is refused; gives its one line."""
    monkeypatch.chdir(place)

    def command(*words):
        before = sorted(place.iterdir())
        assert main([*words, "--catalog", "catalog"]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and sorted(place.iterdir()) == before
        return said.err

    return command


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT file FROM clips", "there is no column file; did you mean uri?"),
        ("SELECT path FROM sources", "did you mean uri?"),
        ("SELECT c.name FROM clips AS c", "gates has one of that name; of clips say uri"),
        ("SELECT length FROM clips", "end_s - start_s (of clips) or duration_s (of sources)"),
        ("SELECT lenght FROM sources", "duration_s (of sources)"),
        ("SELECT duration_s FROM clips", "of clips say end_s - start_s"),
        ("SELECT brightness FROM clips", "did you mean luma_mean?"),
        ("SELECT motoin FROM clips", "did you mean motion?"),
        ("SELECT motion FROM sources", "clips has one of that name"),
        ("SELECT hash FROM sources", "content_hash"),
        ("SELECT * EXCLUDE (motoin) FROM clips", "did you mean motion?"),
        ("SELECT duplicate_kind FROM clips", "run `clipmill run copies` first: its stage `duplicates` makes"),
        ("SELECT unique_clip, is_duplicate FROM clips", "unique_clip"),
        ("SELECT is_duplicate FROM clips", "did you mean duplicate_keep? (run `clipmill run copies` first"),
        ("SELECT text_area FROM clips", "the stage `text` makes text_area: run a recipe that has it first"),
        ("SELECT watermark FROM clips", "the stage `classify` makes watermark"),
        ("SELECT loudness FROM clips", "`measure: [audio]` makes loudness: add it to your recipe"),
        ("SELECT * FROM duplicates", "there is no table duplicates; run `clipmill run copies` first"),
        ("SELECT * FROM films", "there is no table films; did you mean sources?"),
        ("SELECT * FROM clip", "did you mean clips?"),
        ("SELECT * FROM nothing_like_it", "there is clips, sources"),
        ("SELECT xyzzy FROM clips", "`clipmill columns` lists them all"),
        ("SELECT * FROM clips WHERE verdict = kept", "a text goes in single quotes: 'kept'"),
        ('SELECT * FROM sources WHERE codec = "h264"', "a text goes in single quotes: 'h264'"),
    ],
)
def test_a_wrong_name_in_sql_names_the_right_one_or_what_makes_it(refused, query, words):
    said = refused("sql", query)
    assert words in said
    assert ("Candidate bindings" not in said and "Binder Error" not in said) or "kept" in query


@pytest.mark.parametrize(
    "command",
    [
        ["sheet", "--where", "brightness > 1", "-o", "x.png"],
        ["sheet", "--by", "brightness", "-o", "x.png"],
        ["gates", "try", "brightness > 1"],
        ["run", "chosen"],
        ["run", "gated", "--input", "a.mp4"],
        ["export", "--clips", "-o", "x", "--select", "SELECT clip_id FROM clips WHERE brightness > 1"],
        ["export", "--clips", "-o", "x", "--caption", "brightness"],
    ],
    ids=" ".join,
)
def test_the_same_is_said_wherever_a_command_takes_sql_or_a_column(refused, command):
    assert "did you mean luma_mean?" in refused(*command)


@pytest.mark.parametrize(
    "choice",
    [
        ["--select", "SELECT clip_id FROM clips WHERE brightness > 1"],
        ["--select", "SELECT clip_id FROM clips", "--weight", "brightness"],
        ["--select", "SELECT clip_id FROM clips", "--conditions", "brightness"],
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_it_is_said_of_datasets_too(tmp_path, capsys, choice):
    from tests.shard_catalogs import make

    catalog = make(tmp_path)
    assert main(["dataset", "create", "x", "-o", str(tmp_path / "sets"), "--catalog", catalog.uri, *choice]) == 2
    assert "`measure: [exposure]` makes luma_mean" in capsys.readouterr().err


def test_it_is_said_of_a_score_that_duplicates_are_ranked_by(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["run", "copies", "--set", "duplicates.score=brightness", "--catalog", "catalog"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("there is no column brightness; did you mean luma_mean?")


def test_without_a_catalog_yet_a_gate_is_still_told(place, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(place)
    words = ["run", "gated", "--input", "a.mp4", "--catalog", str(tmp_path / "new"), "--engine", "inline"]
    assert main(words) == 2
    assert "did you mean luma_mean?" in capsys.readouterr().err


def test_a_catalog_that_cannot_be_read_does_not_hide_the_error(place, monkeypatch, capsys):
    monkeypatch.setattr("curate.query.columns.hints.of_catalog", lambda sql: 1 / 0)
    assert main(["sql", "SELECT moton FROM clips", "--catalog", str(place / "catalog")]) == 2
    assert 'column "moton" not found' in capsys.readouterr().err


def test_an_error_about_no_name_asks_nothing(place, capsys):
    sys.modules.pop("curate.query.columns.hints", None)
    assert main(["sql", "SELEC 1", "--catalog", str(place / "catalog")]) == 2
    assert "curate.query.columns.hints" not in sys.modules and "syntax error" in capsys.readouterr().err


with empty_catalog() as sql:
    KNOWN = documented(sql)
IN_CLIPS = [words for words in KNOWN if words.table == "clips"]


@given(st.sampled_from(IN_CLIPS), st.data())
def test_every_word_for_a_column_leads_to_it(words, data):
    """Each of the words that users take for a column names it, whatever else they may mean."""
    if words.also:
        assert words.column in Names(KNOWN, KNOWN).of_column(data.draw(st.sampled_from(words.also)))


@given(
    st.sampled_from(["sharpness", "letterbox", "luma_mean", "saturation", "failed_gates", "bits_per_pixel"]), st.data()
)
def test_a_name_with_a_letter_too_few_names_the_column(name, data):
    at = data.draw(st.integers(0, len(name) - 1))
    assert name in Names(KNOWN, KNOWN).of_column(name[:at] + name[at + 1 :])
