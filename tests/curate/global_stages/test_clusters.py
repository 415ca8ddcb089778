"""Concepts: what is sorted together, what it is called and weighs, and that order does not matter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.global_stages.clusters.kmeans import kmeans, nearest
from curate.global_stages.clusters.settings import ClusterSettings
from curate.global_stages.clusters.stage import Clusters, concept_weights
from stages.base import SettingsError
from tests.curate.global_stages.test_duplicates import ALL, catalog, clip

AXES = {"car": 0, "dog": 1, "sea": 2, "hat": 3}


def encode(words):
    return np.array([np.eye(8)[AXES[word]] for word in words], np.float32)


def films(sizes: dict[str, int], seed: int = 0) -> dict[int, np.ndarray]:
    """Embeddings of so many clips of each word, in no order."""
    rng = np.random.default_rng(seed)
    shown = [word for word, count in sizes.items() for _ in range(count)]
    rng.shuffle(shown)
    return {n: np.eye(8)[AXES[word]] + rng.normal(0, 0.05, 8) for n, word in enumerate(shown)}


def sort(vectors, more: int = 0, order=None, **said):
    rows = [clip(n) for n in range(len(vectors) + more)]
    if order is not None:
        order.shuffle(rows)
        vectors = dict(order.sample(sorted(vectors.items()), len(vectors)))
    stage = Clusters(ClusterSettings.model_validate(said), encode)
    with catalog(rows, vectors) as sql:
        table = stage.compute(sql, ALL, None)
    assert table.column_names == ["clip_id", "source_id", *stage.columns()["clusters"]]
    return table


def test_clips_that_look_alike_are_one_concept_named_by_the_nearest_word():
    vectors = films({"car": 30, "dog": 12, "sea": 5})
    table = sort(vectors, k=3, words=["dog", "sea", "car", "hat"])
    assert {(r["concept"], r["concept_name"], r["concept_size"]) for r in table.to_pylist()} == {
        (0, "car", 30),
        (1, "dog", 12),
        (2, "sea", 5),
    }
    shown = {int(r["clip_id"], 16): AXES[r["concept_name"]] for r in table.to_pylist()}
    assert shown == {n: int(np.argmax(v)) for n, v in vectors.items()}


def test_weights_even_out_the_square_root_of_the_sizes():
    table = sort(films({"car": 16, "dog": 4}), k=2)
    weight = {row["concept"]: row["concept_weight"] for row in table.to_pylist()}
    assert weight[1] == pytest.approx(2 * weight[0])
    assert np.mean(table["concept_weight"].to_pylist()) == pytest.approx(1)
    assert concept_weights(np.array([5])).tolist() == [1]


def test_a_clip_without_an_embedding_has_a_row_and_no_concept():
    table = sort(films({"car": 5}), more=2, k=2)
    assert table.num_rows == 7
    assert [row["concept"] for row in table.to_pylist()][5:] == [None, None]


def test_more_concepts_than_clips_give_each_its_own():
    assert sorted(sort(films({"car": 1, "dog": 1, "sea": 1}), k=50)["concept"].to_pylist()) == [0, 1, 2]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 100), st.integers(1, 6), st.randoms())
def test_concepts_do_not_depend_on_the_order_of_the_rows(seed, k, random):
    vectors = films({"car": 9, "dog": 5, "sea": 4}, seed)
    assert sort(vectors, k=k, order=random).equals(sort(vectors, k=k))


def test_centres_are_those_of_lloyd():
    """Every centre is the direction of the mean of the vectors nearest to it."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(500, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = kmeans(vectors, 4)
    mine = (vectors @ centres.T).argmax(axis=1)
    assert np.array_equal(mine, nearest(vectors, centres)[:, 0])
    for number, centre in enumerate(centres):
        mean = vectors[mine == number].mean(axis=0)
        assert mean @ centre / np.linalg.norm(mean) > 0.999
    assert nearest(vectors, centres, 2).shape == (500, 2)


def test_words_come_from_a_file_too_and_one_that_is_missing_is_named(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("car\n\n sea \ncar\n")
    table = sort(films({"car": 3, "sea": 2}), k=2, words=str(file))
    assert set(table["concept_name"].to_pylist()) == {"car", "sea"}
    for said, wrong in ((str(tmp_path / "none.txt"), "none.txt"), (["  "], "no word")):
        with pytest.raises(SettingsError, match=wrong):
            Clusters(ClusterSettings(words=said)).check()


def test_the_model_that_made_the_embeddings_is_taken_from_the_runs(monkeypatch):
    """And weights that are others by now are refused."""
    from stages.pretrained import open_clip_lookup, open_clip_model

    asked = []

    class Model:
        name, revision = "tiny", "aaaa"

        def encode_texts(self, words):
            return encode(words)

    monkeypatch.setattr(open_clip_lookup, "find_model", lambda *names: asked.append(names) or names)
    monkeypatch.setattr(open_clip_model, "load_model", lambda *_: Model())
    stage = Clusters(ClusterSettings(k=2, words=["car", "dog"]))
    with catalog([clip(n) for n in range(6)], films({"car": 4, "dog": 2})) as sql:
        stages = json.dumps({"embeddings": {"stages": [{"embed": {"model": "tiny folder", "pretrained": "tag"}}]}})
        sql.execute(f"CREATE TABLE runs AS SELECT '{stages}' AS stages, now()::TIMESTAMP AS started_at")
        sql.execute("ALTER TABLE embeddings ADD COLUMN embeddings_revision TEXT DEFAULT 'aaaa'")
        assert set(stage.compute(sql, ALL, None)["concept_name"].to_pylist()) == {"car", "dog"}
        assert asked == [("tiny folder", "tag")]
        sql.execute("UPDATE embeddings SET embeddings_revision = 'bbbb'")
        with pytest.raises(SettingsError, match="revision bbbb"):
            stage.compute(sql, ALL, None)
