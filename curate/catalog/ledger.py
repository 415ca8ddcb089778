"""The ledger: the one committer of a state table and its data tables, in an order that makes a crash harmless.

Workers write data files; the ledger commits lists of them. A commit goes to the data tables first and to the state
table last, and the state table's commit notes the versions of the data tables. Readers open exactly those versions,
so rows that were committed to a data table alone are invisible, and the next commit or ledger takes them out.

A unit that is made again is appended with a later pass; the earlier rows are superseded. Views leave them out, and
`maintain` rewrites the files that hold them (`prune`) and merges small files.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.schema import PrimitiveType

from curate.catalog import lease, state, table_files
from curate.catalog.arrays import array
from curate.catalog.catalog import OWN_TABLES, Catalog, relative_paths
from curate.catalog.data_files import DataFile, FileWriter, Rewrite, RunRewrite, remove
from curate.catalog.schema import PASS, merge_schemas, plain_types
from curate.catalog.superseded_rows import superseded_by_pass
from curate.catalog.table_files import DEFAULT, Compaction, Erasure, files_of_keys, small_groups
from curate.errors import UserError, first_line

PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds between the attempts of one commit


class Ledger:
    """Takes the lease of a state table and recovers what a crash left; use as a context manager.

    UserError if another live run writes the same state table. `begin` takes a pass before rows are made.
    """

    def __init__(
        self, catalog: Catalog, table: str, key: str, run_id: str, compaction: Compaction = DEFAULT,
        pauses: Sequence[float] = PAUSES,
    ):  # fmt: skip
        self.catalog, self.state, self.key, self.run_id = catalog, table, key, run_id
        self.compaction, self.pauses = compaction, pauses
        self.driver = uuid.uuid4().int >> 66  # tells this ledger's passes from those of another driver
        self.taken = (0, 0)  # the latest pass that this ledger knows of, and its driver

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
        schemas = {name: pa.schema([pa.field(PASS, pa.int64()), *schema]) for name, schema in schemas.items()}
        if self.state not in self.tables:
            self._create(self.state, schemas[self.state])
        self._take_pass()
        for name, schema in schemas.items():
            if name not in self.tables:
                self._create(name, schema)
            if not overwrites:
                self.add_columns(name, schema)
        return self._writer()

    def schema(self, name: str) -> pa.Schema:
        """The stored columns of a table, `pass` among them."""
        return pa.schema(self.tables[name].schema().to_arrow())

    def add_columns(self, name: str, wanted: pa.Schema) -> None:
        """Adds the columns of `wanted` that a table lacks. UserError where a type differs from the stored one."""
        stored = self.schema(name)
        merged = merge_schemas(name, stored, wanted)
        if added := [field for field in merged if field.name not in stored.names]:
            self.lease.check()
            self._change(
                name,
                lambda table: table.alter.add_columns([_delta_field(field) for field in added]),
                lambda table: {field.name for field in added} <= {field.name for field in table.schema().fields},
            )

    def widen_columns(self, wanted: Mapping[str, pa.DataType]) -> None:
        """Gives columns of the state table that it has already other types, which hold all of its values.

        Delta Lake has no change of a column's type that every reader understands: the files are written anew and take
        the place of the old ones in one commit. UserError for a stored value that does not fit.
        """
        stored = self.schema(self.state)
        schema = pa.schema([field.with_type(wanted.get(field.name, field.type)) for field in stored])
        if schema == stored:
            return
        self._begin_rewriting()
        paths = relative_paths(self.tables[self.state])
        rewrite = Rewrite(self._writer(), self.state, tuple(paths), schema, self.key)
        try:
            files = rewrite()
        except pa.ArrowInvalid as error:
            changed = ", ".join(field.name for field in schema if field.type != stored.field(field.name).type)
            raise UserError(f"column {changed!r} of {self.state} can't be widened: {first_line(error)}") from error
        self._commit(self.state, [file.add() for file in files], self._data_commits({}), overwrite=schema)

    def commit(self, files: Sequence[DataFile], redone: bool = False) -> None:
        """Commits files that hold whole units: data tables first, the state table last.

        `redone` says that some of the units had rows from an earlier pass. UserError if it can't be written, if a file
        is not there, or if another run took the lease over; whole earlier commits stay as they are.
        """
        table_files.refuse_missing(self.catalog, files)
        numbers = self._data_commits({name: [f.add() for f in files if f.table == name] for name in self.tables})
        if redone:
            numbers[state.REDONE] = numbers[state.COMMIT]
        self._commit(self.state, [file.add() for file in files if file.table == self.state], numbers)

    def overwrite(self, files: Sequence[DataFile], schema: pa.Schema) -> None:
        """Makes these files all that the state table holds. For tables that are computed as a whole."""
        if len(self.tables) > 1:
            raise ValueError(f"{self.state!r} has data tables, which must not lose their rows' units")
        self.lease.check()
        number = self._next()
        self._commit(
            self.state, [file.add() for file in files], {state.COMMIT: number, state.PRUNED: number}, overwrite=schema
        )

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
            self._begin_rewriting()
            holding = {n: files_of_keys(self.catalog, table, self.key, forgotten) for n, table in self.tables.items()}
            self._replace(
                {n: [self._rewrite(n, some, forgotten=forgotten)] for n, some in holding.items() if some}, run
            )

    def change_rows(self, changed: str) -> None:
        """Gives rows of the state table other values in one commit; their pass stays, and so do the data tables.

        The Parquet file `changed` has the key, once each, and the columns that get its values.
        """
        self._begin_rewriting()
        table = self.tables[self.state]
        found = table_files.changes_by_file(self.catalog, table, self.key, changed)
        jobs = (self._rewrite(self.state, [path], changed=plain_types(rows)) for path, rows in found)
        self._replace({self.state: jobs}, Rewrite.__call__, data_change=True)

    def erase(self, erasures: Mapping[str, Erasure]) -> int:
        """Deletes and changes rows of several tables, by table, in one commit; how many files were written anew."""
        named = {
            n: each for n, each in erasures.items() if n in self.tables and (len(each.gone) or each.changed is not None)
        }
        holding = {n: files_of_keys(self.catalog, self.tables[n], e.key, e.keys) for n, e in named.items()}
        if not any(holding.values()):
            return 0
        self._begin_rewriting()
        jobs = {
            n: [replace(self._rewrite(n, some, forgotten=named[n].gone, changed=named[n].changed), key=named[n].key)]
            for n, some in holding.items()
            if some
        }
        self._replace(jobs, Rewrite.__call__, data_change=True)
        return sum(map(len, holding.values()))

    def drop_history(self) -> None:
        """Leaves nothing of earlier versions, neither files nor log. No reader of one of them may go on."""
        self._begin_rewriting()
        for name in self.tables:
            self._change(name, table_files.vacuum_all, lambda table: False)
        self._take_pass()  # the state table notes the versions of its data tables, which are the only ones left
        for name, table in self.tables.items():
            self.catalog.drop_history(name, table)

    def maintain(self, run: RunRewrite = Rewrite.__call__) -> None:
        """Prunes, compacts, and deletes files that no version of the last week needs. Cheap if there is nothing to do.

        `run` carries out a rewrite, here or in a worker.
        """
        self.prune(run)
        if any(small_groups(table, self.compaction) for table in self.tables.values()):
            self._begin_rewriting()
            small = {name: small_groups(table, self.compaction) for name, table in self.tables.items()}
            self._replace({n: [self._rewrite(n, group) for group in groups] for n, groups in small.items()}, run)

    def prune(self, run: RunRewrite) -> None:
        """Deletes superseded rows, if there are any."""
        if self.state not in self.tables or not state.has_superseded(self.tables[self.state]):
            return
        self._begin_rewriting()
        table = self.tables[self.state]
        superseded = superseded_by_pass(self.catalog, table, self.key)
        paths = {name: table_files.files_of_passes(each, superseded) for name, each in self.tables.items()}
        rewrites = {n: [self._rewrite(n, some, superseded=superseded)] for n, some in paths.items() if some}
        self._replace(rewrites, run, {state.PRUNED: state.number(table, state.REDONE)})

    def _begin_rewriting(self) -> None:
        """What is rewritten must not change meanwhile: a run that lost the lease is shut out."""
        self.lease.check()
        if self.taken[1] != self.driver:
            self._take_pass()

    def _rewrite(
        self, name: str, paths: Sequence[str], superseded: dict[int, pa.Array] | None = None,
        forgotten: pa.Array | None = None, changed: pa.Table | None = None,
    ) -> Rewrite:  # fmt: skip
        most, schema = self.compaction.target_bytes, self.schema(name)
        return Rewrite(self._writer(), name, tuple(paths), schema, self.key, superseded, forgotten, changed, most)

    def _writer(self) -> FileWriter:
        return FileWriter(self.catalog.uri, self.run_id, self.taken[0])

    def _replace(
        self, rewrites: Mapping[str, Iterable[Rewrite]], run: RunRewrite, numbers: Mapping[str, int] | None = None,
        data_change: bool = False,
    ) -> None:  # fmt: skip
        """Carries out rewrites and commits each table's files in place of the old ones, the state table last."""
        actions: dict[str, list] = {}
        for name, jobs in rewrites.items():
            of_table = table_files.sizes(self.tables[name])
            for job in jobs:
                actions.setdefault(name, []).extend(file.add(data_change) for file in run(job))
                actions[name] += [remove(path, of_table[path]) for path in job.paths]
        if not actions and not numbers:
            return
        noted = self._data_commits(actions)
        self._commit(self.state, actions.get(self.state, []), noted | dict(numbers or {}))
        for name in actions:  # what no version of the last seven days needs
            self._change(name, lambda table: table.vacuum(dry_run=False), lambda table: False)

    def _take_pass(self) -> None:
        """Takes a number that no row has yet, and shuts out a run that lost the lease.

        Every table gets a commit, the state table first, so that a commit of that run is refused: it would follow an
        older version. What that run, or one that died, committed to data tables alone is taken out.
        """
        self.taken = 1 + max(state.number(table, state.PASS) for table in self.tables.values()), self.driver
        data_tables = [name for name in self.tables if name != self.state]
        for name in (self.state, *data_tables):
            self._commit(name, [], {state.PASS: self.taken[0], state.DRIVER: self.driver})
        if data_tables:
            self._commit(self.state, [], self._data_commits({}))

    def _data_commits(self, actions: Mapping[str, list]) -> dict[str, int]:
        """Commits to the data tables; gives the transaction numbers for the state table's own commit."""
        self.lease.check()
        numbers = {state.COMMIT: self._next()}
        for name in self._data_tables_ahead():  # a commit before this one failed half-way, or a run died of it
            self._restore(name)
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
        """One commit to one table. Delta itself may not retry, so that one after an older version is refused."""
        properties = CommitProperties(
            max_commit_retries=0, app_transactions=[Transaction(app, value) for app, value in numbers.items()]
        )
        mode: Literal["append", "overwrite"] = "append" if overwrite is None else "overwrite"
        self._change(
            name,
            lambda table: table.create_write_transaction(
                actions, mode, table.schema() if overwrite is None else overwrite, commit_properties=properties
            ),
            lambda table: all(state.number(table, app) == value for app, value in numbers.items()),
        )

    def _change(self, name: str, change: Callable[[DeltaTable], object], made: Callable[[DeltaTable], bool]) -> None:
        """One change to one table, made once: an error may come after it was made, so look before a retry."""
        for pause in (*self.pauses, None):
            try:
                change(self.tables[name])
                self.tables[name].update_incremental()
                return
            except Exception as error:
                if self._is_made(name, made):
                    return
                if pause is None:
                    raise UserError(
                        f"can't write table {name!r} of {self.catalog.uri} ({first_line(error)}); "
                        "what was committed before is safe: run the same command again"
                    ) from error
                time.sleep(pause)

    def _is_made(self, name: str, made: Callable[[DeltaTable], bool]) -> bool:
        """Whether a table shows a change of this run. False where it can't be read; UserError without the lease."""
        try:
            table, latest = self._reload(name), state.latest_pass(self._reload(self.state))
        except Exception:
            return False
        self.lease.check()  # after reading: while it is held, what was read is this run's
        if latest[0] >= self.taken[0] and latest != self.taken:
            raise UserError(f"another run took {self.state!r} of {self.catalog.uri} over; this one has stopped")
        return made(table)

    def _reload(self, name: str) -> DeltaTable:
        table = self.catalog.table(name)
        if table is None:
            raise UserError(f"table {name!r} of {self.catalog.uri} is gone")
        self.tables[name] = table
        return table

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
        self.taken = state.latest_pass(table)
        if self._data_tables_ahead():
            self._take_pass()
        if any(self._uncommitted().values()):
            self._begin_rewriting()  # a run that lost the lease can't commit them any more
            for name, files in self._uncommitted().items():
                for file in files:
                    self.catalog.delete_file(name, file)

    def _data_tables_ahead(self) -> list[str]:
        """The data tables with other files than at the version that the state table notes."""
        found = []
        for name, table in self.tables.items():
            noted = state.number(self.tables[self.state], state.version_of(name))
            if name != self.state and table.version() != noted:
                then = self.catalog.table(name, noted)
                if then is None or set(relative_paths(then)) != set(relative_paths(table)):
                    found.append(name)
        return found

    def _restore(self, name: str) -> None:
        """Gives a data table the files of the version that the state table notes; it keeps its columns."""
        columns, noted = self.schema(name), state.number(self.tables[self.state], state.version_of(name))
        self._change(name, lambda table: table.restore(noted), lambda table: name not in self._data_tables_ahead())
        self.add_columns(name, columns)

    def _uncommitted(self) -> dict[str, list[str]]:
        """By table, the files of runs that hold no lease which no version of the last week names."""
        live = lease.live_runs(self.catalog.uri)
        return {name: table_files.uncommitted(self.catalog, name, table, live) for name, table in self.tables.items()}


def _delta_field(field: pa.Field) -> Field:
    return Field.from_arrow(field) if not pa.types.is_null(field.type) else Field(field.name, PrimitiveType("string"))
