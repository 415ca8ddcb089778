"""`clipmill audit` of catalogs on an S3 server: the figures of the folder that each was copied from."""

from __future__ import annotations

import json
import uuid

import pytest

from curate.audit.figure import read_audit
from tests.curate.audit.made import planted
from tests.curate.audit.versions import two_versions
from tests.curate.running import clipmill

pytestmark = pytest.mark.slow


def put(folder, place):
    """Copies a catalog's folder into a bucket."""
    import s3fs

    s3fs.S3FileSystem().put(str(folder), place, recursive=True)
    return place


def figures(output, *places):
    """What audit.json says but for the time, figures by id, with the same word for each catalog's place."""
    text = (output / "audit.json").read_text()
    for number, place in enumerate(places):
        text = text.replace(str(place), f"<catalog {number}>")
    found = json.loads(text)
    about = {name: found[name] for name in found if name not in ("made", "relations", "sections")}
    return about | {figure["id"]: figure for section in found["sections"] for figure in section["figures"]}


def differing(one, other):
    """What two such dicts do not have alike."""
    return {name: (one.get(name), other.get(name)) for name in {*one, *other} if one.get(name) != other.get(name)}


def run(output, *arguments):
    done = clipmill("audit", "-o", output, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def places(s3_server, tmp_path_factory):
    """Two catalogs, each in a folder and in a bucket."""
    import s3fs

    folder, place = tmp_path_factory.mktemp("local"), f"s3://audit-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(place)
    one, second = two_versions(folder / "catalog").uri, planted(seed=3, sources=9).write(folder / "second")
    return (one, second), (put(one, f"{place}/a catalog"), put(second, f"{place}/second"))


def test_catalogs_in_a_bucket_have_the_figures_documents_and_pictures_of_their_folders(places, tmp_path):
    for name, (catalog, second) in zip(("local", "remote"), places, strict=True):
        run(tmp_path / name, "--catalog", catalog, "--held-out", "0.3", "--against", second)
    found = [figures(tmp_path / name, *pair) for name, pair in zip(("local", "remote"), places, strict=True)]
    assert not differing(*found)
    pages = [(tmp_path / name / "index.html").read_text() for name in ("local", "remote")]
    assert pages[0].count("data:image/jpeg") == pages[1].count("data:image/jpeg") > 40
    audit = read_audit(tmp_path / "remote")
    assert any(row["shared"] for row in audit.figure("leakage.shared").records())
    figure = audit.figure("counterfactual.gates")
    counted = clipmill("sql", audit.runnable(figure), "--catalog", places[1][0], "--against", places[1][1], "--format",
                       "json")  # fmt: skip
    assert json.loads(counted.stdout) == figure.records()


def test_an_older_version_and_a_selection_are_compared_in_a_bucket_as_in_a_folder(places, tmp_path):
    select = "SELECT clip_id FROM clips WHERE motion > 0.1"
    said = [
        run(tmp_path / name, "--catalog", catalog, "--against", "1", "--select", select)
        for name, (catalog, _) in zip(("local", "remote"), places, strict=True)
    ]
    assert said[0].splitlines()[1:] == said[1].splitlines()[1:]
    found = [figures(tmp_path / name, pair[0]) for name, pair in zip(("local", "remote"), places, strict=True)]
    assert not differing(*found)


def test_a_catalog_in_a_folder_is_compared_with_one_in_a_bucket(places, tmp_path):
    (catalog, second), (_, there) = places
    for name, other in (("local", second), ("remote", there)):
        run(tmp_path / name, "--catalog", catalog, "--against", other)
    found = figures(tmp_path / "local", catalog, second), figures(tmp_path / "remote", catalog, there)
    assert not differing(*found)


def test_a_bucket_without_a_catalog_is_one_line(places, bucket, tmp_path):
    for arguments in (
        ["--catalog", f"{bucket}/nothing"],
        ["--catalog", places[0][0], "--against", f"{bucket}/nothing"],
    ):
        done = clipmill("audit", "-o", tmp_path / "out", *arguments)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert "no catalog at" in done.stderr
        assert not (tmp_path / "out").exists()
