"""What is still to be done of sources: the listing, less what the catalog holds, as a stream of units."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from curate.catalog.idset import IdSet, pack, pack_column
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BASE, PASS
from curate.run.archive_listing import PLACE
from curate.run.naming import Naming
from stages.scan.purged import Purged
from stages.unit import Place, Source, Unit, source_id

Entry = dict[str, Any]  # `uri`, and the manifest's own columns
CHUNK = 4096  # entries at a time


@dataclass
class PendingSources:
    """Iterating gives a Unit for each source to do.

    `stored` are the sources of the catalog to be done again, with the manifest columns that they have there: those made
    under other settings, also where the listing no longer names them, so that a rebuilt catalog is never a mixture.
    `see_inside` is given new sources inside archives before their units leave, with the columns that these say.
    """

    entries: Iterable[Entry]
    stored: Iterable[Entry] = ()
    limit: int | None = None
    done: IdSet = field(default_factory=IdSet)  # committed, not to be done again
    failed: IdSet = field(default_factory=IdSet)  # committed as failed, not to be tried again
    redo: IdSet = field(default_factory=IdSet)  # committed, to be done again
    retried: IdSet = field(default_factory=IdSet)  # of these, those to be done again only where the listing names them
    naming: Naming = field(default_factory=Naming)  # tells by which URI the catalog knows what lies at a place
    purged: Purged = field(default_factory=Purged)  # not to be done at all
    listed: int = 0  # distinct sources the listing named
    already_done: int = 0  # of these, before this run
    already_failed: int = 0
    already_purged: int = 0
    taken: int = 0
    left: int = 0  # beyond the limit
    untaken: int = 0  # of new ones, beyond the limit
    seen: IdSet = field(default_factory=IdSet)  # what the listing named
    ledger: Ledger | None = None  # of sources
    see_inside: Callable[[Sequence[Source]], None] = lambda sources: None

    def __iter__(self) -> Iterator[Unit]:
        seen, entries = self.seen, iter(self.entries)
        while chunk := list(islice(entries, CHUNK)):
            held = (seen, self.done, self.failed, self.redo)
            names = self.naming.names([entry["uri"] for entry in chunk], held)
            ids = [source_id(name) for name in names]
            packed = pack(ids)
            new, again = seen.add(packed), self.redo.contains(packed)
            done, failed = self.done.contains(packed), self.failed.contains(packed)
            purged = np.array([bool(self.purged) and self.purged.holds(one) for one in ids]) & ~done & ~failed
            self.listed += int(new.sum())
            self.already_purged += int((new & purged).sum())
            self.already_done += int((new & done).sum())
            self.already_failed += int((new & failed).sum())
            yield from self._units(names, chunk, new & ~done & ~failed & ~again & ~purged)
        stored = iter(self.stored)
        while chunk := list(islice(stored, CHUNK)):
            names = [entry["uri"] for entry in chunk]
            packed = pack([source_id(name) for name in names])
            wanted = self.redo.contains(packed) & (seen.contains(packed) | ~self.retried.contains(packed))
            placed = [entry | {"uri": self.naming.places.place(entry["uri"])} for entry in chunk]
            yield from self._units(names, placed, wanted, redone=True)

    def account(self) -> dict[str, int]:
        """How many of the sources that the listing named are done, failed and pending now, for the run's row."""
        found = {"listed_done": 0, "listed_failed": 0, "pending": self.untaken}
        for table in self.ledger.known(("source_id", "status")) if self.ledger is not None else ():
            named = table["status"].filter(self.seen.contains(pack_column(table["source_id"])))
            for counted in named.value_counts().to_pylist():
                found[f"listed_{counted['values']}"] += counted["counts"]
        return found

    def _units(
        self, names: list[str], entries: list[Entry], wanted: np.ndarray, redone: bool = False
    ) -> Iterator[Unit]:
        """Units of the wanted ones, (n,) bool, up to the limit."""
        most = len(wanted) if self.limit is None else self.limit - self.taken
        chosen = np.flatnonzero(wanted)[: max(0, most)]
        self.taken += len(chosen)
        self.left += int(wanted.sum()) - len(chosen)
        self.untaken += 0 if redone else int(wanted.sum()) - len(chosen)
        sources = [self._source(names[at], entries[at]) for at in chosen]
        if not redone and (inside := [source for source in sources if source.place is not None]):
            self.see_inside(inside)
        yield from (Unit(source.source_id, source=source, redone=redone) for source in sources)

    def _source(self, name: str, entry: Entry) -> Source:
        uri = self.naming.place(entry["uri"], name)
        columns = {n: v for n, v in entry.items() if n not in ("uri", PLACE)}
        source = Source(source_id(name), uri, columns, place=entry.get(PLACE))
        source.known_as = name if name != uri else None
        return source


def pending_sources(
    ledger: Ledger,
    listing: Iterable[Entry],
    settings: str,
    limit: int | None = None,
    retry_failed: bool = False,
    rebuild: bool = False,
    again: Collection[str] = (),
    naming: Naming | None = None,
    purged: Purged | None = None,
) -> PendingSources:
    """What the ledger of sources leaves to do of a listing, for rows to be made under `settings`. `again` are ids of
    sources to be done again whatever their settings.
    """
    pending = PendingSources(listing, limit=limit, naming=naming or Naming(), purged=purged or Purged(), ledger=ledger)
    for table in ledger.known():
        if not table.num_rows:
            continue
        ids, states = table["source_id"].to_pylist(), table["status"].to_pylist()
        chosen: dict[str, list[str]] = {"done": [], "failed": [], "stale": [], "retried": []}
        for one, state, made in zip(ids, states, table["settings"].to_pylist(), strict=True):
            kept = "retried" if retry_failed and state == "failed" else state
            chosen["stale" if rebuild or made != settings or one in again else kept].append(one)
        sets: dict[str, list[IdSet]] = {"done": [pending.done], "failed": [pending.failed]}
        sets |= {"stale": [pending.redo], "retried": [pending.redo, pending.retried]}
        for state, some in chosen.items():
            for to in sets[state] if some else ():
                to.add(pack(some))
    if len(pending.redo):
        pending.stored = _stored_entries(ledger)
    return pending


def _stored_entries(ledger: Ledger) -> Iterator[Entry]:
    """The sources of the catalog, with the manifest columns that they have."""
    made = {*BASE["sources"].names, PASS} - {"uri"}
    for table in ledger.known(columns=()):
        for row in table.to_pylist():
            place = Place.known(row["archive_offset"], row["bytes"])
            yield {name: value for name, value in row.items() if name not in made} | {PLACE: place}
