"""What a source of captions gives, and what every source looks like."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from stages.unit import Clip


@dataclass(frozen=True)
class Answer:
    """A caption as it came. `finish` is 'length' where the model was cut off, 'stop' where it ended by itself,
    None where nobody knows.
    """

    text: str
    source: str  # 'manifest', 'model' or 'server'
    finish: str | None = None
    model: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        # half of a character, as a cut answer may end with, is no text
        object.__setattr__(self, "text", self.text.encode("utf-8", "replace").decode())


@dataclass
class Deadline:
    """When a clip must be done with."""

    end: float  # monotonic seconds

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        return self.end - time.monotonic()

    def extend(self, seconds: float) -> None:
        """For time that the clip spent waiting for others."""
        self.end += seconds


class Source(Protocol):
    """Where captions come from. What takes time or money says so by `costly`: its answers are kept at once."""

    costly: bool

    def check(self) -> None:
        """At plan time, loading nothing; SettingsError for what can't work here."""

    def content(self) -> str:
        """Hash of what answers, where it lies in local files; '' else."""

    def setup(self) -> None:
        """In the worker: loads, connects; SettingsError."""

    def halt(self) -> None:
        """Begins nothing further."""

    def close(self) -> None:
        """Ends what `setup` began, answers under way included."""

    def caption(self, clip: Clip, name: str, prompt: str, deadline: Deadline) -> Answer | None:
        """The clip's caption of that name, None where this source has none.

        Raises ClipError with the reason, and SettingsError for what would meet every clip.
        """
