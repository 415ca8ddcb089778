"""Duplicates between two catalogs: films that were copied, encoded again, or only look alike."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.audit.against import find_against
from curate.audit.figure import read_audit
from curate.audit.parts import find_parts
from curate.audit.relations import describe_other, prepared
from curate.audit.sections.leakage import figures
from curate.audit.selection import EVERY_CLIP
from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from tests.catalog_rows import commit_rows
from tests.curate.audit.made import Made, audit
from tests.curate.audit.test_made_up import FEW
from tests.curate.running import ask, clipmill, cut_film, ingest, pipelines
from tests.hostile import write_video

BITS, SHARE = 4, 0.5
EXACT, NEAR, SEMANTIC, ANY = "exact duplicates", "near duplicates", "semantic duplicates", "duplicates of any kind"


def encoded_again(film: Path, to: Path) -> Path:
    """The same pictures, smaller and at another quality."""
    with av.open(str(film)) as opened:
        frames = [frame.reformat(width=64, height=48).to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    return write_video(to, frames, options={"crf": "30"})


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A catalog of four films; another of a copy of one, one encoded again, and one of its own."""
    folder = tmp_path_factory.mktemp("films")
    mine, theirs, file = folder / "mine", folder / "theirs", pipelines(folder)
    mine.mkdir()
    theirs.mkdir()
    for number in range(4):
        cut_film(mine / f"film_{number}.mp4", number)
    shutil.copy(mine / "film_0.mp4", theirs / "copied.mp4")
    encoded_again(mine / "film_1.mp4", theirs / "encoded_again.mp4")
    cut_film(theirs / "new.mp4", 99)
    for name, inputs in (("one", mine), ("two", theirs)):
        assert ingest(folder / name, inputs, file=file) == 0
    return folder / "one", folder / "two"


def shared(folder, one="trained on", other="second dataset"):
    rows = read_audit(folder).figure("leakage.shared").records()
    return {row["kind"]: row for row in rows if (row["one"], row["other"]) == (one, other)}


def test_a_film_encoded_again_in_another_catalog_is_a_near_duplicate_and_a_copy_an_exact_one(films, tmp_path):
    one, two = films
    done = clipmill("audit", "--catalog", one, "-o", tmp_path / "out", "--against", two)
    assert done.returncode == 0, done.stderr
    clips = dict(ask(two, "SELECT split_part(uri, '/', -1), count(*) FROM clips GROUP BY 1"))
    assert len(clips) == 3 and all(clips.values())
    rows = shared(tmp_path / "out")
    assert (rows["the clip"]["shared"], rows["the source"]["shared"]) == (0, 0)
    assert rows["a source of the same bytes"]["other_clips"] == rows[EXACT]["other_clips"] == clips["copied.mp4"]
    found = clips["copied.mp4"] + clips["encoded_again.mp4"]
    assert rows[NEAR]["other_clips"] == rows[ANY]["other_clips"] == found
    assert rows[ANY]["other_share"] == pytest.approx(found / sum(clips.values()))
    assert SEMANTIC not in rows
    examples = read_audit(tmp_path / "out").figure("leakage.examples").records()
    named = {row["key"] for row in examples if row["kind"] == NEAR}
    assert named == {key for (key,) in ask(one, "SELECT clip_id FROM clips WHERE uri SIMILAR TO '.*film_[01].mp4'")}


def test_the_sql_beside_the_leak_counts_it_again_in_clipmill_sql(films, tmp_path):
    one, two = films
    assert clipmill("audit", "--catalog", one, "-o", tmp_path / "out", "--against", two).returncode == 0
    found = read_audit(tmp_path / "out")
    figure = found.figure("leakage.shared")
    done = clipmill("sql", found.runnable(figure), "--catalog", one, "--against", two, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == figure.records()


def test_a_selection_leaks_only_what_it_has(films, tmp_path):
    one, two = films
    select = "SELECT clip_id FROM clips WHERE uri NOT LIKE '%film_1.mp4' AND uri NOT LIKE '%copied.mp4'"
    done = clipmill("audit", "--catalog", one, "-o", tmp_path / "out", "--against", two, "--select", select)
    assert done.returncode == 0, done.stderr
    assert {kind: row["shared"] for kind, row in shared(tmp_path / "out").items()}[ANY] == 0


def clip(number, source, hashes, vector=None, span=(0, 50)):
    row = {"clip_id": f"{number:032x}", "source_id": f"{source:032x}", "media": "video", "start_s": 0.0, "end_s": 2.0}
    row |= {"start_pts": span[0], "end_pts": span[1], "width": 64, "height": 48}
    return row | {"phash_frames": "".join(f"{value:016x}" for value in hashes)}, vector


def write(folder, clips, said, model="made", contents=None):
    """A catalog of these clips, whose last run looked for duplicates with the settings `said`."""
    from tests.curate.audit import made as rows_of_made

    sources = sorted({row["source_id"] for row, _ in clips})
    made = Made(clips=[row for row, _ in clips])
    made.sources = [
        {"source_id": key, "uri": f"s3://x/{key}", "status": "done", "media": "video", "clips": 1,
         "content_hash": (contents or {}).get(int(key, 16), f"{folder}/{key}")} for key in sources
    ]  # fmt: skip
    types = {**rows_of_made.TYPES, "clips": {"phash_frames": "string"}}
    catalog = Catalog.open_or_create(str(folder))
    with Ledger(catalog, "sources", "source_id", "made") as ledger:
        commit_rows(ledger, {"clips": made.clips, "sources": made.sources}, types)
    vectors = [
        {"clip_id": row["clip_id"], "source_id": row["source_id"], "status": "done", "dim": len(vector),
         "embedding": np.asarray(vector, np.float16).tobytes()} for row, vector in clips if vector is not None
    ]  # fmt: skip
    if vectors:
        with Ledger(catalog, "embeddings", "clip_id", "made") as ledger:
            commit_rows(ledger, {"embeddings": vectors}, {"embeddings": {
                "status": "string", "reason": "string", "dim": "int32", "embedding": "binary"}})  # fmt: skip
    stages = {"duplicates": {"stages": [{"duplicates": said}]}}
    stages |= {"embeddings": {"stages": [{"embed": {"model": model}}]}}
    catalog.start_run({"run_id": "r", "recipe": "unique", "recipe_text": "", "inputs": [], "settings": {},
                       "stages": stages})  # fmt: skip
    return str(folder)


HASHES = st.lists(st.integers(0, 5).map(lambda n: (0xF0F0F0F0F0F0F0F0 >> n) ^ (0x9E3779B97F4A7C15 * n & (2**64 - 1))),
                  max_size=4)  # fmt: skip
FLIPPED = st.lists(st.integers(0, 63), max_size=5)


@st.composite
def two_catalogs(draw):
    sides = []
    for first in (0, 100):
        clips = []
        for number in range(draw(st.integers(0, 6))):
            hashes = [value ^ sum(1 << bit for bit in set(draw(FLIPPED))) for value in draw(HASHES)]
            clips.append(clip(first + number, draw(st.integers(0, 3)) + first * draw(st.integers(0, 1)), hashes))
        sides.append(clips)
    return sides


@FEW
@given(two_catalogs())
def test_the_clips_with_near_duplicates_are_those_that_comparing_all_pairs_finds(sides):
    def frames(row):
        values = {int(row["phash_frames"][at : at + 16], 16) for at in range(0, len(row["phash_frames"]), 16)}
        return {value for value in values if value.bit_count() >= 12}

    def alike(one, other):
        if one["source_id"] == other["source_id"]:
            return False
        mine, theirs = frames(one), frames(other)
        near = [(a, b) for a in mine for b in theirs if (a ^ b).bit_count() <= BITS]
        return any(
            len({pair[at] for pair in near}) / max(1, len(all_)) > SHARE for at, all_ in enumerate((mine, theirs))
        )

    mine, theirs = ([row for row, _ in clips] for clips in sides)
    wanted = {b["clip_id"] for b in theirs if any(alike(a, b) for a in mine)}
    with tempfile.TemporaryDirectory() as folder:
        uri, other = (
            write(Path(folder, name), clips, {"near": {"bits": BITS, "share": SHARE}})
            for name, clips in zip(("one", "two"), sides, strict=True)
        )
        rows = leaks(uri, other, Path(folder))
        if mine and theirs:
            assert rows[NEAR]["other_clips"] == len(wanted)
            assert rows[NEAR]["one_clips"] == sum(any(alike(a, b) for b in theirs) for a in mine)


def leaks(uri, other, folder):
    """The rows of `leakage.shared` by kind, without the rest of an audit."""
    opened = Catalog.open(uri)
    against = find_against(opened, other)
    with connect(opened) as sql:
        beside = describe_other(sql, against, None)
        with prepared(sql, opened, EVERY_CLIP, find_parts(None, None, against), folder, beside) as subject:
            figure = next(each for each in figures(subject) if each.id == "leakage.shared")
    return {row["kind"]: row for row in figure.records()}


def test_what_looks_alike_by_embeddings_leaks_where_both_are_of_one_model(tmp_path):
    said = {"exact": True, "near": {"bits": BITS}, "semantic": {"cosine": 0.9}}
    plain = 0xF0F0F0F0F0F0F0F0
    mine = [clip(1, 1, [plain], [1, 0]), clip(2, 2, [plain >> 1], [0, 1]), clip(3, 3, [~plain % 2**64], [0.7, 0.7])]
    theirs = [clip(11, 11, [plain ^ 1], [-1, 0]), clip(12, 12, [], [0.05, 1]), clip(13, 13, [], [0, -1]),
              clip(14, 14, [], [0.1, -1])]  # fmt: skip
    uri = write(tmp_path / "one", mine, said, contents={3: "same"})
    other = write(tmp_path / "two", theirs, said, contents={13: "same"})
    strange = write(tmp_path / "strange", theirs, said, model="another", contents={13: "same"})
    audit(uri, tmp_path / "out", against=other, held_out=0.4)
    rows = shared(tmp_path / "out")
    held = shared(tmp_path / "out", "held out")
    for kind, clips in {EXACT: 1, NEAR: 1, SEMANTIC: 1, ANY: 3}.items():
        assert rows[kind]["other_clips"] + held[kind]["other_clips"] == clips, kind
        assert rows[kind]["one_clips"] + held[kind]["one_clips"] == clips, kind
    assert {EXACT, NEAR}.isdisjoint(shared(tmp_path / "out", "trained on", "held out"))
    found = audit(uri, tmp_path / "strange_out", against=strange)
    assert SEMANTIC not in shared(tmp_path / "strange_out")
    assert "not known to be of one model" in found.figure("leakage.shared").note
