"""The hashes that a worker takes of a clip's row are those that SQL takes of the same row."""

import json
import struct

import duckdb
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.shards.changed import PARTS, changed_sql
from stages.encode.columns import condition_values
from stages.shards.made_of import captions_hash, conditions_hash, crop_hash, window_hash

CONTRACT = json.dumps({"text": {"fields": {"text": "caption", "text_odd name": "odd name"}}})
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.none() | st.integers(0, 2**31 - 1)
rows = st.fixed_dictionaries(
    {
        "caption": texts,
        "odd name": texts,
        **{f"crop_{name}": numbers for name in "xywh"},
        "width": st.integers(1, 9000),
        "height": st.integers(1, 9000),
        "start_pts": st.integers(-(2**60), 2**60),
        "end_pts": st.integers(-(2**60), 2**60),
        "time_base_num": st.integers(1, 2**31 - 1),
        "time_base_den": st.integers(1, 2**31 - 1),
        "media": st.sampled_from(["video", "image", None]),
        "hdr": st.sampled_from(["tone_map", "clip", None]),
        "deinterlace": st.sampled_from(["auto", "off", None]),
        "real": st.none() | st.floats(allow_infinity=False),
        "small": st.none() | st.floats(width=32, allow_infinity=False),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "flag": st.none() | st.booleans(),
    }
)
CONDITIONS = ["real", "small", "whole", "flag"]
TYPES = {"caption": pa.string(), "odd name": pa.string(), **{f"crop_{name}": pa.int64() for name in "xywh"},
         "width": pa.int32(), "height": pa.int32(), "start_pts": pa.int64(), "end_pts": pa.int64(),
         "time_base_num": pa.int32(), "time_base_den": pa.int32(), "media": pa.string(),
         "hdr": pa.string(), "deinterlace": pa.string(),
         "real": pa.float64(), "small": pa.float32(), "whole": pa.int64(), "flag": pa.bool_()}  # fmt: skip
ODD = dict.fromkeys(TYPES) | {"real": float("nan"), "small": -0.0, "caption": " \x00,\u00a0", "media": "video"}
ODD |= {"width": 3, "height": 2, "start_pts": 0, "end_pts": 1, "time_base_num": 1, "time_base_den": 24}


def made_of(row: dict, fps: float = 23.976, bucket: str = "9x32x48") -> dict:
    """What a worker writes into the row of a clip."""
    return {
        "contract": CONTRACT, "bucket": bucket, "window_fps": fps, "condition_names": json.dumps(CONDITIONS),
        "captions_hash": captions_hash(row[name] for name in ("caption", "odd name")),
        "crop_hash": crop_hash(row), "window_hash": window_hash(row, fps, bucket),
        "conditions_hash": conditions_hash(condition_values(CONDITIONS, row).values()),
    }  # fmt: skip


def changed(clips: list[dict], latents: list[dict]) -> list[set[str]]:
    """The parts that SQL finds changed, for each clip and its row of latents."""
    columns = ["contract", "bucket", "condition_names", *(f"{part}_hash" for part in PARTS)]
    made = {name: pa.array([row[name] for row in latents], pa.string()) for name in columns}
    for name in ("shard", "shard_hash", "index_hash", "clip_id", "status"):
        made[name] = pa.array([f"{name}{at:04}" for at in range(len(clips))])
    made |= {"window_fps": [row["window_fps"] for row in latents], "shard_bytes": [1] * len(clips)}
    now = {name: pa.array([row[name] for row in clips], kind, from_pandas=False) for name, kind in TYPES.items()}
    with duckdb.connect() as sql:
        sql.execute("CREATE SCHEMA raw")
        sql.register("given", pa.table(made))
        sql.register("clips_given", pa.table(now | {"clip_id": made["clip_id"]}))
        sql.execute("CREATE VIEW clips AS FROM clips_given; CREATE TABLE raw.latents AS FROM given")
        found = changed_sql(sql, "latents")
        answers = sql.execute(
            f"SELECT {', '.join(found.values())} FROM clips JOIN raw.latents AS made USING (clip_id) ORDER BY clip_id"
        ).fetchall()
    return [{part for part, is_changed in zip(PARTS, row, strict=True) if is_changed} for row in answers]


@settings(max_examples=25, deadline=None)
@given(some=st.lists(rows, min_size=1, max_size=40))
@example(some=[ODD])
def test_the_row_a_worker_writes_is_the_one_that_sql_expects(some):
    assert changed(some, [made_of(row) for row in some]) == [set()] * len(some)


@settings(max_examples=25, deadline=None)
@given(some=st.lists(st.tuples(rows, rows, st.sampled_from(list(TYPES))), min_size=1, max_size=40))
def test_what_differs_is_found_and_nothing_else(some):
    now = [row | {name: other[name]} for row, other, name in some]
    before, after = [made_of(row) for row, _, _ in some], [made_of(row) for row in now]
    wanted = [
        {part for part in PARTS if was[f"{part}_hash"] != is_now[f"{part}_hash"]}
        for was, is_now in zip(before, after, strict=True)
    ]
    assert changed(now, before) == wanted
    for (row, other, name), parts in zip(some, wanted, strict=True):
        if name in ("caption", "odd name"):
            assert ("captions" in parts) == ((row[name] or "") != (other[name] or ""))
        if name == "real":
            assert ("conditions" in parts) == (_bits(row[name]) != _bits(other[name]))
        if name in ("start_pts", "height") and row[name] != other[name]:
            assert "window" in parts


def test_a_box_of_the_whole_picture_is_no_box():
    row = {"width": 64, "height": 48}
    whole = {"crop_x": 0, "crop_y": 0, "crop_w": 64, "crop_h": 48}
    assert crop_hash(row) == crop_hash(row | whole) != crop_hash(row | whole | {"crop_h": 46})


def test_captions_of_one_text_in_other_fields_are_other_captions():
    assert len({captions_hash(each) for each in (["a", ""], ["", "a"], ["a"], ["a,"], ["", ""])}) == 5


def test_a_row_without_hashes_has_not_changed():
    row = dict.fromkeys(TYPES) | {"width": 3, "height": 2}
    nothing = dict.fromkeys(made_of(row | {"real": 1.0})) | {"bucket": "1x8x8", "window_fps": 8.0}
    assert changed([row], [nothing]) == [set()]


def _bits(value: float | None) -> bytes:
    return struct.pack(">d", float("nan") if value is None or value != value else value)
