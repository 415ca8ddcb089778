"""The numbers that a gate's condition compares with, and the condition with other numbers."""

import duckdb
import pytest

from curate.audit.thresholds import thresholds
from curate.catalog.gates import Gate


def found(where):
    gate = Gate(name="g", where=where)
    with duckdb.connect() as sql:
        return gate, thresholds(sql, gate)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("motion >= 0.25", [("motion", ">=", 0.25)]),
        ("5 > luma", [("luma", "<", 5.0)]),
        ("luma BETWEEN 10 AND 245", [("luma", ">=", 10.0), ("luma", "<=", 245.0)]),
        ("end_s - start_s < 6e1", [(None, "<", 60.0)]),
        ("motion < -3 AND abs(luma) > 1_000", [("motion", "<", -3.0), (None, ">", 1000.0)]),
        ("caption = 'ümläut 7' AND motion > 2 -- > 3", [("motion", ">", 2.0)]),
        ("concept = 3 OR concept IN (1, 2) OR caption > 'a'", []),
        ("motion > luma", []),
        ("1 > 2", []),
    ],
)
def test_what_a_condition_compares_with_by_order(where, expected):
    assert [(each.signal, each.operator, each.value) for each in found(where)[1]] == expected


def test_a_moved_threshold_changes_that_number_alone():
    gate, (first, second) = found("'ö' = caption OR luma BETWEEN -10 AND 245 -- 245")
    assert first.put(gate, first.times(1.1)).where == "'ö' = caption OR luma BETWEEN (-11.0) AND 245 -- 245"
    assert second.put(gate, second.times(0.9)).where == "'ö' = caption OR luma BETWEEN -10 AND 220.5 -- 245"
    assert first.put(gate, first.times(1.1)).unknown == gate.unknown
