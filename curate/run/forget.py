"""`clipmill forget`: takes failed and vanished sources out of the catalog, with all that was made of them.

It is no takedown: whatever an input names again comes back, with the same ids. Tables of stages on clips go first and
`sources`, with clips and thumbnails, last: after a crash in between the same command finds the sources again.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import duckdb
import pyarrow as pa

from curate.catalog.catalog import Catalog
from curate.catalog.gates import one_line, quote
from curate.catalog.ledger import Ledger
from curate.catalog.state import owner
from curate.catalog.views import connect, query
from curate.datasets.holding import datasets_that_hold, shards_that_hold
from curate.errors import UserError, printable
from curate.progress_bar import ProgressBar
from curate.removal.confirm import confirm
from curate.run.presence import Presence
from curate.run.report import hours
from curate.shards.inventory import collect_orphans, tables_with_shards
from stages.decode.sources import file_status
from stages.frames import SourceError

THREADS = 16
NAMED = 5  # sources that are named of each kind
VANISHED = "vanished"  # a condition may name it beside the columns of `sources`
CLIPS = "SELECT clip_id FROM raw.clips WHERE source_id IN (SELECT source_id FROM clipmill_going)"


def forget(uri: str, where: str, dry_run: bool = False, yes: bool = False) -> int:
    """Shows what is WHERE `where` and takes it out of the catalog, unless `dry_run`; returns 0.

    UserError for wrong SQL, where nothing is chosen, for a source that is done and still there or can't be looked at,
    and while a run is at work.
    """
    catalog = Catalog.open(uri)
    with ExitStack() as stack:
        ledgers = {} if dry_run else _ledgers(catalog, stack)
        with connect(catalog) as sql:
            _choose(sql, where, catalog.uri)
            _refuse_those_there(sql, catalog.uri)
            sources, clips = _show(sql, catalog)
            if dry_run:
                print("nothing was changed (--dry-run)")
                return 0
            confirm(f"Forget {sources:,} sources and {clips:,} clips?", yes)
            keys = _keys(sql, list(ledgers))
            with_shards = set(tables_with_shards(sql))
        for table, ledger in ledgers.items():
            ledger.forget(keys[table])
            if table in with_shards:
                collect_orphans(ledger)
    print(f"forgotten: {sources:,} sources with {clips:,} clips; they come back if a run's input names them again")
    return 0


def _ledgers(catalog: Catalog, stack: ExitStack) -> dict[str, Ledger]:
    """The ledger of each state table, `sources` last."""
    run_id = uuid.uuid4().hex
    found = {name: made for name in catalog.tables() if (table := catalog.table(name)) and (made := owner(table))}
    ours = sorted((name == "sources", name, made.key) for name, made in found.items() if made.state == name)
    return {name: stack.enter_context(Ledger(catalog, name, key, run_id)) for _, name, key in ours}


def _choose(sql: duckdb.DuckDBPyConnection, where: str, catalog: str) -> None:
    """The table `clipmill_going`: source_id, uri, status, reason of what the condition is true of."""
    relation, chosen = "sources", "SELECT source_id, uri, status, reason FROM {} AS sources WHERE (" + where + "\n)"
    try:
        query(sql, f"{chosen.format(relation)} LIMIT 0")  # says what is wrong, and that it is one condition
    except UserError:
        query(sql, f"{chosen.format(f'(SELECT *, true AS {VANISHED} FROM sources)')} LIMIT 0")
        gone = [source.source_id for source in Presence(sql)]
        sql.register("clipmill_vanished", pa.table({"source_id": pa.array(gone, pa.string())}))
        relation = f"(SELECT *, source_id IN (FROM clipmill_vanished) AS {VANISHED} FROM sources)"
    try:
        sql.execute(f"CREATE TABLE clipmill_going AS {chosen.format(relation)}")
    except duckdb.Error as error:
        raise UserError(f"--where {where}: {one_line(error)}") from error
    if not _number(sql, "FROM clipmill_going"):
        raise UserError(
            f"no source of {catalog} is WHERE {where}: \"status = 'failed'\" is true of failed ones, "
            f"{VANISHED!r} of those whose file is gone"
        )


def _refuse_those_there(sql: duckdb.DuckDBPyConnection, catalog: str) -> None:
    """UserError for done sources that are still there, or of which that can't be seen."""
    uris = [
        uri for (uri,) in sql.execute("SELECT uri FROM clipmill_going WHERE status = 'done' ORDER BY uri").fetchall()
    ]
    there, unseen = list[str](), list[str]()
    with ThreadPoolExecutor(THREADS) as pool, ProgressBar("forget", len(uris), "sources looked for") as bar:
        for number, (uri, found) in enumerate(zip(uris, pool.map(_is_there, uris), strict=True), 1):
            if isinstance(found, str):
                unseen.append(f"{uri} {found}")
            elif found:
                there.append(uri)
            bar.update(number)
    if there:
        raise UserError(
            f"{len(there):,} of these sources are done and still there, such as {there[0]}: forget takes failed "
            f"sources and those whose file is gone (add AND {VANISHED} to the condition); to take down what is there, "
            f"use `clipmill purge --catalog {shlex.quote(catalog)} --where SQL`"
        )
    if unseen:
        raise UserError(f"of {len(unseen):,} of these sources it can't be seen whether they are gone: {unseen[0]}")


def _is_there(uri: str) -> bool | str:
    """Whether a source is there; the reason where that can't be seen."""
    try:
        return file_status(uri) is not None
    except SourceError as error:
        return str(error)


def _show(sql: duckdb.DuckDBPyConnection, catalog: Catalog) -> tuple[int, int]:
    """Prints what goes and what stays; gives the numbers of sources and clips."""
    for status, what in (("failed", "failed"), ("done", "done and no longer there")):
        rows = sql.execute("SELECT uri, reason FROM clipmill_going WHERE status = ? ORDER BY uri", [status]).fetchall()
        if rows:
            print(f"{len(rows):,} sources {what}:")
            for uri, reason in rows[:NAMED]:
                print(printable(f"  {uri}" + (f": {reason}" if status == "failed" else "")))
            if len(rows) > NAMED:
                print(f"  and {len(rows) - NAMED:,} more")
    for line in _whole_folders(sql, catalog.uri):
        print(line)
    sources = _number(sql, "FROM clipmill_going")
    ((clips, seconds),) = sql.execute(
        f"SELECT count(*), coalesce(sum(end_s - start_s), 0) FROM raw.clips WHERE clip_id IN ({CLIPS})"
    ).fetchall()
    rows_of = {name: _number(sql, f"FROM raw.{quote(name)} WHERE clip_id IN ({CLIPS})") for name in _tables(catalog)}
    beside = ", ".join(f"{name} {number:,}" for name, number in rows_of.items() if number)
    print(f"with them go {clips:,} clips ({hours(seconds)} hours)" + (f" and their rows: {beside}" if beside else ""))
    for line in (*_duplicates(sql, catalog), *shards_that_hold(sql, CLIPS), *datasets_that_hold(catalog, sql, CLIPS)):
        print(f"note: {line}")
    return sources, clips


def _whole_folders(sql: duckdb.DuckDBPyConnection, catalog: str) -> Iterator[str]:
    """Folders that are not there as a whole: likelier moved, or on a disk that is not mounted, than deleted."""
    presence = Presence(sql, "status = 'done' AND source_id IN (SELECT source_id FROM clipmill_going)")
    for _ in presence:
        pass
    for folder, number in presence.lost_folders.most_common(NAMED):
        yield printable(
            f"the folder {folder} with {number:,} of them is not there: if it moved, `clipmill relocate "
            f"{shlex.quote(folder)} NEW --catalog {shlex.quote(catalog)}` keeps its clips; if its disk is not mounted, "
            "mount it"
        )


def _tables(catalog: Catalog) -> list[str]:
    """The tables that have a row of a clip."""
    found = ((name, table) for name in catalog.tables() if (table := catalog.table(name)) is not None)
    return [name for name, table in found if owner(table) == (name, "clip_id")]


def _duplicates(sql: duckdb.DuckDBPyConnection, catalog: Catalog) -> Iterator[str]:
    """Clips that stay and were judged to be duplicates of some that go."""
    for name in _tables(catalog):
        columns = [row[0] for row in sql.execute(f"DESCRIBE raw.{quote(name)}").fetchall()]
        for column in (one for one in columns if one.endswith("duplicate_of")):
            number = _number(
                sql, f"FROM raw.{quote(name)} WHERE {quote(column)} IN ({CLIPS}) AND clip_id NOT IN ({CLIPS})"
            )
            if number:
                yield f"{name}: {number:,} clips are duplicates of these; run the recipe of {name} again to judge them"


def _keys(sql: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> dict[str, list[str]]:
    """What each state table is to forget: sources by their ids, all else by clips."""
    clips = [clip for (clip,) in sql.execute(CLIPS).fetchall()]
    sources = [source for (source,) in sql.execute("SELECT source_id FROM clipmill_going").fetchall()]
    return {table: sources if table == "sources" else clips for table in tables}


def _number(sql: duckdb.DuckDBPyConnection, query_from: str) -> int:
    return sql.execute(f"SELECT count(*) {query_from}").fetchall()[0][0]
