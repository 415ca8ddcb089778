"""What is still to be done on clips: those that a recipe's stages lack, as a stream of units.

A unit is a group of clips of one source, so that the source is opened once for all of them, or what a stage that
gathers clips by itself makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby, islice, repeat
from typing import Any

import duckdb

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate, literal, one_line, quote, referenced_columns, verdict_sql
from curate.catalog.schema import JUDGED
from curate.catalog.syntax_tree import writing
from curate.errors import UserError
from curate.recipe.plan import Plan
from curate.run.manifests.clip_cells import ClipCells
from curate.shards.changed import PARTS, PIXELS, any_sql, changed_sql
from curate.shards.inventory import shard_rows_sql
from stages.base import ClipStage, ShardStage
from stages.unit import Clip, Place, Row, Source, Unit

UNIT_CLIPS = 64  # of one source, at most
FIRST_CLIPS = (4, 8, 16, 32)  # of the first units
ENTRY = ("bytes", "content_hash", "archive_offset")  # columns of `sources` that a source is opened with
BATCH_CLIPS = 2048  # rows that are fetched from DuckDB at a time
# What a shard stage is told of a clip's row, where its latents can stay: Clip.earlier.
EARLIER = ("shard", "bucket", "window_start_s", "decode_psnr", "captions_hash")


class Selection:
    """Iterating gives a Unit for each group of clips that lacks the row of one stage or more.

    `done` counts, by table, the clips that are wanted there and were done before this run. Raises UserError for a
    `select` that is no SQL for clips.
    """

    def __init__(
        self,
        catalog: Catalog,
        plan: Plan,
        connection: duckdb.DuckDBPyConnection,
        cells: ClipCells,
        limit: int | None = None,
        retry_failed: bool = False,
        rebuild: bool = False,
    ):
        self.plan, self.connection, self.cells, self.limit = plan, connection, cells, limit
        steps = [step for step in plan.steps if isinstance(step.stage, ClipStage)]
        self.tables = [stage.table for stage in plan.clip_stages]
        there = set(catalog.tables())
        columns = [row[0] for row in connection.execute("DESCRIBE clips").fetchall()]
        joins, flags = cells.joins("clips"), []
        for index, step in enumerate(steps):
            table, earlier = step.stage.table, "NULL"
            if table in there:
                rows = f"raw.{quote(table)}"
                row, status = f"m{index}.clip_id IS NOT NULL", f"m{index}.status"
                same = f"m{index}.content_hash IS NOT DISTINCT FROM sources.content_hash"
                fresh = f"m{index}.settings = {literal(plan.state_tables[table].settings)} AND {same}"
                if names := plan.clip_stages[index].source_columns():
                    fresh += f" AND {cells.unchanged_sql(table, f'm{index}', names)}"
                fresh = "false" if rebuild else fresh
                if isinstance(step.stage, ShardStage):
                    rows, changes = shard_rows_sql(connection, table), changed_sql(connection, table, f"m{index}")
                    usable = f"{fresh} AND {status} = 'done' AND NOT {any_sql(changes, PIXELS)}"
                    columns_of = ", ".join(f"{name} := m{index}.{name}" for name in EARLIER)
                    fresh = f"{fresh} AND NOT {any_sql(changes, PARTS)}"
                    earlier = f"CASE WHEN {usable} AND NOT ({fresh}) THEN struct_pack({columns_of}) END"
                joins += f" LEFT JOIN {rows} AS m{index} ON m{index}.clip_id = clips.clip_id"
            else:
                row, status, fresh = "false", "CAST(NULL AS VARCHAR)", "false"
            over = "false" if retry_failed else f"coalesce({fresh} AND {status} IN ('failed', 'unfit'), false)"
            flags += [
                f"{row} AS row{index}",
                f"coalesce({fresh} AND {status} = 'done', false) AS done{index}",
                f"{over} AS failed{index}",
                f"{earlier} AS earlier{index}",
            ]
        chosen = chosen_sql(plan)
        wanted = [f"{passes_sql(step.gates)} AS wanted{index}" for index, step in enumerate(steps)]
        judged = (
            f"SELECT {', '.join(['clips.*', *wanted])} "
            f"FROM ({with_nulls_sql(connection, plan.gates, columns)}) AS clips "
            f"WHERE clips.clip_id IN (SELECT chosen.clip_id FROM ({chosen}\n) AS chosen)"
        )
        self._flagged = f"SELECT {', '.join(['clips.*', *flags])} FROM ({judged}) AS clips{joins}"
        n = len(self.tables)
        lacking = [f"(wanted{i} AND NOT done{i} AND NOT failed{i})" for i in range(n)]
        self._lacking = " OR ".join(lacking) or "false"
        counts = [f"count(*) FILTER (wanted{i} AND done{i})" for i in range(n)]
        asked = ", ".join(["count(*)", f"count(*) FILTER ({self._lacking})", *counts])
        try:
            counted = interruptible(connection, f"SELECT {asked} FROM ({self._flagged})")[0]
        except duckdb.Error as error:
            raise UserError(f"{plan.recipe.file}:{plan.recipe.select_line}: select: {one_line(error)}") from error
        self.selected: int = counted[0]
        lacking_now: int = counted[1]
        self.to_do = lacking_now if limit is None else min(limit, lacking_now)
        self.left = lacking_now - self.to_do  # beyond the limit
        self.done: dict[str, int] = dict(zip(self.tables, counted[2:], strict=True))

    def __iter__(self) -> Iterator[Unit]:
        limit = "" if self.limit is None else f" LIMIT {self.limit}"
        found = {name: f"sources.{name}" for name in ENTRY} | self.cells.columns
        self._extras = list(found)  # under names that no column of clips has
        extras = ", ".join(f"{sql} AS entry_{index}" for index, sql in enumerate(found.values()))
        reader = self.connection.sql(
            f"SELECT todo.*, {extras} FROM (SELECT * EXCLUDE ({', '.join(JUDGED)}) FROM ({self._flagged}) "
            f"WHERE {self._lacking} ORDER BY source_id, start_pts, clip_id{limit}) AS todo"
            f"{self.cells.joins('todo')} ORDER BY todo.source_id, todo.start_pts, todo.clip_id"
        ).to_arrow_reader(BATCH_CLIPS)
        clips = (self._clip(row) for batch in reader for row in batch.to_pylist())
        stage = self.plan.shard_stage
        for group in stage.gather(clips) if stage is not None else by_source(clips):
            first = group[0]
            unit_id = first.clip_id if stage is not None else f"{first.source.source_id}/{first.clip_id}"
            yield Unit(unit_id, group, redone=any(clip.redone for clip in group))

    def _clip(self, row: Row) -> Clip:
        extras = {name: row.pop(f"entry_{index}") for index, name in enumerate(self._extras)}
        size, content_hash, offset = (extras.pop(name) for name in ENTRY)
        place = Place.known(offset, size)
        source = Source(row["source_id"], row["uri"], extras, size, content_hash, place=place)
        done, redone = set(), False
        earlier: Row = {}
        for index, table in enumerate(self.tables):
            row.pop(f"wanted{index}")
            earlier = row.pop(f"earlier{index}") or earlier
            there, is_done, is_failed = (row.pop(f"{name}{index}") for name in ("row", "done", "failed"))
            if is_done or is_failed:
                done.add(table)
            redone = redone or (there and table not in done)
        return Clip(row, source, done=frozenset(done), redone=redone, earlier=earlier)


def by_source(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """Up to UNIT_CLIPS clips of one source at a time. The first groups are small, so that their results, and with them
    the time that is left, are known soon.
    """
    sizes = chain(FIRST_CLIPS, repeat(UNIT_CLIPS))
    for _, of_source in groupby(clips, key=lambda clip: clip.source.source_id):
        while group := list(islice(of_source, next(sizes))):
            yield group


def chosen_sql(plan: Plan) -> str:
    """The clips a recipe looks at; all of them behind a decode pass, where its own gates choose."""
    return plan.recipe.select or "SELECT clip_id FROM clips"


def check_select(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Raises UserError, with the recipe's file and line, for a `select` that is no SQL for clips or gives none."""
    select = chosen_sql(plan)
    where = f"{plan.recipe.file}:{plan.recipe.select_line}: select"
    try:
        kinds = [statement.type for statement in connection.extract_statements(select)]
        if kinds != [duckdb.StatementType.SELECT] or writing(connection, select) is not None:
            raise UserError(f"{where}: expected one SELECT, such as SELECT * FROM clips WHERE verdict = 'kept'")
        columns = {row[0].lower(): row[1] for row in connection.execute(f"DESCRIBE {select}").fetchall()}
        if columns.get("clip_id") != "VARCHAR":
            given = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            raise UserError(f"{where}: must give clip_id, a text; gives {given}")
        found = interruptible(
            connection,
            f"SELECT 1 FROM clips WHERE clip_id IN (SELECT chosen.clip_id FROM ({select}\n) AS chosen) LIMIT 1",
        )
    except duckdb.Error as error:
        raise UserError(f"{where}: {one_line(error)}") from error
    if not found:
        raise UserError(f"{where}: gives no clip of this catalog: look with `clipmill sql`")


def interruptible(connection: duckdb.DuckDBPyConnection, text: str) -> list[tuple[Any, ...]]:
    """All rows of a query, in a thread of its own: Ctrl-C ends the query, however long it would take."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="clipmill-sql")
    asked = worker.submit(lambda: connection.execute(text).fetchall())
    try:
        while True:
            try:
                return asked.result(timeout=0.2)
            except TimeoutError:
                if asked.done():
                    raise
    except KeyboardInterrupt:
        connection.interrupt()
        raise
    finally:
        worker.shutdown(wait=False)


def passes_sql(gates: Sequence[Gate]) -> str:
    """A condition over `clips`: no gate of these drops the clip."""
    return f"({verdict_sql(gates)['verdict']} = 'kept')"


def with_nulls_sql(connection: duckdb.DuckDBPyConnection, gates: Sequence[Gate], columns: Sequence[str]) -> str:
    """The view `clips` with the columns that gates name and no table has brought yet, as NULL."""
    there = {name.lower() for name in columns}
    named = {name for gate in gates for name in referenced_columns(connection, gate)}
    lacking = sorted({name.lower(): name for name in named if name.lower() not in there}.values())
    return f"SELECT {', '.join(['clips.*', *(f'NULL AS {quote(name)}' for name in lacking)])} FROM clips"
