"""What the page chooses of the clips, as SQL: filters, a query of the user's, hits of a search, a gate's effect."""

from __future__ import annotations

import itertools
import shlex
import threading
from collections import OrderedDict
from typing import Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from curate.audit.browse.confined import CLIPS, check_select
from curate.catalog.gates import Gate, literal, quote
from curate.errors import UserError, did_you_mean
from curate.query.gates import Trial

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "contains", "is unknown", "is known"]
KEPT_QUERIES = 4
WITHOUT_VALUE = ("is unknown", "is known")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filter(_Asked):
    """A condition on one column. `contains` looks for a part of a text in any case, or for an item of a list."""

    column: str
    operator: Operator
    value: str = ""

    def sql(self, kinds: dict[str, str]) -> str:
        """Raises UserError for a column that clips have not."""
        if self.column not in kinds:
            raise UserError(f"clips have no column {self.column!r}{did_you_mean(self.column, kinds)}")
        name, kind, value = quote(self.column), kinds[self.column], literal(self.value)
        if self.operator in WITHOUT_VALUE:
            return f"{name} IS {'NULL' if self.operator == 'is unknown' else 'NOT NULL'}"
        if self.operator == "contains":
            if kind.endswith("[]"):
                return f"list_contains({name}, CAST({value} AS {kind[:-2]}))"
            return f"regexp_matches(CAST({name} AS VARCHAR), regexp_escape({value}), 'i')"
        return f"{name} {self.operator} {value if kind == 'VARCHAR' else f'CAST({value} AS {kind})'}"


class TriedGate(_Asked):
    """A gate that is not in force, beside those that are or `instead` of one (RECIPE.NAME)."""

    where: str = Field(min_length=1)
    unknown: Literal["keep", "drop"] = "keep"
    instead: str | None = None

    def trial(self, sql: duckdb.DuckDBPyConnection) -> Trial:
        return Trial.of(sql, Gate(name="tried", where=self.where, unknown=self.unknown), self.instead)


class ClipChoice(_Asked):
    """Clips that all of this is true of.

    `query` is a SELECT that gives clip_id. `found` are hits of a search, best first. `gate` with `change` chooses the
    clips that the gate would drop or bring back.
    """

    filters: list[Filter] = []
    query: str | None = None
    found: list[str] | None = None
    gate: TriedGate | None = None
    change: Literal["kept then", "newly dropped", "newly kept", "unknown to it (NULL)"] | None = None
    order: str | None = None
    descending: bool = False

    def relation(self, sql: duckdb.DuckDBPyConnection, columns: str, queries: QueryClips) -> str:
        """SQL of these columns of the chosen clips, from the numbered ones. Raises UserError."""
        conditions = self._conditions(sql)
        if self.query is not None:
            conditions.append(queries.condition(sql, self.query))
        rows = PLAIN
        if self.gate is not None and self.change is not None:
            rows = self.gate.trial(sql).relation
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"WITH clips AS (SELECT * FROM {CLIPS}) SELECT {columns} FROM ({rows}) AS clips{where}"

    def sql(self, sql: duckdb.DuckDBPyConnection) -> str:
        """As a SELECT that `clipmill sql` and `clipmill dataset create --select` take. Raises UserError."""
        conditions, source = self._conditions(sql), "clips"
        if self.query is not None:
            conditions.append(query_condition(sql, self.query))
        if self.gate is not None and self.change is not None and (rows := self.gate.trial(sql).relation) != PLAIN:
            source = f"({rows}) AS clips"
        return f"SELECT clip_id FROM {source}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")

    def _conditions(self, sql: duckdb.DuckDBPyConnection) -> list[str]:
        kinds = column_kinds(sql)
        found = [each.sql(kinds) for each in self.filters]
        if self.found is not None:
            found.append(f"clip_id IN ({', '.join(map(literal, self.found)) or 'NULL'})")
        if self.gate is not None and self.change is not None:
            found.append(f"({self.gate.trial(sql).conditions[self.change]})")
        return found


PLAIN = "SELECT clips.* FROM clips"


class QueryClips:
    """The numbers of the clips that the last few queries gave, so that each page of them does not run the query."""

    def __init__(self) -> None:
        self._tables: OrderedDict[str, str] = OrderedDict()
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def condition(self, sql: duckdb.DuckDBPyConnection, text: str) -> str:
        """A condition on the numbered clips: the query gives them. Raises UserError."""
        with self._lock:
            table = self._tables.get(text)
        if table is None:
            table, chosen = f"page.chosen_{next(self._numbers)}", query_condition(sql, text)
            sql.execute(f"CREATE TABLE {table} AS SELECT _row FROM {CLIPS} WHERE {chosen}")
            with self._lock:
                self._tables[text] = table
                while len(self._tables) > KEPT_QUERIES:
                    sql.execute(f"DROP TABLE {self._tables.popitem(last=False)[1]}")
        return f"_row IN (SELECT _row FROM {table})"


def query_condition(sql: duckdb.DuckDBPyConnection, text: str) -> str:
    """A condition on clips: a SELECT of the user's, which gives clip_id, has them. Raises UserError."""
    text = text.strip().rstrip(";").strip()
    check_select(sql, text)
    inside = f"SELECT * FROM ({text}\n) AS asked"
    check_select(sql, inside)
    names = [row[0] for row in sql.execute(f"DESCRIBE {inside}").fetchall()]
    if "clip_id" not in names:
        raise UserError(f"the query must give clip_id; it gives {', '.join(names)[:200]}")
    return f"clip_id IN (SELECT asked.clip_id FROM ({text}\n) AS asked)"


def column_kinds(sql: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The columns of the view `clips` with their types."""
    return {row[0]: row[1] for row in sql.execute("DESCRIBE clips").fetchall()}


def dataset_command(catalog: str, select: str) -> str:
    """The command line that freezes the clips of a SELECT as a dataset."""
    return shlex.join(["clipmill", "dataset", "create", "NAME", "--catalog", catalog, "--select", select])
