"""`clipmill columns`: of a catalog with its manifest's columns and stages of other names, and as documented."""

import csv
import io
import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from curate.cli.main import main
from tests.curate.running import ask, pipelines
from tests.hostile import moving_square, write_video

RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: {min_seconds: 0}
      - cut: {detector: fixed, seconds: 1, min_seconds: 0.5}
      - measure: [motion, exposure]
  duplicates:
    stages:
      - duplicates: {near: null, score: end_s - start_s}
    select: SELECT * FROM clips
  again:
    stages:
      - duplicates: {as: copies, near: null}
    select: SELECT * FROM clips
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A catalog of one film with a manifest, of which the stage `duplicates` has filled two tables."""
    place = tmp_path_factory.mktemp("columns")
    write_video(place / "a.mp4", moving_square(48, 96, 72))
    (place / "films.csv").write_text(f"path,shooting_day,mood\n{place / 'a.mp4'},3,calm\n")
    file = pipelines(place, RECIPES)
    run = ["run", "--catalog", str(place / "catalog"), "--pipelines", str(file), "--engine", "inline"]
    assert main([*run, "ingest", "--input", str(place / "films.csv")]) == 0
    assert main([*run, "duplicates", "again"]) == 0
    return str(place / "catalog")


def listed(capsys, *arguments):
    assert main(["columns", *arguments, "--format", "json"]) == 0
    return {(row["table"], row["column"]): row for row in json.loads(capsys.readouterr().out)}


def test_every_column_of_every_view_is_listed_with_its_type(catalog, capsys):
    found = listed(capsys, "--catalog", catalog)
    tables = "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal"
    for (table,) in ask(catalog, tables):
        described = {row[0]: row[1] for row in ask(catalog, f"DESCRIBE {table}")}
        assert {column: row["type"] for (of, column), row in found.items() if of == table} == described


def test_every_column_of_a_catalog_has_a_stage_and_a_meaning(catalog, capsys):
    for place, row in listed(capsys, "--catalog", catalog).items():
        assert row["stage"] and row["meaning"], place


def test_columns_of_a_manifest_are_told_from_clipmill_s_own(catalog, capsys):
    found = listed(capsys, "--catalog", catalog)
    assert found["sources", "mood"]["stage"] == found["sources", "shooting_day"]["stage"] == "manifest"
    unknown = {place for place, row in found.items() if row["meaning"] == "column of your manifest"}
    assert unknown == {(table, column) for table in ("sources", "clips") for column in ("shooting_day", "mood")}
    assert found["clips", "licence"]["meaning"] == "licence of the film itself"


def test_a_stage_under_another_name_is_described_there_and_in_clips(catalog, capsys):
    found = listed(capsys, "--catalog", catalog)
    kind = found["duplicates", "duplicate_kind"]
    assert kind["stage"] == "duplicates" and "semantic" in kind["meaning"]
    for place in (("copies", "copies_duplicate_kind"), ("clips", "copies_duplicate_kind"), ("clips", "duplicate_kind")):
        assert (found[place]["stage"], found[place]["meaning"]) == ("duplicates", kind["meaning"])
    assert found["clips", "luma_mean"]["stage"] == "measure: [exposure]"
    assert found["clips", "luma_mean"]["unit"] == "0-255"


def test_one_table_is_printed_readably_and_all_of_it(catalog, capsys):
    assert main(["columns", "gates", "--catalog", catalog]) == 0
    said = capsys.readouterr().out
    assert said.startswith("gates: one row is a gate")
    assert all(row[0] in said for row in ask(catalog, "DESCRIBE gates")) and "clip_id" not in said


def test_without_a_catalog_the_documented_columns_are_listed(capsys):
    found = listed(capsys)
    assert found["latents", "decode_psnr"]["unit"] == "dB"
    assert found["embeddings", "temporal_consistency"]["stage"] == "embed"
    assert main(["columns", "clips", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["column"] for row in rows} == {column for table, column in found if table == "clips"}
    assert list(rows[0]) == ["table", "column", "type", "unit", "stage", "meaning"]


def test_a_column_is_shown_by_its_name_alone_in_every_table_that_has_it(capsys):
    assert main(["columns", "motion", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["table"], row["column"], row["stage"]) for row in rows] == [("clips", "motion", "measure: [motion]")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["motoin"], "did you mean 'motion'?"),
        (["clip"], "no table or column 'clip' is documented; did you mean 'clips'?"),
        (["clips", "--catalog", "nowhere"], "no catalog at"),
        (["clips", "--catalog", ""], "got an empty text"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, words):
    try:
        code = main(["columns", *arguments])
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and words in said.err and said.err.count("\n") == 1


@pytest.mark.slow
def test_the_installed_package_carries_the_words_without_the_docs(tmp_path):
    """A wheel that is unpacked elsewhere answers as the checkout does."""
    root = __import__("curate").__path__[0] + "/.."
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    source = tmp_path / "source"
    for name in ("curate", "stages", "models", "train"):
        shutil.copytree(f"{root}/{name}", source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(f"{root}/{name}", source / name)
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path / "there")
    command = [sys.executable, "-P", "-m", "curate.cli", "columns", "sources", "--format", "csv"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path,
                          env={"PYTHONPATH": str(tmp_path / "there"), "PATH": "/usr/bin:/bin"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sources,duration_s,DOUBLE,s,probe,length that the file's header states" in done.stdout
