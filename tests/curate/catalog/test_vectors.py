"""Embeddings read back as one matrix: every row where its id belongs, whatever the batches and the order."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.vectors import read_embeddings
from curate.errors import UserError


def connection_with(rows, table="embeddings", before=""):
    """A connection whose table holds (clip id, float16 vector or None) rows."""
    columns = {
        "clip_id": pa.array([name for name, _ in rows], pa.string()),
        f"{before}embedding": pa.array([v if v is None else v.astype("<f2").tobytes() for _, v in rows], pa.binary()),
        f"{before}dim": pa.array([None if v is None else len(v) for _, v in rows], pa.int32()),
        "score": pa.array(range(len(rows)), pa.int64()),
    }
    connection = duckdb.connect()
    connection.register("given", pa.table(columns))
    connection.execute(f'CREATE TABLE "{table}" AS SELECT * FROM given')
    connection.execute(f'CREATE VIEW clips AS SELECT clip_id, score FROM "{table}"')
    return connection


def vectors(count, width=6, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float16)


@settings(max_examples=12, deadline=None)
@given(
    failed=st.lists(st.booleans(), max_size=40),
    batch=st.sampled_from([1, 3, 2048]),
    order=st.randoms(use_true_random=False),
)
def test_every_clip_that_has_an_embedding_is_there_under_its_id(failed, batch, order):
    found = vectors(len(failed))
    rows = [(f"{i:032x}", None if lost else vector) for i, (lost, vector) in enumerate(zip(failed, found, strict=True))]
    truth = [(name, vector) for name, vector in rows if vector is not None]
    order.shuffle(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.catalog.vectors.BATCH_ROWS", batch)
        ids, matrix = read_embeddings(connection_with(rows))
    assert ids == [name for name, _ in truth]
    assert matrix.dtype == np.float16 and len(matrix) == len(ids)
    if truth:
        assert np.array_equal(matrix, np.stack([vector for _, vector in truth]))


def test_more_rows_than_duckdb_hands_over_at_a_time_keep_their_place():
    found = vectors(20_000, 4)
    order = np.random.default_rng(1).permutation(len(found))
    ids, matrix = read_embeddings(connection_with([(f"{i:032x}", found[i]) for i in order]))
    assert ids == [f"{i:032x}" for i in range(len(found))] and np.array_equal(matrix, found)


def test_a_condition_on_the_clips_chooses():
    found = vectors(10)
    connection = connection_with([(f"{i:032x}", found[i]) for i in range(10)])
    ids, matrix = read_embeddings(connection, where="score >= 7 -- the best")
    assert ids == [f"{i:032x}" for i in (7, 8, 9)] and np.array_equal(matrix, found[7:])
    assert read_embeddings(connection, where="score > 99")[0] == []


def test_another_model_s_table_is_read_by_its_name():
    found = vectors(3)
    connection = connection_with([(f"{i:032x}", found[i]) for i in range(3)], "second", "second_")
    assert np.array_equal(read_embeddings(connection, "second")[1], found)


def test_what_can_t_be_read_is_one_clear_line():
    connection = connection_with([("a", vectors(1)[0]), ("b", vectors(1, 4)[0])])
    with pytest.raises(UserError, match=r"different widths \(\[4, 6\]\)"):
        read_embeddings(connection)
    with pytest.raises(UserError, match="there is no table 'other' of embeddings: run a recipe with `embed` first"):
        read_embeddings(connection, "other")
    connection.execute("CREATE TABLE plain (clip_id VARCHAR)")
    with pytest.raises(UserError, match="'plain' holds no embeddings"):
        read_embeddings(connection, "plain")
    with pytest.raises(UserError, match="nonsense"):
        read_embeddings(connection, where="nonsense > 1")
