"""Manifest columns of sources that the catalog has: refreshed without a decode, and captions follow their cells.

The films are deleted before the second run wherever nothing may be decoded.
"""

import json
import shutil

import pytest

from curate.catalog.catalog import Catalog
from curate.cli.main import main
from tests.curate.running import ask, pipelines
from tests.hostile import moving_square, write_video

pytestmark = pytest.mark.slow

RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0}
      - cut: {detector: fixed, seconds: 1, min_seconds: 0.5}
      - measure: [motion]
  captions:
    select: SELECT * FROM clips
    stages:
      - caption: {source: manifest}
"""
DUPLICATES = """\
  unique:
    select: SELECT * FROM clips
    stages:
      - duplicates: {near: false}
"""


@pytest.fixture
def films(tmp_path):
    """A folder with two films of two clips each."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, moving_square(48, 96, 72))
    return folder


@pytest.fixture
def run(tmp_path, films, capsys):
    """`clipmill run RECIPE`: gives (exit code, what it printed)."""
    file = pipelines(tmp_path, RECIPES)

    def command(recipe, *more):
        words = ["run", recipe, "--catalog", tmp_path / "catalog", "--pipelines", file, *more]
        code = main([str(word) for word in [*words, "--engine", "inline"]])
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


@pytest.fixture
def catalog(tmp_path):
    return tmp_path / "catalog"


def write(path, *rows, header="path,caption"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def captions(catalog):
    return ask(catalog, "SELECT start_s, c.caption FROM captions AS c JOIN clips USING (clip_id) ORDER BY uri, start_s")


def test_a_changed_row_is_refreshed_and_no_film_is_opened(run, films, catalog):
    manifest = write(films / "m.csv", "a.mp4,a red ball,1", "b.mp4,a blue ball,2", header="path,caption,score")
    code, said = run("ingest", "--input", manifest)
    assert code == 0 and "rows of manifests: 2 new, 0 changed, 0 the same" in said
    before = Catalog.open(str(catalog)).snapshot()
    whole = ask(catalog, "SELECT * EXCLUDE (caption, score) FROM sources ORDER BY uri")
    for name in ("a.mp4", "b.mp4"):
        (films / name).unlink()
    write(manifest, "a.mp4,a red ball,1", "b.mp4,a green ball,2.5", header="path,caption,score")
    code, said = run("ingest", "--input", manifest)
    assert code == 0 and "rows of manifests: 0 new, 1 changed, 1 the same" in said
    rows = ask(catalog, "SELECT caption, score FROM sources ORDER BY uri")
    assert rows == [("a red ball", 1.0), ("a green ball", 2.5)]
    assert ask(catalog, "SELECT * EXCLUDE (caption, score) FROM sources ORDER BY uri") == whole
    assert main(["verify", "--catalog", str(catalog)]) == 0
    middle = Catalog.open(str(catalog)).snapshot()
    code, said = run("ingest", "--input", manifest)
    assert code == 0 and "rows of manifests: 0 new, 0 changed, 2 the same" in said
    after = Catalog.open(str(catalog)).snapshot()
    assert {name for name in after if after[name] != middle[name]} == {"runs"}
    assert before["sources"] < middle["sources"]


def test_a_manifest_sets_the_columns_that_it_has_and_leaves_the_others(run, films, catalog):
    run("ingest", "--input", write(films / "m.csv", "a.mp4,a red ball", "b.mp4,a blue ball"))
    (films / "l.jsonl").write_text(json.dumps({"video": "b.mp4", "licence": "cc0"}) + "\n")
    _, said = run("ingest", "--input", films / "l.jsonl")
    assert "rows of manifests: 0 new, 1 changed, 0 the same" in said
    assert ask(catalog, "SELECT caption, licence FROM sources ORDER BY uri") == [
        ("a red ball", None),
        ("a blue ball", "cc0"),
    ]
    _, said = run("ingest", "--input", write(films / "m.csv", "a.mp4,"))  # an empty cell is what the manifest says
    assert "1 changed" in said
    assert ask(catalog, "SELECT caption FROM sources ORDER BY uri") == [(None,), ("a blue ball",)]


@pytest.mark.parametrize("how", ["--rebuild", "--retry-failed"])
def test_sources_made_again_from_a_folder_keep_what_manifests_said_of_them(run, films, catalog, how):
    (films / "c.mp4").write_bytes(b"no film")
    run("ingest", "--input", write(films / "m.csv", "a.mp4,a red ball", "c.mp4,a broken ball"))
    shutil.copy(films / "a.mp4", films / "c.mp4")
    code, _ = run("ingest", "--input", films, how)
    assert code == 0
    assert ask(catalog, "SELECT status, caption FROM sources ORDER BY uri") == [
        ("done", "a red ball"),
        ("done", None),
        ("done", "a broken ball"),
    ]


def test_a_manifest_beside_a_folder_is_not_ignored(run, films, catalog):
    manifest = write(films.parent / "m.csv", "films/a.mp4,a red ball")
    run("ingest", "--input", films, manifest)
    assert ask(catalog, "SELECT caption FROM sources ORDER BY uri") == [("a red ball",), (None,)]


def test_a_failed_source_is_refreshed_too_and_stays_failed(run, films, catalog):
    manifest = write(films / "m.csv", "gone.mp4,a red ball")
    run("ingest", "--input", manifest)
    _, said = run("ingest", "--input", write(manifest, "gone.mp4,a blue ball"))
    assert "1 changed" in said
    assert ask(catalog, "SELECT status, caption FROM sources") == [("failed", "a blue ball")]


def test_one_changed_caption_among_ten_thousand_rows_is_the_only_one_made_again(run, films, catalog):
    absent = [f"absent{i}.mp4,nobody has seen film {i}" for i in range(9_998)]
    manifest = write(films / "m.csv", *absent, "a.mp4,a red ball", "b.mp4,a blue ball")
    run("ingest", "--input", manifest)
    run("captions")
    for name in ("a.mp4", "b.mp4"):
        (films / name).unlink()
    write(manifest, *absent, "a.mp4,a red ball", "b.mp4,two green balls that roll")
    _, said = run("ingest", "--input", manifest)
    assert "rows of manifests: 0 new, 1 changed, 9,999 the same" in said
    code, said = run("captions")
    assert code == 0 and "4 clips selected, 2 taken" in said  # the two clips of the one film
    found = ask(catalog, "SELECT caption, caption_words, count(*) FROM captions GROUP BY ALL ORDER BY caption_words")
    assert found == [("a red ball", 3, 2), ("two green balls that roll", 5, 2)]
    assert "0 taken" in run("captions")[1]
    assert main(["verify", "--catalog", str(catalog)]) == 0


def test_another_column_makes_no_caption_again(run, films):
    manifest = write(films / "m.csv", "a.mp4,a red ball,1", header="path,caption,score")
    run("ingest", "--input", manifest)
    run("captions")
    run("ingest", "--input", write(manifest, "a.mp4,a red ball,2", header="path,caption,score"))
    assert "2 clips selected, 0 taken" in run("captions")[1]


def test_a_caption_that_comes_later_is_taken_without_asking_for_failed_ones(run, films, catalog):
    manifest = write(films / "m.csv", "a.mp4,", "b.mp4,a blue ball")
    run("ingest", "--input", manifest)
    assert run("captions")[0] == 1
    assert "0 taken" in run("captions")[1]
    run("ingest", "--input", write(manifest, "a.mp4,a red ball", "b.mp4,a blue ball"))
    code, said = run("captions")
    assert code == 0 and "2 taken" in said
    assert [text for _, text in captions(catalog)] == ["a red ball"] * 2 + ["a blue ball"] * 2


def test_a_clip_has_a_caption_of_its_own_by_clip_id(run, films, catalog, tmp_path):
    run("ingest", "--input", write(films / "m.csv", "a.mp4,a red ball", "b.mp4,a blue ball"))
    run("captions")
    [(second,)] = ask(catalog, "SELECT clip_id FROM clips WHERE uri LIKE '%b.mp4' AND start_s > 0")
    for name in ("a.mp4", "b.mp4"):
        (films / name).unlink()
    own = write(tmp_path / "own.csv", f"{second},the ball stops", "0" * 32 + ",nobody", header="clip_id,caption")
    code, said = run("captions", "--set", f"caption.manifest={{file: {own}}}")
    assert code == 0 and "4 clips selected, 1 taken" in said
    assert "own.csv: 2 rows, of which 1 name 1 clips by `clip_id`, and 1 name none" in said
    assert captions(catalog) == [(0, "a red ball"), (1, "a red ball"), (0, "a blue ball"), (1, "the ball stops")]
    assert "0 taken" in run("captions", "--set", f"caption.manifest={{file: {own}}}")[1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_of_captions_joins_by_uri_or_else_by_name(run, films, catalog, tmp_path, kind):
    run("ingest", "--input", films)
    rows = [(str(films / "a.mp4"), "by uri"), ("./films/b.mp4", "by path"), ("c.mp4", "nobody")]
    own = tmp_path / "elsewhere" / f"own.{kind}"
    own.parent.mkdir()
    if kind == "csv":
        write(own, *(f"{name},{text}" for name, text in rows), header="file_name,caption")
    else:
        own.write_text("".join(json.dumps({"file_name": name, "caption": text}) + "\n" for name, text in rows))
    code, said = run("captions", "--set", f"caption.manifest={{file: {own}}}")
    assert code == 0 and "3 rows, of which 2 name 4 clips by `file_name`, and 1 name none" in said
    assert [text for _, text in captions(catalog)] == ["by uri"] * 2 + ["by path"] * 2


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_has_captions_of_films_and_of_single_clips_which_go_first(run, films, catalog, tmp_path, kind):
    run("ingest", "--input", films)
    [(second,)] = ask(catalog, "SELECT clip_id FROM clips WHERE uri LIKE '%b.mp4' AND start_s > 0")
    rows = [("a.mp4", "", "a red ball"), ("b.mp4", "", "a blue ball")]
    own = tmp_path / f"own.{kind}"

    def captioned(rows):
        if kind == "csv":
            write(own, *(",".join(row) for row in rows), header="file,clip_id,caption")
        else:
            named = [{"file": name, "caption": text} | ({"clip_id": clip} if clip else {}) for name, clip, text in rows]
            own.write_text("".join(json.dumps(row) + "\n" for row in named))
        return run("captions", "--set", f"caption.manifest.file={own}")

    assert captioned(rows)[0] == 0
    code, said = captioned([*rows, ("b.mp4", second, "the ball stops")])
    assert code == 0 and "4 clips selected, 1 taken" in said
    assert "3 rows, of which 3 name 4 clips by `clip_id` or `file`, and 0 name none" in said
    assert captions(catalog) == [(0, "a red ball"), (1, "a red ball"), (0, "a blue ball"), (1, "the ball stops")]


def test_a_name_of_two_sources_is_nobody_s(run, films, tmp_path):
    (films / "sub").mkdir()
    shutil.copy(films / "a.mp4", films / "sub" / "a.mp4")
    run("ingest", "--input", films)
    own = write(tmp_path / "own.csv", "a.mp4,which one", "sub/a.mp4,this one")
    code, said = run("captions", "--set", f"caption.manifest={{file: {own}}}")
    assert code == 1 and "2 rows, of which 1 name 2 clips by `path`, and 1 name none (such as 'a.mp4')" in said


def test_rows_that_name_no_film_and_films_that_two_rows_name_are_named(run, films, catalog, tmp_path):
    run("ingest", "--input", films)
    own = write(tmp_path / "own.csv", "a.mp4,first", "a.mp4,second", "b.mp4,blue", "c.mp4,none")
    code, said = run("captions", "--set", f"caption.manifest={{file: {own}}}")
    assert code == 0 and "4 rows, of which 3 name 4 clips by `path`, and 1 name none (such as 'c.mp4')" in said
    assert "1 named by several rows, such as 'a.mp4': the first counts" in said
    assert captions(catalog) == [(0, "first"), (1, "first"), (0, "blue"), (1, "blue")]


def test_of_copies_the_one_that_the_captions_name_is_kept(run, films, catalog, tmp_path, capsys):
    """It has the largest clip_id, so that no other rule chooses it."""
    pipelines(tmp_path, RECIPES + DUPLICATES)
    (films / "b.mp4").unlink()
    for number in range(4):
        shutil.copy(films / "a.mp4", films / f"copy_{number}.mp4")
    run("ingest", "--input", films)
    last = ask(catalog, "SELECT max_by(parse_filename(uri), clip_id) FROM clips")[0][0]
    own = write(tmp_path / "own.csv", f"{last},the original")
    code, said = run("captions", "--set", f"caption.manifest={{file: {own}}}")
    assert (
        code == 1 and "the manifest has no 'caption' for this source; add it there, and the next run takes it" in said
    )
    assert run("unique")[0] == 0
    kept = ask(catalog, "SELECT DISTINCT parse_filename(uri), caption FROM clips WHERE duplicate_keep")
    assert kept == [(last, "the original")]
    assert main(["status", "--catalog", str(catalog)]) == 0
    assert "no 'caption' for this source; add it there" in capsys.readouterr().out
    # a caption that moves to another copy moves the choice
    other = ask(catalog, "SELECT min(parse_filename(uri)) FROM clips WHERE NOT duplicate_keep")[0][0]
    own = write(tmp_path / "own.csv", f"{other},the original")
    run("captions", "--set", f"caption.manifest={{file: {own}}}", "--rebuild")
    assert run("unique")[0] == 0
    kept = ask(catalog, "SELECT DISTINCT parse_filename(uri), caption FROM clips WHERE duplicate_keep")
    assert kept == [(other, "the original")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("own.csv", "clip_id,text\nx,y\n", "only 'clip_id', 'text': rename one, or name another by"),
        ("own.csv", "name,caption\nx,y\n", "no column `uri`"),
        ("own.txt", "x", "expected a .csv, .jsonl or .parquet file"),
        (
            "own.csv",
            "file,caption\nc.mp4,y\n",
            "none of its 1 rows names a clip of this catalog by `file`, such as 'c.mp4'",
        ),
        ("own.csv", "file,caption\n", "own.csv: no rows: expected one for each film or clip"),
        ("gone.csv", None, "gone.csv: there is no such file"),
    ],
)
def test_a_wrong_file_of_captions_is_one_clear_line(run, films, tmp_path, name, text, words):
    run("ingest", "--input", films)
    if text is not None:
        (tmp_path / name).write_text(text)
    code, said = run("captions", "--set", f"caption.manifest={{file: {tmp_path / name}}}")
    assert code == 2 and words in said and said.count("\n") == 1


def test_a_changed_caption_is_matched_again_and_no_frame_of_another_clip_is_fetched(run, films, catalog, tmp_path):
    recipe = RECIPES.replace("{source: manifest}", "{source: manifest, match: {model: clipmill:tiny_clip}}")
    pipelines(tmp_path, recipe)
    manifest = write(films / "m.csv", "a.mp4,a red circle", "b.mp4,a blue square")
    run("ingest", "--input", manifest)
    assert run("captions")[0] == 0
    query = "SELECT uri LIKE '%b.mp4', caption_clip_match FROM clips ORDER BY uri, start_s"
    before = ask(catalog, query)
    (films / "a.mp4").unlink()
    run("ingest", "--input", write(manifest, "a.mp4,a red circle", "b.mp4,a green triangle"))
    code, said = run("captions")
    assert code == 0 and "4 clips selected, 2 taken" in said
    for (of_b, was), (_, now) in zip(before, ask(catalog, query), strict=True):
        assert (was != now) == of_b
