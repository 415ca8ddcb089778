"""`clipmill relocate OLD NEW`: notes that a folder or bucket moved. Ids stay, and every stage reads the new place."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import duckdb

from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal
from curate.catalog.lease import acquire
from curate.catalog.places import MOVED, Places, note_places, spelled_moves
from curate.catalog.views import connect
from curate.errors import UserError
from curate.removal.carry_out import finish_unfinished
from curate.storage import is_local, local_path
from stages.decode.sources import file_status
from stages.frames import SourceError

LOOKED_AT = 100  # sources of which it is seen whether they are at the new place
THREADS = 16


def relocate(catalog: Catalog, old: str, new: str, dry_run: bool = False, unseen: bool = False) -> int:
    """Counts what lies under `old`, looks for it under `new`, and notes the move, unless `dry_run`.

    UserError where no source lies under `old`, where none of those looked at is under `new` (but with `unseen`), and
    where two sources would come to lie at one place.
    """
    old, new = _canonical(old), _canonical(new)
    if old == new:
        raise UserError(f"{old} and {new} are the same place")
    finish_unfinished(catalog)
    lease = acquire(catalog.uri, "sources", uuid.uuid4().hex)  # a run at work has listed by the old map
    try:
        with connect(catalog) as sql:
            move = Places([(old, new)]).sql("uri")
            _create_moving(sql, old, new, move)
            sources, clips = _counts(sql)
            if not sources:
                raise UserError(f"no source of {catalog.uri} lies under {old}{_where(sql)}")
            _refuse_shared_places(sql, old, new, catalog.uri)
            sample = sql.execute(f"SELECT place FROM moving ORDER BY source_id LIMIT {LOOKED_AT}").fetchall()
        there, first_gone = _there([row[0] for row in sample])
        print(
            f"{sources:,} sources with {clips:,} clips lie under {old}; "
            f"of {len(sample):,} looked for under {new}, {there:,} are there"
        )
        if not there and not unseen:
            raise UserError(
                f"none of them is under {new} (not {first_gone}): check the spelling, or say --unseen where "
                "this machine can't see the new place (sources that are gone for good: `clipmill forget`)"
            )
        if there < len(sample):
            print(
                f"not there, for instance: {first_gone} (once relocated, `clipmill forget --where vanished` takes "
                "those out that are gone for good)",
                file=sys.stderr,
            )
        if dry_run:
            print("nothing was changed (--dry-run)")
            return 0
        note_places(catalog, MOVED, [(old, new)])
        print(f"relocated: ids stay, and `clipmill run` with --input {new} finds these sources done")
        return 0
    finally:
        lease.release()


def _canonical(text: str) -> str:
    """A prefix as sources are spelled."""
    uri = local_path(text) if is_local(text) else text.rstrip("/")
    if uri in ("/", "") or uri.endswith(":"):
        raise UserError(f"{text!r} is no folder or bucket: name one that moved")
    return uri


def _create_moving(sql: duckdb.DuckDBPyConnection, old: str, new: str, move: str) -> None:
    """The temporary table `moving`: source_id, uri and new place of each source that lies under `old`."""
    under = " OR ".join(
        f"uri = {literal(prefix)} OR starts_with(uri, {literal(prefix + '/')})" for prefix, _ in spelled_moves(old, new)
    )
    sql.execute(f"CREATE TEMP TABLE moving AS SELECT source_id, uri, {move} AS place FROM sources WHERE {under}")


def _counts(sql: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    sources = sql.execute("SELECT count(*) FROM moving").fetchall()[0][0]
    clips = sql.execute("SELECT count(*) FROM raw.clips WHERE source_id IN (SELECT source_id FROM moving)").fetchall()
    return sources, clips[0][0]


def _where(sql: duckdb.DuckDBPyConnection) -> str:
    """Folders in which its sources do lie, for who has mistyped one."""
    rows = sql.execute(
        "SELECT regexp_replace(uri, '/[^/]*$', '') AS folder FROM sources GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 3"
    ).fetchall()
    return f"; its sources lie in {', '.join(row[0] for row in rows)}" if rows else ": it has no sources yet"


def _refuse_shared_places(sql: duckdb.DuckDBPyConnection, old: str, new: str, catalog: str) -> None:
    taken = sql.execute(
        "SELECT place, count(*) OVER () FROM moving JOIN sources ON sources.uri = moving.place "
        "WHERE sources.source_id NOT IN (SELECT source_id FROM moving) ORDER BY place LIMIT 1"
    ).fetchall()
    if taken:
        raise UserError(
            f"{taken[0][1]:,} of the sources under {old} would come to lie where the catalog knows another one "
            f"(first: {taken[0][0]}): was {new} ingested before this? Then `clipmill forget --where vanished` lets the "
            "old ones go; the next time relocate before the ingest of what moved"
        )


def _there(places: Sequence[str]) -> tuple[int, str]:
    """How many of these exist, and the first that does not."""
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(_exists, places))
    gone = [place for place, there in zip(places, found, strict=True) if not there]
    return sum(found), gone[0] if gone else ""


def _exists(uri: str) -> bool:
    try:
        return file_status(uri) is not None
    except SourceError as error:
        raise UserError(f"{uri} {error}") from error
