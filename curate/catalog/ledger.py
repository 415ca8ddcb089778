"""The ledger: the one committer of a run, and the order of commits that makes a crash harmless.

A batch is committed to its data tables first and to the mark table last, each with the batch's number as a
Delta transaction. The mark table's transaction number is therefore the last whole batch: data rows of later
batches are orphans of a crash, which views leave out and the next ledger deletes.

A unit that is done again is appended like any other: of a key's rows those of its latest batch count, and older
ones are superseded. Deleting them rewrites whole files, so it is done once for many batches, at the end of a
run or the start of the next: data tables first, the mark table last. Two more transaction numbers of the mark
table, of the last batch that replaced and of the last that was settled so, tell views when to look out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from curate.catalog import compaction, lease, parquet
from curate.catalog import superseded_rows as superseded
from curate.catalog.arrays import array
from curate.catalog.catalog import OWN_TABLES, Catalog
from curate.catalog.schema import BATCH, conform
from curate.errors import UserError

ATTEMPTS = 5  # of one commit to a store, with pauses of 0.5, 1, 2 and 4 s between them


def application(mark: str) -> str:
    """The Delta application id under which the batches of a mark table are numbered."""
    return f"clipmill:{mark}"


def replacing(mark: str) -> str:
    """The Delta application id that notes the last batch which superseded rows."""
    return f"clipmill:{mark}:replace"


def settling(mark: str) -> str:
    """The Delta application id that notes up to which batch superseded rows are deleted."""
    return f"clipmill:{mark}:settle"


def unsettled(mark: str, table: DeltaTable | None) -> bool:
    """Whether tables of this mark table (None: missing) may hold superseded rows."""
    return table is not None and _number(table, replacing(mark)) > _number(table, settling(mark))


def belongs_to(table: DeltaTable) -> dict[str, str] | None:
    """{'mark': ..., 'key': ...} of a table that a ledger writes, as its description says; else None."""
    try:
        found = json.loads(table.metadata().description or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"mark", "key"} <= set(found) else None


def batches(catalog: Catalog, table: DeltaTable) -> set[int]:
    """The numbers of the batches that a table's rows came with."""
    return {number for part in catalog.read(table, [BATCH]) for number in pc.unique(part[BATCH]).to_pylist()}


class Ledger:
    """Takes the lease of a mark table and heals what a crash left; use as a context manager.

    UserError if another live run writes the same mark table.
    """

    def __init__(self, catalog: Catalog, mark: str, key: str, run_id: str):
        self.catalog, self.mark, self.key, self.run_id = catalog, mark, key, run_id

    def __enter__(self) -> Ledger:
        self.catalog.create()
        self.lease = lease.acquire(self.catalog.uri, self.mark, self.run_id)
        try:
            self._tables: dict[str, DeltaTable] = {}
            for name in self.catalog.tables():
                table = self.catalog.table(name) if name not in OWN_TABLES else None
                if table is not None and (belongs_to(table) or {}).get("mark") == self.mark:
                    self._tables[name] = table
            self._heal()
        except BaseException:
            self.lease.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.release()

    def known(self, all_columns: bool = False) -> Iterator[pa.Table]:
        """What the mark table holds, in parts: key, status and settings (or every column)."""
        self._settle()
        if self.mark in self._tables:
            columns = None if all_columns else [self.key, "status", "settings"]
            for part in self.catalog.read(self._tables[self.mark], columns):
                yield part.drop_columns([BATCH]) if BATCH in part.column_names else part

    def commit(self, tables: Mapping[str, pa.Table], replace: Collection[str] = ()) -> None:
        """One batch: the rows of whole units, those of the mark table among them.

        `replace` are keys whose rows from earlier batches this one supersedes. UserError for columns whose type
        changed; then nothing was written. After any other error, whole units are committed, the others as before.
        """
        keys = tables[self.mark][self.key]
        self._refuse_twice(keys)
        if not set(replace) <= set(keys.to_pylist()):
            raise ValueError("replace names keys that the batch does not hold")
        if self._torn:
            self._heal()
        batch = self._last + 1
        ready = {name: self._prepare(name, table, batch) for name, table in tables.items() if table.num_rows}
        marks = ready.pop(self.mark, None)
        if marks is None:
            return
        self.lease.check()
        self._torn, self._last = True, batch
        for name, table in ready.items():
            self._append(name, table, batch)
        self.lease.check()
        self._append(self.mark, marks, batch, {replacing(self.mark): batch} if replace else {})
        self._torn = False

    def overwrite(self, table: pa.Table) -> None:
        """Makes `table` all that the mark table holds, in one commit; its columns may change with it.

        For tables that are computed as a whole. ValueError where the mark table has data tables beside it.
        """
        self._refuse_data_tables()
        self._refuse_twice(table[self.key])
        if self._torn:
            self._heal()
        self.lease.check()
        batch = self._last + 1
        rows = self._numbered(conform(self.mark, table, pa.schema([])), batch)
        rows = pa.Table.from_batches(rows.to_batches(max_chunksize=1 << 16), rows.schema)  # written piece by piece
        self._torn, self._last = True, batch
        self._write(rows, {application(self.mark): batch, settling(self.mark): batch})
        self._torn = False

    def forget(self, keys: Collection[str]) -> None:
        """Deletes the rows of these keys: of clips that are no more, since their source was made again.

        ValueError where the mark table has data tables beside it.
        """
        self._refuse_data_tables()
        if self._torn:
            self._heal()
        self.lease.check()
        if self.mark in self._tables:
            rows = pa.table({self.key: array(list(keys), pa.string())})
            for delete in superseded.deletions(self.key, [], rows):
                self._persist(self.mark, {}, lambda delete=delete: delete(self._tables[self.mark]))

    def compact(self) -> None:
        """Deletes superseded rows, merges small files where there are many, and shortens the log.

        Cheap where there is no need.
        """
        self.lease.check()
        self._settle()
        for name, table in self._tables.items():
            self._tables[name] = compaction.compact(self.catalog, name, table)
        for name in OWN_TABLES:
            table = self.catalog.table(name)
            if table is not None:
                compaction.compact(self.catalog, name, table)

    def _prepare(self, name: str, table: pa.Table, batch: int) -> pa.Table:
        if self.key not in table.column_names:
            raise ValueError(f"rows of {name} must say their {self.key}")
        stored = self._tables.get(name)
        schema = pa.schema(stored.schema().to_arrow()) if stored is not None else pa.schema([])
        return self._numbered(conform(name, table, schema), batch)

    def _numbered(self, table: pa.Table, batch: int) -> pa.Table:
        # First, because Delta keeps statistics of the first 32 columns only and healing prunes by them.
        return table.add_column(0, BATCH, pa.repeat(pa.scalar(batch, pa.int64()), table.num_rows))

    def _refuse_data_tables(self) -> None:
        if set(self._tables) - {self.mark}:
            raise ValueError(f"{self.mark} has data tables, whose rows would be left behind")

    def _refuse_twice(self, keys: pa.ChunkedArray) -> None:
        # Sorted, because counting distinct ones takes 300 bytes for each.
        ordered = keys.take(pc.sort_indices(keys)).combine_chunks()
        if pc.any(pc.equal(ordered[1:], ordered[:-1])).as_py():
            raise ValueError(f"a batch for {self.mark} holds a {self.key} twice")

    def _append(self, name: str, rows: pa.Table, batch: int, numbers: Mapping[str, int] = MappingProxyType({})) -> None:
        numbers = {application(self.mark): batch, **numbers}
        self._write(rows, numbers, name, mode="append", schema_mode="merge")

    def _write(
        self, rows: pa.Table, numbers: Mapping[str, int], name: str | None = None, mode: str = "overwrite",
        schema_mode: str = "overwrite",
    ) -> None:  # fmt: skip
        name = name or self.mark
        stored = self._tables.get(name)
        if stored is None and (taken := self.catalog.table(name)) is not None:
            owner = (belongs_to(taken) or {}).get("mark")
            raise UserError(f"table {name!r} of {self.catalog.uri} is kept by {owner!r}, not by {self.mark!r}")

        def write() -> None:
            write_deltalake(
                self._tables.get(name) or self.catalog.table_uri(name),
                rows,
                mode=mode,
                schema_mode=schema_mode,
                description=json.dumps({"mark": self.mark, "key": self.key}) if stored is None else None,
                storage_options=self.catalog.storage_options,
                writer_properties=parquet.CHECKED,
                commit_properties=_transactions(numbers),
            )

        self._persist(name, numbers, write)

    def _persist(self, name: str, numbers: Mapping[str, int], write: Callable[[], None]) -> None:
        """Makes a commit, however often the store stumbles: an error may come after the commit was made.

        `numbers` are the commit's transactions; one without any must be harmless to make twice.
        """
        for attempt in range(ATTEMPTS):
            try:
                write()
            except Exception as error:
                table = self._reload(name)
                if table is not None and numbers and all(_number(table, a) >= n for a, n in numbers.items()):
                    return
                if attempt == ATTEMPTS - 1:
                    raise UserError(
                        f"can't write table {name!r} of {self.catalog.uri} ({str(error).splitlines()[0]}); "
                        "what was committed before is safe: run the same command again"
                    ) from error
                time.sleep(0.5 * 2**attempt)
            else:
                if name not in self._tables:
                    self._reload(name)
                return

    def _reload(self, name: str) -> DeltaTable | None:
        table = self.catalog.table(name)
        if table is not None:
            self._tables[name] = table
        return table

    def _settle(self) -> None:
        """Deletes the rows that later batches superseded, if there are any."""
        mark = self._tables.get(self.mark)
        if not unsettled(self.mark, mark):
            return
        self.lease.check()
        batches, rows = superseded.find(self.catalog, mark, self.key)
        for name in (*(name for name in self._tables if name != self.mark), self.mark):
            for delete in superseded.deletions(self.key, batches, rows):
                self._persist(name, {}, lambda name=name, delete=delete: delete(self._tables[name]))
        self._close({settling(self.mark): _number(mark, replacing(self.mark))})

    def _heal(self) -> None:
        """Deletes the orphans of an interrupted batch; sets the number that the next batch counts on from."""
        numbers = {name: _number(table, application(self.mark)) for name, table in self._tables.items()}
        whole = numbers.get(self.mark, 0)
        self._refuse_without_mark()
        last = max([whole, getattr(self, "_last", 0), *numbers.values()])
        self._last = last
        if last > whole:
            self.lease.check()
            for name, table in self._tables.items():
                if name != self.mark and numbers[name] > whole:
                    table.delete(f"{BATCH} > {whole}", writer_properties=parquet.CHECKED)
            if self.mark in self._tables:  # everything up to here is whole again
                self._close({application(self.mark): last})
        self._torn = False
        self._settle()

    def _refuse_without_mark(self) -> None:
        """Rows without their mark table are orphans, but a crash leaves those of one batch alone."""
        if self.mark in self._tables:
            return
        for name, table in self._tables.items():
            if len(batches(self.catalog, table)) > 1:
                raise UserError(
                    f"the table {self.mark!r} is missing though {name!r} has rows: restore {self.mark}/, "
                    "or give another --catalog"
                )

    def _close(self, numbers: Mapping[str, int]) -> None:
        """An empty commit that raises numbers of the mark table."""
        schema = pa.schema(self._tables[self.mark].schema().to_arrow())
        self._write(_nothing(schema), numbers, mode="append", schema_mode="merge")


def _nothing(schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([], schema)  # empty_table() would import pandas


def _transactions(numbers: Mapping[str, int]) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(app, number) for app, number in numbers.items()])


def _number(table: DeltaTable, app_id: str) -> int:
    return table.transaction_version(app_id) or 0
