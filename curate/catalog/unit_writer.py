"""The writer: rows of finished units, gathered over many units and written as data files of all their tables.

It runs in workers, or in the driver for the inline engine. What it writes counts only when the driver has committed it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from curate.catalog.data_files import DataFile, FileWriter, with_schema
from curate.catalog.schema import PASS, STATE, rows_to_table
from curate.errors import UserError
from stages.unit import PURGED, Clip, Row, Source, Unit, cells_hash

SOURCES = ("clips", "thumbnails", "sources")  # the tables of a scanned source, the state table last
Schemas = Mapping[str, pa.Schema]  # the stored columns of each table


@dataclass(frozen=True)
class WriterSettings:
    """What a writer must know of a run; picklable.

    `writers` and `stamps` have an entry for each state table: what writes its files, and the columns (settings,
    recipe, run_id) that each of its rows carries. `reports` are tables whose done clips the driver wants to hear of.
    `cells` names, by table, the columns of manifests whose hash its rows carry.
    """

    writers: dict[str, FileWriter]
    stamps: dict[str, Row]
    reports: frozenset[str] = frozenset()
    cells: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def clip_tables(self) -> list[str]:
        """The tables of stages on clips."""
        return [table for table in self.writers if table != "sources"]


@dataclass
class FileSet:
    """Files that hold whole units, for the driver to commit together.

    `redone` are state tables of which some units had rows from an earlier pass; `done_clips` are ids by table.
    """

    files: list[DataFile] = field(default_factory=list)
    redone: set[str] = field(default_factory=set)
    done_clips: dict[str, list[str]] = field(default_factory=dict)

    def of(self, state: str) -> list[DataFile]:
        """The files of a state table and its data tables."""
        tables = SOURCES if state == "sources" else (state,)
        return [file for file in self.files if file.table in tables]


class UnitWriter:
    """`add` takes whole units; `close` writes what was added since, and starts anew.

    `rows` and `size` say how many rows, and about how many bytes, wait for `close`.
    """

    def __init__(self, settings: WriterSettings):
        self.settings = settings
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[str, list[Row]] = {}
        self._found = FileSet()
        self.rows = self.size = 0

    def add(self, units: Sequence[Unit]) -> None:
        """Whole units; the parts of one unit follow one another."""
        parts: list[Unit] = []
        for unit in units:
            parts.append(unit)
            if unit.last:
                self._take(parts)
                parts = []
        if parts:
            raise ValueError(f"the last part of unit {parts[0].unit_id} is missing")

    def close(self, schemas: Schemas) -> FileSet | None:
        """Files of all rows that were added; None if there are none. What it raises leaves the rows as they are."""
        if not self._rows:
            return None
        now = datetime.datetime.now(datetime.UTC)
        files = []
        for table, rows in self._rows.items():
            state = "sources" if table in SOURCES else table
            writer = self.settings.writers[state]
            for row in rows:
                row[PASS] = writer.pass_number
                if table == state:
                    row |= self.settings.stamps[state] | {"committed_at": now}
            files.append(writer.write(table, _arrow(table, rows, schemas[table])))
        found = replace(self._found, files=files)
        self._clear()
        return found

    def _take(self, parts: list[Unit]) -> None:
        """One unit of all its parts: all its rows, or why it failed."""
        failure = next((part.failure for part in parts if part.failure is not None), None)
        last = parts[-1]
        if failure == PURGED:
            return
        if last.source is not None:
            self._scanned(last.source, last.scanned, [] if failure else [c for p in parts for c in p.clips], failure)
        else:
            for clip in last.clips:
                self._known(clip, failure)
        if last.redone:
            self._found.redone.update(self.settings.writers)

    def _scanned(self, source: Source, scanned: Row, clips: list[Clip], failure: str | None) -> None:
        """A source that was scanned: the clips of a failed one are not kept, what its header said is."""
        uri = source.known_as or source.uri
        for clip in clips:
            self._append("clips", clip.row if source.known_as is None else clip.row | {"uri": uri})
            if clip.thumbnail is not None:
                self._append("thumbnails", clip.thumbnail)
                self.size += len(clip.thumbnail["jpeg"])
            self._results(clip, scanned.get("content_hash"))
        reason = failure or (None if clips else scanned.get("reason") or "no clip was found in it")
        found = {"status": "done" if failure is None else "failed", "reason": reason, "clips": len(clips)}
        ids: Row = {"source_id": source.source_id, "uri": uri}
        if source.place is not None:
            ids["archive_offset"] = source.place.offset
        self._append("sources", source.columns | ids | scanned | found)

    def _known(self, clip: Clip, failure: str | None) -> None:
        """A clip of the catalog: what stages made of it, or a failed row in each table that lacks one."""
        for table in self.settings.clip_tables if failure is not None else ():
            if clip.lacks(table):
                ids = {name: clip.row[name] for name in ("clip_id", "source_id")}
                clip.results[table] = ids | {"status": "failed", "reason": failure}
        self._results(clip, clip.source.content_hash)

    def _results(self, clip: Clip, content_hash: str | None) -> None:
        for table, row in clip.results.items():
            made_of = cells_hash(clip.source.columns, self.settings.cells.get(table, ()))
            self._append(table, row | {"content_hash": content_hash, "manifest_hash": made_of})
            if table in self.settings.reports and row["status"] == "done":
                self._found.done_clips.setdefault(table, []).append(clip.clip_id)

    def _append(self, table: str, row: Row) -> None:
        self._rows.setdefault(table, []).append(row)
        self.rows += table != "thumbnails"
        self.size += 16 * len(row)


def _arrow(table: str, rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Rows with exactly the columns of the stored schema. UserError for a value of a column that is not declared."""
    made = rows_to_table(table, rows, {field.name: field.type for field in schema})
    for name in made.column_names:
        if name not in schema.names and made[name].null_count < made.num_rows:
            raise UserError(f"column {name!r} of {table} is in no stage's signals(): declare it there")
    return with_schema(made.select([name for name in made.column_names if name in schema.names]), schema)


def state_schema(signals: Mapping[str, str]) -> pa.Schema:
    """The columns of a table of a stage on clips: what every such table has, then the stage's own."""
    own = [pa.field(name, pa.type_for_alias(kind)) for name, kind in signals.items()]
    return pa.schema([*STATE, *own])
