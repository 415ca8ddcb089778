"""What a stage is: settings, needs, what it adds; `setup()` once per worker, then units in, units out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from stages.frames import FrameRequest


@dataclass(frozen=True)
class Needs:
    """What one worker of a stage takes: logical CPUs and GPUs."""

    cpus: float = 1.0
    gpus: float = 0.0


class Stage:
    """A callable that takes a unit and yields units (one, or several parts of a long source).

    Subclasses set `name`, and say what they add: `columns` by table (Arrow type names), `gates` that they
    bring along (name -> SQL condition), and the frames of each clip they want from the decode pass.
    A stage must be picklable before `setup()`; whatever is heavy is loaded there.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs()

    def setup(self) -> None:
        """Loads models and starts helpers; called once in each worker, before the first unit."""

    def close(self) -> None:
        """Ends what `setup()` started; called when the run is over."""

    def __call__(self, unit: Any) -> Iterator[Any]:
        raise NotImplementedError

    def columns(self) -> dict[str, dict[str, str]]:
        return {}

    def gates(self) -> dict[str, str]:
        return {}

    def wants(self) -> FrameRequest | None:
        return None

    def versions(self) -> dict[str, str]:
        """Versions of the code or models whose change makes old rows incomparable."""
        return {}
