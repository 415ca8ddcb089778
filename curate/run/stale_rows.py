"""Rows of stages on clips that no longer say anything true: of clips that are no more, or of other bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import duckdb

from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal, quote
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BASE
from curate.catalog.state import owner
from curate.errors import UserError
from stages.unit import source_id


def forget_stale(catalog: Catalog, connection: duckdb.DuckDBPyConnection, ledgers: Mapping[str, Ledger]) -> None:
    """After sources were made again, in every table of a stage on clips: rows whose clip is gone or whose source
    has other content now. A table that another run fills is left to the next run that does.
    """
    for name in catalog.tables():
        table = catalog.table(name)
        if name in BASE or table is None or owner(table) != (name, "clip_id"):
            continue
        gone = stale_clips(connection, name)
        if not gone:
            continue
        if name in ledgers:
            ledgers[name].forget(gone)
            continue
        try:
            with Ledger(catalog, name, key="clip_id", run_id=next(iter(ledgers.values())).run_id) as ledger:
                ledger.forget(gone)
        except UserError:
            continue


def stale_clips(connection: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """Clips of a table that are no more, or whose row was made of other bytes than their source has now."""
    columns = {row[0] for row in connection.execute(f"DESCRIBE {quote(table)}").fetchall()}
    other = "t.content_hash IS DISTINCT FROM s.content_hash" if "content_hash" in columns else "false"
    rows = connection.execute(
        f"SELECT t.clip_id FROM {quote(table)} AS t LEFT JOIN raw.clips AS c USING (clip_id) "
        f"LEFT JOIN sources AS s ON s.source_id = c.source_id WHERE c.clip_id IS NULL OR {other}"
    ).fetchall()
    return [clip for (clip,) in rows]


def failures_of(archives: Collection[str], sources: Ledger) -> list[str]:
    """Ids of archives that failed as a whole and can be listed now, so that their members are the sources."""
    ids = {source_id(uri) for uri in archives}
    return [one for table in (sources.known() if ids else ()) for one in table["source_id"].to_pylist() if one in ids]


def of_other_settings(connection: duckdb.DuckDBPyConnection, table: str, settings: str) -> list[str]:
    """Clips of a table whose rows were made under other settings."""
    rows = connection.execute(
        f"SELECT clip_id FROM {quote(table)} WHERE settings IS DISTINCT FROM {literal(settings)}"
    ).fetchall()
    return [clip for (clip,) in rows]
