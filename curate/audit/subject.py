"""What an audit looks at: a connection with the relations of the audit, and what is known of their columns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from curate.audit.columns import Captions, JudgedGate, stage_tables
from curate.audit.figure import ABSENT, Figure, plain_cell
from curate.audit.selection import Chosen
from curate.catalog.catalog import Catalog
from curate.run.selection import interruptible

# What most figures count of a relation of clips, and of those of it that the gates keep.
CLIPS = "count(*) AS clips, coalesce(sum(seconds), 0) / 3600 AS hours"
KEPT = "count(*) FILTER (kept) AS kept_clips, coalesce(sum(seconds) FILTER (kept), 0) / 3600 AS kept_hours"


@dataclass(frozen=True)
class Subject:
    """A catalog, a selection or a dataset, ready to be counted.

    Figures query the views of the catalog and the relations `judged`, a row for each clip of the catalog, `audited`,
    those of them that are selected, and `audited_sources`, a row for each source of these. `relations` has their SQL.
    """

    sql: duckdb.DuckDBPyConnection
    catalog: Catalog
    relations: Mapping[str, str]
    columns: frozenset[str]  # of `judged`
    source_columns: frozenset[str]  # facts in `audited_sources`
    gates: Sequence[JudgedGate]
    signals: Sequence[str]  # columns of `judged`: numbers about clips, in the order of the view `clips`
    captions: Sequence[Captions]
    chosen: Chosen
    tables: Mapping[str, Mapping[str, str]]  # view of the catalog -> column -> type
    other: Subject | None = None  # what it is compared with, whose relations are `other_audited` and so on

    @property
    def stage_tables(self) -> list[str]:
        """The tables of stages, by name."""
        return stage_tables(self.tables)

    def has(self, *columns: str) -> bool:
        """Whether `judged` has these columns."""
        return self.columns.issuperset(columns)

    def rows(self, text: str) -> list[tuple]:
        """The rows of a query that is no figure by itself."""
        return interruptible(self.sql, text)

    def figure(self, id: str, title: str, text: str, note: str = "") -> Figure:
        """Runs the query of a figure."""
        text = inspect.cleandoc(text)
        names = [row[0] for row in self.sql.execute(f"DESCRIBE {text}").fetchall()]
        rows = tuple(tuple(plain_cell(value) for value in row) for row in self.rows(text))
        return Figure(id, title, text, tuple(names), rows, note)

    def absent(self, id: str, title: str, what: str) -> Figure:
        """A figure of something that the catalog does not have, which is not the same as 0."""
        return Figure(id, title, "", (), (), ABSENT + what)
