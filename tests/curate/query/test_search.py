"""Text search finds exactly the nearest clips, says what is wrong in a line, and shows what it found."""

import json

import cv2
import numpy as np
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.catalog import Catalog
from curate.catalog.vectors import embedding_batches, read_embeddings
from curate.catalog.views import connect
from curate.demo import tiny_clip
from curate.demo.films import read_truth
from curate.demo.queries import questions, recalls
from curate.errors import UserError
from curate.query.search import TextSearch, nearest, run_search
from tests.curate.running import fresh

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def catalog(demo_run):
    """URI of a catalog with the embeddings of the demo's films."""
    return str(demo_run[0] / "catalog")


@pytest.fixture(scope="module")
def searcher(catalog):
    with TextSearch(Catalog.open(catalog)) as searcher:
        yield searcher


@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=40),
    k=st.integers(1, 45),
    size=st.integers(1, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_nearest_are_those_of_a_whole_sort_whatever_the_batches_and_their_order(rows, k, size, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    matrix = np.array(rows, np.float16).reshape(-1, 2)[order]
    ids = [f"clip{i:02}" for i in order]
    batches = ((ids[at : at + size], matrix[at : at + size]) for at in range(0, len(ids), size))
    found = nearest(batches, np.array([1.0, 0.5], np.float32), k)
    whole = sorted((-(x + y / 2), f"clip{i:02}") for i, (x, y) in enumerate(rows))[:k]
    assert [(-score, clip) for score, clip in found] == whole


def test_the_films_of_the_demo_are_found_by_words(searcher, demo_run):
    truth = read_truth(demo_run[0] / "films.jsonl")
    found = recalls(searcher, truth)
    assert len(found) == len(questions(truth)) == 50
    assert sum(found.values()) / 50 >= 0.9, {text: recall for text, recall in found.items() if recall < 1}


def test_scores_are_cosines_of_the_stored_embeddings(searcher, catalog):
    text = searcher.model.encode_texts(["a star"])[0]
    with connect(Catalog.open(catalog)) as sql:
        ids, matrix = read_embeddings(sql)
        parts = list(embedding_batches(sql, rows=7))
    assert {clip for names, _ in parts for clip in names} == set(ids) and max(len(names) for names, _ in parts) <= 7
    expected = dict(zip(ids, matrix.astype(np.float64) @ text, strict=True))
    hits = searcher.find("a star", k=len(ids))
    assert {hit.clip_id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [hit.rank for hit in hits] == list(range(1, len(ids) + 1))


def test_a_condition_chooses_among_all_clips_and_the_best_of_those_are_found(searcher):
    everything = searcher.find("a red circle", k=100)
    assert {"kept", "dropped"} == {hit.verdict for hit in everything}  # dropped clips are found too
    condition = "verdict = 'kept' AND width < 320 -- the small ones"
    chosen = searcher.find("a red circle", k=3, where=condition)
    kept = {row[0] for row in searcher.connection.execute(f"SELECT clip_id FROM clips WHERE {condition}\n").fetchall()}
    assert [hit.clip_id for hit in chosen] == [hit.clip_id for hit in everything if hit.clip_id in kept][:3]
    assert searcher.find("a red circle", where="width > 100000") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": "  "}, "text to search for is empty"),
        ({"k": 0}, "-k must be from 1 to 10,000, got 0"),
        ({"k": 10_001}, "got 10001"),
        ({"where": "sharpnes > 1"}, "sharpnes"),
        ({"where": "width >"}, "syntax error"),
        ({"where": "true); COPY clips TO 'stolen.csv'; SELECT (true"}, "one SQL statement"),
    ],
)
def test_what_cannot_be_asked_is_one_line(searcher, change, said):
    with pytest.raises(UserError, match=said) as caught:
        searcher.find(**({"text": "a star", "k": 5} | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"table": "clips"}, "no embeddings in a table 'clips': there is embeddings"),
        ({"table": "nothing"}, "no embeddings in a table 'nothing': there is embeddings"),
        ({"model": "no/such/folder"}, "no folder no/such/folder"),
        ({"model": "ViT-B-33"}, "did you mean"),
        ({"output": "sheet.pdf"}, "sheet.pdf"),
        ({"catalog": "nowhere"}, "no catalog at nowhere"),
    ],
)
def test_what_is_not_there_is_one_line(catalog, change, said):
    with pytest.raises(UserError, match=said) as caught:
        run_search(**({"catalog": catalog, "text": "a star"} | change))
    assert "\n" not in str(caught.value)


def test_a_catalog_without_embeddings_says_how_to_make_them(tmp_path):
    Catalog.open_or_create(str(tmp_path / "catalog")).create()
    with pytest.raises(UserError, match="run a recipe with the stage `embed` first"):
        run_search(str(tmp_path / "catalog"), "a star")


def test_another_model_than_the_one_that_made_the_embeddings_is_refused(catalog, tmp_path):
    from safetensors.numpy import load_file, save_file

    other = tmp_path / "other"
    other.mkdir()
    for name in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
        (other / name).write_bytes((tiny_clip.FOLDER / name).read_bytes())
    weights = load_file(tiny_clip.FOLDER / "open_clip_model.safetensors")
    weights["text_projection"] = weights["text_projection"] + np.float16(0.01)
    save_file(weights, other / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=r"made by a model of revision [0-9a-f]{16}, but other is [0-9a-f]{16} now"):
        run_search(catalog, "a star", model=str(other))


def test_a_model_that_has_moved_is_found_where_the_user_says(catalog, tmp_path, capsys):
    moved = tmp_path / "moved"
    moved.symlink_to(tiny_clip.FOLDER)
    assert run_search(catalog, "a star", k=1, model=str(moved), form="csv") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1,")


def test_a_table_between_two_models_is_refused(catalog, tmp_path):
    import shutil

    copy = fresh(tmp_path / "catalog")
    shutil.copytree(catalog, copy)
    table = DeltaTable(str(copy / "embeddings"))
    table.update({"embeddings_revision": "'0123456789abcdef'"}, predicate="dim = 64 AND clip_id < '8'")
    with pytest.raises(UserError, match=r"several settings \(revision 0123456789abcdef and .*finish its rebuild"):
        run_search(str(copy), "a star")


def test_a_text_longer_than_the_encoder_is_cut_at_a_word_and_the_rest_is_told(searcher, catalog, capsys):
    assert searcher.cut_off("a red circle over a blue ground") == ""
    words = [f"word{i}" for i in range(50)]
    left = searcher.cut_off(" ".join(words)).split()
    assert 0 < len(left) < 50 and words[-len(left) :] == left
    seen = " ".join(words[: -len(left)])
    assert searcher.model.fits(seen) and not searcher.model.fits(f"{seen} {left[0]}")
    long = "a red circle " + " ".join(words)
    np.testing.assert_array_equal(*searcher.model.encode_texts([long, long.removesuffix(searcher.cut_off(long))]))
    run_search(catalog, long, form="csv")
    told = capsys.readouterr()
    loading, said = told.err.splitlines()
    assert loading == "loading CLIP model tiny_clip" and f"left out: {searcher.cut_off(long)}" in said
    assert told.out.startswith("rank,score,clip_id,uri,start_s,end_s,verdict\n")


def test_hits_are_printed_as_data_and_drawn_on_a_sheet_in_their_order(catalog, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert run_search(catalog, "a blue ground", k=6, form="json", output=str(sheet)) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    picture = cv2.imread(str(sheet))
    with connect(Catalog.open(catalog)) as sql:
        jpeg = sql.execute("SELECT jpeg FROM thumbnails WHERE clip_id = ?", [rows[0]["clip_id"]]).fetchone()[0]
    best = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    centre = best[best.shape[0] // 2, best.shape[1] // 2].astype(int)
    assert np.abs(picture[34 + 80, 10 + 120] - centre).max() < 60  # the first place holds the first hit
