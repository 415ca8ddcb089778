"""The clips of a new dataset: the SQL queries of `clipmill dataset create`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from curate.catalog.gates import one_line, quote
from curate.catalog.syntax_tree import writing
from curate.errors import DamagedError, UnknownColumn, UserError
from curate.shards.inventory import SHARD_COLUMNS, shard_rows_sql, tables_with_shards
from stages.shards.contract import Contract, ContractError
from stages.shards.rights import RIGHTS_NAMES

# Columns of a dataset's index; those of rights are as `clips` has them when the dataset is made.
OWN = ("clip_id", "source_id", "shard", "bucket", "window_fps", "weight", "seconds", "content_hash", *RIGHTS_NAMES)
SHOWN = 3  # contracts that are described where a selection mixes several


class DatasetSelection:
    """The clips that `select`, a query on the views of a catalog, gives and that have latents in `table`.

    `chosen` clips were selected, `missing` of them have no latents. UserError for SQL that fails, for a selection
    without clips, for a clip given twice, and where none has latents.
    """

    def __init__(self, sql: duckdb.DuckDBPyConnection, select: str, table: str):
        self.sql = sql
        there = tables_with_shards(sql)
        if table not in there:
            advice = f"there is {', '.join(there)}" if there else "run a recipe with the stage `encode` first"
            raise UserError(f"the catalog has no table {table!r} of latents: {advice}")
        text = self._checked(select)
        self._make("--select", f"CREATE TEMP TABLE selected AS {text}")
        self.columns = self._columns("selected")
        if "clip_id" not in self.columns:
            raise UserError(f"--select must give clip_id; it gives {', '.join(self.columns)[:200]}")
        self.chosen, distinct = self._query("SELECT count(*), count(DISTINCT clip_id) FROM selected")[0]
        if not self.chosen:
            raise UserError(f"no clip is chosen by {select!r}")
        if distinct < self.chosen:
            twice = self.chosen - distinct
            raise UserError(f"--select must give each clip once: {twice:,} rows more than once, or without a clip_id")
        self._make("--select", f"""
            CREATE TEMP TABLE encoded AS SELECT clip_id, source_id, {", ".join(SHARD_COLUMNS)}, window_fps
            FROM {shard_rows_sql(sql, table)} SEMI JOIN selected USING (clip_id) WHERE status = 'done'""")  # fmt: skip
        encoded = self._query("SELECT count(*) FROM encoded")[0][0]
        if not encoded:
            raise UserError(
                f"none of the {self.chosen:,} selected clips has latents: run the recipe that encodes them first"
            )
        self.missing = self.chosen - encoded

    def contract(self) -> Contract:
        """The contract of all clips. UserError, naming the differences and a clip of each, where there are several."""
        found = self._query("SELECT contract, count(*), min(clip_id) FROM encoded GROUP BY 1 ORDER BY 2 DESC, 1")
        try:
            contracts = [Contract.from_json(text or "") for text, _, _ in found]
        except ContractError as error:
            raise DamagedError(f"a row of latents has no contract ({error}): encode again with --rebuild") from error
        if len(contracts) == 1:
            return contracts[0]
        said = [f"{count:,} clips (such as {clip}) have {contract.digest[:12]}"
                for contract, (_, count, clip) in zip(contracts, found, strict=True)][:SHOWN]  # fmt: skip
        differing = "; ".join(contracts[0].differences(contracts[1])).replace(" here,", ",").replace(" there", "")
        raise UserError(
            f"the selection mixes latents of {len(contracts)} contracts: {', '.join(said)}. The first two differ in "
            f"{differing}. A dataset has one: narrow --select by the column contract, or encode again"
        )

    def shards(self) -> dict[str, dict[str, Any]]:
        """path -> bucket, index_hash, hash and bytes from the catalog, sorted by bucket and path."""
        rows = self._query("""
            SELECT bucket, shard, any_value(index_hash), any_value(shard_hash), any_value(shard_bytes)
            FROM encoded GROUP BY ALL ORDER BY bucket, shard""")  # fmt: skip
        return {s: {"bucket": b, "index_hash": i, "hash": h, "bytes": n} for b, s, i, h, n in rows}

    def samples(self, weight: str | None, conditions: Sequence[str]) -> pa.Table:
        """One row for each sample, sorted by bucket, shard and clip: clip_id, source_id, shard, bucket, window_fps,
        weight, content_hash of the source, the rights and the conditions.

        `weight` is a SQL expression on the columns of `clips` and those that the selection adds.
        """
        own = {column.lower() for column in self.columns}
        others = self.all_columns()[len(self.columns) :]
        there = own | {column.lower() for column in others}
        texts = {row[0].lower() for row in self._query("DESCRIBE clips") if row[1] in ("VARCHAR", "BLOB")}
        for name in conditions:
            if name.lower() not in there:
                said = f"condition {name!r}: clips have no such column (say with --conditions which to take)"
                raise UnknownColumn(said, name)
            if name.lower() in OWN:
                raise UserError(f"condition {name!r}: the dataset has a column of that name; take another")
            if name.lower() in texts:
                raise UserError(f"condition {name!r} is text: conditions are numbers")
        joined = [f"selected.{quote(column)}" for column in self.columns] + [f"_all.{quote(c)}" for c in others]
        numbers = "".join(f", TRY_CAST({quote(name)} AS FLOAT) AS c{i}" for i, name in enumerate(conditions))
        self._make("--weight", f"""
            CREATE TEMP TABLE weighed AS SELECT clip_id, CAST(({weight or "1"}\n) AS DOUBLE) AS weight{numbers}
            FROM (
                SELECT {", ".join(joined)} FROM selected SEMI JOIN encoded USING (clip_id)
                JOIN clips AS _all ON _all.clip_id = selected.clip_id
            ) AS clips""")  # fmt: skip
        self._check_weights(weight)
        columns = "".join(f", c{i}" for i in range(len(conditions)))
        names = ["clip_id", "source_id", "shard", "bucket", "window_fps", "weight"]
        rights = ", ".join(["files.content_hash", *(f"of.{name}" for name in RIGHTS_NAMES)])
        found = self.sql.sql(f"""
            SELECT {", ".join(f"encoded.{name}" if name != "weight" else name for name in names)}, {rights}{columns}
            FROM encoded JOIN weighed USING (clip_id) JOIN clips AS of ON of.clip_id = encoded.clip_id
            LEFT JOIN sources AS files ON files.source_id = encoded.source_id
            ORDER BY encoded.bucket, encoded.shard, encoded.clip_id""").to_arrow_table()  # fmt: skip
        return found.rename_columns([*names, "content_hash", *RIGHTS_NAMES, *conditions])

    def all_columns(self) -> list[str]:
        """The columns that weights and conditions may name: those of the selection, then the others of `clips`."""
        own = {column.lower() for column in self.columns}
        return [*self.columns, *(column for column in self._columns("clips") if column.lower() not in own)]

    def _check_weights(self, weight: str | None) -> None:
        wrong, clip, most = self._query("""
            SELECT count(*) FILTER (bad), min(clip_id) FILTER (bad), max(weight)
            FROM (
                SELECT *, weight IS NULL OR NOT isfinite(weight) OR weight < 0 OR weight > 1e100 AS bad FROM weighed
            )""")[0]  # fmt: skip
        if wrong:
            raise UserError(f"--weight {weight!r} gives no number from 0 to 1e100 for {wrong:,} clips, such as {clip}")
        if not most:
            raise UserError(f"--weight {weight!r} gives 0 for every clip")

    def _checked(self, select: str) -> str:
        try:
            statements = self.sql.extract_statements(select)
            reads = [one.type for one in statements] == [duckdb.StatementType.SELECT] and not writing(self.sql, select)
        except duckdb.Error as error:
            raise UserError(f"--select: {one_line(error)}") from error
        if not reads:
            raise UserError(f"--select must be one SELECT statement, not {select!r}")
        return statements[0].query.strip().rstrip(";")

    def _columns(self, view: str) -> list[str]:
        rows = self.sql.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = $1 AND schema_name = 'main'", [view]
        )
        return [row[0] for row in rows.fetchall()]

    def _make(self, option: str, text: str) -> None:
        try:
            self.sql.execute(text)
        except duckdb.Error as error:
            raise UserError(f"{option}: {one_line(error)}") from error

    def _query(self, text: str) -> list[tuple[Any, ...]]:
        return self.sql.execute(text).fetchall()
