"""`clipmill audit` through the command line: what it writes, what it refuses, and that it changes nothing."""

import json
import os
from pathlib import Path

import pytest

from curate.audit.figure import read_audit
from curate.errors import UserError
from tests.curate.audit.made import planted, write_dataset
from tests.curate.running import clipmill


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return planted(sources=8).write(tmp_path_factory.mktemp("made") / "catalog")


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_an_audit_is_a_page_figures_and_documents_and_leaves_the_catalog_as_it_was(catalog, tmp_path):
    before = files(catalog)
    done = clipmill("audit", "--catalog", catalog, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    made = ["audit.json", "croissant.json", "datasheet.md", "eu_summary.md", "index.html"]
    assert sorted(os.listdir(tmp_path / "out")) == made
    assert files(catalog) == before
    found = read_audit(tmp_path / "out")
    clips = found.figure("totals.clips").value("clips")
    assert f"{clips:,} clips" in done.stdout
    counted = clipmill("sql", "SELECT count(*) AS n FROM clips", "--catalog", catalog, "--format", "json")
    assert json.loads(counted.stdout) == [{"n": clips}]


@pytest.mark.parametrize("inside", ["", "sources", "new/deep"])
def test_an_audit_is_not_written_into_the_catalog(catalog, inside):
    before = files(catalog)
    done = clipmill("audit", "--catalog", catalog, "-o", Path(catalog, inside))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is in the catalog" in done.stderr
    assert files(catalog) == before and not Path(catalog, "new").exists()


def test_somebody_elses_page_is_not_overwritten(catalog, tmp_path):
    (tmp_path / "index.html").write_text("my site")
    done = clipmill("audit", "--catalog", catalog, "-o", tmp_path)
    assert done.returncode == 2 and "not of an audit" in done.stderr
    assert files(tmp_path) == {"index.html": b"my site"}
    (tmp_path / "index.html").rename(tmp_path / "mine.html")
    for _ in range(2):  # beside other files, and again
        assert clipmill("audit", "--catalog", catalog, "-o", tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("SELECT clip_id, 'x' AS weight FROM clips", "--select: Conversion Error"),
        ("SELECT clip_id, error('no') AS weight FROM clips", "--select: Invalid Input Error: no"),
        ("SELECT clip_id, -1 AS weight FROM clips", "a weight that is no number from 0 on"),
        ("SELECT clip_id, 'NaN'::DOUBLE AS weight FROM clips", "a weight that is no number from 0 on"),
        ("SELECT clip_id, NULL AS weight FROM clips", "a weight that is no number from 0 on"),
        ("WITH x AS (COPY clips TO '/dev/null') SELECT clip_id FROM clips, x", "--select: Binder Error"),
    ],
)
def test_a_selection_that_fails_on_a_row_is_one_line_and_leaves_nothing(catalog, tmp_path, select, said):
    done = clipmill("audit", "--catalog", catalog, "-o", tmp_path / "out", "--select", select)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_sql_of_a_figure_runs_in_clipmill_sql(catalog, tmp_path):
    assert clipmill("audit", "--catalog", catalog, "-o", tmp_path).returncode == 0
    found = read_audit(tmp_path)
    figure = found.figure("counterfactual.gates")
    done = clipmill("sql", found.runnable(figure), "--catalog", catalog, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == figure.records()


def test_a_selection_is_counted_beside_the_funnel_of_the_whole(catalog, tmp_path):
    select = "SELECT clip_id, 2.0 AS weight FROM clips WHERE motion > 0.5; "
    done = clipmill("audit", "--catalog", catalog, "-o", tmp_path, "--select", select)
    assert done.returncode == 0, done.stderr
    found = read_audit(tmp_path)
    counted = clipmill("sql", "SELECT count(*) FILTER (motion > 0.5), count(*) FROM clips", "--catalog", catalog,
                       "--format", "csv").stdout.splitlines()[1]  # fmt: skip
    chosen, every = map(int, counted.split(","))
    assert found.figure("totals.clips").value("clips") == chosen < every
    assert found.figure("funnel.clips").records()[0]["clips_left"] == every
    assert found.figure("weights.samples").value("weight") == 2.0 * chosen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--select", "SELECT 1"], "must give clip_id"),
        (["--select", "SELECT clip_id FROM clips WHERE false"], "no clip is chosen"),
        (["--select", "DELETE FROM clips"], "one SELECT"),
        (["--select", "SELECT clip_id FROM nothing"], "nothing"),
        (["--select", "SELECT clip_id FROM clips", "--dataset", "x"], "not allowed with"),
        (["--dataset", "nowhere"], "no dataset in nowhere"),
        (["--other", "nowhere"], "no dataset in nowhere"),
        (["--held-out", "1.5"], "above 0 and below 1"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(catalog, tmp_path, arguments, said):
    done = clipmill("audit", "--catalog", catalog, "-o", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_places_that_hold_no_catalog_or_take_no_folder_are_refused(catalog, tmp_path):
    (tmp_path / "file").write_text("")
    done = clipmill("audit", "--catalog", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert (done.returncode, "no catalog at" in done.stderr) == (2, True)
    for place in (tmp_path / "file", tmp_path / "file/out"):
        done = clipmill("audit", "--catalog", catalog, "-o", place)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(UserError, match="no audit at"):
        read_audit(tmp_path)


def test_a_dataset_of_another_catalog_names_what_is_not_here(catalog, tmp_path):
    rows = [{"clip_id": f"f{n:031x}", "source_id": "s", "weight": 1.0} for n in range(3)]
    dataset = write_dataset(tmp_path / "other", rows, "elsewhere")
    done = clipmill("audit", "--catalog", catalog, "-o", tmp_path / "out", "--dataset", dataset)
    assert done.returncode == 2
    assert "3 of 3" in done.stderr
    assert not (tmp_path / "out").exists()
