"""Opt-out signals of the sources of a run: new ones get them with their entries, known ones without a decode."""

from __future__ import annotations

import posixpath
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.catalog.ledger import Ledger
from curate.catalog.rights import domain_of, signal_columns
from curate.catalog.schema import TEXT, rows_to_table
from curate.errors import UserError, first_line
from curate.recipe.opt_out_settings import OptOutSettings
from curate.run.opt_outs.aipref import read_aipref
from curate.run.opt_outs.domain_folder import ROBOTS, DomainFolder
from curate.run.opt_outs.robots import Robots
from curate.run.opt_outs.rsl import RslTerms
from curate.run.opt_outs.tdmrep import TdmRules, read_tdmrep
from curate.storage import filesystem
from stages.shards.rights import SIGNALS

READ = SIGNALS[:-1]  # c2pa is in the film itself
COLUMNS: dict[str, pa.DataType] = {n: kind for signal in READ for n, kind in signal_columns(signal).items()}
DOMAINS = 1024  # whose files are kept in memory
Entry = dict[str, Any]


class FetchedSignals:
    """The signals of a folder that has a folder for each domain. UserError where it can't be read.

    `row` says nothing of a film whose domain has no folder there: its columns stay as they are.
    """

    def __init__(self, settings: OptOutSettings):
        assert settings.folder is not None
        self.settings = settings
        self.fs, self.path = filesystem(settings.folder)
        try:
            found = self.fs.ls(self.path, detail=True)
        except Exception as error:  # each store has its own exceptions
            raise UserError(f"opt_outs: can't read the folder {settings.folder} ({first_line(error)})") from error
        names = {posixpath.basename(each["name"].rstrip("/")) for each in found if each["type"] == "directory"}
        self.domains = {name.lower(): name for name in names}
        self.said: set[str] = set()
        self._domain = lru_cache(DOMAINS)(self._read_domain)

    def row(self, entry: Entry) -> Entry:
        """The columns of a film by its address: its URI, or the column that `url` names."""
        url = entry.get(self.settings.url or "uri")
        domain = domain_of(url) if isinstance(url, str) else None
        if not isinstance(url, str) or domain not in self.domains:
            return {}
        folder, robots, tdm, rsl = self._domain(domain)
        agents = self.settings.agents
        found = {
            "robots": robots.finding(url, agents) if robots is not None else None,
            "tdmrep": read_tdmrep(folder, tdm, url),
            "aipref": read_aipref(folder, robots, url, agents),
            "rsl": rsl.finding(url),
        }
        row: Entry = {}
        for signal, finding in found.items():
            row |= dict(zip(signal_columns(signal), finding or (None, None, None), strict=True))
        return row

    def add_to(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            yield entry | self.row(entry)

    def refresh(self, ledger: Ledger) -> int:
        """Gives known sources what the folder says now; returns how many of them had another value."""
        keys = {"source_id": TEXT} | COLUMNS
        wanted = dict.fromkeys([*keys, "uri", *([self.settings.url] if self.settings.url else [])])
        with tempfile.TemporaryDirectory(prefix="clipmill-") as folder:
            path, count = Path(folder, "changed.parquet"), 0
            with pq.ParquetWriter(path, pa.schema(keys)) as writer:
                for part in ledger.known(columns=tuple(wanted)):
                    rows = [
                        {"source_id": entry["source_id"], **row}
                        for entry in part.to_pylist()
                        if (row := self.row(entry)) and any(entry.get(name) != value for name, value in row.items())
                    ]
                    if rows:
                        made = rows_to_table("changed", rows, keys)
                        writer.write_table(pa.table([made[name] for name in keys], schema=pa.schema(keys)))
                    count += len(rows)
            if count:
                ledger.change_rows(str(path))
        return count

    def _read_domain(self, domain: str) -> tuple[DomainFolder, Robots | None, TdmRules, RslTerms]:
        folder = DomainFolder(self.fs, posixpath.join(self.path, self.domains[domain]), domain, self._say)
        file = folder.text(ROBOTS)
        robots = Robots(file) if file is not None else None
        return folder, robots, TdmRules(folder), RslTerms(folder, robots)

    def _say(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            print(f"opt_outs: {line}", file=sys.stderr)
