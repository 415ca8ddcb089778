"""The views: a catalog as DuckDB sees it, the verdicts judged at each query.

DuckDB reads the Parquet files that Delta names, with no extension. `sources`, `clips`, `thumbnails`, `runs`,
`gates`, `places`, `removals` and every later table are views; schema `raw` has the tables as they are stored, pass
numbers and all.
Neither shows rows that were not committed as whole units.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from curate.catalog.catalog import OWN_TABLES, Catalog, file_paths
from curate.catalog.gates import Gate, literal, one_line, quote, referenced_columns, verdict_sql
from curate.catalog.lease import live_runs
from curate.catalog.places import Places, read_places
from curate.catalog.rights import RIGHTS, domain_sql
from curate.catalog.schema import BASE, BOOKKEEPING, JUDGED, PASS, duckdb_type
from curate.catalog.source_columns import of_manifests, shown_in_clips
from curate.catalog.state import has_superseded, owner
from curate.catalog.superseded_rows import files_sql, latest_sql
from curate.catalog.syntax_tree import writing
from curate.errors import UserError
from curate.storage import is_local

# (connection, table's name, table) -> the relation of the table's data files, in SQL
Files = Callable[[duckdb.DuckDBPyConnection, str, DeltaTable], str]
OTHER = "other"  # the database of another version or catalog
READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def connect(
    catalog: Catalog,
    at: Mapping[str, int] | None = None,
    without_gates_of: str | None = None,
    files: Files | None = None,
) -> duckdb.DuckDBPyConnection:
    """A connection with the views of a catalog, now or at the versions of an earlier `catalog.snapshot()`.

    All tables are seen as whole units left them, however a run goes on meanwhile. A recipe's own gates
    are left out of the verdicts that it selects by: what it says of clips must not decide which it looks at.
    With `files`, DuckDB is given no store of its own to read data files from.
    """
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",  # a table name is no variable of ours
        }
    )
    _run(connection, "SET parquet_metadata_cache = true")
    add_views(connection, catalog, at, without_gates_of, files)
    return connection


def connect_beside(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, at: Mapping[str, int], until: datetime.datetime | None
) -> None:
    """Adds the views of another catalog, or of another version of the same, as those of a database `other`: they are
    `other.clips` and so on. The gates that were in force at the time `until` judge.
    """
    _run(connection, f"ATTACH ':memory:' AS {OTHER}")
    with of_other(connection):
        add_views(connection, catalog, at, until=until)


@contextmanager
def of_other(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """While the block lasts, a name without its database is one of the database `other`."""
    before = _run(connection, "SELECT current_database()")[0][0]
    _run(connection, f"USE {OTHER}")
    try:
        yield
    finally:
        _run(connection, f"USE {quote(before)}")


def add_views(
    connection: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    at: Mapping[str, int] | None = None,
    without_gates_of: str | None = None,
    files: Files | None = None,
    until: datetime.datetime | None = None,
) -> None:
    """Makes the views of a catalog, as `connect` describes, in the connection's present database."""
    if files is None:
        files = parquet_files
        if not is_local(catalog.uri) and not connection.filesystem_is_registered(catalog.fs.protocol[0]):
            connection.register_filesystem(catalog.fs)
    _run(connection, "CREATE SCHEMA raw")
    tables = catalog.open_tables(at)
    joined = [name for name, table in tables.items() if owner(table) == (name, "clip_id")]
    places = read_places(catalog)
    for name in sorted({*BASE, *tables}):
        stored = _stored_sql(connection, name, tables, files)
        if name == "gates" and until is not None:
            stored = f"SELECT * FROM ({stored}) WHERE set_at <= {_time_sql(until)}"
        _run(connection, f"CREATE VIEW raw.{quote(name)} AS {stored}")
        if name not in ("clips", *OWN_TABLES):
            _run(connection, f"CREATE VIEW {quote(name)} AS {_shown_sql(connection, name, places)}")
    gates = catalog.gates(None if at is None else at.get("gates"), without=without_gates_of, until=until)
    _run(connection, f"CREATE VIEW clips AS {_clips_sql(connection, gates, joined, places)}")
    _run(connection, f"CREATE VIEW runs AS {_runs_sql(live_runs(catalog.uri))}")
    _run(connection, f"CREATE VIEW gates AS {GATES_SQL}")
    _run(connection, "CREATE VIEW places AS SELECT * FROM raw.places ORDER BY number")
    _run(connection, "CREATE VIEW removals AS SELECT * FROM raw.removals ORDER BY removed_at, kind, digest")


def query(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(column names, rows) of one question; UserError with DuckDB's own words for a wrong one.

    Only a SELECT (DESCRIBE, SUMMARIZE, EXPLAIN, ...) is taken: nothing in a catalog can be changed by it.
    """
    try:
        statements = connection.extract_statements(text)
        if len(statements) != 1:
            raise UserError(f"expected one SQL statement, not {len(statements)}")
        if statements[0].type not in READING or _explains_writing(connection, statements[0]):
            raise UserError(f"clipmill sql only reads: give a SELECT, not {statements[0].type.name}")
        if (what := writing(connection, statements[0].query)) is not None:
            raise UserError(f"clipmill sql only reads: give a SELECT without {what} inside it")
        connection.execute(statements[0])
        return [column[0] for column in connection.description], connection.fetchall()
    except duckdb.Error as error:
        raise UserError(one_line(error)) from error


def _explains_writing(connection: duckdb.DuckDBPyConnection, statement: Any) -> bool:
    """EXPLAIN ANALYZE runs what it explains."""
    if statement.type != duckdb.StatementType.EXPLAIN:
        return False
    words = statement.query.split()
    rest = words[2:] if len(words) > 1 and words[1].upper() == "ANALYZE" else words[1:]
    if "--" in statement.query or "/*" in statement.query:  # a comment could hide what follows
        return True
    explained = connection.extract_statements(" ".join(rest))
    if [one.type for one in explained] != [duckdb.StatementType.SELECT]:
        return True
    return writing(connection, explained[0].query) is not None


def _run(connection: duckdb.DuckDBPyConnection, text: str) -> list[tuple[Any, ...]]:
    return connection.execute(text).fetchall()


def parquet_files(connection: duckdb.DuckDBPyConnection, name: str, table: DeltaTable) -> str:
    """The data files of a table as DuckDB reads them."""
    return files_sql(table, "union_by_name = true")


def _stored_sql(
    connection: duckdb.DuckDBPyConnection, name: str, tables: Mapping[str, DeltaTable], files: Files
) -> str:
    """A table as stored: base columns first, then what later runs brought, times in UTC."""
    table = tables.get(name)
    types = {field.name: field.type for field in BASE.get(name, pa.schema([]))}
    if name == "sources":
        types |= dict(zip(RIGHTS.names, RIGHTS.types, strict=True))
    if name not in OWN_TABLES:
        types |= {PASS: pa.int64()}
    if table is not None:
        types |= {field.name: field.type for field in pa.schema(table.schema().to_arrow())}
    if table is None or not file_paths(table):
        nulls = ", ".join(f"CAST(NULL AS {duckdb_type(kind)}) AS {quote(column)}" for column, kind in types.items())
        return f"SELECT {nulls} WHERE false"
    if "deletionVectors" in (table.protocol().reader_features or []):
        raise UserError(f"table {name!r} has deletion vectors, written by another program: run OPTIMIZE on it there")
    relation = files(connection, name, table)
    there = {row[0] for row in _run(connection, f"DESCRIBE SELECT * FROM {relation}")}
    columns = ", ".join(_column_sql(column, kind, column in there) for column, kind in types.items())
    return f"SELECT {columns} FROM {relation}{_latest_rows_sql(connection, name, tables, files)}"


def _column_sql(column: str, kind: pa.DataType, there: bool) -> str:
    if not there:
        return f"CAST(NULL AS {duckdb_type(kind)}) AS {quote(column)}"
    if pa.types.is_timestamp(kind) and kind.tz:
        # A TIMESTAMP WITH TIME ZONE would be shown in the reader's zone, and needs pytz in Python.
        return f"make_timestamp(epoch_us({quote(column)})) AS {quote(column)}"
    return quote(column)


def _latest_rows_sql(
    connection: duckdb.DuckDBPyConnection, name: str, tables: Mapping[str, DeltaTable], files: Files
) -> str:
    """Leaves out superseded rows; nothing to do for a table without any."""
    found = owner(tables[name])
    state_table = tables.get(found.state) if found else None
    if found is None or state_table is None or not has_superseded(state_table):
        return ""
    return f" WHERE {latest_sql(found.key, files(connection, found.state, state_table))}"


def _time_sql(moment: datetime.datetime) -> str:
    """A time as views show times: in UTC, without a zone."""
    return f"TIMESTAMP '{moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(sep=' ')}'"


def _columns(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, str]:
    rows = _run(connection, f"DESCRIBE raw.{quote(name)}")
    return {row[0]: row[1] for row in rows if row[0] != PASS}


def _shown_sql(connection: duckdb.DuckDBPyConnection, name: str, places: Places) -> str:
    columns = {column: quote(column) for column in _columns(connection, name)}
    if name == "sources":
        columns |= {"uri": f"{places.sql('uri')} AS uri", "domain": f"{domain_sql('domain', 'uri')} AS domain"}
    return f"SELECT {', '.join(columns.values())} FROM raw.{quote(name)}"


def _clips_sql(connection: duckdb.DuckDBPyConnection, gates: list[Gate], joined: list[str], places: Places) -> str:
    """Clips with the columns of every table of one row a clip and of manifests, and what the gates say of each.

    Lists and bytes (embeddings, pictures) stay in their own tables. A name that is taken gets its table's
    name before it.
    """
    own = _columns(connection, "clips")
    chosen = {column: f"_c.{quote(column)}" for column in own}  # no table of a stage begins with _
    chosen["uri"] = places.sql(chosen["uri"])
    source = "raw.clips AS _c"
    for table in joined:
        found = {n: kind for n, kind in _columns(connection, table).items() if n not in BOOKKEEPING}
        for column, kind in found.items():
            if _is_wide(kind):
                continue
            taken = column.lower() in {name.lower() for name in chosen}
            chosen[f"{table}_{column}" if taken else column] = f"{quote(table)}.{quote(column)}"
        source += f" LEFT JOIN raw.{quote(table)} ON {quote(table)}.clip_id = _c.clip_id"
        if "status" in _columns(connection, table):
            source += f" AND {quote(table)}.status = 'done'"
    of_sources = _columns(connection, "sources")
    shown_as = shown_in_clips((n for n in of_manifests(of_sources) if not _is_wide(of_sources[n])), [*chosen, *JUDGED])
    chosen |= {shown: f"_s.{quote(column)}" for column, shown in shown_as.items()}
    chosen[shown_as["domain"]] = domain_sql("_s.domain", "_c.uri")
    # DuckDB leaves out a join to distinct keys where no column of it is asked for.
    cells = ", ".join(f"any_value({quote(column)}) AS {quote(column)}" for column in shown_as)
    source += f" LEFT JOIN (SELECT source_id, {cells} FROM raw.sources GROUP BY source_id) AS _s"
    source += " ON _s.source_id = _c.source_id"
    verdicts = ", ".join(f"{sql} AS {name}" for name, sql in verdict_sql(gates).items())
    # A gate over a signal that no batch brought yet judges it as unknown.
    there = {name.lower() for name in chosen}
    named = {column for gate in gates for column in referenced_columns(connection, gate)}
    lacking = sorted(column for column in named if column.lower() not in there)
    inner = [f"{sql} AS {quote(column)}" for column, sql in chosen.items()]
    inner += [f"NULL AS {quote(column)}" for column in lacking]
    shown = ", ".join(quote(column) for column in chosen)
    return f"SELECT {shown}, {verdicts} FROM (SELECT {', '.join(inner)} FROM {source}) AS clips"


def _is_wide(kind: str) -> bool:
    return kind.endswith("[]") or kind.startswith(("STRUCT", "MAP", "BLOB"))


def _runs_sql(live: set[str]) -> str:
    alive = ", ".join(literal(run) for run in sorted(live)) or "NULL"
    return f"""
        SELECT s.run_id, s.recipe, s.recipe_text, s.stages, s.settings, s.versions, s.inputs,
            s.engine, s."at" AS started_at, e."at" AS ended_at,
            CASE
                WHEN e.status IS NOT NULL THEN e.status
                WHEN coalesce(s.run_id IN ({alive}), false) THEN 'running'
                ELSE 'killed'
            END AS status,
            e.counts
        FROM (SELECT * FROM raw.runs WHERE event = 'start') AS s
        LEFT JOIN (SELECT * FROM raw.runs WHERE event = 'end') AS e ON e.run_id = s.run_id
        ORDER BY started_at"""


GATES_SQL = """
    SELECT recipe, position, name, condition, unknown, run_id, set_at, generation,
        generation = max(generation) OVER (PARTITION BY recipe) AS in_force
    FROM raw.gates QUALIFY name IS NOT NULL ORDER BY generation, position"""
