"""The unit: the atom of work that travels through the stages of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import xxhash

from stages.frames import Frames


@dataclass
class Unit:
    """One source on its way through a plan (or one part of it: a long source leaves in several parts), or a
    group of clips that the catalog holds already: of one source, or of many, whose entries are then `entries`.

    `rows` are what will be committed, by table; `known` are clips the catalog has, which are not. The rest is
    transient and never committed: `pixels` are the frames that stages asked for, by clip id; `lost` says of
    clips why they have none; `features` are what one model stage leaves for the next, by clip id.
    `passing` are the clip ids that the gates so far keep (None: no gate was met). A part with `last` False is
    followed by more parts of the same unit_id.
    """

    unit_id: str
    entry: dict[str, Any]  # uri, source_id and the manifest's extra columns; empty for clips of many sources
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    known: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)  # of clips of many sources, by source_id
    pixels: dict[str, Frames] = field(default_factory=dict)
    have: dict[str, set[str]] = field(default_factory=dict)  # by table: known clips that have their row there
    lost: dict[str, str] = field(default_factory=dict)
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    passing: set[str] | None = None
    part: int = 0
    last: bool = True
    failure: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # CPU seconds by stage

    @property
    def clips(self) -> list[dict[str, Any]]:
        """The clips of the unit, just made or known from the catalog: their columns, `clip_id` among them."""
        return self.known or self.rows.get("clips", [])

    def entry_of(self, clip: dict[str, Any]) -> dict[str, Any]:
        """The entry of a clip's source."""
        return self.entries.get(clip["source_id"], self.entry)

    def failed(self, reason: str) -> Unit:
        """What is left of the unit when a stage could not take it."""
        left = Unit(self.unit_id, self.entry, known=self.known, entries=self.entries, have=self.have)
        left.part, left.last = self.part, self.last
        left.failure = reason
        return left


def source_id(uri: str) -> str:
    """128-bit hash of the canonical URI, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(uri.encode("utf-8", "surrogateescape"))


def clip_id(source: str, start_pts: int, end_pts: int) -> str:
    """128-bit hash of a source id and a span in PTS, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(f"{source}:{start_pts}:{end_pts}".encode())
