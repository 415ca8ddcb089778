"""Data files: whole or absent, named by run and pass, with statistics that hold no text."""

from __future__ import annotations

import datetime
import json
import math
import multiprocessing
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate.catalog.data_files
from curate.catalog.data_files import NAME, FileWriter, Rewrite, statistics
from tests.full_disk import files_of_at_most

RUN = "a" * 32
NUMBERS = st.none() | st.floats() | st.integers(-(2**53), 2**53).map(float)


@pytest.fixture
def writer(tmp_path: Path) -> FileWriter:
    (tmp_path / "clips").mkdir()
    return FileWriter(str(tmp_path), RUN, 7)


def rows(count: int = 3) -> pa.Table:
    return pa.table({"pass": [7] * count, "clip_id": [f"clip {i}" for i in range(count)], "jpeg": [b"\xff"] * count})


def test_a_file_is_named_by_its_run_and_pass_and_is_as_long_as_it_says(writer, tmp_path):
    made = writer.write("clips", rows())
    match = NAME.fullmatch(made.name)
    assert match is not None and match.groups() == (RUN, "7")
    path = tmp_path / "clips" / made.name
    assert (path.stat().st_size, made.rows) == (made.size, 3)
    assert pq.read_table(path).equals(rows())
    assert writer.write("clips", rows()).name != made.name
    assert NAME.fullmatch(f".{made.name}.0123456789abcdef.part") is not None  # what a killed writer leaves
    assert NAME.fullmatch("part-00000-c000.snappy.parquet") is None  # another program's


def write_and_die(folder: str, after: bool) -> None:
    real = os.replace

    def dying(*args):
        if after:
            real(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    curate.catalog.data_files.os.replace = dying  # type: ignore[assignment] # in a child process that ends here
    FileWriter(folder, RUN, 7).write("clips", rows())


@pytest.mark.parametrize("after", [False, True])
def test_a_writer_killed_at_the_rename_leaves_a_whole_file_or_one_that_nobody_reads(writer, tmp_path, after):
    child = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(str(tmp_path), after))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path / "clips")
    assert NAME.fullmatch(left) is not None
    assert left.endswith(".parquet") == after
    if after:
        assert pq.read_table(tmp_path / "clips" / left).equals(rows())


def test_a_file_that_does_not_fit_on_the_disk_leaves_nothing(writer, tmp_path):
    with files_of_at_most(100), pytest.raises(OSError, match="too large"):
        writer.write("clips", rows())
    assert os.listdir(tmp_path / "clips") == []


def test_statistics_have_the_range_of_numbers_and_times_and_never_text():
    day = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
    said = json.loads(
        statistics(
            pa.table(
                {
                    "pass": [3, 5],
                    "caption": ["secret", "words"],
                    "jpeg": [b"a", b"b"],
                    "at": pa.array([day, None], pa.timestamp("us", tz="UTC")),
                    "list": [["secret"], []],
                }
            )
        )
    )
    assert said["numRecords"] == 2
    assert said["minValues"] == {"pass": 3, "at": "2026-01-02T03:04:05.678901Z"}
    assert said["maxValues"] == {"pass": 5, "at": "2026-01-02T03:04:05.678901Z"}
    assert said["nullCount"] == {"pass": 0, "at": 1}


@given(st.lists(NUMBERS, max_size=5))
def test_statistics_are_json_and_right_or_absent_whatever_the_numbers(numbers):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    said = json.loads(statistics(pa.table({"x": pa.array(numbers, pa.float64())})), parse_constant=refuse)
    if "x" in said["minValues"]:
        known = [number for number in numbers if number is not None and not math.isnan(number)]
        assert (said["minValues"]["x"], said["maxValues"]["x"]) == (min(known), max(known))
    assert said["nullCount"]["x"] == numbers.count(None)


def test_a_rewrite_leaves_out_what_is_superseded_or_forgotten_and_adds_missing_columns(writer, tmp_path):
    old = writer.write("clips", pa.table({"pass": [1, 1, 2, 1], "clip_id": ["a", "b", "a", "c"]}))
    schema = pa.schema({"pass": pa.int64(), "clip_id": pa.string(), "new": pa.float64()})
    superseded = {1: pa.array(["a"])}
    (made,) = Rewrite(writer, "clips", (old.name,), schema, "clip_id", superseded, pa.array(["c"]))()
    found = pq.read_table(tmp_path / "clips" / made.name)
    assert found.schema.names == schema.names
    assert sorted(zip(found["pass"].to_pylist(), found["clip_id"].to_pylist(), strict=True)) == [(1, "b"), (2, "a")]
    assert found["new"].null_count == 2
    assert (tmp_path / "clips" / old.name).exists()  # until the driver has committed
    assert Rewrite(writer, "clips", (old.name,), schema, "clip_id", None, pa.array(["a", "b", "c"]))() == []


def test_a_rewrite_closes_a_file_at_so_many_bytes(writer):
    names = tuple(writer.write("clips", rows(100)).name for _ in range(4))
    made = Rewrite(writer, "clips", names, rows().schema, "clip_id", most_bytes=2 * rows(100).nbytes)()
    assert [file.rows for file in made] == [200, 200]
