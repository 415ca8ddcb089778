"""Where sources lie now, though their ids are hashes of the URIs by which the catalog came to know them.

A folder that moved is a pair of prefixes, OLD and NEW. Tables keep the known URIs; views show, and stages open, the
place that these have after all moves in order; and what a listing finds at a place is turned back into the known URI
before it is hashed. A link to a folder is another spelling of the same place: whichever the catalog knows counts.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal
from curate.storage import file_uri, is_local

MOVED, LINK = "moved", "link"


class Prefix(NamedTuple):
    """URIs that begin with `known` lie at `place`; the empty prefix is all that no move concerns."""

    known: str
    place: str


class Places:
    """The prefix map of a catalog, from its `moves` (old, new) in order and its `links` (link, real folder)."""

    def __init__(self, moves: Iterable[tuple[str, str]] = (), links: Mapping[str, str] = {}):
        self.links = dict(links)
        self.prefixes = [Prefix("", "")]
        for old, new in moves:
            for one in spelled_moves(old, new):
                self._move(*one)

    def _move(self, old: str, new: str) -> None:
        moved = []
        for prefix in self.prefixes:
            known, place = prefix
            if place and is_under(place, old):
                moved.append(Prefix(known, new + place[len(old) :]))
                continue
            moved.append(prefix)
            inside = known + old[len(place) :]  # where this prefix parts: what lay at `old` goes to `new`
            if is_under(old, place) and self._longest(inside) is prefix:
                moved.append(Prefix(inside, new))
        self.prefixes = moved

    def _longest(self, known: str) -> Prefix:
        return max((p for p in self.prefixes if is_under(known, p.known)), key=lambda p: len(p.known))

    @property
    def trivial(self) -> bool:
        """Whether every source lies at its known URI, and no link is known."""
        return len(self.prefixes) == 1 and not self.links

    def place(self, known: str) -> str:
        """Where the source with a known URI lies now."""
        if len(self.prefixes) == 1:
            return known
        prefix = self._longest(known)
        return prefix.place + known[len(prefix.known) :]

    def names(self, place: str) -> list[str]:
        """The URIs by which the catalog may know what lies at a place, likeliest first; none for a place left."""
        if self.trivial:
            return [place]
        found = []
        for spelling in self._spellings(place):
            prefixes = sorted((p for p in self.prefixes if is_under(spelling, p.place)), key=lambda p: -len(p.place))
            for prefix in prefixes:
                known = prefix.known + spelling[len(prefix.place) :]
                if self._longest(known) is prefix:
                    found.append(known)
        return list(dict.fromkeys(found))

    def _spellings(self, place: str) -> list[str]:
        """The place by way of each link to it first, so that all of its spellings give the same order."""
        by_link = [link + place[len(real) :] for link, real in self.links.items() if is_under(place, real)]
        real = [real + place[len(link) :] for link, real in self.links.items() if is_under(place, link)]
        return list(dict.fromkeys([*by_link, place, *real]))

    def sql(self, column: str) -> str:
        """SQL of the place of a column of known URIs."""
        if len(self.prefixes) == 1:
            return column
        cases = []
        for known, place in sorted(self.prefixes, key=lambda p: -len(p.known)):
            if known:
                here = f"{column} = {literal(known)} OR starts_with({column}, {literal(known + '/')})"
                cases.append(f"WHEN {here} THEN {literal(place)} || substr({column}, {len(known) + 1})")
        return f"CASE {' '.join(cases)} ELSE {column} END"


def is_under(uri: str, prefix: str) -> bool:
    """Whether a URI is that prefix or lies below it; all lie below the empty one."""
    return not prefix or uri == prefix or uri.startswith(prefix + "/")


def spelled_moves(old: str, new: str) -> list[tuple[str, str]]:
    """A move as it is, and as it is of files whose names are no UTF-8, which the catalog writes as file:// URIs."""
    pairs = [(old, new)]
    if is_local(old) and is_local(new):
        pairs.append((file_uri(old), file_uri(new)))
    return pairs


def read_places(catalog: Catalog) -> Places:
    rows = sorted(catalog.rows("places"), key=lambda row: row["number"])
    moves = [(row["old"], row["new"]) for row in rows if row["kind"] == MOVED]
    links: dict[str, str] = {}
    for row in rows:
        if row["kind"] == LINK:
            links.setdefault(row["old"], row["new"])
    return Places(moves, links)


def note_places(catalog: Catalog, kind: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Adds moves or links to what a catalog knows of places."""
    number = max((row["number"] for row in catalog.rows("places")), default=0)
    now = datetime.datetime.now(datetime.UTC)
    rows = [
        {"number": number + k, "kind": kind, "old": old, "new": new, "set_at": now}
        for k, (old, new) in enumerate(pairs, 1)
    ]
    if rows:
        catalog.append("places", rows)
