"""A metric along the signals of the clips: every clip in one quantile, none parted from its equals."""

from itertools import pairwise

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.training.evaluate import by_signal, described


def catalog(rows):
    """A connection with a view `clips` as a catalog's has it: (clip_id, motion, caption)."""
    connection = duckdb.connect()
    connection.execute(
        'CREATE TABLE clips (clip_id VARCHAR, motion DOUBLE, height INTEGER, caption VARCHAR, "odd name" FLOAT)'
    )
    connection.executemany("INSERT INTO clips VALUES (?, ?, ?, ?, ?)", rows)
    return connection


signals = st.one_of(st.none(), st.just(float("nan")), st.integers(0, 6).map(float), st.floats(-1e6, 1e6))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(signals, st.floats(-100, 100)), min_size=1, max_size=40), st.integers(1, 6))
def test_every_clip_counts_once_in_the_quantile_of_its_signal(clips, groups):
    connection = catalog([(f"c{i}", motion, 1, "", 0.0) for i, (motion, _) in enumerate(clips)])
    values = {f"c{i}": value for i, (_, value) in enumerate(clips)}
    found = by_signal(connection, values, ["motion"], groups)
    assert sum(each.clips for each in found) == len(clips)
    assert sum(each.clips * each.mean for each in found) == pytest.approx(sum(values.values()), abs=1e-6)
    known = [each for each in found if each.low is not None]
    assert len(known) <= groups and len(found) - len(known) <= 1
    assert all(one.high < other.low for one, other in pairwise(known))
    for each in found:
        inside = [
            value
            for motion, value in clips
            if (each.low is None and (motion is None or motion != motion))
            or (each.low is not None and motion is not None and each.low <= motion <= each.high)
        ]
        assert each.clips == len(inside) and each.mean == pytest.approx(np.mean(inside), abs=1e-9)
        assert each.deviation == pytest.approx(np.std(inside, ddof=1) if len(inside) > 1 else 0, abs=1e-6)


def test_quantiles_hold_as_many_clips_each_where_values_differ():
    rows = [(f"c{i}", float(i), 100 - i, "", i / 2) for i in range(100)]
    found = by_signal(catalog(rows), {f"c{i}": float(i) for i in range(100)}, ["motion", "height", "odd name"])
    assert [each.clips for each in found] == [25] * 12
    assert [each.mean for each in found if each.signal == "motion"] == [12, 37, 62, 87]
    assert [each.mean for each in found if each.signal == "height"] == [87, 62, 37, 12]
    assert described(found)[0].split() == ["motion", "0", "to", "24", "25", "clips", "12", "±", "7.36"]


def test_only_the_clips_of_the_metric_count():
    rows = [(f"c{i}", float(i), 1, "", 0.0) for i in range(10)]
    (half,) = by_signal(catalog(rows), {"c1": 2.0, "c3": 4.0}, ["motion"], groups=1)
    assert (half.low, half.high, half.clips, half.mean) == (1, 3, 2, 3)


@pytest.mark.parametrize(
    ("values", "names", "said"),
    [
        ({"c0": 1.0}, ["speed"], "speed: no number in this catalog's clips; there are motion, height, odd name"),
        ({"c0": 1.0}, ["caption"], "caption: no number"),
        ({"c0": 1.0, "x": 2.0}, ["motion"], "1 of 2 clips of the metric are not in this catalog"),
        ({}, ["motion"], "0 of 0 clips"),
    ],
)
def test_what_the_catalog_does_not_know_is_refused(values, names, said):
    with pytest.raises(UserError, match=said):
        by_signal(catalog([("c0", 1.0, 1, "a word", 0.0)]), values, names)
