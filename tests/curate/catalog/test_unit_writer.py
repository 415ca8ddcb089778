"""The writer of units: all rows of a unit together, nothing of a unit that failed, nothing twice."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.catalog.data_files import FileWriter
from curate.catalog.schema import BASE, PASS
from curate.catalog.unit_writer import SOURCES, FileSet, UnitWriter, WriterSettings, state_schema
from curate.errors import UserError
from stages.unit import Clip, Row, Source, Unit
from tests.full_disk import files_of_at_most

SCHEMAS = {name: BASE[name] for name in SOURCES} | {"scores": state_schema({"score": "double"})}


@pytest.fixture
def schemas():

    return {name: pa.schema([pa.field(PASS, pa.int64()), *schema]) for name, schema in SCHEMAS.items()}


@pytest.fixture
def writer(tmp_path) -> UnitWriter:
    for name in SCHEMAS:
        (tmp_path / name).mkdir()
    files = FileWriter(str(tmp_path), "b" * 32, 4)
    stamps: dict[str, Row] = {name: {"settings": "s", "run_id": "r"} for name in ("sources", "scores")}
    return UnitWriter(WriterSettings({"sources": files, "scores": files}, stamps, frozenset(["scores"])))


def unit(key: str, parts: int = 2, failure: str | None = None, redone: bool = False) -> list[Unit]:
    """The parts of one source, of one clip each."""
    source = Source(key, f"{key}.mp4")
    found = []
    for number in range(parts):
        clip = Clip({"clip_id": f"{key}-{number}", "source_id": key}, source, new=True)
        clip.thumbnail = clip.row | {"jpeg": b"picture"}
        clip.results["scores"] = clip.row | {"status": "done", "score": 0.5}
        found.append(Unit(key, [clip], source, part=number, last=number == parts - 1, redone=redone))
    found[-1].scanned = {"width": 64, "content_hash": "h"}
    found[-1].failure = failure
    return found


def read(tmp_path, files: FileSet) -> dict[str, list[dict]]:
    return {f.table: pq.read_table(tmp_path / f.table / f.name).to_pylist() for f in files.files}


def test_all_rows_of_a_unit_come_with_its_last_part_and_carry_the_pass(writer, schemas, tmp_path):
    parts = unit("a")
    with pytest.raises(ValueError, match="the last part of unit a is missing"):
        writer.add(parts[:1])
    writer.add(parts)
    found = writer.close(schemas)
    rows = read(tmp_path, found)
    assert {name: len(some) for name, some in rows.items()} == {"clips": 2, "thumbnails": 2, "scores": 2, "sources": 1}
    assert {row["pass"] for some in rows.values() for row in some} == {4}
    (source,) = rows["sources"]
    assert (source["status"], source["clips"], source["settings"], source["width"]) == ("done", 2, "s", 64)
    assert found.done_clips == {"scores": ["a-0", "a-1"]}
    assert found.redone == set()
    assert {file.table for file in found.of("sources")} == set(SOURCES)
    assert [file.table for file in found.of("scores")] == ["scores"]
    assert writer.close(schemas) is None


def test_of_a_unit_that_failed_only_its_reason_is_written(writer, schemas, tmp_path):
    writer.add([*unit("a", failure="no such codec", redone=True), *unit("b")])
    rows = read(tmp_path, found := writer.close(schemas))
    assert {row["source_id"] for name in ("clips", "thumbnails", "scores") for row in rows[name]} == {"b"}
    failed, done = sorted(rows["sources"], key=lambda row: row["source_id"])
    assert (failed["status"], failed["reason"], failed["clips"], failed["width"]) == ("failed", "no such codec", 0, 64)
    assert (done["status"], done["reason"], done["clips"]) == ("done", None, 2)
    assert found.redone == {"sources", "scores"}


def test_a_clip_of_the_catalog_whose_unit_failed_is_a_failed_row_of_what_it_lacks(writer, schemas, tmp_path):
    source = Source("a", "a.mp4", content_hash="h")
    clips = [Clip({"clip_id": f"a-{n}", "source_id": "a"}, source) for n in range(2)]
    clips[1].done = frozenset(["scores"])
    writer.add([Unit("a", clips, failure="its decoder died")])
    rows = read(tmp_path, writer.close(schemas))
    assert list(rows) == ["scores"]
    ((clip, status, reason),) = [(row["clip_id"], row["status"], row["reason"]) for row in rows["scores"]]
    assert (clip, status, reason) == ("a-0", "failed", "its decoder died")


def test_a_full_disk_loses_no_row_and_doubles_none(writer, schemas, tmp_path):
    writer.add(unit("a"))
    waiting = (writer.rows, writer.size)
    with files_of_at_most(2500), pytest.raises(OSError, match="too large"):
        writer.close(schemas)  # some tables' files are smaller than that
    assert (writer.rows, writer.size) == waiting
    found = writer.close(schemas)
    assert sorted(file.table for file in found.files) == sorted(SCHEMAS)
    assert len(read(tmp_path, found)["clips"]) == 2


def test_a_value_of_a_column_that_no_stage_declares_is_refused(writer, schemas):
    (only,) = unit("a", parts=1)
    only.clips[0].row["undeclared"] = 1
    writer.add([only])
    with pytest.raises(UserError, match=r"column 'undeclared' of clips is in no stage's signals\(\)"):
        writer.close(schemas)
