"""A caption as its source gave it, and the base class of the sources of captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stages.captions.pace import Clock
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
        # An answer that was cut off may end with half of a surrogate pair, which can't be stored as UTF-8.
        object.__setattr__(self, "text", self.text.encode("utf-8", "replace").decode())


class Deadline:
    """When all captions of a clip must be there."""

    def __init__(self, seconds: float, clock: Clock):
        self._clock = clock
        self._end = clock.now() + seconds

    def left(self) -> float:
        """Seconds; negative when it is over."""
        return self._end - self._clock.now()

    def extend(self, seconds: float) -> None:
        """For time that the clip spent waiting for others."""
        self._end += seconds


class CaptionSource:
    """Where captions come from. `costly` sources take time or money, so their answers are cached at once."""

    costly: ClassVar[bool] = True

    def check(self) -> None:
        """In the driver, loading nothing. Raises SettingsError for settings that can't work here."""

    def content(self) -> str:
        """Hash of the local files that decide the answers; '' if there are none."""
        return ""

    def loads(self) -> tuple[str, ...]:
        """The models that `setup` loads."""
        return ()

    def setup(self) -> None:
        """In the worker: loads or connects. Raises SettingsError."""

    def halt(self) -> None:
        """Begins no further request; what is under way may still arrive."""

    def close(self) -> None:
        """Ends what `setup` began, requests under way included."""

    def caption(self, clip: Clip, name: str, prompt: str, deadline: Deadline) -> Answer | None:
        """The clip's caption of that name; None where this source has none.

        Raises ClipError with the reason, and SettingsError for what would meet every clip.
        """
        raise NotImplementedError
