"""Every source that the inputs of the runs name is done, failed, pending or removed, in one figure."""

import shutil

from curate.audit.figure import read_audit
from tests.curate.running import ask, clipmill, ingest, make_folder, pipelines


def accounts(catalog, output):
    done = clipmill("audit", "--catalog", catalog, "-o", output)
    assert done.returncode == 0, done.stderr
    figure = read_audit(output).figure("funnel.accounts")
    return {row["state"]: tuple(row.values())[1:] for row in figure.records()}, figure


def test_listed_is_done_failed_pending_and_removed(tmp_path):
    films, catalog, file = make_folder(tmp_path / "films", films=4), tmp_path / "catalog", pipelines(tmp_path)
    assert ingest(catalog, films, file=file) == 1  # broken.mp4
    shutil.copy(films / "broken.mp4", films / "new.mp4")
    shutil.copy(films / "broken.mp4", films / "newer.mp4")
    (films / "film_0.mp4").unlink()
    purged = clipmill("purge", "--where", "uri LIKE '%film_1.mp4'", "--catalog", catalog, "--yes")
    assert purged.returncode == 0, purged.stderr
    rows, figure = accounts(catalog, tmp_path / "audit")
    states = dict(ask(catalog, "SELECT status, count(*) FROM sources GROUP BY 1"))
    assert states == {"done": 3, "failed": 1}
    named = len(list(films.iterdir()))
    assert rows["done"] == (2, 1, states["done"])  # film_0 is no longer there
    assert rows["failed"] == (1, 0, states["failed"])
    assert rows["pending"] == (2, 0, 2)
    assert rows["removed"] == (1, 0, 1)
    assert rows["all"] == (named, 1, named + 1)
    assert figure.known
    said = clipmill("status", "--catalog", catalog).stdout
    assert "3 done" in said and "1 failed, 2 pending, 1 removed" in said


def test_pending_is_unknown_and_not_0_where_an_input_is_out_of_reach(tmp_path):
    films, catalog = make_folder(tmp_path / "films", films=1), tmp_path / "catalog"
    ingest(catalog, films, file=pipelines(tmp_path))
    films.rename(tmp_path / "elsewhere")
    rows, figure = accounts(catalog, tmp_path / "audit")
    assert rows["pending"] == rows["all"] == (None, None, None)
    assert rows["done"] == (None, None, 1)
    assert str(films) in figure.note
