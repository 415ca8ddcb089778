"""Duplicates: what is found, what is kept, and that neither order nor the number of runs matters."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.global_stages.duplicates import banding, keep, semantic
from curate.global_stages.duplicates.components import components
from curate.global_stages.duplicates.settings import DuplicateSettings
from curate.global_stages.duplicates.stage import Duplicates
from stages.base import SettingsError

ALL = "SELECT clip_id FROM clips"


def clip(
    number: int,
    hashes=(),
    *,
    content="",
    span=(0, 100),
    size=(320, 192),
    source=None,
    uri=None,
    media="video",
    score=None,
):
    return {
        "clip_id": f"{number:032x}",
        "source_id": source or f"source {number}",
        "uri": str(uri or f"s3://bucket/{source or number}"),
        "media": media,
        "start_pts": span[0],
        "end_pts": span[1],
        "width": size[0],
        "height": size[1],
        "content_hash": content or f"content of {number}",
        "phash_frames": "".join(f"{value:016x}" for value in hashes),
        "aesthetic": score,
    }


def catalog(rows: list[dict], vectors: dict[int, np.ndarray] | None = None) -> duckdb.DuckDBPyConnection:
    """The views that the stage reads, over these rows."""
    sql = duckdb.connect(config={"threads": 1})
    columns = {name: [row[name] for row in rows] for name in clip(0)}
    columns["aesthetic"] = pa.array(columns["aesthetic"], pa.float64())
    sql.register("given", pa.table(columns))
    sql.execute("CREATE TABLE clips AS SELECT * EXCLUDE content_hash FROM given")
    sql.execute("CREATE TABLE sources AS SELECT DISTINCT source_id, uri, content_hash FROM given")
    if vectors is not None:
        ids = [f"{number:032x}" for number in vectors]
        data = [np.asarray(v, np.float16).tobytes() for v in vectors.values()]
        dims = [len(v) for v in vectors.values()]
        sql.register("made", pa.table({"clip_id": ids, "embedding": pa.array(data, pa.binary()), "dim": dims}))
        sql.execute("CREATE TABLE embeddings AS SELECT * FROM made")
    return sql


def judge(rows, vectors=None, previous=None, select=ALL, **said) -> pa.Table:
    stage = Duplicates(DuplicateSettings.model_validate(said))
    with catalog(rows, vectors) as sql:
        table = stage.compute(sql, select, previous)
    assert table.column_names == ["clip_id", "source_id", *stage.columns()["duplicates"]]
    return table


def clusters(table: pa.Table) -> set[tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for row in table.to_pylist():
        found.setdefault(row["duplicate_cluster"], []).append(int(row["clip_id"], 16))
    return {tuple(sorted(members)) for members in found.values() if len(members) > 1}


def kept(table: pa.Table) -> set[int]:
    return {int(row["clip_id"], 16) for row in table.to_pylist() if row["duplicate_keep"]}


def looks(seed: int, count: int = 6) -> list[int]:
    """Hashes of `count` frames that have nothing to do with those of another seed; half of the bits set."""
    rng = np.random.default_rng(seed)
    return [sum(1 << int(bit) for bit in rng.choice(64, 32, replace=False)) for _ in range(count)]


def changed(hashes: list[int], bits: int, seed: int = 0) -> list[int]:
    rng = np.random.default_rng(seed)
    return [value ^ sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)) for value in hashes]


# --- what is a duplicate


def test_the_same_span_of_the_same_bytes_is_an_exact_duplicate_and_no_other_span_is():
    rows = [clip(1, content="x"), clip(2, content="x"), clip(3, content="x", span=(100, 200)), clip(4)]
    table = judge(rows, near=False)
    assert clusters(table) == {(1, 2)}
    assert table["duplicate_kind"].to_pylist() == ["exact", "exact", None, None]
    assert table["duplicate_of"].to_pylist() == [None, f"{1:032x}", None, None]
    assert table["duplicate_count"].to_pylist() == [2, 2, 1, 1]


def test_frames_a_few_bits_apart_make_near_duplicates():
    first = looks(1)
    assert clusters(judge([clip(1, first), clip(2, changed(first, 5)), clip(3, looks(2))])) == {(1, 2)}
    assert clusters(judge([clip(1, first), clip(2, changed(first, 5))], near={"bits": 4})) == set()


def test_a_part_of_a_clip_is_its_near_duplicate():
    whole = looks(1, 40)
    assert clusters(judge([clip(1, whole), clip(2, changed(whole[17:22], 3)), clip(3, looks(9, 40))])) == {(1, 2)}


def test_one_frame_in_common_makes_no_duplicate_of_long_clips():
    ours, theirs = looks(1, 10), looks(2, 10)
    assert clusters(judge([clip(1, ours), clip(2, [*theirs, ours[3]])])) == set()


def test_plain_pictures_are_no_evidence():
    black = [0, 1, 3]
    table = judge([clip(n, black) for n in range(5)])
    assert clusters(table) == set() and table["duplicate_keep"].to_pylist() == [True] * 5


def test_clips_of_one_file_are_near_duplicates_only_where_that_is_asked_for():
    rows = [clip(n, looks(1), source="take", content="take", span=(100 * n, 100 * n + 100)) for n in (1, 2)]
    assert clusters(judge(rows)) == set()
    assert clusters(judge(rows, near={"same_source": True})) == {(1, 2)}


def test_a_picture_is_no_duplicate_of_a_film():
    assert clusters(judge([clip(1, looks(1)), clip(2, looks(1), media="image"), clip(3, looks(1))])) == {(1, 3)}


def test_embeddings_that_point_the_same_way_make_semantic_duplicates():
    vectors = {1: [1, 0, 0], 2: [0.99, 0.1, 0], 3: [0, 1, 0], 4: [0.2, 0.9, 0.3]}
    rows = [clip(n, looks(n)) for n in (1, 2, 3, 4, 5)]  # clip 5 has no embedding
    table = judge(rows, vectors, semantic={"cosine": 0.95})
    assert clusters(table) == {(1, 2)} and table["duplicate_kind"].to_pylist()[:2] == ["semantic"] * 2
    assert clusters(judge(rows, vectors, semantic={"cosine": 0.9})) == {(1, 2), (3, 4)}


def test_the_strongest_kind_is_told():
    rows = [clip(1, looks(1), content="x"), clip(2, looks(1), content="x"), clip(3, looks(1)), clip(4, looks(2))]
    vectors = {n: [1.0, 0.0] for n in (1, 2, 3, 4)}
    assert judge(rows, vectors, semantic=True)["duplicate_kind"].to_pylist() == ["exact", "exact", "near", "semantic"]


# --- what is kept


def test_the_largest_is_kept_then_the_best_then_the_smallest_id():
    same = looks(1)
    rows = [clip(1, same), clip(2, same, size=(640, 360)), clip(3, same, size=(640, 360), score=4.0)]
    assert kept(judge(rows)) == {2}
    assert kept(judge(rows, score="aesthetic")) == {3}
    assert kept(judge(rows, score="-aesthetic")) == {3}  # a clip without a score is the last of its size
    assert kept(judge([*rows[:1], clip(9, same)])) == {1}


def test_a_chain_of_duplicates_is_no_cluster():
    """Two halves of a film have nothing in common: a cluster is a kept clip and what shows the same as itself."""
    film = looks(1, 40)
    rows = [clip(1, film[:20], size=(640, 360)), clip(2, film), clip(3, film[20:])]
    table = judge(rows)
    assert clusters(table) == {(1, 2)} and kept(table) == {1, 3}
    assert set(table["duplicate_component"].to_pylist()) == {f"{1:032x}"}
    longest = [{**row, "width": 320, "height": 192, "aesthetic": len(row["phash_frames"])} for row in rows]
    table = judge(longest, score="aesthetic")
    assert clusters(table) == {(1, 2, 3)} and kept(table) == {2}


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_every_cluster_keeps_its_first_by_the_rule_and_nothing_else(crowded, data):
    rows, vectors, _ = data.draw(worlds())
    table = judge(rows, vectors, near={"bits": 8}, semantic={"cosine": 0.9}).to_pylist()
    size = {row["clip_id"]: row["width"] * row["height"] for row in rows}
    for cluster in {row["duplicate_cluster"] for row in table}:
        members = [row for row in table if row["duplicate_cluster"] == cluster]
        first = min(members, key=lambda row: (-size[row["clip_id"]], row["clip_id"]))
        assert [row["clip_id"] for row in members if row["duplicate_keep"]] == [first["clip_id"]]
        assert {row["duplicate_of"] for row in members} == {None} | {first["clip_id"] for _ in members[1:]}
        assert min(row["clip_id"] for row in members) == cluster
        assert {row["duplicate_count"] for row in members} == {len(members)}


def test_a_chain_longer_than_the_rounds_drops_nothing_unseen(monkeypatch):
    monkeypatch.setattr(keep, "ROUNDS", 2)
    alike = [lambda one, other: np.abs(one - other) <= 1]
    duplicate_of, _ = keep.keep(np.zeros(9, np.int64), np.arange(9), np.arange(9), alike)
    assert duplicate_of.tolist() == [-1, 0, -1, 2, -1, -1, -1, -1, -1]


# --- one table, however it came about


OUTSIDE = [bit for bit in range(64) if not (banding.KEYS[0] | banding.KEYS[1]) >> bit & 1]


@st.composite
def worlds(draw):
    """Clips of three films whose frames have the same keys, so that crowds come about and hubs are displaced:
    a hub of another film joins nobody.
    """
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))

    def flipped(count: int) -> int:
        return sum(1 << int(bit) for bit in rng.choice(OUTSIDE, count, replace=False))

    films = [[frame ^ film for frame in looks(1, 4)] for film in (0, flipped(14), flipped(14))]
    numbers = draw(st.lists(st.integers(0, 200), min_size=1, max_size=20, unique=True))
    rows, vectors, embedded = [], {}, draw(st.booleans())
    for number in numbers:
        film, start, length = int(rng.integers(3)), int(rng.integers(0, 4)), int(rng.integers(1, 3))
        hashes = [frame ^ flipped(int(rng.integers(3))) for frame in films[film][start : start + length]]
        size = [(320, 192), (640, 360)][int(rng.integers(2))]
        content = f"content {rng.integers(40)}"
        rows.append(clip(number, hashes, size=size, content=content, source=f"s{rng.integers(40)} {content}"))
        if embedded and rng.random() < 0.9:  # around a circle: wherever a cell ends, a pair of neighbours is parted
            angle = rng.random() * 2 * np.pi
            vectors[number] = [np.cos(angle), np.sin(angle)]
    runs = draw(st.lists(st.sampled_from(numbers), max_size=3, unique=True))
    return rows, vectors, [numbers.index(number) for number in runs]


@pytest.fixture(scope="module")
def crowded():
    """Crowds of three hashes, one hub, and cells of four clips: the bounds of millions, reached by dozens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banding, "CROWD", 3)
        patch.setattr(banding, "HUBS", 1)
        patch.setattr(banding, "KEYS", banding.KEYS[:2])
        patch.setattr(semantic, "ALL_PAIRS", 4)
        patch.setattr(semantic, "CELL_CLIPS", 4)
        patch.setattr(semantic, "SAMPLE", 1)
        patch.setattr(semantic, "PLACES", 1)
        yield


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(worlds(), st.randoms())
def test_any_order_and_any_split_into_runs_gives_the_table_of_one_run(crowded, world, random):
    rows, vectors, cuts = world
    said = {"near": {"bits": 8}, "semantic": {"cosine": 0.9}}
    whole = judge(rows, vectors, **said)
    shuffled = random.sample(rows, len(rows))
    previous = None
    for end in sorted({*cuts, len(rows)} - {0}):
        part = shuffled[:end]
        ids = {int(row["clip_id"], 16) for row in part}
        previous = judge(part, {n: v for n, v in vectors.items() if n in ids}, previous, **said)
    assert previous.equals(whole)


@pytest.mark.parametrize(
    ("ours", "others", "new"),
    [([20, 21], [5], [30]), ([20, 21, 22, 23], [], [10, 11])],
    ids=["a key becomes a crowd", "a hub is displaced"],
)
def test_new_clips_that_unsettle_old_links_have_them_looked_at_again(crowded, monkeypatch, ours, others, new):
    """Above a crowd's bound only the hub, the smallest clip, is compared: then our clips are found no longer."""
    monkeypatch.setattr(banding, "KEYS", banding.KEYS[:1])
    (frame,) = looks(1, 1)
    other = frame ^ sum(1 << bit for bit in OUTSIDE[:20])  # the same key and another picture
    old = [clip(n, [frame]) for n in ours] + [clip(n, [other]) for n in others]
    now = old + [clip(n, [other]) for n in new]
    before = judge(old)
    assert clusters(before) == {tuple(ours)}
    assert clusters(judge(now, previous=before)) == clusters(judge(now)) == {tuple(others + new)}


def test_a_clip_that_is_gone_leaves_no_trace():
    same = looks(1)
    rows = [clip(1, same, size=(640, 360)), clip(2, same), clip(3, changed(same, 2))]
    before = judge(rows)
    assert judge(rows[1:], previous=before).equals(judge(rows[1:]))
    other = [rows[0], clip(2, looks(2)), rows[2]]  # measured anew
    assert judge(other, previous=before).equals(judge(other))


def test_a_second_run_looks_only_at_pairs_with_a_new_clip(monkeypatch):
    rows = [clip(n, looks(n // 2)) for n in range(400)]
    before = judge(rows[:396])
    compared: list[int] = []
    shared = Duplicates._kinds

    def counting(stage, clips):
        kinds = shared(stage, clips)
        hashes = kinds[1].frames.shared
        kinds[1].frames.shared = lambda one, *more: compared.append(len(one)) or hashes(one, *more)
        return kinds

    monkeypatch.setattr(Duplicates, "_kinds", counting)
    assert judge(rows, previous=before).equals(judge(rows))
    incremental, whole = sum(compared[:2]), sum(compared[2:])
    assert 0 < incremental <= 8 and whole >= 400


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_components_are_what_walking_the_links_finds(links):
    first, second = (np.array(side, np.int32) for side in (zip(*links, strict=True) if links else ((), ())))
    expected = list(range(30))
    for _ in range(30):
        for a, b in links:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert components(30, first, second).tolist() == expected


# --- crowds


def test_a_key_that_very_many_clips_share_does_not_explode():
    """5,000 clips with one key and nothing else in common: all pairs would be 12 million."""
    rng = np.random.default_rng(0)
    count, key = 5_000, banding.KEYS[0]
    values = rng.integers(0, 2**64, count, dtype=np.uint64) & ~np.uint64(key) | np.uint64(0x5555555555555555 & key)
    from curate.global_stages.duplicates.frames import FrameHashes

    frames = FrameHashes(np.arange(count), values, count)
    found = banding.Banding(frames, np.arange(count, dtype=np.int32), 64, True)
    everyone = np.ones(count, bool)
    assert len(found.candidates(everyone, everyone).first) < 40 * count
    found.close()


def test_a_film_that_thousands_copied_is_one_cluster():
    same = looks(1)
    rows = [clip(n, changed(same, 3, n)) for n in range(1500)]
    table = judge(rows)
    assert clusters(table) == {tuple(range(1500))}
    assert len(kept(table)) == 1


# --- what cannot be


def test_what_is_missing_is_named_in_one_line():
    with catalog([clip(1)]) as sql, pytest.raises(SettingsError, match="phash"):
        sql.execute("ALTER TABLE clips DROP COLUMN phash_frames")
        Duplicates(DuplicateSettings()).compute(sql, ALL, None)
    with pytest.raises(SettingsError, match="score is no SQL"):
        Duplicates(DuplicateSettings(score="aesthetic +")).check()
    with pytest.raises(ValueError, match="nothing to look for"):
        DuplicateSettings(exact=False, near=None)
    assert judge([clip(1)], select=f"{ALL} WHERE false").num_rows == 0


@pytest.mark.parametrize("score", ["random()", "unnest([1, 2])", "(SELECT 1)", "nosuch"])
def test_a_score_is_one_value_of_a_clip_s_own_columns(score):
    with pytest.raises(SettingsError, match="score"):
        judge([clip(1), clip(2)], score=score)


def test_a_duplicate_whose_source_is_there_is_kept_before_a_larger_one_whose_source_is_gone(tmp_path):
    here, moved = tmp_path / "here.mp4", tmp_path / "moved.mp4"
    here.write_bytes(b"a film")
    moved.write_bytes(b"a film")
    clips = [clip(1, content="a", size=(640, 480), uri=moved), clip(2, content="a", uri=here)]
    clips += [clip(3, content="b", uri=tmp_path / "c"), clip(4, content="b", size=(640, 480), uri=tmp_path / "d")]
    first = judge(clips)
    assert first["duplicate_keep"].to_pylist() == [True, False, False, True]
    moved.rename(tmp_path / "elsewhere.mp4")
    assert judge(clips)["duplicate_keep"].to_pylist() == [False, True, False, True], "both gone: as if both were there"
    again = judge(clips, previous=first)
    assert again.equals(judge(clips)), "also where nothing but the files has changed since the last run"
    (tmp_path / "elsewhere.mp4").rename(moved)
    assert judge(clips, previous=again).equals(first)
