"""What a run says of inputs that lie where a folder was before it moved, and of links that lead elsewhere by now."""

from __future__ import annotations

from collections.abc import Mapping

from curate.catalog.places import Places
from curate.errors import UserError
from curate.storage import is_local, local_path


def new_place(places: Places, text: str) -> str:
    """Where an input lies now; itself unless it lay below a folder that was relocated."""
    uri = local_path(text) if is_local(text) else text.rstrip("/")
    moved = places.place(uri)
    return text if moved == uri or places.names(uri) else moved


def refuse_left_places(places: Places, inputs: tuple[str, ...], catalog: str) -> None:
    """UserError for an input below a folder that was relocated: its files would get the names of those that moved."""
    for text in inputs:
        moved = new_place(places, text)
        if moved != text:
            raise UserError(
                f"{text} was relocated to {moved}: give --input {moved}, or take that back with "
                f"`clipmill relocate {moved} {text} --catalog {catalog}`"
            )


def link_notes(places: Places, links: Mapping[str, str]) -> list[str]:
    """A line for each link that led to another folder when the catalog first met it."""
    return [
        f"note: {link} leads to {real}, and led to {places.links[link]} when this catalog first met it: "
        "a file of the same name counts as the same source"
        for link, real in links.items()
        if places.links.get(link, real) != real
    ]
