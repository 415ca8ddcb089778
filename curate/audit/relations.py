"""Makes the relations that figures query: one pass over the catalog's tables, kept as narrow columns on disk.

`chosen` are the ids of what is selected, `judged` is a row for each clip of the catalog with what each gate says of it
and the facts of its source, and `audited` those rows of it that are selected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from curate.audit import columns as found
from curate.audit.columns import JudgedGate
from curate.audit.selection import Chosen
from curate.audit.subject import Subject
from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal, one_line, quote
from curate.errors import UserError
from curate.run.selection import interruptible, with_nulls_sql
from curate.shards.inventory import tables_with_shards

MEMORY = "3GB"  # of DuckDB: what is more lies on disk meanwhile
WORK = "audit_work"  # the database on disk, for as long as the audit takes


@contextmanager
def prepared(sql: duckdb.DuckDBPyConnection, catalog: Catalog, chosen: Chosen, beside: Path) -> Iterator[Subject]:
    """The subject of an audit; its relations lie in a temporary folder in `beside` until the block ends.

    Raises UserError for a selection that is wrong.
    """
    subject = describe(sql, catalog, chosen)
    with TemporaryDirectory(dir=beside, prefix=".audit-") as folder:
        for setting in (f"memory_limit = '{MEMORY}'", f"temp_directory = {literal(folder)}"):
            sql.execute(f"SET {setting}")
        sql.execute("SET preserve_insertion_order = false")
        sql.execute(f"ATTACH {literal(str(Path(folder, 'audit.duckdb')))} AS {WORK}")
        try:
            for name, text in subject.relations.items():
                if name != "audited":  # a view of `judged`
                    interruptible(sql, f"CREATE TABLE {WORK}.{name} AS {text}")
                    text = f"SELECT * FROM {WORK}.{name}"
                sql.execute(f"CREATE TEMP VIEW {name} AS {text}")
            yield subject
        except duckdb.OutOfMemoryException as error:
            raise UserError(f"the audit needs more memory or room on disk than there is: {one_line(error)}") from error
        finally:
            for name in subject.relations:
                sql.execute(f"DROP VIEW IF EXISTS temp.{name}")
            sql.execute(f"DETACH {WORK}")


def describe(sql: duckdb.DuckDBPyConnection, catalog: Catalog, chosen: Chosen) -> Subject:
    """The subject, of which nothing is computed yet."""
    tables = found.view_columns(sql)
    gates = found.judged_gates(sql)
    captions = found.caption_columns(tables)
    signals = [name for name in found.signal_columns(tables) if name not in found.OWN]
    of_clips = found.clip_facts(tables, signals, captions, tables_with_shards(sql))
    of_sources = [name for name in found.SOURCE_FACTS if name in tables["sources"]]
    relations = {} if chosen.sql is None else {"chosen": chosen.sql}
    relations["judged"] = _judged_sql(sql, gates, of_clips, of_sources, chosen)
    relations["audited"] = "SELECT * FROM judged" + (" WHERE selected" if chosen.sql is not None else "")
    names = {*found.OWN, *of_clips, *of_sources} - (set() if chosen.weighted else {"weight"})
    return Subject(sql, catalog, relations, frozenset(names), gates, signals, captions, chosen, tables)


def _judged_sql(
    sql: duckdb.DuckDBPyConnection,
    gates: list[JudgedGate],
    of_clips: Mapping[str, str],
    of_sources: list[str],
    chosen: Chosen,
) -> str:
    """A row for each clip: its facts, what the gates say of it, and whether it is selected."""
    there = [row[0] for row in sql.execute("DESCRIBE clips").fetchall()]
    clips = with_nulls_sql(sql, [gate.gate for gate in gates], there)
    own = dict(of_clips) | {c: text for gate in gates for c, text in gate.columns_sql().items()}
    answers = f"SELECT {', '.join(f'{text} AS {quote(name)}' for name, text in own.items())} FROM ({clips}) AS clips"
    passes = [gate.passes for gate in gates]
    names = [literal(gate.name) for gate in gates]
    cases = " ".join(f"WHEN NOT {p} THEN {n}" for p, n in zip(passes, names, strict=True))
    shown = {
        "kept": " AND ".join(passes) or "true",
        "failed": " + ".join(f"CAST(NOT {each} AS INTEGER)" for each in passes) or "0",
        "dropped_by": f"CASE {cases} END" if gates else "CAST(NULL AS VARCHAR)",
        "selected": "chosen.clip_id IS NOT NULL" if chosen.sql is not None else "true",
    }
    if chosen.weighted:
        shown["weight"] = "chosen.weight"
    shown |= {name: f"of_source.{quote(name)}" for name in of_sources}
    facts = ", ".join(["source_id", *map(quote, of_sources)])
    listed = ", ".join(f"{text} AS {quote(name)}" for name, text in shown.items())
    text = f"SELECT answers.*, {listed} FROM ({answers}) AS answers"
    text += f" LEFT JOIN (SELECT {facts} FROM sources) AS of_source ON of_source.source_id = answers.source_id"
    if chosen.sql is not None:
        text += " LEFT JOIN chosen ON chosen.clip_id = answers.clip_id"
    return text
