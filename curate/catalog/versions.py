"""Earlier versions of a catalog: what each of its runs left, and what it was at a time."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deltalake import DeltaTable

from curate.catalog import state
from curate.catalog.catalog import OWN_TABLES, Catalog, relative_paths
from curate.errors import DamagedError, UserError

LEAST_PREFIX = 4  # letters of a run's id
SHOWN = 6  # versions that an error names
UTC = datetime.UTC


@dataclass(frozen=True)
class RunVersion:
    """A run, by its number in the order of their starts, from 1."""

    number: int
    run_id: str
    recipe: str
    left_at: datetime.datetime  # its end; of a run that was killed, the start of the next

    def __str__(self) -> str:
        return f"{self.number} (run {self.run_id[:8]}, {self.recipe}, {_said(self.left_at)})"


@dataclass(frozen=True)
class CatalogVersion:
    """A catalog as it was. `curate.catalog.views` shows it, by these gates and tables."""

    said: str
    moment: datetime.datetime  # the gates of this time judge
    tables: Mapping[str, int]  # version by table


def run_versions(catalog: Catalog) -> list[RunVersion]:
    """What the runs of a catalog left, oldest first."""
    rows = sorted(catalog.rows("runs", ["event", "at", "run_id", "recipe"]), key=lambda row: row["at"])
    starts = [row for row in rows if row["event"] == "start"]
    ends = {row["run_id"]: row["at"] for row in rows if row["event"] == "end"}
    found = []
    for number, row in enumerate(starts, 1):
        following = starts[number]["at"] - 1 if number < len(starts) else None
        left = ends.get(row["run_id"], following)
        moment = _now() if left is None else datetime.datetime.fromtimestamp(0, UTC) + _microseconds(left)
        found.append(RunVersion(number, row["run_id"], row["recipe"] or "", moment))
    return found


def find_version(catalog: Catalog, text: str) -> CatalogVersion:
    """The version that `text` names: the number of a run, the beginning of its id, or a time, in UTC unless it says
    otherwise. UserError, with the versions there are, for another text and for a version whose files are gone.
    """
    runs = run_versions(catalog)
    if not runs:
        raise UserError(f"--against {text}: {catalog.uri} has no earlier version, since it notes no run")
    run = _run(runs, text)
    moment = run.left_at if run is not None else _moment(text, runs)
    if moment is None:
        raise UserError(f"--against {text}: no version, catalog or dataset is called so; {_listed(runs)}")
    said = f"version {run}" if run is not None else f"as of {_said(moment)}"
    return CatalogVersion(said, moment, _tables_at(catalog, moment, f"--against {text}", runs))


def _run(runs: Sequence[RunVersion], text: str) -> RunVersion | None:
    if text.isdecimal() and 1 <= int(text) <= len(runs):
        return runs[int(text) - 1]
    found = [run for run in runs if len(text) >= LEAST_PREFIX and run.run_id.startswith(text.lower())]
    return found[0] if len(found) == 1 else None


def _moment(text: str, runs: Sequence[RunVersion]) -> datetime.datetime | None:
    """The time that a text names; None for no time. UserError for one to come."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    if moment > _now():
        raise UserError(f"--against {text} is in the future; {_listed(runs)}")
    return moment


def _listed(runs: Sequence[RunVersion]) -> str:
    more = f", and {len(runs) - SHOWN:,} before them" if len(runs) > SHOWN else ""
    return (
        f"the versions are {', '.join(map(str, runs[-SHOWN:]))}{more}; a time such as {_said(runs[-1].left_at)} is one"
    )


def _tables_at(catalog: Catalog, moment: datetime.datetime, asked: str, runs: Sequence[RunVersion]) -> dict[str, int]:
    """The versions of all tables that belonged together at a moment; tables that were made later are left out.

    Tables that only grow are given as they are now. UserError where a version can't be read any more.
    """
    there = {name: table for name in catalog.tables() if (table := catalog.table(name)) is not None}
    owners = {name: state.owner(table) for name, table in there.items()}
    found = {name: table.version() for name, table in there.items() if name in OWN_TABLES}
    for name, table in there.items():
        own = owners[name]
        if name in OWN_TABLES or (own is not None and own.state != name):
            continue
        version = _version_at(table, moment)
        if version is None:
            continue
        versions = {name: version}
        then = _opened(catalog, name, version)
        for data in (other for other, of in owners.items() if of is not None and of.state == name != other):
            if then is not None:
                versions[data] = state.number(then, state.version_of(data))
        for each, number in versions.items():
            if not _is_whole(catalog, each, _opened(catalog, each, number)):
                raise UserError(
                    f"{asked}: that version is gone: the files of table {each!r} were deleted since, by a purge or a "
                    f"week after they were merged or replaced; {_listed(runs)}"
                )
        found |= versions
    if not found.keys() - set(OWN_TABLES):
        raise UserError(f"{asked}: the catalog had no table then; {_listed(runs)}")
    return found


def _version_at(table: DeltaTable, moment: datetime.datetime) -> int | None:
    """The version of a table at a moment; None before it was made; -1 where its log does not say any more."""
    log = sorted((int(entry["version"]), entry.get("timestamp", 0)) for entry in table.history())
    before = [version for version, time in log if time <= moment.timestamp() * 1000]
    if before:
        return max(before)
    return None if log and log[0][0] == 0 else -1


def _opened(catalog: Catalog, name: str, version: int) -> DeltaTable | None:
    try:
        return catalog.table(name, version) if version >= 0 else None
    except DamagedError:  # the log before the oldest checkpoint is gone
        return None


def _is_whole(catalog: Catalog, name: str, table: DeltaTable | None) -> bool:
    return table is not None and set(relative_paths(table)) <= set(catalog.file_names(name))


def _said(moment: datetime.datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _microseconds(number: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=number)


def _now() -> datetime.datetime:
    return datetime.datetime.now(UTC)
