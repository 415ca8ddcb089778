"""The ledger: the one committer of a run, and the order of commits that makes a crash harmless.

A batch is committed to its data tables first and to the mark table last, each with the batch's number as a
Delta transaction. The mark table's transaction number is therefore the last whole batch: data rows of later
batches are orphans of a crash, which views leave out and the next ledger deletes.

Replacing units first deletes their mark rows, noting the batch under a second transaction name. While that
number is above the last whole batch, data rows whose key the mark table lacks are orphans too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from curate import compaction, lease
from curate.arrays import array
from curate.catalog import OWN_TABLES, Catalog
from curate.errors import UserError
from curate.tables import BATCH, conform

ATTEMPTS = 5  # of one commit to a store, with pauses of 0.5, 1, 2 and 4 s between them
KEYS_IN_SQL = 500  # above this a merge is faster than a list in SQL


def application(mark: str) -> str:
    """The Delta application id under which the batches of a mark table are numbered."""
    return f"clipmill:{mark}"


def replacing(mark: str) -> str:
    """The Delta application id of batches that replace units."""
    return f"clipmill:{mark}:replace"


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
        if self.mark in self._tables:
            columns = None if all_columns else [self.key, "status", "settings"]
            for part in self.catalog.read(self._tables[self.mark], columns):
                yield part.drop_columns([BATCH]) if BATCH in part.column_names else part

    def commit(self, tables: Mapping[str, pa.Table], replace: Collection[str] = ()) -> None:
        """One batch: the rows of whole units, those of the mark table among them.

        `replace` are keys whose rows from earlier batches go. UserError for columns whose type changed; then
        nothing was written. After any other error, whole units are committed and the others are pending.
        """
        keys = tables[self.mark][self.key]
        if pc.count_distinct(keys, mode="all").as_py() != len(keys):
            raise ValueError(f"a batch for {self.mark} holds a {self.key} twice")
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
        if replace:
            self._forget(array(sorted(replace), pa.string()), batch)
        for name, table in ready.items():
            self._append(name, table, batch)
        self.lease.check()
        self._append(self.mark, marks, batch)
        self._torn = False

    def compact(self) -> None:
        """Merges small files where there are many, and shortens the log; cheap where there is no need."""
        self.lease.check()
        for name, table in self._tables.items():
            self._tables[name] = compaction.compact(self.catalog, name, table)
        for name in OWN_TABLES:
            table = self.catalog.table(name)
            if table is not None:
                compaction.compact(self.catalog, name, table)

    def _prepare(self, name: str, table: pa.Table, batch: int) -> pa.Table:
        stored = self._tables.get(name)
        schema = pa.schema(stored.schema().to_arrow()) if stored is not None else pa.schema([])
        table = conform(name, table, schema)
        # First, because Delta keeps statistics of the first 32 columns only and healing prunes by them.
        return table.add_column(0, BATCH, array([batch] * table.num_rows, pa.int64()))

    def _append(self, name: str, rows: pa.Table, batch: int) -> None:
        stored = self._tables.get(name)
        if stored is None and (taken := self.catalog.table(name)) is not None:
            owner = (belongs_to(taken) or {}).get("mark")
            raise UserError(f"table {name!r} of {self.catalog.uri} is kept by {owner!r}, not by {self.mark!r}")

        def write() -> None:
            write_deltalake(
                self._tables.get(name) or self.catalog.table_uri(name),
                rows,
                mode="append",
                schema_mode="merge",
                description=json.dumps({"mark": self.mark, "key": self.key}) if stored is None else None,
                storage_options=self.catalog.storage_options,
                commit_properties=_transactions({application(self.mark): batch}),
            )

        self._persist(name, application(self.mark), batch, write)

    def _persist(self, name: str, app_id: str, batch: int, write: Callable[[], None]) -> None:
        """Makes a commit, however often the store stumbles: an error may come after the commit was made."""
        for attempt in range(ATTEMPTS):
            try:
                write()
            except Exception as error:
                table = self._reload(name)
                if table is not None and (table.transaction_version(app_id) or 0) >= batch:
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

    def _forget(self, keys: pa.Array, batch: int) -> None:
        """Deletes what earlier batches hold of these keys, mark rows first: from then on they are pending."""
        old = self._batches_of(keys)
        if old.num_rows == 0:
            return
        for name in (self.mark, *(name for name in self._tables if name != self.mark)):
            self._delete_keys(name, old, {replacing(self.mark): batch} if name == self.mark else {})

    def _batches_of(self, keys: pa.Array) -> pa.Table:
        """(key, batch) of the mark rows with these keys."""
        schema = pa.schema({self.key: pa.string(), BATCH: pa.int64()})
        if self.mark not in self._tables:
            return _nothing(schema)
        found = [
            part.select([self.key, BATCH]).filter(pc.is_in(part[self.key], keys))
            for part in self.catalog.read(self._tables[self.mark], [self.key, BATCH])
        ]
        return pa.concat_tables([_nothing(schema), *found])

    def _delete_keys(self, name: str, old: pa.Table, numbers: Mapping[str, int]) -> None:
        """Deletes the rows with these (key, batch); batches let Delta skip the files of other batches."""
        table = self._tables[name]
        if self.key not in table.schema().to_arrow().names:
            return
        properties = _transactions(numbers)

        def write() -> None:
            table = self._tables[name]
            if old.num_rows <= KEYS_IN_SQL:
                batches = ", ".join(str(b) for b in sorted(set(old[BATCH].to_pylist())))
                keys = ", ".join("'" + k.replace("'", "''") + "'" for k in old[self.key].to_pylist())
                table.delete(f"{BATCH} IN ({batches}) AND {self.key} IN ({keys})", commit_properties=properties)
                return
            low, high = pc.min_max(old[BATCH]).as_py().values()
            same = " AND ".join(f"t.{column} = s.{column}" for column in (self.key, BATCH))
            matches = f"{same} AND t.{BATCH} BETWEEN {low} AND {high}"
            merge = table.merge(old, matches, source_alias="s", target_alias="t", commit_properties=properties)
            merge.when_matched_delete().execute()

        app_id, batch = next(iter(numbers.items()), (replacing(self.mark), 2**62))
        self._persist(name, app_id, batch, write)

    def _heal(self) -> None:
        """Deletes the orphans of an interrupted batch; sets the number that the next batch counts on from."""
        numbers = {name: _number(table, application(self.mark)) for name, table in self._tables.items()}
        whole = numbers.get(self.mark, 0)
        begun = _number(self._tables[self.mark], replacing(self.mark)) if self.mark in self._tables else 0
        self._refuse_without_mark()
        last = max([whole, begun, getattr(self, "_last", 0), *numbers.values()])
        if last > whole:
            self.lease.check()
            for name, table in self._tables.items():
                if name != self.mark and numbers[name] > whole:
                    table.delete(f"{BATCH} > {whole}")
            if begun > whole:
                self._delete_unmarked()
            if self.mark in self._tables:  # everything up to here is whole again
                self._close(last)
        self._last, self._torn = last, False

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

    def _delete_unmarked(self) -> None:
        """After an interrupted replacement: rows whose key the mark table lacks."""
        marked = pa.concat_tables(self.catalog.read(self._tables[self.mark], [self.key]))[self.key]
        for name, table in self._tables.items():
            if name == self.mark or self.key not in table.schema().to_arrow().names:
                continue
            parts = self.catalog.read(table, [self.key, BATCH])
            orphans = [p.filter(pc.invert(pc.is_in(p[self.key], marked))) for p in parts]
            old = pa.concat_tables(orphans) if orphans else None
            if old is not None and old.num_rows:
                self._delete_keys(name, old.group_by([self.key, BATCH]).aggregate([]), {})

    def _close(self, batch: int) -> None:
        """An empty commit that raises the number of the last whole batch."""
        table = self._tables[self.mark]
        self._append(self.mark, _nothing(pa.schema(table.schema().to_arrow())), batch)


def _nothing(schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([], schema)  # empty_table() would import pandas


def _transactions(numbers: Mapping[str, int]) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(app, number) for app, number in numbers.items()])


def _number(table: DeltaTable, app_id: str) -> int:
    return table.transaction_version(app_id) or 0
