"""What is still to be done: the listing, less what the catalog holds, as a stream of units."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from curate.catalog.idset import IdSet, pack
from curate.catalog.ledger import Ledger
from curate.catalog.schema import BASE
from curate.run.listing import CHUNK
from stages.unit import Unit, source_id

RESERVED = {name.lower() for name in [*BASE["sources"].names, "batch", "clip_id"]}


@dataclass
class Pending:
    """Iterating gives a Unit for each source to do; `replace` are the ids whose old rows must go.

    `stale` are entries of rows made under other settings: they are done again even where the listing no
    longer names them, so that a rebuilt catalog is never a mixture.
    """

    entries: Iterable[dict[str, Any]]
    stale: Iterable[dict[str, Any]] = ()
    limit: int | None = None
    done: IdSet = field(default_factory=IdSet)  # committed, not to be done again
    failed: IdSet = field(default_factory=IdSet)  # committed as failed, not to be tried again
    replace: IdSet = field(default_factory=IdSet)  # committed, to be done again
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
            new = seen.add(packed)
            done, failed = self.done.contains(packed), self.failed.contains(packed)
            for (listed, entry), text, is_new, is_done, is_failed in zip(chunk, ids, new, done, failed, strict=True):
                if not is_new:
                    continue
                self.listed += listed
                if is_done or is_failed:
                    self.already_done += listed * bool(is_done)
                    self.already_failed += listed * bool(is_failed)
                    continue
                if self.limit is not None and self.taken >= self.limit:
                    continue
                self.taken += 1
                yield Unit(text, {**rename_extras(entry), "source_id": text})


def pending_sources(
    ledger: Ledger,
    listing: Iterable[dict[str, Any]],
    settings: str,
    limit: int | None = None,
    retry_failed: bool = False,
    rebuild: bool = False,
) -> Pending:
    """What the ledger of sources leaves to do of a listing, for rows to be made under `settings`."""
    pending = Pending(listing, limit=limit)
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
        for some, to in zip(chosen.values(), (pending.done, pending.failed, pending.replace), strict=True):
            if some:
                to.add(pack(some))
    if stale:
        pending.stale = _stale_entries(ledger, None if rebuild else settings)
    return pending


def known_ids(ledger: Ledger) -> IdSet:
    """The keys that a mark table holds, done or failed."""
    found = IdSet()
    for table in ledger.known():
        if table.num_rows:
            found.add(pack(table[ledger.key].to_pylist()))
    return found


def _stale_entries(ledger: Ledger, settings: str | None) -> Iterator[dict[str, Any]]:
    """Sources made under other settings than these, with the manifest columns they came with."""
    made = set(BASE["sources"].names) - {"uri"}
    for table in ledger.known(all_columns=True):
        for row in table.to_pylist():
            if row["settings"] != settings:
                yield {name: value for name, value in row.items() if name not in made}


def rename_extras(entry: dict[str, Any]) -> dict[str, Any]:
    """The columns of a manifest as `sources` can hold them.

    A name that clipmill uses itself becomes manifest_NAME: a manifest's own `width` or `status` must not pass
    for what was measured. Lists and mappings become JSON text, so that no odd value can bend the table.
    """
    return {"uri": entry["uri"]} | {_name(k): _value(v) for k, v in entry.items() if k != "uri"}


def _name(name: str) -> str:
    plain = "".join(c if c.isprintable() else "_" for c in name).strip()
    return plain if plain and plain.lower() not in RESERVED else f"manifest_{plain}"


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate is no text
    return json.dumps(value, default=str) if isinstance(value, list | dict | tuple) else value
