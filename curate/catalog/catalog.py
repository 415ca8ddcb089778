"""A catalog: a folder or bucket of Delta tables, and the small tables that describe its runs and gates."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from curate.catalog import delta_log, parquet, state
from curate.catalog.gates import Gate
from curate.catalog.schema import BASE, plain_types, rows_to_table
from curate.errors import DamagedError, UserError, first_line
from curate.storage import filesystem, is_local, join, local_path, storage_options
from models.files import write_whole

MARKER = "catalog.json"
VERSION = 2  # of what a catalog holds; changes when older ones can no longer be read
FORMAT = "clipmill catalog"
SMALL_FILES = 32  # of an own table, which are then merged
CHECKPOINTS: dict[str, str | None] = {"delta.checkpointInterval": "50"}  # commits
NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}  # of files that Delta writes: text would stay in the log
OWN_TABLES = ("runs", "gates", "places", "removals")  # appended to by any run, without a ledger


class Catalog:
    """`uri` is a local folder or the URI of a store; tables lie below it by name."""

    def __init__(self, uri: str):
        self.uri = local_path(uri) if is_local(uri) else uri.rstrip("/")
        refused = [c for c in self.uri if c in "[]%" or not c.isprintable()]
        if refused:
            raise UserError(f"a catalog's path can't hold {refused[0]!r}, which Delta Lake does not read: {uri}")
        self.storage_options = storage_options(self.uri)
        self.fs, self.path = filesystem(self.uri)

    @classmethod
    def open(cls, uri: str) -> Catalog:
        """The catalog at `uri`; UserError if there is none."""
        catalog = cls(uri)
        if not catalog._is_there():
            raise UserError(f"no catalog at {uri}: make one with `clipmill run ingest --input FOLDER --catalog {uri}`")
        return catalog

    @classmethod
    def open_or_create(cls, uri: str) -> Catalog:
        """The catalog at `uri`, or a new one, which appears with its first write.

        UserError for a place that holds other files: a mistyped path must not scatter tables among them.
        """
        catalog = cls(uri)
        if not catalog._is_there():
            there = [name for name in catalog._contents() if not _is_part(name)]  # of a killed run
            if there:
                raise UserError(
                    f"{uri} is no catalog and not empty (it holds {there[0]!r}): give a new or empty folder"
                )
        return catalog

    def create(self) -> None:
        """Writes what makes this place a catalog, unless it is one."""
        if self._is_there():
            return
        made = {"format": FORMAT, "version": VERSION, "created_at": _now().isoformat(timespec="seconds")}
        with self._plain_errors("write to"):
            self.put_file(MARKER, json.dumps(made))

    def put_file(self, name: str, text: str) -> None:
        """Writes a small file below the catalog, whole or not at all. Raises what the disk or store raises."""
        path = join(self.path, name)
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if is_local(self.uri):  # on a full disk too; a store's objects are whole by nature
            write_whole(path, text)
        else:
            self.fs.pipe_file(path, text.encode())

    def table_uri(self, name: str) -> str:
        return join(self.uri, name)

    def table(self, name: str, version: int | None = None) -> DeltaTable | None:
        """A table, at its latest or a given version; None if there is none. DamagedError for a damaged log."""
        with self._plain_errors("read"):
            try:
                table = DeltaTable(self.table_uri(name), version=version, storage_options=self.storage_options)
            except TableNotFoundError:
                return None
            except DeltaError as error:
                self._refuse_damaged(name)
                raise DamagedError(f"can't open table {name!r} of {self.uri}: {first_line(error)}") from error
        if is_local(self.uri) and delta_log.has_empty_entry(join(self.path, name), table.version()):
            self._refuse_damaged(name)
        return table

    def _refuse_damaged(self, name: str) -> None:
        lines = delta_log.damages(self.fs, join(self.path, name))
        if lines:
            raise DamagedError(f"table {name!r} is damaged: {lines[-1]}")

    def tables(self) -> list[str]:
        """Names of the tables there are, sorted."""
        with self._plain_errors("read"):
            found = self.fs.glob(f"{_escaped(self.path)}/*/_delta_log")
        names = [path.rstrip("/").rsplit("/", 2)[-2] for path in found]
        return sorted(name for name in names if not name.startswith(("_", ".")))

    def open_tables(self, at: Mapping[str, int] | None = None) -> dict[str, DeltaTable]:
        """Every table, now or at the versions of an earlier `snapshot`; each data table as its state table notes it.

        What a run commits meanwhile is seen whole or not at all. A data table that no commit notes yet is left out.
        """
        if at is not None:
            return {name: table for name, version in at.items() if (table := self.table(name, version)) is not None}
        tables = {name: table for name in self.tables() if (table := self.table(name)) is not None}
        owners = {name: found for name, table in tables.items() if (found := state.owner(table))}
        opened = {n: table for n, table in tables.items() if n not in owners or owners[n].state == n}
        for name, found in owners.items():
            if found.state != name and found.state in opened:
                noted = state.number(opened[found.state], state.version_of(name))
                there = tables[name] if tables[name].version() == noted else self.table(name, noted)
                if there is not None:
                    opened[name] = there
        return {name: opened[name] for name in tables if name in opened}

    def snapshot(self) -> dict[str, int]:
        """The versions of all tables that belong together at this moment."""
        return {name: table.version() for name, table in self.open_tables().items()}

    def create_table(self, name: str, fields: list[Field], description: str) -> DeltaTable:
        """A new, empty table."""
        with self._plain_errors("write to"):
            return DeltaTable.create(
                self.table_uri(name), Schema(fields), description=description, configuration=CHECKPOINTS,
                storage_options=self.storage_options,
            )  # fmt: skip

    def file_names(self, name: str) -> list[str]:
        """The names of the files that lie in a table's folder, committed or not."""
        with self._plain_errors("read"):
            try:
                found = self.fs.ls(join(self.path, name), detail=False)
            except FileNotFoundError:
                return []
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in found]

    def file_size(self, name: str, file: str) -> int | None:
        """Bytes of a file in a table's folder; None if there is none."""
        with self._plain_errors("read"):
            try:
                return int(self.fs.size(f"{join(self.path, name)}/{file}"))
            except FileNotFoundError:
                return None

    def delete_file(self, name: str, file: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._plain_errors("delete files of"):
            self.fs.rm_file(f"{join(self.path, name)}/{file}")

    def start_run(self, run: Mapping[str, Any]) -> None:
        """Notes a run that begins; `run` has columns of the runs table, which is at hand as BASE['runs']."""
        self._note_run({"event": "start", **run})

    def end_run(self, run_id: str, end: Mapping[str, Any]) -> None:
        """Notes how a run ended: status and counts."""
        self._note_run({"event": "end", "run_id": run_id, **end})

    def _note_run(self, event: Mapping[str, Any]) -> None:
        unknown = set(event) - set(BASE["runs"].names)
        if unknown:
            raise ValueError(f"the runs table has no {', '.join(sorted(unknown))}")
        row = {k: v if v is None or isinstance(v, str) else json.dumps(v) for k, v in event.items()}
        self.append("runs", [row | {"at": _now()}])

    def last_stages(self, table: str) -> dict[str, Any] | None:
        """The stages and versions by which the last run that filled a state table made its rows; None if none did."""
        rows = self.rows("runs", ["event", "at", "stages"])
        found = {row["at"]: json.loads(row["stages"]) for row in rows if row["event"] == "start" and row["stages"]}
        return next((found[at][table] for at in sorted(found, reverse=True) if table in found[at]), None)

    def put_gates(self, recipe: str, gates: Sequence[Gate], run_id: str | None) -> bool:
        """Puts the gates of a recipe in force, if they differ from those that are; True if they did. `run_id` is None
        where a person changed them, not a run.
        """
        history = self.rows("gates")
        generation = max((row["generation"] for row in history), default=0)
        latest = max((row["generation"] for row in history if row["recipe"] == recipe), default=None)
        before = sorted(
            (row for row in history if row["recipe"] == recipe and row["generation"] == latest),
            key=lambda row: row["position"],
        )
        if (latest is not None or not gates) and [_gate(row) for row in before if row["name"]] == list(gates):
            return False
        now = {"recipe": recipe, "run_id": run_id, "set_at": _now(), "generation": generation + 1}
        rows = [
            now | {"position": i, "name": gate.name, "condition": gate.where, "unknown": gate.unknown}
            for i, gate in enumerate(gates)
        ]
        # No gates at all is also a decision: a row without a name says so.
        self.append("gates", rows or [now | {"position": 0}])
        return True

    def gates(
        self, version: int | None = None, without: str | None = None, until: datetime.datetime | None = None
    ) -> list[Gate]:
        """The gates in force, or those of an earlier time: the latest of each recipe (but one), recipes in the order
        of their first gates.
        """
        history = [row for row in self.rows("gates", version=version) if row["recipe"] != without]
        if until is not None:
            since = datetime.datetime.fromtimestamp(0, datetime.UTC)
            last = (until - since) // datetime.timedelta(microseconds=1)
            history = [row for row in history if row["set_at"] <= last]
        first: dict[str, int] = {}
        latest: dict[str, int] = {}
        for row in sorted(history, key=lambda row: row["generation"]):
            first.setdefault(row["recipe"], row["generation"])
            latest[row["recipe"]] = row["generation"]
        rows = [row for row in history if row["name"] and row["generation"] == latest[row["recipe"]]]
        return [_gate(r) for r in sorted(rows, key=lambda r: (first[r["recipe"]], r["recipe"], r["position"]))]

    def compact_own_tables(self) -> None:
        """Merges the small files of OWN_TABLES, and shortens their logs; cheap where there is no need."""
        for name in OWN_TABLES:
            table = self.table(name)
            if table is None or len(table.file_uris()) < SMALL_FILES:
                continue
            with contextlib.suppress(CommitFailedError):  # another run appends meanwhile: the next run compacts
                table.optimize.compact(writer_properties=parquet.CHECKED)
                table.create_checkpoint()
                table.vacuum(dry_run=False)

    def drop_history(self, name: str, table: DeltaTable) -> None:
        """Leaves of a table's log the version that is open, and nothing before it. While nobody writes the table."""
        with self._plain_errors("clean the log of"):
            table.create_checkpoint()
            delta_log.drop_before(self.fs, join(self.path, name), table.version())

    def replace_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Makes these rows all that one of OWN_TABLES holds, and leaves nothing of those before: no file, no log.

        For rows that came from `rows`, whose times are microseconds. While nobody else writes the table.
        """
        times = [field.name for field in BASE[name] if pa.types.is_timestamp(field.type)]
        kinds = {column: pa.int64() for column in times}
        made = pa.Table.from_pylist(rows, pa.schema([f.with_type(kinds.get(f.name, f.type)) for f in BASE[name]]))
        write_deltalake(
            self.table_uri(name), made.cast(BASE[name]), mode="overwrite", storage_options=self.storage_options,
            writer_properties=parquet.CHECKED,
        )  # fmt: skip
        self.drop_own_history(name)

    def drop_own_history(self, name: str) -> None:
        """Deletes the files and the log of earlier versions of one of OWN_TABLES. While nobody else writes it."""
        if (table := self.table(name)) is not None:
            table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
            self.drop_history(name, table)

    def read(self, table: DeltaTable, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Parts of a table, file by file, with those of `columns` that a file has (None: all)."""
        from pyarrow.parquet import ParquetFile

        for uri in file_paths(table):
            with self.fs.open(uri) as file:
                opened = ParquetFile(file)
                there = opened.schema_arrow.names
                chosen = there if columns is None else [name for name in columns if name in there]
                for batch in opened.iter_batches(columns=chosen):
                    yield plain_types(pa.Table.from_batches([batch]))

    def rows(self, name: str, columns: Sequence[str] | None = None, version: int | None = None) -> list[dict[str, Any]]:
        """All rows of one of OWN_TABLES, without their times."""
        table = self.table(name, version)
        columns = columns or BASE[name].names
        if table is None:
            return []
        empty = dict.fromkeys(columns)
        return [empty | row for part in self.read(table, columns) for row in _without_times(part).to_pylist()]

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Adds rows to one of OWN_TABLES."""
        self.create()
        table = rows_to_table(name, rows)
        write_deltalake(
            self.table_uri(name),
            table,
            mode="append",
            schema_mode="merge",
            configuration=CHECKPOINTS | NO_STATISTICS,
            storage_options=self.storage_options,
            writer_properties=parquet.CHECKED,
        )

    def _is_there(self) -> bool:
        with self._plain_errors("read"):
            try:
                content = self.fs.cat_file(f"{self.path}/{MARKER}")
            except (FileNotFoundError, NotADirectoryError):
                return False
        try:
            found = json.loads(content)
            if found["format"] != FORMAT:
                return False
            version = found["version"]
        except (ValueError, KeyError, TypeError):
            return False
        if version != VERSION:
            raise UserError(
                f"the catalog at {self.uri} is of version {version}, this clipmill reads version {VERSION}: "
                "make it again with `clipmill run`, or use the clipmill that made it"
            )
        return True

    def _contents(self) -> list[str]:
        with self._plain_errors("read"):
            try:
                found = self.fs.ls(self.path, detail=False)
            except FileNotFoundError:
                return []
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in found if path.rstrip("/") != self.path.rstrip("/")]
        return sorted(names) or ([self.path] if found else [])  # a file's own path is all that is found of it

    def _plain_errors(self, verb: str) -> _PlainErrors:
        return _PlainErrors(f"can't {verb} {self.uri}")


class _PlainErrors:
    """Turns whatever a store's client raises (permissions, credentials, no such host) into one line."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, FileNotFoundError | UserError | DamagedError):
            raise UserError(f"{self.what}: {first_line(error)}") from error


def file_paths(table: DeltaTable) -> list[str]:
    """The data files of a table, as fsspec and DuckDB take them (Delta names them percent-encoded)."""
    return [unquote(uri).removeprefix("file://") for uri in table.file_uris()]


def relative_paths(table: DeltaTable) -> list[str]:
    """The data files of a table, relative to its folder."""
    return pa.table(table.get_add_actions())["path"].to_pylist()


def _gate(row: Mapping[str, Any]) -> Gate:
    return Gate(name=row["name"], where=row["condition"], unknown=row["unknown"])


def _without_times(table: pa.Table) -> pa.Table:
    """Times as microseconds: to make Python's of them, pyarrow imports pandas, which takes a second."""
    kinds = {f.name: pa.int64() if pa.types.is_timestamp(f.type) else f.type for f in table.schema}
    return table.cast(pa.schema(kinds))


def _is_part(name: str) -> bool:
    return name.startswith(f".{MARKER}.") and name.endswith(".part")


def _escaped(path: str) -> str:
    return "".join(f"[{c}]" if c in "*?" else c for c in path)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
