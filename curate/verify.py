"""Verify: reconciles the ledger with its tables, and the tables with their files."""

from __future__ import annotations

from curate.catalog import Catalog, file_paths
from curate.ledger import batches, belongs_to
from curate.storage import is_local, local_path
from curate.views import connect

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
    "a clip was committed with another batch than its source": """
        SELECT clip_id, concat('batch ', c.batch, ', source ', source_id, ' batch ', s.batch)
        FROM raw.clips AS c JOIN raw.sources AS s USING (source_id) WHERE c.batch IS DISTINCT FROM s.batch""",
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
        SELECT clip_id, 'batch ' || coalesce(batch::VARCHAR, 'NULL')
        FROM raw.thumbnails ANTI JOIN raw.clips USING (clip_id)""",
    "a clip has more than one thumbnail": """
        SELECT clip_id, count(*) || ' rows' FROM raw.thumbnails GROUP BY clip_id HAVING count(*) > 1""",
}


def verify(catalog: Catalog) -> list[str]:
    """Mismatches, one line each; empty where everything agrees.

    What an interrupted run left for the next one to heal is no mismatch: no view shows it. Files are looked
    at first, since rows of a table with missing files can't be reconciled.
    """
    problems = _files(catalog) + _marks(catalog)
    if problems:
        return problems
    with connect(catalog) as connection:
        for claim, text in CHECKS.items():
            # The whole count, and a few examples.
            found = connection.execute(
                f"SELECT *, count(*) OVER () FROM ({text}) ORDER BY ALL LIMIT {EXAMPLES}"
            ).fetchall()
            if found:
                examples = "; ".join(f"{subject} ({detail})" for subject, detail, _ in found)
                more = found[0][2] - len(found)
                problems.append(f"{claim}: {examples}" + (f" and {more:,} more" if more else ""))
    return problems


def _marks(catalog: Catalog) -> list[str]:
    """Tables whose rows are marked as whole by a table that is missing."""
    names = catalog.tables()
    problems = []
    for name in names:
        table = catalog.table(name)
        owner = belongs_to(table) if table is not None else None
        if owner and owner["mark"] not in names and len(batches(catalog, table)) > 1:
            problems.append(f"table {name} has rows, but {owner['mark']}, which marks them as whole, is missing")
    return problems


def _files(catalog: Catalog) -> list[str]:
    """Data files that Delta names and that are missing, have another size or are no Parquet."""
    problems = []
    for name in catalog.tables():
        table = catalog.table(name)
        if table is None:
            continue
        sizes = table.get_add_actions()["size_bytes"].to_pylist()
        paths = file_paths(table)
        try:
            there = catalog.fs.find(_path(catalog, catalog.table_uri(name)), detail=True)
        except FileNotFoundError:
            there = {}
        for path, size in zip(paths, sizes, strict=True):
            found = there.get(_path(catalog, path))
            if found is None:
                problems.append(f"table {name}: the file {path} is missing")
            elif found["size"] != size:
                problems.append(f"table {name}: the file {path} has {found['size']:,} bytes, not {size:,}")
    return problems


def _path(catalog: Catalog, uri: str) -> str:
    return local_path(uri) if is_local(uri) else catalog.fs._strip_protocol(uri)
