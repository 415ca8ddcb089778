"""What is said of columns: every one has a type, a unit or none, a stage and a meaning, in one place."""

import pytest
import yaml

from curate.catalog.schema import BASE, STATE
from curate.query.columns.listing import empty_catalog
from curate.query.columns.words import EVERY_STAGE, OWN, documented, own_columns, own_tables, stage_columns
from curate.recipe.registry import BUILT_IN, KINDS, PARTS
from stages.captions.columns import caption_columns
from stages.captions.settings import CaptionSettings
from stages.measures.registry import MEASURES, measure_classes

COMMANDS = ("run", "relocate", "purge", "manifest")  # where columns come from beside stages


@pytest.fixture(scope="module")
def empty():
    with empty_catalog() as sql:
        yield sql


@pytest.fixture(scope="module")
def words(empty):
    return documented(empty)


def shown(sql, table):
    return [row[0] for row in sql.execute(f"DESCRIBE {table}").fetchall()]


@pytest.mark.parametrize("table", OWN)
def test_every_column_of_a_catalog_s_own_tables_is_said_and_no_other(empty, table):
    assert list(own_columns(table, {})) and set(own_columns(table, {})) == set(shown(empty, table))


def test_every_column_that_every_table_of_a_stage_has_is_said():
    assert list(own_columns(EVERY_STAGE, {})) == STATE.names


def test_every_column_has_type_stage_and_meaning(words):
    stages = [*PARTS, *BUILT_IN, *(f"measure: [{name}]" for name in MEASURES), *COMMANDS]
    for column in words:
        assert column.type and column.meaning, column
        assert column.stage in stages, column
        assert not column.meaning.endswith("."), column


def test_every_number_with_a_fraction_has_a_unit(words):
    assert [(each.table, each.column) for each in words if each.type == "DOUBLE" and not each.unit] == []


def test_every_measure_and_every_stage_on_clips_is_documented(words):
    there = {(each.table, each.column) for each in words}
    for name in MEASURES:
        for measure in measure_classes([name]):
            assert {("clips", column) for column in measure.columns} <= there
    for name in BUILT_IN:
        assert stage_columns(name)
        assert KINDS[name].stage.own_signals or name == "caption"


def test_every_table_says_what_a_row_is_and_names_only_columns_that_it_has(empty):
    assert set(own_tables()) == set(OWN) and set(BASE) == set(OWN)
    for name, table in own_tables().items():
        assert table.row and table.stage
        assert set(table.first) <= set(shown(empty, name))
        for text in table.expressions.values():
            empty.execute(f"SELECT {text} FROM {name}")


def test_no_word_for_a_column_is_the_name_of_another_of_its_table(words):
    for table in {each.table for each in words}:
        names = {each.column for each in words if each.table == table}
        for column in (each for each in words if each.table == table):
            assert not names & set(column.also), column


@pytest.mark.parametrize(
    "settings",
    [
        {"source": ["manifest"], "manifest": {"column": {"short": "alt", "long": "text"}}},
        {"source": ["model"], "model": {"name": "x"}, "prompts": {"scene": "Where?", "action": "What?"}},
        {"source": ["server"], "server": {"base_url": "http://localhost/v1", "model": "x"}},
        {"match": {"model": "clipmill"}},
    ],
)
def test_captions_of_any_settings_are_described_from_what_a_run_notes_of_them(settings):
    """A run leaves out what decides no row, such as the server's address; the columns are the same without it."""
    made = CaptionSettings.model_validate(settings)
    noted = yaml.safe_load(made.model_dump_json())
    expected = caption_columns([made.column_of(name) for name in made.names], made.match is not None)
    signals = KINDS["caption"].stage.signals_of(noted)
    assert signals == expected
