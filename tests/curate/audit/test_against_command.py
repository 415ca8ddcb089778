"""`clipmill audit --against` of a catalog that real runs made, and what it refuses."""

import re

import pytest

from curate.audit.figure import read_audit
from curate.catalog.catalog import Catalog
from curate.catalog.versions import find_version
from tests.curate.running import ask, clipmill, ingest, make_folder, pipelines


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, the second with a new film and another gate; the verdicts that the first left."""
    folder = tmp_path_factory.mktemp("runs")
    films, file, catalog = make_folder(folder / "films", films=2), pipelines(folder), folder / "catalog"
    ingest(catalog, films, file=file)
    before = dict(ask(catalog, "SELECT clip_id, verdict FROM clips"))
    make_folder(folder / "more", films=3)
    (folder / "more" / "film_2.mp4").rename(films / "film_2.mp4")
    file.write_text(file.read_text().replace("luma_mean >= 90", "luma_mean >= 500"))
    ingest(catalog, films, file=file)
    return catalog, before


def compare(catalog, output, against):
    return clipmill("audit", "--catalog", catalog, "-o", output, "--against", against)


def test_the_changed_gate_and_the_new_film_are_named(runs, tmp_path):
    catalog, before = runs
    now = dict(ask(catalog, "SELECT clip_id, verdict FROM clips"))
    done = compare(catalog, tmp_path / "out", "1")
    assert done.returncode == 0, done.stderr
    kept = sum(verdict == "kept" for verdict in before.values())
    assert kept and "kept" not in now.values()
    came = len(now) - len(before)
    assert f"{came:,} clips came, 0 went, {kept:,} changed verdict" in done.stdout
    rows = read_audit(tmp_path / "out").figure("against.verdicts").records()
    assert [(r["gate"], r["cause"], r["signals"], r["clips"]) for r in rows] == [
        ("ingest.bright", "the gate has another condition", "luma_mean", kept)
    ]


def test_a_run_is_named_by_number_id_or_a_time_after_its_end(runs):
    catalog, before = runs
    run_id, ended = ask(catalog, "SELECT run_id, ended_at FROM runs")[0]
    opened = Catalog.open(str(catalog))
    tables = [find_version(opened, name).tables for name in ("1", run_id, run_id[:6], ended.isoformat())]
    assert all(each == tables[0] for each in tables)
    assert find_version(opened, "2").tables == opened.snapshot() != tables[0]
    counted = clipmill("sql", "SELECT clip_id, verdict FROM other.clips", "--catalog", catalog, "--against", run_id,
                       "--format", "csv")  # fmt: skip
    assert dict(line.split(",") for line in counted.stdout.splitlines()[1:]) == before


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("7", "the versions are 1 (run "),
        ("yesterday", "no version, catalog or dataset is called so"),
        ("2001-01-01", "had no table then"),
        ("2999-01-01", "is in the future"),
        ("nowhere/at/all", "no catalog and no dataset"),
    ],
)
def test_a_wrong_version_is_one_line_with_what_there_is(runs, tmp_path, against, said):
    done = compare(runs[0], tmp_path / "out", against)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert said in done.stderr
    if "no catalog" not in said:
        assert re.search(r"1 \(run [0-9a-f]{8}, ingest, .*Z\), 2 \(run ", done.stderr)
    assert not (tmp_path / "out").exists()


def test_after_a_purge_older_versions_are_gone_and_it_says_so(runs, tmp_path):
    import shutil

    catalog = tmp_path / "catalog"
    shutil.copytree(runs[0], catalog)
    purged = clipmill("purge", "--where", "uri LIKE '%film_0.mp4'", "--catalog", catalog, "--yes")
    assert purged.returncode == 0, purged.stderr
    done = compare(catalog, tmp_path / "out", "1")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "that version is gone" in done.stderr and "purge" in done.stderr


def test_a_catalog_without_runs_has_no_versions(tmp_path):
    from tests.curate.audit.made import Made

    done = compare(Made().write(tmp_path / "empty"), tmp_path / "out", "1")
    assert done.returncode == 2
    assert "notes no run" in done.stderr
