"""Whether sources are still there, by one listing of each folder that they lie in: no source is looked at by itself."""

from __future__ import annotations

import os
import shlex
from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from curate.catalog.gates import literal
from curate.errors import first_line
from curate.storage import filesystem, is_local, local_path
from stages.decode.archives.uri import MEMBER, file_uri

if TYPE_CHECKING:
    import duckdb

FOLDERS_AHEAD = 16  # listed at once: a store takes long to answer
UNLISTED = ("http://", "https://")  # a web server has no listing
PAGE = 4096  # rows at a time


class Absent(NamedTuple):
    """A source that is no longer there."""

    source_id: str
    uri: str


@dataclass
class Presence:
    """Iterating gives the sources WHERE `condition` that are not there. A member of an archive counts as there if the
    archive is. The counts are complete once it is exhausted.
    """

    sql: duckdb.DuckDBPyConnection
    condition: str = "status = 'done'"
    sources: int = 0  # that were looked for
    lost_folders: Counter[str] = field(default_factory=Counter)  # sources by folder, of folders that are not there
    unseen: Counter[str] = field(default_factory=Counter)  # sources by the reason why their folder can't be listed

    def __iter__(self) -> Iterator[Absent]:
        """Folders are listed in their order, some ahead of the rows that are compared with them."""
        folders = self.sql.cursor().execute(f"SELECT DISTINCT folder FROM {self._rows} ORDER BY folder")
        rows = self.sql.cursor().execute(f"SELECT folder, source_id, uri FROM {self._rows} ORDER BY folder, uri")
        waiting: deque[Future[Collection[str] | str | None]] = deque()
        with ThreadPoolExecutor(FOLDERS_AHEAD, thread_name_prefix="list-folder") as pool:
            names = _pages(folders)
            for folder, of_folder in groupby(_pages(rows), key=lambda row: row[0]):
                while len(waiting) < FOLDERS_AHEAD and (following := next(names, None)) is not None:
                    waiting.append(pool.submit(_listed, following[0]))
                yield from self._compared(folder, of_folder, waiting.popleft().result())

    @property
    def _rows(self) -> str:
        """A subquery for the folder, id and URI of each source."""
        member = literal(f"(?is)^{MEMBER}$")
        file = f"coalesce(nullif(regexp_extract(uri, {member}, 1), ''), uri)"
        folder = f"regexp_replace({file}, '[^/]*$', '')"
        return f"(SELECT {folder} AS folder, source_id, uri FROM sources WHERE {self.condition})"

    def _compared(
        self, folder: str, rows: Iterator[tuple[str, str, str]], there: Collection[str] | str | None
    ) -> Iterator[Absent]:
        """The sources of a folder that are not among the names in it (None: no such folder; a text: can't be seen)."""
        for _, source_id, uri in rows:
            self.sources += 1
            if isinstance(there, str):
                self.unseen[there] += 1
            elif there is None or _name(file_uri(uri)) not in there:
                if there is None:
                    self.lost_folders[folder] += 1
                yield Absent(source_id, uri)


def what_to_do(catalog: str) -> str:
    """The commands for sources of a catalog that are no longer there."""
    where = f"--catalog {shlex.quote(catalog)}"
    return f"`clipmill relocate OLD NEW {where}` if they moved, `clipmill forget --where vanished {where}` if not"


def _listed(folder: str) -> Collection[str] | str | None:
    """The names of the files in a folder; None if it is not there, and the reason where it can't be listed."""
    try:
        if is_local(folder):
            with os.scandir(local_path(folder)) as entries:
                return {one.name for one in entries if not one.is_symlink() or os.path.exists(one.path)}
        if folder.startswith(UNLISTED):
            return "a web server gives no listing"
        store, path = filesystem(folder)
        return {_name(one) for one in store.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # each store has its own exceptions
        return f"{folder} can't be listed: {first_line(error)}"


def _name(uri: str) -> str:
    """The name of a file in its folder."""
    return (local_path(uri) if uri.startswith("file://") else uri).rstrip("/").rsplit("/", 1)[-1]


def _pages(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple]:
    while page := cursor.fetchmany(PAGE):
        yield from page
