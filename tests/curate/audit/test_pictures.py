"""The pictures of the clips that an audit names."""

import pytest

from curate.audit.figure import Audit, Figure, Section
from curate.audit.pictures import pictures
from curate.catalog.catalog import Catalog
from curate.catalog.views import connect


@pytest.fixture
def sql(made):
    with connect(Catalog.open(made[1])) as connection:
        yield connection


def test_every_clip_that_a_figure_names_has_its_own_picture(whole, sql):
    named = set(whole.figure("examples.clips").column("clip_id")) | set(
        whole.figure("captions.samples").column("clip_id")
    )
    found = pictures(sql, whole)
    stored = dict(sql.execute("SELECT clip_id, jpeg FROM thumbnails").fetchall())
    assert named <= set(found)
    assert found == {clip: stored[clip] for clip in found}


def test_a_clip_without_a_picture_is_left_out(whole, sql):
    there = whole.figure("examples.clips").column("clip_id")[0]
    rows = (("f" * 32,), (there,), (there,))
    named = Audit({}, {}, (Section("a", "A", (Figure("a.b", "", "SELECT 1", ("clip_id",), rows),)),))
    assert set(pictures(sql, named)) == {there}
