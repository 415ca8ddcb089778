"""What is still to be done of sources: the listing, less what the catalog holds, as a stream of units."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from curate.catalog.arrays import array
from curate.catalog.idset import IdSet, pack
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BASE, PASS, storable, stored_type
from curate.errors import UserError
from curate.run.listing import CHUNK
from stages.unit import Row, Source, Unit, source_id

RESERVED = {name.lower() for name in [*BASE["sources"].names, PASS, "clip_id"]}
Entry = dict[str, Any]  # `uri`, and the manifest's own columns
SeeColumns = Callable[[pa.Schema], None]  # told of manifest columns that are new


@dataclass
class PendingSources:
    """Iterating gives a Unit for each source to do.

    `stale` are entries of rows made under other settings: they are done again even where the listing no longer names
    them, so that a rebuilt catalog is never a mixture. `columns` are the stored columns of `sources`; `see_columns` is
    told of a manifest's new columns before the units that carry them.
    """

    entries: Iterable[Entry]
    stale: Iterable[Entry] = ()
    limit: int | None = None
    done: IdSet = field(default_factory=IdSet)  # committed, not to be done again
    failed: IdSet = field(default_factory=IdSet)  # committed as failed, not to be tried again
    redo: IdSet = field(default_factory=IdSet)  # committed, to be done again
    columns: pa.Schema = field(default_factory=lambda: pa.schema([]))
    see_columns: SeeColumns = lambda columns: None
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
                    source = Source(ids[at], entry["uri"], manifest_columns(entry))
                    units.append(Unit(ids[at], source=source, redone=bool(again[at])))
            self._look_at_columns([unit.source.columns for unit in units if unit.source is not None])
            yield from units

    def _look_at_columns(self, rows: Sequence[Row]) -> None:
        """UserError for a column of mixed types, or of another type than the stored one."""
        found = []
        for name in dict.fromkeys(name for row in rows for name in row):
            values = _column(name, [row.get(name) for row in rows])
            if name in self.columns.names:
                stored_type("sources", name, values, self.columns.field(name).type)
            elif (kind := storable(values.type)) is not None:
                found.append(pa.field(name, kind))
        if found:
            self.see_columns(pa.schema(found))
            self.columns = pa.schema([*self.columns, *found])


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


def manifest_columns(entry: Entry) -> Row:
    """The extra columns of a manifest's row as `sources` can hold them.

    A name that clipmill uses itself becomes manifest_NAME: a manifest's own `width` or `status` must not pass
    for what was measured. Lists and mappings become JSON text, so that no odd value can bend the table.
    """
    return {_name(k): _value(v) for k, v in entry.items() if k != "uri"}


def _name(name: str) -> str:
    plain = "".join(c if c.isprintable() else "_" for c in name).strip()
    return plain if plain and plain.lower() not in RESERVED else f"manifest_{plain}"


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate is no text
    return json.dumps(value, default=str) if isinstance(value, list | dict | tuple) else value


def _column(name: str, values: list[Any]) -> pa.Array:
    try:
        return array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        found = sorted({type(value).__name__ for value in values if value is not None})
        raise UserError(f"column {name!r} of the manifest mixes {', '.join(found)}: give it one type") from error
