"""Manifests as files: the type of a column comes from the whole file, and every cell stays what was written."""

import csv
import datetime
import json
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.schema import TIME, rows_to_table
from curate.errors import UserError
from curate.run.manifests.kinds import LARGE
from curate.run.manifests.manifest import Manifest, join_types

BLOCK = 1 << 20  # bytes: more than any reader looks at before it gives the first rows


def read(path, stored=None):
    """(types, rows without their uri) of one manifest."""
    manifest = Manifest(str(path))
    types = join_types(stored or {}, [manifest])
    return types, [{n: v for n, v in row.items() if n != "uri"} for row in manifest.entries(types)]


def cells(tmp_path, name, values, stored=None):
    """(type, values) of the column `x` in a manifest of one kind, which holds these texts (CSV) or values."""
    path = tmp_path / f"m.{name}"
    if name == "csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("path", "x"), *((f"{i}.mp4", v) for i, v in enumerate(values))])
    else:
        path.write_text("".join(json.dumps({"path": f"{i}.mp4", "x": v}) + "\n" for i, v in enumerate(values)))
    types, rows = read(path, stored)
    return types.get("x"), [row.get("x") for row in rows]


@pytest.mark.parametrize(
    ("texts", "kind", "values"),
    [
        (["1", "-20", "0"], pa.int64(), [1, -20, 0]),
        (["10", "10.5", ""], pa.float64(), [10.0, 10.5, None]),
        (["1e3", "-.5", "NA", "nan"], pa.float64(), [1000.0, -0.5, None, None]),
        (["007", "8"], pa.string(), ["007", "8"]),
        (["007.5", "8"], pa.string(), ["007.5", "8"]),
        (["+49301", "8"], pa.string(), ["+49301", "8"]),
        (["1e999", "1"], pa.string(), ["1e999", "1"]),
        (["9007199254740993", "0.5"], pa.string(), ["9007199254740993", "0.5"]),
        (["18446744073709551615", "7"], LARGE, [2**64 - 1, 7]),
        (["-9223372036854775809"], LARGE, [-(2**63) - 1]),
        (["123456789012345678901", "7"], pa.string(), ["123456789012345678901", "7"]),
        (["1" * 60], pa.string(), ["1" * 60]),
        (["true", "FALSE", ""], pa.bool_(), [True, False, None]),
        (["true", "1"], pa.string(), ["true", "1"]),
        (["2024-02-29"], pa.date32(), [datetime.date(2024, 2, 29)]),
        (["2024-02-30"], pa.string(), ["2024-02-30"]),
        (["2024-01-05T10:00:00+02:00"], pa.string(), ["2024-01-05T10:00:00+02:00"]),
        (["NA", "null"], pa.string(), ["NA", "null"]),
        (["NA", "Namibia", " padded "], pa.string(), ["NA", "Namibia", " padded "]),
        (["two\nlines", 'a "word", more'], pa.string(), ["two\nlines", 'a "word", more']),
    ],
)
def test_a_csv_cell_is_what_was_written(tmp_path, texts, kind, values):
    assert cells(tmp_path, "csv", texts) == (kind, values)


def test_a_time_without_a_zone_is_utc(tmp_path):
    kind, values = cells(tmp_path, "csv", ["2024-01-05 10:00:00", "2024-01-05T10:00:00.5"])
    assert kind == TIME
    assert [value.isoformat() for value in values] == ["2024-01-05T10:00:00+00:00", "2024-01-05T10:00:00.500000+00:00"]


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ([1, 2.5, None], pa.float64(), [1, 2.5, None]),
        ([7, "007"], pa.string(), ["7", "007"]),
        ([2**64 - 1, 7], LARGE, [2**64 - 1, 7]),
        ([2**53 + 1, 0.5], pa.string(), [str(2**53 + 1), "0.5"]),
        ([True, None], pa.bool_(), [True, None]),
        ([True, 1, "a", [1, {"b": 2}]], pa.string(), ["true", "1", "a", '[1, {"b": 2}]']),
        ([float("nan"), 2], pa.float64(), [None, 2]),
        (["2024-02-29", "1"], pa.string(), ["2024-02-29", "1"]),
        ([None, None], None, [None, None]),
    ],
)
def test_a_jsonl_value_is_what_was_written(tmp_path, values, kind, kept):
    assert cells(tmp_path, "jsonl", values) == (kind, kept)


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_a_column_s_type_does_not_depend_on_where_a_cell_stands(tmp_path, name):
    filler = ["x" * 100] * (BLOCK // 50)
    path = tmp_path / f"m.{name}"
    rows = [("path", "text", "score", "empty", "id")]
    rows += [(f"{i}.mp4", text, 1, None, 5) for i, text in enumerate(filler)]
    rows += [("last.mp4", "y", 0.5, "here", 2**64 - 1)]
    with open(path, "w", newline="") as file:
        if name == "csv":
            csv.writer(file).writerows(rows)
        else:
            file.writelines(json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in rows[1:])
    assert path.stat().st_size > 2 * BLOCK
    types, found = read(path)
    assert types == {"text": pa.string(), "score": pa.float64(), "empty": pa.string(), "id": LARGE}
    assert found[0] == {"text": "x" * 100, "score": 1.0, "empty": None, "id": 5}
    assert found[-1] == {"text": "y", "score": 0.5, "empty": "here", "id": 2**64 - 1}


def test_parquet_keeps_what_a_catalog_has_a_type_for(tmp_path):
    at = 1_700_000_000_123_456_789
    table = pa.table(
        {
            "file_name": ["a.mp4", "b.mp4"],
            "id": pa.array([7, 2**64 - 1], pa.uint64()),
            "small": pa.array([7, 8], pa.uint64()),
            "score": pa.array([0.5, None], pa.float32()),
            "at": pa.array([0, at], pa.timestamp("ns", "Europe/Berlin")),
            "price": pa.array([Decimal("1.50"), Decimal("20.25")]),
            "tags": pa.array(["x", "y"]).dictionary_encode(),
            "nested": [[1], [2, 3]],
            "nothing": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    types, rows = read(tmp_path / "m.parquet")
    assert types["id"] == LARGE and types["small"] == pa.int64()
    assert "nothing" not in types
    stored = rows_to_table("sources", rows, types).select(list(types)).to_pylist()
    assert [row["id"] for row in stored] == [7, 2**64 - 1]
    assert [row["price"] for row in stored] == [Decimal("1.50"), Decimal("20.25")]
    assert [row["tags"] for row in stored] == ["x", "y"]
    assert [json.loads(row["nested"]) for row in stored] == [[1], [2, 3]]
    assert stored[1]["at"].timestamp() == pytest.approx(at / 1e9, abs=1e-6)
    assert stored[0]["score"] == 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-(10**22), 10**22).map(str),
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
            st.sampled_from(
                ["", "007", "0", "-0", "NA", "true", "2024-01-05", "a", "1e400", "12345678901234567890123"]
            ),
        ),
        max_size=12,
    ),
    st.sampled_from([None, "text", "float"]),
)
def test_a_cell_says_the_same_number_or_the_same_text_as_written(tmp_path_factory, texts, before):
    stored = {"text": {"x": pa.string()}, "float": {"x": pa.float64()}, None: {}}[before]
    try:
        kind, values = cells(tmp_path_factory.mktemp("m"), "csv", texts, stored)
    except UserError as error:
        assert before == "float" and "is DOUBLE in the catalog" in str(error)
        return
    for text, value in zip(texts, values, strict=True):
        if value is None:
            assert text == "" or (text == "NA" and kind != pa.string())
        elif isinstance(value, str):
            assert value == text
        elif isinstance(value, float):
            assert value == float(text)
        elif isinstance(value, bool | datetime.date):
            assert str(value).lower() == text
        else:
            assert str(value) == text


@pytest.mark.parametrize(
    ("stored", "texts", "kind", "values"),
    [
        (pa.int64(), ["10.5"], pa.float64(), [10.5]),
        (pa.float64(), ["10"], pa.float64(), [10.0]),
        (pa.int64(), ["18446744073709551615"], LARGE, [2**64 - 1]),
        (LARGE, ["7"], LARGE, [7]),
        (pa.int64(), ["007"], pa.string(), ["007"]),
        (pa.string(), ["7", "10.50"], pa.string(), ["7", "10.50"]),
    ],
)
def test_a_later_manifest_widens_a_column_and_keeps_its_own_cells(tmp_path, stored, texts, kind, values):
    assert cells(tmp_path, "csv", texts, {"x": stored}) == (kind, values)


@pytest.mark.parametrize(
    ("stored", "text"), [(pa.float64(), "good"), (pa.bool_(), "3"), (LARGE, "0.5"), (pa.int64(), "true")]
)
def test_a_later_manifest_of_another_kind_is_refused_by_column_and_types(tmp_path, stored, text):
    with pytest.raises(UserError, match=r"column 'x' of sources is .* in the catalog, but now comes as .*one type"):
        cells(tmp_path, "csv", [text], {"x": stored})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "path,a,a\nx,1,2\n", "two columns are called 'a'"),
        ("m.csv", "path,Score,score\nx,1,2\n", "'Score' and 'score' would be one"),
        ("m.csv", "path,a\nx,1\ny,2,3\n", "Row #3: Expected 2 columns"),
        ("m.csv", "path,a\nx,1\n,2\n", "row 2: path is None"),
        ("m.jsonl", '{"path": "x"}\n{"url": "y"}\n', "row 2: path is None"),
        ("m.csv", "path,a\nx,\xe9\n", r"is not UTF-8 \(row 2\): save it as UTF-8"),
    ],
)
def test_a_wrong_manifest_is_one_clear_line_before_any_row(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=words) as caught:
        _ = Manifest(str(tmp_path / name)).types
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "naming", "kept"),
    [
        ("file_name,text", "file_name", {"text"}),
        ("video_path,caption", "video_path", {"caption"}),
        ("Filename,x", "Filename", {"x"}),
        ("id,contentUrl", "contentUrl", {"id"}),
        ("url,path", "path", {"url"}),
        ("video,uri", "uri", {"video"}),
    ],
)
def test_the_first_known_name_names_the_source_and_the_others_are_columns(tmp_path, header, naming, kept):
    columns = header.split(",")
    (tmp_path / "m.csv").write_text(header + "\n" + ",".join(f"{name}.mp4" for name in columns) + "\n")
    manifest = Manifest(str(tmp_path / "m.csv"))
    assert manifest.naming == naming
    types = join_types({}, [manifest])
    assert set(types) == kept
    [row] = manifest.entries(types)
    assert row["uri"] == str(tmp_path / f"{naming}.mp4")


def test_a_manifest_without_a_known_name_says_which_are_known_and_what_it_has(tmp_path):
    (tmp_path / "m.csv").write_text("name,caption\nx,y\n")
    with pytest.raises(UserError, match=r"`uri`.*file_name.*video_path.*url.*only 'name', 'caption': rename one"):
        _ = Manifest(str(tmp_path / "m.csv")).types


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "path;caption\na.mp4;x\n", "one column, 'path;caption'.*by commas here, not by ';'"),
        ("m.csv", "path\tcaption\na.mp4\tx\n", r"by commas here, not by '\\t'"),
        ("m.jsonl", "", "an empty manifest"),
    ],
)
def test_a_manifest_of_another_sign_between_cells_or_of_nothing_is_told_so(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        _ = Manifest(str(tmp_path / name)).types


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_quote_that_is_never_closed_is_refused_and_one_that_is_may_hold_line_breaks(tmp_path, end):
    file = tmp_path / "m.csv"
    file.write_bytes(b'path,text\na.mp4,"two\nlines "' + end.encode())
    manifest = Manifest(str(file))
    assert [row["text"] for row in manifest.entries(join_types({}, [manifest]))] == ["two\nlines "]
    file.write_bytes(b'path,text\na.mp4,x\nb.mp4,"open\nc.mp4,y' + end.encode())
    with pytest.raises(UserError, match="row 2: the quote before 'open' is never closed"):
        _ = Manifest(str(file)).types


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    code = """
import resource, sys
from curate.run.manifests.manifest import Manifest, join_types
manifest = Manifest(sys.argv[1])
types = join_types({}, [manifest])
print(sum(1 for _ in manifest.entries(types)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for rows in (50_000, 800_000):
        path = tmp_path / f"{rows}.csv"
        with open(path, "w") as file:
            file.write("path,caption,score\n")
            file.writelines(f"{i}.mp4,a caption that says what is to be seen in film {i},{i}\n" for i in range(rows))
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        count, peak = map(int, done.stdout.split())
        assert count == rows
        peaks.append(peak)
    assert (tmp_path / "800000.csv").stat().st_size > 50 << 20
    assert peaks[1] - peaks[0] < 24 << 10, peaks  # KiB
