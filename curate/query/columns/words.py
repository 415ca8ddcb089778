"""What every table and column means: of a catalog's own in curate/catalog/columns.yaml, of stages in their classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from curate.catalog import schema
from curate.catalog.schema import BOOKKEEPING, JUDGED, duckdb_type
from curate.recipe.registry import BUILT_IN, KINDS
from stages.base import Column, SourceStage, TableStage
from stages.measures.registry import MEASURES, measure_classes

if TYPE_CHECKING:
    import duckdb

OWN = (
    "sources",
    "clips",
    "thumbnails",
    "runs",
    "gates",
    "places",
    "removals",
)  # tables that every catalog has, as they are shown
RIGHTS = "rights"  # in columns.yaml: the columns of manifests that `sources` and `clips` always have
EVERY_STAGE = "every stage"  # in columns.yaml: the columns of every table of a stage
NAMED = {"classify": "watermark"}  # stages without a table of their own: they are documented under this `as`
MANIFEST = "manifest"  # the stage of a column that a manifest brought


@dataclass(frozen=True)
class ColumnWords:
    """A column of a table: its type in SQL, its unit ('' for none), the stage that makes it, and what it means."""

    table: str
    column: str
    type: str
    unit: str
    stage: str
    meaning: str
    also: tuple[str, ...] = ()  # words that users take for it

    @property
    def of_every_stage(self) -> bool:
        """Whether every table of a stage has it: what is noted of a row beside its signals."""
        return self.table not in OWN and self.column in BOOKKEEPING


@dataclass(frozen=True)
class TableWords:
    """A table: what a row is, the stage that makes it, and words that users take for it or for several of its columns.

    `expressions` maps a word to SQL over its columns: {"length": "end_s - start_s"}; `first` are the columns that a
    terminal shows first.
    """

    name: str
    row: str
    stage: str
    also: tuple[str, ...]
    expressions: Mapping[str, str]
    first: tuple[str, ...]


@cache
def _written() -> dict[str, Any]:
    path = Path(schema.__file__).with_name("columns.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def own_tables() -> dict[str, TableWords]:
    """The tables that every catalog has, by name."""
    found = {}
    for name, said in _written()["tables"].items():
        also, first = tuple(said.get("also", ())), tuple(said.get("first", ()))
        found[name] = TableWords(name, said["row"], said["stage"], also, said.get("expressions", {}), first)
    return found


def own_columns(table: str, types: Mapping[str, str]) -> dict[str, ColumnWords]:
    """The columns of `table` that columns.yaml has words for; `types` are those of the table, in SQL."""
    stage = _written()["tables"].get(table, {}).get("stage", MANIFEST if table == RIGHTS else "")
    found = {}
    for column, said in _written()["columns"].get(table, {}).items():
        if isinstance(said, str):
            said = {"meaning": said}
        elif isinstance(said, list):
            said = {"unit": said[0], "meaning": said[1]}
        words = ColumnWords(table, column, types.get(column, ""), said.get("unit", ""), said.get("stage", stage),
                            said["meaning"], tuple(said.get("also", ())))  # fmt: skip
        found[column] = words
    if table in ("sources", "clips"):
        found |= {column: replace(words, table=table) for column, words in own_columns(RIGHTS, types).items()}
    return found


def decode_columns() -> dict[str, ColumnWords]:
    """The columns that the decode pass adds to `clips`, those of all measures among them."""
    from stages.scan.decode_pass import DecodePass

    found = _of_stage("clips", "probe", DecodePass.own_signals)
    for name in MEASURES:
        for measure in measure_classes([name]):
            found |= _of_stage("clips", f"measure: [{name}]", measure.columns)
    return found


def stage_columns(name: str, table: str | None = None, settings: Mapping[str, Any] | None = None) -> list[ColumnWords]:
    """The columns of the table that a stage on clips fills, those of every stage among them.

    `settings` are those that a run noted. Empty for a name that is no stage on clips, or not here.
    """
    stage = KINDS[name].stage if name in KINDS else None
    if stage is None or not issubclass(stage, TableStage):
        return []
    table = table or stage.default_table
    types = {field.name: duckdb_type(field.type) for field in schema.STATE}
    own = [replace(words, table=table, stage=name) for words in own_columns(EVERY_STAGE, types).values()]
    signals = _signals(name, settings)
    made = _of_stage(table, name, {stage.column_of(table, signal): column for signal, column in signals.items()})
    return [*own[:2], *made.values(), *own[2:]]  # ids, signals, and what is noted of the row


def documented(sql: duckdb.DuckDBPyConnection) -> list[ColumnWords]:
    """Every column that clipmill itself knows of, table by table; `sql` shows an empty catalog."""
    found = []
    for table in OWN:
        words = own_columns(table, _types(sql, table))
        judged = {column: words.pop(column) for column in JUDGED} if table == "clips" else {}
        found += [*words.values(), *(decode_columns() if table == "clips" else {}).values(), *judged.values()]
    for name in BUILT_IN:
        found += stage_columns(name, NAMED.get(name))
    return found


def of_catalog(sql: duckdb.DuckDBPyConnection) -> list[ColumnWords]:
    """Every column that the views of a catalog have, table by table; one that nobody declares is of a manifest."""
    shown = [row[0] for row in sql.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND "
                                           "NOT internal ORDER BY view_name").fetchall()]  # fmt: skip
    tables = [*OWN, *(name for name in shown if name not in OWN)]
    known: dict[str, dict[str, ColumnWords]] = {}
    made_by = stages_of_tables(sql)
    for table in tables[len(OWN) :]:
        name, settings = made_by.get(table, ("", {}))
        known[table] = {words.column: words for words in stage_columns(name, table, settings)}
    for table in OWN:
        known[table] = own_columns(table, {})
    known["clips"] = dict(_joined(known, tables[len(OWN) :])) | _brought(made_by) | decode_columns() | known["clips"]
    return [
        replace(known[table].get(column) or _undeclared(table, column, made_by), type=kind)
        for table in tables
        for column, kind in _types(sql, table).items()
    ]


def _joined(known: Mapping[str, Mapping[str, ColumnWords]], tables: list[str]) -> Iterator[tuple[str, ColumnWords]]:
    """What `clips` shows of the tables of stages; a name that is taken has the table's name before it."""
    for table in tables:
        for column, words in known[table].items():
            if column not in BOOKKEEPING:
                yield f"{table}_{column}", replace(words, table="clips", column=f"{table}_{column}")
    for table in reversed(tables):
        for column, words in known[table].items():
            if column not in BOOKKEEPING:
                yield column, replace(words, table="clips")


def _undeclared(table: str, column: str, made_by: Mapping[str, tuple[str, Any]]) -> ColumnWords:
    if table in ("sources", "clips"):
        return ColumnWords(table, column, "", "", MANIFEST, "column of your manifest")
    stage = made_by.get(table, ("another program", None))[0]
    return ColumnWords(table, column, "", "", stage, "its stage does not say")


def stages_of_tables(sql: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, dict[str, Any]]]:
    """Table -> (name, settings) of the stage that filled it in the last run that did."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for (text,) in sql.execute("SELECT stages FROM runs WHERE stages IS NOT NULL ORDER BY started_at").fetchall():
        for table, made in json.loads(text).items():
            for stage in made["stages"]:
                for name, settings in stage.items():
                    found[table] = (name, settings if isinstance(settings, dict) else {})
    return found


def _brought(made_by: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, ColumnWords]:
    """What another package's stage on sources adds to `clips`."""
    name, settings = made_by.get("sources", ("", {}))
    stage = KINDS[name].stage if name in KINDS else None
    if stage is None or not issubclass(stage, SourceStage):
        return {}
    return _of_stage("clips", name, _signals(name, settings))


def _signals(name: str, settings: Mapping[str, Any] | None) -> Mapping[str, Column]:
    """The signals of a stage, by plain name; of another package's stage that computes them, from an object of it."""
    kind = KINDS[name]
    stage = kind.stage
    assert stage is not None
    if issubclass(stage, TableStage) and (found := stage.signals_of(settings or {})):
        return found
    try:
        return stage(kind.settings_type.model_validate(settings or {})).signals()
    except Exception:  # whatever another package raises: its columns are shown without their meaning
        return {}


def _of_stage(table: str, stage: str, columns: Mapping[str, Column]) -> dict[str, ColumnWords]:
    return {
        name: ColumnWords(table, name, duckdb_type(column.type), column.unit, stage, column.meaning, column.also)
        for name, column in columns.items()
    }


def _types(sql: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    return dict(row[:2] for row in sql.execute(f'DESCRIBE "{table}"').fetchall())
