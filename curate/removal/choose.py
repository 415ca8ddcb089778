"""What a purge is asked to take: a condition in SQL, or a list of URIs, ids and content hashes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from curate.catalog.catalog import Catalog
from curate.catalog.gates import one_line
from curate.catalog.locations import canonical
from curate.catalog.places import read_places
from curate.errors import UserError
from curate.removal.plan import Plan, PurgedClip, PurgedSource
from stages.unit import source_id


class NothingMatches(UserError):
    """A condition that is true of nothing in the catalog."""


ID = re.compile(r"[0-9a-f]{32}")
KEYS = {"sources": "source_id", "clips": "clip_id"}


@dataclass(frozen=True)
class Asked:
    """`where` is a condition on `of` ('sources' or 'clips'; None: sources, if it names only their columns). `lines` are
    those of a list.
    """

    where: str | None = None
    of: str | None = None
    lines: Sequence[str] = field(default_factory=list)


def read_list(path: str) -> list[str]:
    """The lines of a list, without empty ones and comments."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")  # paths may be no UTF-8
    except OSError as error:
        raise UserError(f"--from-file {path}: {error.strerror or error}") from error
    if "\0" in text:
        raise UserError(f"--from-file {path}: it is no text in UTF-8: save it as that, a URI, id or hash a line")
    lines = [line.strip() for line in text.splitlines()]
    if not (found := [line for line in lines if line and not line.startswith("#")]):
        raise UserError(f"--from-file {path}: it names nothing: give a URI, id or content hash a line")
    return found


def choose(catalog: Catalog, sql: duckdb.DuckDBPyConnection, asked: Asked) -> tuple[Plan, list[str]]:
    """What goes: sources with all of their clips, and single clips; and sources, or spans, of the same bytes. And the
    lines of the list that the catalog does not hold.

    Leaves the temporary tables `gone_sources` and `gone_clips` with their ids. UserError for what names nothing.
    """
    sql.execute("CREATE TEMP TABLE gone_sources (source_id VARCHAR); CREATE TEMP TABLE gone_clips (clip_id VARCHAR)")
    unknown = _listed(catalog, sql, asked.lines)
    if asked.where is not None:
        _matching(sql, asked.where, asked.of)
    _add_same_bytes(sql)
    sources = sql.execute("""
        SELECT s.source_id, r.uri, s.uri, s.content_hash, s.bytes
        FROM sources AS s JOIN raw.sources AS r USING (source_id)
        WHERE source_id IN (FROM gone_sources) ORDER BY source_id""").fetchall()
    clips = sql.execute("""
        SELECT c.clip_id, c.source_id, c.start_s, c.end_s, s.content_hash, s.bytes
        FROM raw.clips AS c JOIN raw.sources AS s USING (source_id)
        WHERE clip_id IN (FROM gone_clips) ORDER BY clip_id""").fetchall()
    if not sources and not clips and not unknown:
        raise NothingMatches(f"nothing in {catalog.uri} matches WHERE {asked.where}: look with `clipmill sql`")
    plan = Plan([PurgedSource(*row) for row in sources], [PurgedClip(*row) for row in clips], list(unknown))
    return plan, list(unknown.values())


def _matching(sql: duckdb.DuckDBPyConnection, where: str, of: str | None) -> None:
    for view in (of,) if of is not None else ("sources", "clips"):
        try:
            _add(sql, view, where)
            return
        except duckdb.BinderException as error:
            if view == "sources" and of is None:  # it names columns of clips, or none that there are
                continue
            raise UserError(f"--where: {one_line(error)}") from error
        except duckdb.Error as error:
            raise UserError(f"--where: {one_line(error)}") from error


def _add(sql: duckdb.DuckDBPyConnection, view: str, where: str) -> None:
    text = f"SELECT {KEYS[view]} FROM {view} WHERE ({where}\n)"
    wrong = UserError(f"--where must be one condition, such as \"uri = '/films/a.mp4'\", not {where!r}")
    if not where.strip() or [one.type for one in sql.extract_statements(text)] != [duckdb.StatementType.SELECT]:
        raise wrong
    kind = sql.execute(f"DESCRIBE SELECT ({where}\n) FROM {view}").fetchall()[0][1]
    if kind not in ("BOOLEAN", '"NULL"'):  # a number would be true wherever it is not 0
        raise wrong
    sql.execute(f"INSERT INTO gone_{view} {text}")


def _listed(catalog: Catalog, sql: duckdb.DuckDBPyConnection, lines: Sequence[str]) -> dict[str, str]:
    """Fills the tables by a list; returns the ids and hashes that the catalog does not hold, with their lines."""
    if not lines:
        return {}
    places = read_places(catalog)
    ids = {
        line: [low] if ID.fullmatch(low := line.lower())
        else [source_id(name) for name in places.names(canonical(line, ".")) or [line]]
        for line in lines
    }  # fmt: skip
    given, asked = "(SELECT unnest($1::VARCHAR[]))", [[one for some in ids.values() for one in some]]
    sources = sql.execute(
        f"SELECT source_id, content_hash FROM raw.sources WHERE source_id IN {given} OR content_hash IN {given}", asked
    ).fetchall()
    clips = sql.execute(f"SELECT clip_id FROM raw.clips WHERE clip_id IN {given}", asked).fetchall()
    for kind, rows in {"sources": sources, "clips": clips}.items():
        sql.execute(f"INSERT INTO gone_{kind} SELECT unnest($1::VARCHAR[])", [[row[0] for row in rows]])
    held = {value for row in (*sources, *clips) for value in row}
    return {some[0]: line for line, some in ids.items() if held.isdisjoint(some)}


def _add_same_bytes(sql: duckdb.DuckDBPyConnection) -> None:
    """Sources of the same bytes as those that go, all clips of them, and the clips that share time with single ones
    that go, in their source and others of the same bytes.
    """
    sql.execute("""
        INSERT INTO gone_sources SELECT source_id FROM raw.sources WHERE content_hash IN (
            SELECT content_hash FROM raw.sources WHERE source_id IN (FROM gone_sources) AND content_hash IS NOT NULL);
        CREATE OR REPLACE TEMP TABLE gone_sources AS SELECT DISTINCT source_id FROM gone_sources;
        INSERT INTO gone_clips
            SELECT other.clip_id FROM raw.clips AS gone JOIN raw.sources AS s USING (source_id)
            JOIN raw.sources AS t ON t.content_hash = s.content_hash
            JOIN raw.clips AS other ON other.source_id = t.source_id AND (
                other.start_s < gone.end_s AND gone.start_s < other.end_s OR other.start_s = gone.start_s)
            WHERE gone.clip_id IN (FROM gone_clips);
        INSERT INTO gone_clips SELECT clip_id FROM raw.clips WHERE source_id IN (FROM gone_sources);
        CREATE OR REPLACE TEMP TABLE gone_clips AS SELECT DISTINCT clip_id FROM gone_clips""")
