"""What the page asks of the catalog. Each question takes a connection and values of JSON, and answers in such values.

`queries` are the results of earlier queries that pages of clips are taken from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb

from curate.audit.browse.clip_choice import ClipChoice, QueryClips, TriedGate, column_kinds, dataset_command
from curate.audit.browse.confined import CLIPS, check_select
from curate.catalog.gates import condition_sql, literal, quote, referenced_columns
from curate.errors import UserError
from curate.exports.clip_rows import CONTENT, SOURCE_BYTES, SOURCE_OFFSET, plain
from curate.query.gates import gates_in_force
from curate.run.report import hours

PAGE = 48  # clips
MOST_ROWS = 1000  # of a query that are shown
MOST_CHARACTERS = 2000  # of a value that are shown
MOST_ANSWER = 8_000_000  # characters of all values
COMMON = 12  # values of a column that are listed
CARD = ("clip_id", "uri", "media", "start_s", "end_s", "verdict", "failed_gates")
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "UBIGINT", "UINTEGER")
EXACT = 2**53  # a larger whole number is no number of JavaScript

Connection = duckdb.DuckDBPyConnection


def schema(queries: QueryClips, sql: Connection) -> dict[str, Any]:
    """The views with their columns, the gates in force, and how much there is."""
    tables = {
        name: [{"name": row[0], "type": row[1]} for row in sql.execute(f"DESCRIBE {quote(name)}").fetchall()]
        for (name,) in sql.execute(
            "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal AND NOT temporary "
            "ORDER BY view_name <> 'clips', view_name"
        ).fetchall()
    }
    clips, seconds, kept = sql.execute(
        f"SELECT count(*), coalesce(sum(end_s - start_s), 0), count(*) FILTER (verdict = 'kept') FROM {CLIPS}"
    ).fetchall()[0]
    gates = [
        {"name": each.name, "where": each.gate.where, "unknown": each.gate.unknown} for each in gates_in_force(sql)
    ]
    return {"tables": tables, "gates": gates, "clips": clips, "hours": hours(seconds), "kept": kept}


def column(queries: QueryClips, sql: Connection, name: str) -> dict[str, Any]:
    """What a column of clips holds: its range where it is a number, else its most frequent values."""
    kind = column_kinds(sql).get(name)
    if kind is None:
        raise UserError(f"clips have no column {name!r}")
    value = quote(name)
    unknown = sql.execute(f"SELECT count(*) FILTER ({value} IS NULL) FROM {CLIPS}").fetchall()[0][0]
    if kind.split("(")[0] in NUMBERS:
        row = sql.execute(f"SELECT min({value}), median({value}), max({value}) FROM {CLIPS}").fetchall()[0]
        return {"type": kind, "unknown": unknown, "range": [shown(cell) for cell in row]}
    each = f"unnest({value})" if kind.endswith("[]") else value
    rows = sql.execute(
        f"SELECT CAST(value AS VARCHAR), count(*) FROM (SELECT {each} AS value FROM {CLIPS}) WHERE value IS NOT NULL "
        f"GROUP BY value ORDER BY 2 DESC, 1 LIMIT {COMMON}"
    ).fetchall()
    return {"type": kind, "unknown": unknown, "common": [[shown(cell), number] for cell, number in rows]}


def page(queries: QueryClips, sql: Connection, selection: ClipChoice, after: int | None = None) -> dict[str, Any]:
    """Up to PAGE clips, from behind the one numbered `after`. `next` is the number to go on from, None at the end."""
    kinds = column_kinds(sql)
    expression = order_sql(selection, kinds)
    chosen = ", ".join(["_row", *map(quote, CARD), "_place", f"{expression or 'NULL'} AS _by"])
    relation = selection.relation(sql, chosen, queries)
    rows: list[tuple[Any, ...]] = []
    for behind, order in _stretches(sql, expression, selection.descending, after):
        if (wanted := PAGE + 1 - len(rows)) > 0:
            rows += sql.execute(f"SELECT * FROM ({relation}) WHERE {behind} ORDER BY {order} LIMIT {wanted}").fetchall()
    clips = [card(row) for row in rows[:PAGE]]
    return {"clips": clips, "next": rows[PAGE - 1][0] if len(rows) > PAGE else None}


def _stretches(sql: Connection, expression: str | None, descending: bool, after: int | None) -> list[tuple[str, str]]:
    """What comes behind the clip numbered `after`, as (condition, order): clips with a value to sort by, then those
    without one. Each condition is a bound that a scan can use; nothing is skipped over.
    """
    behind = "true" if after is None else f"_row > {int(after)}"
    if expression is None:
        return [(behind, "_row")]
    unknown = (f"_by IS NULL AND {behind}", "_row")
    order = f"_by {'DESC' if descending else 'ASC'}, _row"
    if after is None:
        return [("_by IS NOT NULL", order), unknown]
    row = f"SELECT CAST({expression} AS VARCHAR), typeof({expression}) FROM {CLIPS} WHERE _row = {int(after)}"
    found = sql.execute(row).fetchall()
    if not found or found[0][0] is None:
        return [unknown]
    last = f"CAST({literal(found[0][0])} AS {found[0][1]})"
    further = "<" if descending else ">"
    return [(f"_by {further}= {last} AND (_by {further} {last} OR {behind})", order), ("_by IS NULL", "_row")]


def count(queries: QueryClips, sql: Connection, selection: ClipChoice) -> dict[str, Any]:
    """How many clips and hours a selection has, and how many of them are kept; its SQL; the command for a dataset."""
    relation = selection.relation(sql, "end_s - start_s AS seconds, verdict", queries)
    clips, seconds, kept = sql.execute(
        f"SELECT count(*), coalesce(sum(seconds), 0), count(*) FILTER (verdict = 'kept') FROM ({relation})"
    ).fetchall()[0]
    return {"clips": clips, "hours": hours(seconds), "kept": kept}


def export(queries: QueryClips, sql: Connection, selection: ClipChoice, catalog: str) -> dict[str, Any]:
    """The selection as SQL, and the command that makes a dataset of it."""
    select = selection.sql(sql)
    return {"sql": select, "dataset": dataset_command(catalog, select)}


def clip(queries: QueryClips, sql: Connection, clip_id: str) -> dict[str, Any]:
    """Everything about one clip: its columns, its source's, what each gate says, its captions, its duplicates."""
    where = f"clip_id = {literal(clip_id)}"
    cursor = sql.execute(f"SELECT * FROM {CLIPS} WHERE {where}")
    names = [column[0] for column in cursor.description]
    rows = cursor.fetchall()
    if not rows:
        raise UserError(f"no clip {clip_id!r}")
    values = dict(zip(names, rows[0], strict=True))
    row, place = values.pop("_row"), values.pop("_place")
    cursor = sql.execute(f"SELECT * FROM sources WHERE source_id = {literal(values['source_id'])}")
    source = dict(zip([column[0] for column in cursor.description], (cursor.fetchall() or [()])[0], strict=False))
    return {
        "clip": {name: shown(value) for name, value in values.items()},
        "source": {name: shown(value) for name, value in source.items()},
        "row": row,
        "place": place_text(place),
        "gates": _judged(sql, values["clip_id"]),
        "captions": [{"name": name, "text": shown(values[name])} for name in captions_of(values)],
        "duplicates": [group for name in values if name.endswith("duplicate_cluster")
                       if (group := _duplicates(sql, name, values))],
    }  # fmt: skip


def captions_of(values: dict[str, Any]) -> list[str]:
    """The columns that are captions: the stage counts the words of each."""
    return [name for name in values if f"{name}_words" in values]


def span(queries: QueryClips, sql: Connection, clip_id: str) -> dict[str, Any]:
    """What has to be known of a clip to cut it out of its source."""
    cursor = sql.execute(
        f"SELECT clips.* EXCLUDE (_row, _place), sources.bytes AS {SOURCE_BYTES}, "
        f"sources.archive_offset AS {SOURCE_OFFSET}, sources.content_hash AS {quote(CONTENT)}, "
        "sources.codec AS source_codec, sources.pixel_format AS source_pixels "
        f"FROM {CLIPS} AS clips LEFT JOIN sources ON sources.source_id = clips.source_id "
        f"WHERE clips.clip_id = {literal(clip_id)}"
    )
    names, rows = [column[0] for column in cursor.description], cursor.fetchall()
    if not rows:
        raise UserError(f"no clip {clip_id!r}")
    return {name: plain(value) for name, value in zip(names, rows[0], strict=True) if not isinstance(value, bytes)}


def rows_of(queries: QueryClips, sql: Connection, text: str) -> dict[str, Any]:
    """The first rows of a SELECT of the user's. `clips`: whether it gives clip_id, so that its clips can be shown."""
    text = text.strip().rstrip(";").strip()
    check_select(sql, text)
    cursor = sql.execute(text)
    names = [column[0] for column in cursor.description]
    found, size = [], 0
    for row in cursor.fetchmany(MOST_ROWS):
        cells = [shown(value) for value in row]
        size += sum(len(cell) if isinstance(cell, str) else 8 for cell in cells)
        if size > MOST_ANSWER:
            break
        found.append(cells)
    more = len(found) == MOST_ROWS or size > MOST_ANSWER
    return {"columns": names, "rows": found, "more": more, "clips": "clip_id" in names}


def try_gate(queries: QueryClips, sql: Connection, gate: TriedGate) -> dict[str, Any]:
    """How many clips and hours a gate would keep, drop and bring back; nothing is put in force."""
    trial = gate.trial(sql)
    return {
        name: {"clips": found.clips, "hours": hours(found.seconds), "seconds": found.seconds}
        for name, found in trial.counts(sql).items()
    }


def _judged(sql: Connection, clip_id: str) -> list[dict[str, Any]]:
    """What each gate in force says of a clip, with the values of the columns that it names."""
    found, kinds = [], column_kinds(sql)
    for each in gates_in_force(sql):
        names = sorted(name for name in referenced_columns(sql, each.gate) if name in kinds)
        lacking = sorted(name for name in referenced_columns(sql, each.gate) if name not in kinds)
        columns = ", ".join(["*", *(f"NULL AS {quote(name)}" for name in lacking)])
        row = sql.execute(
            f"SELECT {', '.join([condition_sql(each.gate), *map(quote, names)])} "
            f"FROM (SELECT {columns} FROM {CLIPS} WHERE clip_id = {literal(clip_id)}) AS clips"
        ).fetchall()[0]
        said = "unknown" if row[0] is None else "passes" if row[0] else "fails"
        drops = said == "fails" or (said == "unknown" and each.gate.unknown == "drop")
        values = {name: shown(value) for name, value in zip(names, row[1:], strict=True)}
        found.append({"name": each.name, "where": each.gate.where, "says": said, "drops": drops, "values": values})
    return found


def _duplicates(sql: Connection, cluster: str, values: dict[str, Any]) -> dict[str, Any] | None:
    """The other clips of a clip's cluster."""
    if values[cluster] is None:
        return None
    where = f"{quote(cluster)} = {literal(str(values[cluster]))} AND clip_id <> {literal(values['clip_id'])}"
    chosen = ", ".join(["_row", *map(quote, CARD), "_place", "NULL"])
    rows = sql.execute(f"SELECT {chosen} FROM {CLIPS} WHERE {where} ORDER BY _row LIMIT {PAGE}").fetchall()
    number = sql.execute(f"SELECT count(*) FROM {CLIPS} WHERE {where}").fetchall()[0][0]
    before = cluster.removesuffix("duplicate_cluster")
    told = {name: shown(values[name]) for name in (f"{before}duplicate_kind", f"{before}duplicate_of")
            if name in values}  # fmt: skip
    return {"column": cluster, "count": number, "clips": [card(row) for row in rows], **told} if number else None


def order_sql(selection: ClipChoice, kinds: dict[str, str]) -> str | None:
    """What clips are sorted by: a column, or the rank of the hits; None: as they lie."""
    if selection.order is not None:
        if selection.order not in kinds:
            raise UserError(f"clips have no column {selection.order!r}")
        return quote(selection.order)
    if selection.found is not None:
        return f"list_position([{', '.join(map(literal, selection.found))}]::VARCHAR[], clip_id)"
    return None


def card(row: tuple[Any, ...]) -> dict[str, Any]:
    """A clip of a page: its number, the columns of CARD, the place of its thumbnail, what it is sorted by."""
    number, *values, place, by = row
    return {
        "row": number,
        "place": place_text(place),
        "by": shown(by),
        **{name: shown(value) for name, value in zip(CARD, values, strict=True)},
    }


def place_text(place: int | None) -> str | None:
    return None if place is None else str(place)


def shown(value: Any) -> Any:
    """A value as JSON has it and JavaScript keeps it; long texts are cut."""
    if isinstance(value, bytes | bytearray):
        return f"<{len(value):,} bytes>"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    if isinstance(value, list | tuple):
        return [shown(item) for item in value[:MOST_ROWS]]
    found = plain(value)
    return f"{found[:MOST_CHARACTERS]}…" if isinstance(found, str) and len(found) > MOST_CHARACTERS else found


QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "schema": schema,
    "column": column,
    "page": page,
    "count": count,
    "export": export,
    "clip": clip,
    "span": span,
    "rows": rows_of,
    "try": try_gate,
}
