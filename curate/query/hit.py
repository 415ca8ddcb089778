"""A hit of a search: a clip, and how near it is to what was looked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hit:
    """A clip and the cosine of its embedding with the text's, -1 to 1."""

    rank: int
    score: float
    clip_id: str
    uri: str
    start_s: float
    end_s: float
    verdict: str
