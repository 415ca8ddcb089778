"""Verify: reconciles the ledger with its tables, the tables with their files, and the shards with both."""

from __future__ import annotations

import os
from collections.abc import Collection

import duckdb
from deltalake import DeltaTable

from curate.catalog import delta_log, parquet
from curate.catalog.catalog import Catalog, file_paths
from curate.catalog.gates import one_line, quote
from curate.catalog.state import owner
from curate.catalog.views import connect
from curate.errors import DamagedError
from curate.removal.memory import came_back
from curate.removal.plan import unfinished
from curate.run.verify_accounts import ACCOUNTS
from curate.shards.inventory import tables_with_shards
from curate.storage import is_local, join, local_path

EXAMPLES = 3  # of the rows that a mismatch concerns

# What must be empty: claim -> query for (what it is about, detail).
CHECKS = {
    "a source_id stands more than once": """
        SELECT source_id, count(*) || ' rows, status ' || string_agg(DISTINCT status, ' and ' ORDER BY status)
        FROM raw.sources GROUP BY source_id HAVING count(*) > 1""",
    "a source is neither done nor failed": """
        SELECT source_id, 'status ' || coalesce(status, 'NULL')
        FROM raw.sources WHERE coalesce(status NOT IN ('done', 'failed'), true)""",
    "a failed source has no reason": """
        SELECT source_id, uri FROM raw.sources WHERE status = 'failed' AND coalesce(trim(reason), '') = ''""",
    "a clip_id stands more than once": """
        SELECT clip_id, count(*) || ' rows' FROM raw.clips GROUP BY clip_id HAVING count(*) > 1""",
    "a clip has no source": """
        SELECT clip_id, 'source ' || coalesce(source_id, 'NULL')
        FROM raw.clips ANTI JOIN raw.sources USING (source_id)""",
    "a clip's source is not done": """
        SELECT clip_id, concat('source ', source_id, ' is ', status)
        FROM raw.clips JOIN raw.sources USING (source_id) WHERE status IS DISTINCT FROM 'done'""",
    "a clip was made in another pass than its source": """
        SELECT clip_id, concat('pass ', c.pass, ', source ', source_id, ' pass ', s.pass)
        FROM raw.clips AS c JOIN raw.sources AS s USING (source_id) WHERE c.pass IS DISTINCT FROM s.pass""",
    "a source has another number of clips than it says": """
        SELECT source_id, 'says ' || coalesce(s.clips, 0) || ', has ' || coalesce(c.clips, 0)
        FROM raw.sources AS s
        LEFT JOIN (SELECT source_id, count(*) AS clips FROM raw.clips GROUP BY ALL) AS c USING (source_id)
        WHERE coalesce(s.clips, 0) <> coalesce(c.clips, 0)""",
    "clips of one source overlap": """
        SELECT source_id, 'a clip begins at ' || start_pts || ', before the end of another at ' || before
        FROM (
            SELECT source_id, start_pts,
                max(end_pts) OVER (
                    PARTITION BY source_id ORDER BY start_pts, end_pts
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS before
            FROM raw.clips
        ) WHERE start_pts < before""",
    "a clip ends before it begins": """
        SELECT clip_id, concat(start_pts, ' to ', end_pts)
        FROM raw.clips WHERE end_pts < start_pts OR end_s < start_s""",
    "a thumbnail has no clip": """
        SELECT clip_id, 'pass ' || coalesce(pass::VARCHAR, 'NULL')
        FROM raw.thumbnails ANTI JOIN raw.clips USING (clip_id)""",
    "a clip has more than one thumbnail": """
        SELECT clip_id, count(*) || ' rows' FROM raw.thumbnails GROUP BY clip_id HAVING count(*) > 1""",
}


# The same of the table of every stage on clips; each where its columns are there.
STAGE_CHECKS = {
    "a clip_id stands more than once": (
        "clip_id",
        "SELECT clip_id, count(*) || ' rows' FROM {table} GROUP BY clip_id HAVING count(*) > 1",
    ),
    "a row is neither done nor failed nor unfit": (
        "status",
        "SELECT clip_id, 'status ' || coalesce(status, 'NULL') FROM {table} "
        "WHERE coalesce(status NOT IN ('done', 'failed', 'unfit'), true)",
    ),
    "a row that is not done has no reason": (
        "reason",
        "SELECT clip_id, status FROM {table} WHERE status <> 'done' AND coalesce(trim(reason), '') = ''",
    ),
}


def verify(catalog: Catalog, notes: list[str] | None = None) -> list[str]:
    """Mismatches, one line each; empty where everything agrees. What is only worth knowing is added to `notes`.

    What an interrupted run left for the next one to recover is no mismatch: no view shows it. Logs and files are
    looked at first, every page of them, since rows of damaged tables can't be reconciled.
    """
    names = catalog.tables()
    problems = [problem for name in names for problem in _log(catalog, name)]
    if problems:
        return problems
    tables = catalog.open_tables()
    for name, table in tables.items():
        problems += _files(catalog, name, table)
    problems = problems or _without_state(catalog, names)
    if problems:
        return problems
    if (plan := unfinished(catalog)) is not None:
        problems.append(f"a purge was not finished ({plan.removal_id}): `clipmill purge` without --where goes on")
    try:
        views = connect(catalog)
    except duckdb.Error as error:  # the views were made of sound tables, but for the gates
        return [*problems, f"the gates in force judge no clip: {one_line(error)}"]
    with views as connection:
        problems += came_back(catalog, connection)
        for claim, text in (CHECKS | ACCOUNTS).items():
            problems += _check(connection, claim, text)
        for name, table in tables.items():
            if owner(table) != (name, "clip_id"):
                continue
            columns = table.schema().to_arrow().names
            problems += _check(connection, f"{name}: a row has no clip", _without_clip_sql(name, columns))
            for claim, (needed, text) in STAGE_CHECKS.items():
                if needed in columns:
                    problems += _check(connection, f"{name}: {claim}", text.format(table=f"raw.{quote(name)}"))
        if tables_with_shards(connection) or catalog.fs.exists(join(catalog.path, "shards")):
            from curate.shards.verify import shard_problems

            found = shard_problems(catalog, connection)
            problems += found.problems
            if notes is not None:
                from curate.datasets.replaced import replaced_samples

                notes += [*found.notes, *replaced_samples(catalog, connection)]
    return problems


def _without_clip_sql(name: str, columns: Collection[str]) -> str:
    """Rows without a clip, but for those whose source was made again, and cut otherwise, since the run began that
    made them: the next run of their recipe deletes them.
    """
    text = f"SELECT clip_id, concat('pass ', pass) FROM raw.{quote(name)} AS t ANTI JOIN raw.clips USING (clip_id)"
    if {"source_id", "committed_at"} <= set(columns):
        began = "t.committed_at"
        if "run_id" in columns:
            of_run = "SELECT min(r.\"at\") FROM raw.runs AS r WHERE r.run_id = t.run_id AND r.event = 'start'"
            began = f"least({began}, ({of_run}))"
        text += f""" WHERE NOT EXISTS (
            FROM raw.sources AS s WHERE s.source_id = t.source_id AND s.committed_at > {began})"""
    return text


def _check(connection: duckdb.DuckDBPyConnection, claim: str, text: str) -> list[str]:
    """The claim with the whole count and a few examples, if the query finds anything."""
    found = connection.execute(f"SELECT *, count(*) OVER () FROM ({text}) ORDER BY ALL LIMIT {EXAMPLES}").fetchall()
    if not found:
        return []
    examples = "; ".join(f"{subject} ({detail})" for subject, detail, _ in found)
    more = found[0][2] - len(found)
    return [f"{claim}: {examples}" + (f" and {more:,} more" if more else "")]


def _without_state(catalog: Catalog, names: Collection[str]) -> list[str]:
    """Data tables whose state table is missing."""
    owners = {name: owner(table) for name in names if (table := catalog.table(name)) is not None}
    return [
        f"table {name} has rows, but {found.state}, which says what is done, is missing"
        for name, found in owners.items()
        if found is not None and found.state not in owners
    ]


def _log(catalog: Catalog, name: str) -> list[str]:
    """Damaged files of a table's log, or why it can't be opened all the same."""
    found = delta_log.damages(catalog.fs, join(catalog.path, name))
    if found:
        return [f"table {name}: {line}" for line in found]
    try:
        catalog.table(name)
    except DamagedError as error:
        return [str(error)]
    return []


def _files(catalog: Catalog, name: str, table: DeltaTable) -> list[str]:
    """Data files that Delta names and that are missing, have another size or hold a page that can't be read."""
    problems = []
    actions, columns = table.get_add_actions(), table.schema().to_arrow().names
    sizes, rows = actions["size_bytes"].to_pylist(), actions["num_records"].to_pylist()
    try:
        there = catalog.fs.find(_path(catalog, catalog.table_uri(name)), detail=True)
    except FileNotFoundError:
        there = {}
    for path, size, count in zip(file_paths(table), sizes, rows, strict=True):
        found = there.get(_path(catalog, path))
        what: str | None
        if found is None:
            what = "is missing"
        elif found["size"] != size:
            what = f"has {found['size']:,} bytes, not {size:,}"
        else:
            what = parquet.damage(catalog.fs, path, count, columns)
        if what is not None:
            problems.append(f"table {name}: the file {path} {what}")
    return problems


def _path(catalog: Catalog, uri: str) -> str:
    """As the filesystem lists it; Delta names files behind symbolic links."""
    return os.path.realpath(local_path(uri)) if is_local(uri) else catalog.fs._strip_protocol(uri)
