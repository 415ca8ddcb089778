"""What manifests say of each clip: the cells of its source, and those of a file that names clips or sources itself."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.catalog.gates import literal, quote
from curate.catalog.locations import canonical
from curate.catalog.schema import BASE, TEXT, rows_to_table
from curate.errors import UserError
from curate.run.manifests.manifest import Manifest, is_manifest
from curate.run.manifests.names import NAMES
from curate.storage import is_local, local_path
from stages.base import ClipStage

if TYPE_CHECKING:
    import duckdb

CHUNK = 16_384  # rows of a file at a time
MOST_NAMED = 3  # rows that name no clip
BASENAME = "regexp_extract({}, '[^/]*$')"


class ClipCells:
    """The cells as SQL. `columns` maps a column of a manifest to an expression behind `joins`.

    `file` is a query of the cells of single clips, by clip_id, with the columns `own` (name -> type in SQL).
    """

    def __init__(self, sql: duckdb.DuckDBPyConnection, file: str | None = None, own: dict[str, str] | None = None):
        self._sql, self._file = sql, file
        found = {row[0]: row[1] for row in sql.execute("DESCRIBE sources").fetchall()}
        of_sources = {name: f"sources.{quote(name)}" for name in found if name not in BASE["sources"].names}
        self.columns = of_sources | {
            name: f"coalesce(cell.{quote(name)}, TRY_CAST({of_sources[name]} AS {kind}))"
            if name in of_sources
            else f"cell.{quote(name)}"
            for name, kind in (own or {}).items()
        }

    def joins(self, clips: str) -> str:
        """What is joined to the relation `clips`, which has source_id and clip_id."""
        joined = f" LEFT JOIN sources ON sources.source_id = {clips}.source_id"
        return joined + (f" LEFT JOIN ({self._file}) AS cell ON cell.clip_id = {clips}.clip_id" if self._file else "")

    def unchanged_sql(self, table: str, row: str, names: Sequence[str]) -> str:
        """Whether a row of a stage's table was made of the cells that the columns have now (`cells_hash`)."""
        there = {found[0] for found in self._sql.execute(f"DESCRIBE raw.{quote(table)}").fetchall()}
        made_of = f"{row}.manifest_hash" if "manifest_hash" in there else "NULL"
        cells = [f"coalesce(md5(CAST({self.columns.get(name, 'NULL')} AS VARCHAR)), '')" for name in names]
        return f"{made_of} IS NOT DISTINCT FROM md5(concat_ws(',', {', '.join(cells)}))"


@contextmanager
def clip_cells(sql: duckdb.DuckDBPyConnection, stages: Sequence[ClipStage], quiet: bool = False) -> Iterator[ClipCells]:
    """The cells of clips for these stages, the file of one of them among them. UserError for a file that can't be."""
    files = {file: stage for stage in stages if (file := stage.clip_file()) is not None}
    if not files:
        yield ClipCells(sql)
        return
    if len(files) > 1:
        raise UserError(f"one recipe takes cells of one file, not of {' and '.join(files)}: make two of it")
    [(file, stage)] = files.items()
    with tempfile.TemporaryDirectory(prefix="clipmill-") as folder:
        rows, joined = Path(folder, "rows.parquet"), Path(folder, "joined.parquet")
        key, types = _write_rows(rows, file, stage.source_columns())
        try:
            said = _join(sql, rows, joined, key, list(types))
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        if not quiet:
            print(f"{file}: {said}", file=sys.stderr, flush=True)
        query = f"SELECT * FROM read_parquet({literal(str(joined))})"
        kinds = {row[0]: row[1] for row in sql.execute(f"DESCRIBE {query}").fetchall()}
        yield ClipCells(sql, query, {name: kinds[name] for name in types})


def _write_rows(path: Path, file: str, wanted: Sequence[str]) -> tuple[str, dict[str, pa.DataType]]:
    """The rows of a file as Parquet, with `id` (a clip_id) or `key` (a name) and `uri`; gives in words by which columns
    its rows name clips, and the types of its cells.
    """
    file = local_path(file) if is_local(file) else file
    if not is_manifest(file):
        raise UserError(f"{file}: expected a .csv, .jsonl or .parquet file")
    manifest = Manifest(file)
    columns = manifest.reader.columns()
    by_id = next((name for name in columns if name.strip().lower() == "clip_id"), None)
    has_name = any(name.strip().lower() in NAMES for name in columns)
    by_name = manifest.naming if has_name or by_id is None else None
    naming = by_name or by_id or ""
    found = manifest.reader.types(naming)
    types = {name: found[name].type for name in wanted if name in found}
    if not set(wanted) & set(columns):
        raise UserError(
            f"{file}: no column {wanted[0]!r}, only {', '.join(map(repr, columns))}: rename one, or name another by "
            "`manifest: {column: NAME}`"
        )
    types |= {name: TEXT for name in wanted if name in columns and name not in types}
    read = types | ({by_id: TEXT} if by_id and by_name else {})
    named = {"id": TEXT, "key": TEXT, "uri": TEXT}
    schema = pa.schema({"row": pa.int64()} | named | types)
    folder = file.rsplit("/", 1)[0] if "/" in file else "."
    rows, at = manifest.reader.rows(naming, read), 0
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, CHUNK)):
            cells = [_row(row, at + i, naming, by_id, folder) for i, row in enumerate(chunk)]
            table = rows_to_table("file", cells, named | types)
            at += len(chunk)
            writer.write_table(pa.table([table[name] for name in schema.names], schema=schema))
    return " or ".join(f"`{name}`" for name in (by_id, by_name) if name), types


def _row(row: dict[str, Any], at: int, naming: str, by_id: str | None, folder: str) -> dict[str, Any]:
    """A row names a clip by its id or, where that is empty or no column of the file, the clips of a source."""
    key, clip = row.pop(naming), row.pop(by_id, None) if by_id and by_id != naming else None
    if by_id == naming or (clip and clip.strip()):
        return row | {"row": at, "id": (clip or key).strip(), "key": None, "uri": None}
    return row | {"row": at, "id": None, "key": key.removeprefix("./"), "uri": canonical(key, folder)}


def _join(sql: duckdb.DuckDBPyConnection, rows: Path, joined: Path, key: str, names: list[str]) -> str:
    """Writes the cells of each clip: of the first row that names it, before that of the first that names its source.
    Gives in words how many rows do.
    """
    given = f"read_parquet({literal(str(rows))})"
    # A row names a source by its URI, or else by the end of it, if that is the end of one alone.
    matched = f"""
        SELECT r.*, c.clip_id FROM given AS r JOIN raw.clips AS c ON c.clip_id = r.id
        UNION ALL BY NAME
        SELECT r.* EXCLUDE source_id, c.clip_id FROM (
            SELECT r.*, s.source_id FROM given AS r JOIN done AS s USING (uri)
            UNION ALL BY NAME
            SELECT r.*, s.source_id FROM given AS r JOIN done AS s
                ON {BASENAME.format("s.uri")} = {BASENAME.format("r.key")} AND ends_with(s.uri, '/' || r.key)
            WHERE r.uri NOT IN (SELECT uri FROM done)
            QUALIFY count(*) OVER (PARTITION BY r.row) = 1
        ) AS r JOIN raw.clips AS c USING (source_id)"""
    cells = ", ".join(["clip_id", *map(quote, names)])
    first = "QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY matched.id IS NULL, matched.row) = 1"
    done = "done AS (SELECT source_id, uri FROM sources WHERE status = 'done')"
    with_given = f"WITH given AS (FROM {given}), {done}, matched AS ({matched})"
    sql.execute(f"COPY ({with_given} SELECT {cells} FROM matched {first}) TO {literal(str(joined))} (FORMAT parquet)")
    total, used, clips = sql.execute(
        f"{with_given} SELECT (SELECT count(*) FROM given), (SELECT count(DISTINCT matched.row) FROM matched), "
        f"(SELECT count(*) FROM read_parquet({literal(str(joined))}))"
    ).fetchall()[0]
    if not total:
        raise UserError("no rows: expected one for each film or clip with a caption")
    unused = sql.execute(
        f"{with_given} SELECT coalesce(id, key) FROM given WHERE row NOT IN (SELECT row FROM matched) "
        f"ORDER BY row LIMIT {MOST_NAMED}"
    ).fetchall()
    such = ", ".join(repr(name) for (name,) in unused)
    if not clips:
        uris = sql.execute("SELECT uri FROM sources WHERE status = 'done' ORDER BY uri LIMIT 1").fetchall()
        there = f"; a film of it is {uris[0][0]!r}" if uris else ""
        raise UserError(f"none of its {total:,} rows names a clip of this catalog by {key}, such as {such}{there}")
    twice = sql.execute(
        f"{with_given} SELECT min(name), count(*) FROM (SELECT coalesce(id, uri) AS key, any_value(coalesce(id, key)) "
        "AS name FROM given GROUP BY 1 HAVING count(*) > 1)"
    ).fetchall()[0]
    said = f"{total:,} rows, of which {used:,} name {clips:,} clips by {key}, and {total - used:,} name none"
    said += f" (such as {such})" if unused else ""
    return said + (f"; {twice[1]:,} named by several rows, such as {twice[0]!r}: the first counts" if twice[1] else "")
