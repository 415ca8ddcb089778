"""A stage over all clips fills a table of its own, and under another name a second one beside the first."""

import shutil

import pytest

from curate.run.command import run_recipes
from tests.curate.running import INLINE, ask, pipelines

pytestmark = pytest.mark.slow

RECIPES = """
recipes:
  concepts: {select: SELECT clip_id FROM clips, stages: [clusters: {k: 5}]}
  coarse: {select: SELECT clip_id FROM clips, stages: [clusters: {k: 2, as: coarse}]}
  strict: {select: SELECT clip_id FROM clips, stages: [duplicates: {as: strict, near: {bits: 0}}]}
"""


def test_a_second_stage_of_a_kind_stands_beside_the_first_under_its_own_name(demo_run, tmp_path):
    catalog = tmp_path / "catalog"
    shutil.copytree(demo_run[0] / "catalog", catalog)
    file = pipelines(tmp_path, RECIPES)

    def run(*recipes):
        assert run_recipes(list(recipes), str(catalog), None, file, (), INLINE) == 0

    first = ask(catalog, "SELECT clip_id, duplicate_cluster, duplicate_kind FROM clips ORDER BY 1")
    run("concepts", "coarse", "strict")
    assert ask(catalog, "SELECT count(DISTINCT concept), count(DISTINCT coarse_concept) FROM clips") == [(5, 2)]
    names = [row[0] for row in ask(catalog, "DESCRIBE strict")]
    assert {"strict_duplicate_cluster", "strict_duplicate_keep", "strict_duplicate_basis"} <= set(names)
    assert "duplicate_keep" not in names
    assert ask(catalog, "SELECT clip_id, duplicate_cluster, duplicate_kind FROM clips ORDER BY 1") == first
    fewer = "SELECT count(*) FILTER (NOT strict_duplicate_keep) < count(*) FILTER (NOT duplicate_keep) FROM clips"
    assert ask(catalog, fewer) == [(True,)]
    rows = "SELECT * EXCLUDE (run_id, committed_at) FROM strict ORDER BY clip_id"
    before = ask(catalog, rows)
    run("strict")  # from what the table says already
    assert ask(catalog, rows) == before
