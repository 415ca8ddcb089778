"""`clipmill gates`: what is in force, what each gate costs, what another would change; nothing is changed unasked."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect
from curate.errors import UserError
from curate.query.gates import Standing, costs, drop_gates, gates_in_force, held_together, print_gates, try_gate
from curate.run.report import hours
from tests.catalog_rows import commit_rows

MOTION = [0.1, 0.2, 0.3, 0.4, None]
LUMA = [20.0, 200.0, 20.0, 200.0, 200.0]


def catalog_of(folder, scale, lengths):
    """Five clips of these lengths in seconds, their motion multiplied by `scale`."""
    catalog = Catalog.open_or_create(str(folder))
    rows = [
        {"clip_id": f"{n:032x}", "source_id": "s", "uri": "film.mp4", "start_s": 0.0, "end_s": length}
        | {"motion": None if motion is None else scale * motion, "luma_mean": luma}
        for n, (motion, luma, length) in enumerate(zip(MOTION, LUMA, lengths, strict=True))
    ]
    types = {"clips": {"motion": "double", "luma_mean": "double"}}
    source = {"source_id": "s", "uri": "film.mp4", "status": "done", "settings": "x"}
    with Ledger(catalog, "sources", "source_id", "a" * 32) as ledger:
        commit_rows(ledger, {"sources": [source], "clips": rows}, types)
    return catalog


@pytest.fixture
def catalog(tmp_path):
    """Five clips of an hour each, under two gates of the recipe ingest."""
    catalog = catalog_of(tmp_path / "catalog", 1, [3600.0] * 5)
    catalog.put_gates("ingest", [gate("moving", "motion >= 0.25"), gate("bright", "luma_mean > 100")], "run")
    return catalog


def gate(name, where, unknown="keep"):
    return Gate(name=name, where=where, unknown=unknown)


def kept(catalog):
    with connect(catalog) as sql:
        return sql.execute("SELECT count(*) FROM clips WHERE verdict = 'kept'").fetchall()[0][0]


def rows_of(text):
    """The cells of a printed table, by their first cell."""
    cells = ([cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line)
    return {first: rest for first, *rest in cells}


def test_each_gate_is_listed_with_the_clips_that_it_drops_and_those_that_only_it_drops(catalog, capsys):
    assert print_gates(catalog.uri) == 0
    out = capsys.readouterr().out
    assert "5 clips, 5.000 hours" in out
    found = rows_of(out)
    assert found["ingest.moving"][:4] == ["2", "2.000", "40.0 %", "1"]
    assert found["ingest.bright"][:4] == ["2", "2.000", "40.0 %", "1"]
    assert found["ingest.moving"][-1] == "motion >= 0.25"


def test_a_gate_stands_since_the_run_that_gave_it_its_condition(catalog):
    with connect(catalog) as sql:
        before = {each.name: each.since for each in gates_in_force(sql)}
    catalog.put_gates("ingest", [gate("moving", "motion >= 0.25"), gate("bright", "luma_mean > 150")], "later")
    with connect(catalog) as sql:
        after = {each.name: each.since for each in gates_in_force(sql)}
    assert after["ingest.moving"] == before["ingest.moving"]
    assert after["ingest.bright"] > before["ingest.bright"]


def test_recipes_whose_gates_drop_the_same_clips_are_named(catalog, capsys):
    catalog.put_gates("strict", [gate("moving", "motion >= 0.35")], "run")
    print_gates(catalog.uri)
    assert "'ingest' and 'strict' both drop 3 clips" in capsys.readouterr().out


def test_a_gate_that_was_tried_is_not_in_force(catalog, capsys):
    before = kept(catalog)
    assert try_gate(catalog.uri, "motion >= 0.35") == 0
    found = rows_of(capsys.readouterr().out)
    assert [found[name][0] for name in ("all clips", "kept now", "kept then", "newly dropped")] == ["5", "2", "2", "0"]
    assert kept(catalog) == before == 2


def test_a_gate_is_tried_in_place_of_another_and_unknown_clips_go_by_choice(catalog, capsys):
    try_gate(catalog.uri, "motion >= 0.15", unknown="drop", instead="ingest.moving")
    found = rows_of(capsys.readouterr().out)
    assert found["kept then"][0] == "2"
    assert (found["newly dropped"][0], found["newly kept"][0], found["unknown to it (NULL)"][0]) == ("1", "1", "1")


def test_a_dropped_gate_gives_its_clips_back_and_the_others_stay(catalog, capsys):
    assert drop_gates(catalog.uri, "ingest.moving") == 0
    assert "2 -> 3 clips, 2.000 -> 3.000 hours" in capsys.readouterr().out
    with connect(catalog) as sql:
        assert [each.name for each in gates_in_force(sql)] == ["ingest.bright"]
    assert drop_gates(catalog.uri, "ingest") == 0
    assert kept(catalog) == 5


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda uri: drop_gates(uri, "ingest.movin"), "did you mean 'ingest.moving'"),
        (lambda uri: drop_gates(uri, "nothing-like-it"), "there is ingest"),
        (lambda uri: try_gate(uri, "moton > 1"), "moton"),
        (lambda uri: try_gate(uri, "motion +"), "syntax error"),
        (lambda uri: try_gate(uri, "motion > 1", instead="ingest.mving"), "did you mean 'ingest.moving'"),
        (lambda uri: try_gate(uri, "(SELECT true)"), "subquery"),
    ],
)
def test_a_wrong_name_or_condition_is_one_line_and_changes_nothing(catalog, action, words):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        action(catalog.uri)
    assert "\n" not in str(caught.value)
    assert kept(catalog) == 2


def test_without_gates_every_clip_is_kept_and_it_is_said(tmp_path, capsys):
    Catalog.open_or_create(str(tmp_path / "empty")).create()
    assert print_gates(str(tmp_path / "empty")) == 0
    assert "no gate is in force" in capsys.readouterr().out


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["motion", "luma_mean"]), st.integers(0, 220)), min_size=1, max_size=5))
def test_costs_agree_with_the_gates_that_the_view_names(tmp_path_factory, bounds):
    catalog = catalog_of(tmp_path_factory.mktemp("costs"), 500, [1.0, 2.0, 3.0, 4.0, 5.0])
    gates = [gate(f"g{n}", f"{column} >= {bound}") for n, (column, bound) in enumerate(bounds)]
    catalog.put_gates("ingest", gates, "run")
    with connect(catalog) as sql:
        total, fails, alone = costs(sql, gates)
        judged = sql.execute("SELECT failed_gates, end_s - start_s FROM clips").fetchall()
        assert held_together(sql, gates_in_force(sql)) == {}
    assert (total.clips, total.seconds) == (5, 15.0)
    for each, fail, only in zip(gates, fails, alone, strict=True):
        dropped = [(failed, seconds) for failed, seconds in judged if each.name in failed]
        assert (fail.clips, fail.seconds) == (len(dropped), sum(seconds for _, seconds in dropped))
        assert only.clips == sum(failed == [each.name] for failed, _ in dropped)


def test_standing_names_recipe_and_gate():
    assert Standing("ingest", gate("moving", "true"), None).name == "ingest.moving"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0.000"), (36, "0.010"), (36_000, "10.0"), (3.6e6 * 4, "4,000")])
def test_hours_have_about_three_digits(seconds, text):
    assert hours(seconds) == text
