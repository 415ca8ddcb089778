"""By which URIs the catalog knows what a listing finds: folders that moved and links to folders are seen through."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from curate.catalog.idset import pack
from curate.catalog.places import Places, is_under
from curate.run.links import FolderLinks
from curate.storage import is_local, local_path
from stages.unit import source_id

NoteLinks = Callable[[dict[str, str]], None]  # told of links that the catalog does not know, before any name is given


class Ids(Protocol):
    """A set of ids, such as `curate.catalog.idset.IdSet`."""

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the (n,) ids are in the set."""
        ...


class Naming:
    """Turns places into known URIs, and notes links to folders that `inputs` and entries come through.

    `links` has what was met. A link that leads elsewhere than when the catalog first met it is left as it was.
    """

    def __init__(self, places: Places | None = None, inputs: Sequence[str] = (), note: NoteLinks = lambda links: None):
        self.places = places or Places()
        self.links = FolderLinks()
        self._note = note
        local = [local_path(text) for text in inputs if is_local(text)]
        self._tops = [path for path in local if os.path.isdir(path)]  # no link to a folder is followed below these
        for top in self._tops:
            self.links.note(top)

    def names(self, places: Sequence[str], held: Sequence[Ids]) -> list[str]:
        """The known URI of each place: where several could be it, the one of which `held` has the id, else the
        likeliest; a place that nothing can have any more is a name of old.
        """
        self._look_for_links(places)
        found = [self.places.names(place) for place in places]
        several = [name for names in found if len(names) > 1 for name in names]
        known: set[str] = set()
        if several:
            packed = pack([source_id(name) for name in several])
            there = [ids.contains(packed) for ids in held]
            known = {name for name, *held_by in zip(several, *there, strict=True) if any(held_by)}
        return [
            next((name for name in names if name in known), names[0] if names else place)
            for names, place in zip(found, places, strict=True)
        ]

    def place(self, listed: str, name: str) -> str:
        """Where to read what was listed: there, or where the source with a name of old lies now."""
        return listed if self.places.names(listed) else self.places.place(name)

    def _look_for_links(self, places: Sequence[str]) -> None:
        for place in places:
            if place.startswith("/") and not any(is_under(place, top) for top in self._tops):
                self.links.note(os.path.dirname(place))
        fresh = {link: real for link, real in self.links.found.items() if link not in self.places.links}
        if fresh:
            self.places.links |= fresh
            self._note(fresh)
