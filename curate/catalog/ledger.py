"""The ledger: the one committer of a state table and its data tables, in an order that makes a crash harmless.

Workers write data files; the ledger commits lists of them. A commit goes to the data tables first and to the state
table last, and the state table's commit notes the versions of the data tables. Readers open exactly those versions,
so rows that were committed to a data table alone are invisible, and the next ledger takes them out (`recover`).

A unit that is made again is appended with a later pass; the earlier rows are superseded. Views leave them out, and
`maintain` rewrites the files that hold them (`prune`) and merges small files (`compact`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import PrimitiveType

from curate.catalog import lease, state
from curate.catalog.arrays import array
from curate.catalog.catalog import OWN_TABLES, Catalog, relative_paths
from curate.catalog.data_files import NAME, DataFile, FileWriter, Rewrite, RunRewrite, remove
from curate.catalog.schema import PASS, merge_schemas
from curate.catalog.superseded_rows import superseded_by_pass
from curate.errors import UserError

ATTEMPTS = 5  # of one commit, with pauses of 0.5, 1, 2 and 4 s between them
CHECKPOINT_COMMITS = 50
SMALL_FILES = 32  # so many small files of a table are merged
SMALL_BYTES = 32 << 20
TARGET_BYTES = 256 << 20


class Ledger:
    """Takes the lease of a state table and recovers what a crash left; use as a context manager.

    UserError if another live run writes the same state table. `begin` takes a pass before rows are made.
    """

    def __init__(self, catalog: Catalog, table: str, key: str, run_id: str):
        self.catalog, self.state, self.key, self.run_id = catalog, table, key, run_id
        self.pass_number = 0  # 0: not begun

    def __enter__(self) -> Ledger:
        self.catalog.create()
        self.lease = lease.acquire(self.catalog.uri, self.state, self.run_id)
        try:
            self.tables: dict[str, DeltaTable] = {}
            for name in self.catalog.tables():
                table = self.catalog.table(name) if name not in OWN_TABLES else None
                if table is not None and (found := state.owner(table)) and found.state == self.state:
                    self.tables[name] = table
            self._recover()
        except BaseException:
            self.lease.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.release()

    def begin(self, schemas: Mapping[str, pa.Schema], overwrites: bool = False) -> FileWriter:
        """Takes a pass and makes tables and columns that are missing; gives what writes this pass's files.

        UserError where a column is stored with another type. `overwrites`: the whole table will be replaced, so
        columns are not compared.
        """
        self.lease.check()
        last = state.number(self.tables[self.state], state.PASS) if self.state in self.tables else 0
        self.pass_number = last + 1
        schemas = {name: pa.schema([pa.field(PASS, pa.int64()), *schema]) for name, schema in schemas.items()}
        if self.state not in self.tables:
            self._create(self.state, schemas[self.state])
        self._commit(self.state, [], {state.PASS: self.pass_number})
        for name, schema in schemas.items():
            if name not in self.tables:
                self._create(name, schema)
            if not overwrites:
                self.add_columns(name, schema)
        return FileWriter(self.catalog.uri, self.run_id, self.pass_number)

    def schema(self, name: str) -> pa.Schema:
        """The stored columns of a table, `pass` among them."""
        return pa.schema(self.tables[name].schema().to_arrow())

    def add_columns(self, name: str, wanted: pa.Schema) -> None:
        """Adds the columns of `wanted` that a table lacks. UserError where a type differs from the stored one."""
        stored = self.schema(name)
        merged = merge_schemas(name, stored, wanted)
        if added := [field for field in merged if field.name not in stored.names]:
            self.lease.check()
            self.tables[name].alter.add_columns([_delta_field(field) for field in added])
            self.tables[name].update_incremental()

    def commit(self, files: Sequence[DataFile], redone: bool = False) -> None:
        """Commits files that hold whole units: data tables first, the state table last.

        `redone` says that some of the units had rows from an earlier pass. UserError if it can't be written, or if
        another run took the lease over; whole earlier commits stay as they are.
        """
        numbers = self._data_commits({name: [f.add() for f in files if f.table == name] for name in self.tables})
        adds = [file.add() for file in files if file.table == self.state]
        if redone:
            numbers[state.REDONE] = self.pass_number
        self._commit(self.state, adds, numbers)

    def overwrite(self, files: Sequence[DataFile], schema: pa.Schema) -> None:
        """Makes these files all that the state table holds. For tables that are computed as a whole."""
        self.lease.check()
        numbers = {state.COMMIT: self._next(), state.PRUNED: self.pass_number}
        self._commit(self.state, [file.add() for file in files], numbers, schema)

    def known(self, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
        """What the state table holds, in parts: key, status and settings, or other columns. Prunes it first."""
        self.prune(Rewrite.__call__)
        if self.state in self.tables:
            wanted = [self.key, "status", "settings"] if columns is None else list(columns) or None
            yield from self.catalog.read(self.tables[self.state], wanted)

    def forget(self, keys: Collection[str], run: RunRewrite = Rewrite.__call__) -> None:
        """Deletes the rows of these keys from the state table and its data tables."""
        forgotten = array(sorted(keys), pa.string())
        if self.state in self.tables and len(forgotten):
            every = {name: relative_paths(table) for name, table in self.tables.items()}
            self._replace(
                {name: self._rewrites(name, paths, forgotten=forgotten) for name, paths in every.items()}, run
            )

    def maintain(self, run: RunRewrite = Rewrite.__call__) -> None:
        """Prunes, compacts, shortens logs and deletes files that no version of the last week needs.

        `run` carries out a rewrite, here or in a worker. Cheap where there is nothing to do.
        """
        if self.state not in self.tables:
            return
        self.lease.check()
        self.prune(run)
        self._replace({name: self._small_files(name) for name in self.tables}, run)
        for table in self.tables.values():
            if table.version() % CHECKPOINT_COMMITS == 0:
                table.create_checkpoint()

    def prune(self, run: RunRewrite) -> None:
        """Deletes superseded rows, if there are any."""
        table = self.tables.get(self.state)
        if table is None or not state.has_superseded(table):
            return
        superseded = superseded_by_pass(self.catalog, table, self.key)
        found = {name: self._holding(name, superseded) for name in self.tables}
        done = {state.PRUNED: state.number(table, state.REDONE)}
        rewrites = {name: self._rewrites(name, paths, superseded=superseded) for name, paths in found.items()}
        self._replace(rewrites, run, done)

    def _rewrites(
        self, name: str, paths: Sequence[str], superseded: dict[int, pa.Array] | None = None,
        forgotten: pa.Array | None = None,
    ) -> list[Rewrite]:  # fmt: skip
        if not paths:
            return []
        writer = FileWriter(self.catalog.uri, self.run_id, self.pass_number)
        schema = self.schema(name)
        return [Rewrite(writer, name, tuple(paths), schema, self.key, superseded, forgotten, TARGET_BYTES)]

    def _holding(self, name: str, superseded: Mapping[int, pa.Array]) -> list[str]:
        """The files of a table that may hold rows of these passes, by their statistics."""
        rows = pa.table(self.tables[name].get_add_actions(flatten=True)).to_pylist()
        passes = sorted(superseded)
        return [
            row["path"]
            for row in rows
            if row.get(f"min.{PASS}") is None or any(row[f"min.{PASS}"] <= p <= row[f"max.{PASS}"] for p in passes)
        ]

    def _small_files(self, name: str) -> list[Rewrite]:
        """Groups of small files to merge, where there are many; each group gives one file."""
        rows = pa.table(self.tables[name].get_add_actions(flatten=True)).select(["path", "size_bytes"]).to_pylist()
        small = [row for row in rows if row["size_bytes"] < SMALL_BYTES]
        if len(small) < SMALL_FILES:
            return []
        groups: list[list[str]] = [[]]
        size = 0
        for row in small:
            if size + row["size_bytes"] > TARGET_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(row["path"])
            size += row["size_bytes"]
        return [rewrite for group in groups if len(group) > 1 for rewrite in self._rewrites(name, group)]

    def _replace(
        self, rewrites: Mapping[str, Sequence[Rewrite]], run: RunRewrite, numbers: Mapping[str, int] | None = None
    ) -> None:
        """Carries out rewrites and commits each table's files in place of the old ones, the state table last."""
        actions: dict[str, list] = {}
        for name, jobs in rewrites.items():
            sizes = dict(zip(*_paths_and_sizes(self.tables[name]), strict=True))
            for job in jobs:
                actions.setdefault(name, []).extend(file.add(data_change=False) for file in run(job))
                actions[name] += [remove(path, sizes[path]) for path in job.paths]
        if not actions and not numbers:
            return
        noted = self._data_commits(actions)
        self._commit(self.state, actions.get(self.state, []), noted | dict(numbers or {}))
        for name in actions:
            self.tables[name].vacuum(dry_run=False)  # what no version of the last seven days needs
            self.tables[name].update_incremental()

    def _data_commits(self, actions: Mapping[str, list]) -> dict[str, int]:
        """Commits to the data tables; gives the transaction numbers for the state table's own commit."""
        self.lease.check()
        numbers = {state.COMMIT: self._next()}
        for name, some in actions.items():
            if name != self.state and some:
                self._commit(name, some, {state.COMMIT: numbers[state.COMMIT]})
        self.lease.check()
        for name, table in self.tables.items():
            if name != self.state:
                numbers[state.version_of(name)] = table.version()
        return numbers

    def _next(self) -> int:
        return 1 + max((state.number(table, state.COMMIT) for table in self.tables.values()), default=0)

    def _create(self, name: str, schema: pa.Schema) -> None:
        taken = self.catalog.table(name)
        if taken is not None:
            found = state.owner(taken)
            raise UserError(
                f"table {name!r} of {self.catalog.uri} is kept by {found.state if found else None!r}, "
                f"not by {self.state!r}"
            )
        fields = [_delta_field(field) for field in schema]
        self.tables[name] = self.catalog.create_table(name, fields, state.describe(self.state, self.key))

    def _commit(self, name: str, actions: list, numbers: Mapping[str, int], overwrite: pa.Schema | None = None) -> None:
        """One commit to one table, made once: an error may come after the commit was made, so look before a retry.

        Delta itself may not retry, so that a commit against a version that another run has left behind is refused.
        """
        for attempt in range(ATTEMPTS):
            table = self.tables[name]
            properties = CommitProperties(
                max_commit_retries=0, app_transactions=[Transaction(app, value) for app, value in numbers.items()]
            )
            try:
                mode = "append" if overwrite is None else "overwrite"
                table.create_write_transaction(
                    actions, mode, table.schema() if overwrite is None else overwrite, commit_properties=properties
                )
                table.update_incremental()
                return
            except Exception as error:
                self.lease.check()
                table = self._reload(name)
                if all(state.number(table, app) == value for app, value in numbers.items()):
                    return
                self._refuse_if_overtaken()
                if attempt == ATTEMPTS - 1:
                    raise UserError(
                        f"can't write table {name!r} of {self.catalog.uri} ({str(error).splitlines()[0]}); "
                        "what was committed before is safe: run the same command again"
                    ) from error
                time.sleep(0.5 * 2**attempt)

    def _reload(self, name: str) -> DeltaTable:
        table = self.catalog.table(name)
        if table is None:
            raise TableNotFoundError(f"table {name!r} of {self.catalog.uri} is gone")
        self.tables[name] = table
        return table

    def _refuse_if_overtaken(self) -> None:
        """Another run that took the lease has begun a pass of its own."""
        if self.pass_number and state.number(self._reload(self.state), state.PASS) > self.pass_number:
            raise UserError(f"another run took {self.state!r} of {self.catalog.uri} over; this one has stopped")

    def _recover(self) -> None:
        """Takes out what an interrupted run committed to data tables alone, and deletes its uncommitted files."""
        table = self.tables.get(self.state)
        if table is None:
            if len(self.tables):
                raise UserError(
                    f"the table {self.state!r} is missing though {min(self.tables)!r} is there: restore {self.state}/, "
                    "or give another --catalog"
                )
            return
        restored: dict[str, int] = {}
        for name, data_table in self.tables.items():
            noted = state.number(table, state.version_of(name))
            if name != self.state and self._differs(name, noted):
                self.lease.check()
                data_table.restore(noted)
                data_table.update_incremental()
                restored[state.version_of(name)] = data_table.version()
        if restored:
            self._commit(self.state, [], restored)
        live = lease.live_runs(self.catalog.uri) - {self.run_id}
        for name, each in self.tables.items():
            self._delete_uncommitted(name, each, live)

    def _differs(self, name: str, noted: int) -> bool:
        """Whether a data table has other files than at the version that the state table notes."""
        now = self.tables[name]
        if now.version() == noted:
            return False
        then = self.catalog.table(name, noted)
        return then is None or set(relative_paths(then)) != set(relative_paths(now))

    def _delete_uncommitted(self, name: str, table: DeltaTable, live: Collection[str]) -> None:
        """Files that no kept version names and whose run holds no lease."""
        there = self.catalog.file_names(name)  # listed first: what is committed meanwhile is named by the log
        named = set(relative_paths(table))
        if not (unnamed := [each for each in there if each not in named and NAME.fullmatch(each)]):
            return
        kept = set(table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=True))
        for each in unnamed:
            match = NAME.fullmatch(each)
            if match and match[1] not in live and each not in kept:
                self.catalog.delete_file(name, each)


def _paths_and_sizes(table: DeltaTable) -> tuple[list[str], list[int]]:
    found = pa.table(table.get_add_actions(flatten=True))
    return found["path"].to_pylist(), found["size_bytes"].to_pylist()


def _delta_field(field: pa.Field) -> Field:
    return Field.from_arrow(field) if not pa.types.is_null(field.type) else Field(field.name, PrimitiveType("string"))
