"""Makes the relations that figures query: one pass over the catalog's tables, kept as narrow columns on disk.

`chosen` are the ids of what is selected; `judged` is a row for each clip of the catalog, with its signals and what each
gate says of it; `audited` are those rows of it that are selected; `audited_sources` is a row for each of their sources,
with its facts and its counts of clips; `quantiles` is a row for each signal. With something to compare with, the
relations of the same names behind `other_` are its own, `compared` is a row for each clip of either, and `moved` says
how far each distribution is from the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from curate.audit import columns as found
from curate.audit.against import PREFIX, Against, as_other, selected
from curate.audit.columns import JudgedGate
from curate.audit.movement import compared_relations
from curate.audit.parts import Parts
from curate.audit.quantiles import quantile_rows
from curate.audit.selection import Chosen
from curate.audit.subject import Subject
from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal, one_line, quote
from curate.catalog.views import of_other
from curate.errors import UserError
from curate.run.selection import interruptible, with_nulls_sql
from curate.shards.inventory import tables_with_shards

MEMORY = "2500MB"  # of DuckDB: what is more lies on disk meanwhile
WORK = "audit_work"  # the database on disk, for as long as the audit takes
VIEWS = ("audited", "other_audited")  # relations that are not kept, as they are others with a condition


@contextmanager
def prepared(
    sql: duckdb.DuckDBPyConnection, catalog: Catalog, chosen: Chosen, parts: Parts, beside: Path,
    other: Subject | None = None,
) -> Iterator[Subject]:  # fmt: skip
    """The subject of an audit; its relations lie in a temporary folder in `beside` until the block ends.

    Raises UserError for a selection that is wrong.
    """
    subject = replace(describe(sql, catalog, chosen), other=other)
    parted = {"quantiles": quantile_rows(subject.signals, "audited")}
    relations = {**subject.relations}
    if other is not None:
        relations |= other.relations
        parted |= {"other_quantiles": quantile_rows(other.signals, "other_audited")}
        parted |= compared_relations(subject, other)
    relations |= {name: " UNION ALL ".join(selects) for name, selects in parted.items() if selects}
    relations |= parts.relations(beside)
    with TemporaryDirectory(dir=beside, prefix=".audit-") as folder:
        sql.execute(f"SET memory_limit = '{MEMORY}'")
        sql.execute(f"SET temp_directory = {literal(folder)}")
        sql.execute("SET preserve_insertion_order = false")
        sql.execute(f"ATTACH {literal(str(Path(folder, 'audit.duckdb')))} AS {WORK}")
        try:
            for name, text in relations.items():
                parts.write(name, subject, beside)
                if name not in VIEWS:
                    _fill(sql, name, parted.get(name) or [text])
                    text = f"SELECT * FROM {WORK}.{name}"
                sql.execute(f"CREATE TEMP VIEW {name} AS {text}")
            if chosen.sql is not None:
                _refuse_strangers(subject)
            if chosen.weighted:
                _refuse_weights(subject)
            yield replace(subject, relations=relations)
        except duckdb.OutOfMemoryException as error:
            raise UserError(f"the audit needs more memory or room on disk than there is: {one_line(error)}") from error
        finally:
            for name in relations:
                sql.execute(f"DROP VIEW IF EXISTS temp.{name}")
            sql.execute(f"DETACH {WORK}")


def describe_other(sql: duckdb.DuckDBPyConnection, against: Against, select: str | None) -> Subject:
    """The subject that another one is compared with; its views are attached as those of the database `other`."""
    against.attach(sql)
    chosen = selected(sql, against, select)
    with of_other(sql):
        found = describe(sql, against.catalog, chosen)
    relations = {PREFIX + name: as_other(sql, text, found.tables) for name, text in found.relations.items()}
    return replace(found, relations=relations)


def _refuse_strangers(subject: Subject) -> None:
    """UserError for a selection without clips, and for one of which this catalog has none."""
    chosen, there = subject.rows("SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM audited)")[0]
    if not chosen:
        raise UserError(f"no clip is chosen: {subject.chosen.said}")
    if not there:
        raise UserError(
            f"{chosen:,} of {chosen:,} chosen clips are not in the catalog {subject.catalog.uri}: "
            f"{subject.chosen.said}; a dataset is audited with the catalog that it was made of"
        )


def _fill(sql: duckdb.DuckDBPyConnection, name: str, texts: Sequence[str]) -> None:
    """Makes a table of the audit from the rows of one query after another. UserError for a selection that fails on some
    row.
    """
    first, *others = texts
    try:
        interruptible(sql, f"CREATE TABLE {WORK}.{name} AS {first}")
        for text in others:
            interruptible(sql, f"INSERT INTO {WORK}.{name} {text}")
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if name != "chosen":
            raise
        raise UserError(f"--select: {one_line(error)}") from error


def _refuse_weights(subject: Subject) -> None:
    wrong = "weight IS NULL OR NOT isfinite(weight) OR weight < 0"
    if number := subject.rows(f"SELECT count(*) FROM chosen WHERE {wrong}")[0][0]:
        raise UserError(f"--select gives {number:,} clips a weight that is no number from 0 on")


def describe(sql: duckdb.DuckDBPyConnection, catalog: Catalog, chosen: Chosen) -> Subject:
    """The subject, of which nothing is computed yet."""
    tables = found.view_columns(sql)
    gates = found.judged_gates(sql)
    captions = found.caption_columns(tables)
    signals = [name for name in found.signal_columns(tables) if name not in found.OWN]
    facts = found.clip_facts(tables, signals, captions, tables_with_shards(sql))
    of_sources = [name for name in found.SOURCE_FACTS if name in tables["sources"]]
    relations = {} if chosen.sql is None else {"chosen": chosen.sql}
    relations["judged"] = _judged_sql(sql, gates, facts, chosen)
    relations["audited"] = "SELECT * FROM judged" + (" WHERE selected" if chosen.sql is not None else "")
    relations["audited_sources"] = _sources_sql(gates, of_sources, chosen)
    names = {*found.OWN, *facts} - (set() if chosen.weighted else {"weight"})
    return Subject(
        sql, catalog, relations, frozenset(names), frozenset(of_sources), gates, signals, captions, chosen, tables
    )


def _judged_sql(
    sql: duckdb.DuckDBPyConnection, gates: list[JudgedGate], facts: Mapping[str, str], chosen: Chosen
) -> str:
    there = [row[0] for row in sql.execute("DESCRIBE clips").fetchall()]
    clips = with_nulls_sql(sql, [gate.gate for gate in gates], there)
    own = dict(facts) | {column: text for gate in gates for column, text in gate.columns_sql().items()}
    answers = f"SELECT {', '.join(f'{text} AS {quote(name)}' for name, text in own.items())} FROM ({clips}) AS clips"
    passes = [gate.passes for gate in gates]
    cases = " ".join(f"WHEN NOT {gate.passes} THEN {literal(gate.name)}" for gate in gates)
    shown = {
        "kept": " AND ".join(passes) or "true",
        "failed": " + ".join(f"CAST(NOT {each} AS INTEGER)" for each in passes) or "0",  # gates
        "dropped_by": f"CASE {cases} END" if gates else "CAST(NULL AS VARCHAR)",
        "selected": "chosen.clip_id IS NOT NULL" if chosen.sql is not None else "true",
    }
    if chosen.weighted:
        shown["weight"] = "chosen.weight"
    listed = ", ".join(f"{text} AS {quote(name)}" for name, text in shown.items())
    joined = " LEFT JOIN chosen ON chosen.clip_id = answers.clip_id" if chosen.sql is not None else ""
    return f"SELECT answers.*, {listed} FROM ({answers}) AS answers{joined}"


def _sources_sql(gates: list[JudgedGate], facts: list[str], chosen: Chosen) -> str:
    counts = {
        "clips": "count(*)",
        "seconds": "sum(seconds)",
        "kept_clips": "count(*) FILTER (kept)",
        "kept_seconds": "coalesce(sum(seconds) FILTER (kept), 0)",
    }
    counts |= {f"fails_{gate.column}": f"count(*) FILTER (NOT {gate.passes})" for gate in gates}
    if chosen.weighted:
        counts["weight"] = "sum(weight)"
    counted = ", ".join(f"{text} AS {name}" for name, text in counts.items())
    named = ", ".join(map(quote, ["source_id", "bytes", *facts]))
    return (
        f"SELECT * FROM (SELECT source_id, {counted} FROM audited GROUP BY source_id) AS counted "
        f"LEFT JOIN (SELECT {named} FROM sources) AS facts USING (source_id)"
    )
