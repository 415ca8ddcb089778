"""What is still to be done of sources: the listing, less what the catalog holds, as a stream of units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from curate.catalog.idset import IdSet, pack
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BASE, PASS
from stages.unit import Source, Unit, source_id

Entry = dict[str, Any]  # `uri`, and the manifest's own columns
CHUNK = 4096  # entries at a time


@dataclass
class PendingSources:
    """Iterating gives a Unit for each source to do.

    `stale` are entries of rows made under other settings: they are done again even where the listing no longer names
    them, so that a rebuilt catalog is never a mixture.
    """

    entries: Iterable[Entry]
    stale: Iterable[Entry] = ()
    limit: int | None = None
    done: IdSet = field(default_factory=IdSet)  # committed, not to be done again
    failed: IdSet = field(default_factory=IdSet)  # committed as failed, not to be tried again
    redo: IdSet = field(default_factory=IdSet)  # committed, to be done again
    listed: int = 0  # distinct sources the listing named
    already_done: int = 0  # of these, before this run
    already_failed: int = 0
    taken: int = 0

    def __iter__(self) -> Iterator[Unit]:
        seen = IdSet()
        stream = iter(chain(((True, e) for e in self.entries), ((False, e) for e in self.stale)))
        while chunk := list(islice(stream, CHUNK)):
            ids = [source_id(entry["uri"]) for _, entry in chunk]
            packed = pack(ids)
            new, again = seen.add(packed), self.redo.contains(packed)
            done, failed = self.done.contains(packed), self.failed.contains(packed)
            units = []
            for at, (listed, entry) in enumerate(chunk):
                if not new[at]:
                    continue
                self.listed += listed
                if done[at] or failed[at]:
                    self.already_done += listed * bool(done[at])
                    self.already_failed += listed * bool(failed[at])
                elif self.limit is None or self.taken < self.limit:
                    self.taken += 1
                    source = Source(ids[at], entry["uri"], {n: v for n, v in entry.items() if n != "uri"})
                    units.append(Unit(ids[at], source=source, redone=bool(again[at])))
            yield from units


def pending_sources(
    ledger: Ledger,
    listing: Iterable[Entry],
    settings: str,
    limit: int | None = None,
    retry_failed: bool = False,
    rebuild: bool = False,
) -> PendingSources:
    """What the ledger of sources leaves to do of a listing, for rows to be made under `settings`."""
    pending = PendingSources(listing, limit=limit)
    stale = False
    for table in ledger.known():
        if not table.num_rows:
            continue
        ids, states = table["source_id"].to_pylist(), table["status"].to_pylist()
        other = [rebuild or text != settings for text in table["settings"].to_pylist()]
        stale = stale or any(other)
        chosen: dict[str, list[str]] = {"done": [], "failed": [], "again": []}
        for one, state, is_stale in zip(ids, states, other, strict=True):
            again = is_stale or (retry_failed and state == "failed")
            chosen["again" if again else state].append(one)
        for some, to in zip(chosen.values(), (pending.done, pending.failed, pending.redo), strict=True):
            if some:
                to.add(pack(some))
    if stale:
        pending.stale = _stale_entries(ledger, None if rebuild else settings)
    return pending


def _stale_entries(ledger: Ledger, settings: str | None) -> Iterator[Entry]:
    """Sources made under other settings than these, with the manifest columns they came with."""
    made = {*BASE["sources"].names, PASS} - {"uri"}
    for table in ledger.known(columns=()):
        for row in table.to_pylist():
            if row["settings"] != settings:
                yield {name: value for name, value in row.items() if name not in made}
