"""The unit: the atom of work that travels through the stages of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Unit:
    """One source on its way through a plan (or one part of it: a long source leaves in several parts).

    `rows` are what will be committed, by table. `pixels` are transient: what later stages of the same recipe
    asked for, by clip id; they are never committed. `passing` are the clip ids that the gates so far keep
    (None: no gate was met). A part with `last` False is followed by more parts of the same unit_id.
    """

    unit_id: str
    entry: dict[str, Any]  # uri, source_id and the manifest's extra columns
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=dict)
    passing: set[str] | None = None
    part: int = 0
    last: bool = True
    failure: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # CPU seconds by stage
