"""The conditions that are taken where none are named: a short list, of columns that stages do fill."""

import pyarrow as pa
import pytest

from curate.catalog.schema import BASE
from stages.base import SettingsError
from stages.encode.columns import DEFAULT_CONDITIONS, choose_conditions
from stages.measures.registry import MEASURES, measure_classes
from stages.scores.aesthetic import Aesthetic


def test_every_default_condition_is_a_column_that_a_catalog_can_have():
    measured = {name for measure in measure_classes(tuple(MEASURES)) for name in measure.columns}
    scored = set(Aesthetic.signals(object.__new__(Aesthetic)))
    assert set(DEFAULT_CONDITIONS) <= {*BASE["clips"].names, *measured, *scored}


def test_the_default_takes_no_leftovers_of_stages():
    numbers = ("duplicate_count", "caption_seed", "dim", "fps", "motion", "source_s", "frames", "scene")
    columns = {name: pa.float64() for name in numbers} | {"width": pa.string()}
    assert choose_conditions(None, columns) == ("fps", "motion")


def test_what_is_asked_for_is_taken_as_it_is_and_checked():
    columns = {"dim": pa.int32(), "uri": pa.string()}
    assert choose_conditions(["dim"], columns) == ("dim",)
    with pytest.raises(SettingsError, match="no number"):
        choose_conditions(["uri"], columns)
    with pytest.raises(SettingsError, match="no column 'beauty'"):
        choose_conditions(["beauty"], columns)
