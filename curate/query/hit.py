"""A hit of a search: a clip, and how near it is to what was looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


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

    @property
    def labels(self) -> tuple[str, str]:
        """What a contact sheet says of it."""
        return (
            f"{self.rank}.  {self.score:.3f}   {self.start_s:.2f} to {self.end_s:.2f} s",
            PurePosixPath(self.uri).name,
        )
