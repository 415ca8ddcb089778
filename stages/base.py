"""What a stage is: settings, needs, what it adds; `setup()` once per worker, then units in, units out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from stages.frames import FrameRequest


@dataclass(frozen=True)
class Needs:
    """What one worker of a stage takes, logical CPUs and GPUs, and how many workers it may have at most."""

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int | None = None  # None: as many as fit


class Stage:
    """A callable that takes a unit and yields units (one, or several parts of a long source).

    Subclasses set `name`, and say what they add: `columns` by table (Arrow type names), `gates` that they
    bring along (name -> SQL condition), and the frames of each clip they want from the decode pass.
    A stage must be picklable before `setup()`; whatever is heavy is loaded there.
    """

    name: ClassVar[str]
    needs: Needs = Needs()

    def setup(self) -> None:
        """Loads models and starts helpers; called once in each worker, before the first unit."""

    def close(self) -> None:
        """Ends what `setup()` started; called when the run is over."""

    def __call__(self, unit: Any) -> Iterator[Any]:
        raise NotImplementedError

    def stream(self, units: Iterable[Any]) -> Iterator[Any]:
        """Every unit through this stage; an exception fails its unit and nothing else.

        A stage that works on many units at a time overrides this. The order may change, but not that of the
        parts of one unit.
        """
        for unit in units:
            if unit.failure is not None:
                yield unit
                continue
            try:
                yield from self(unit)
            except SettingsError:
                raise  # would meet every unit: ends the run
            except Exception as error:
                yield unit.failed(f"{self.name}: {one_line(error)}"[:500])

    def columns(self) -> dict[str, dict[str, str]]:
        return {}

    def gates(self) -> dict[str, str]:
        return {}

    def wants(self) -> FrameRequest | None:
        return None

    def versions(self) -> dict[str, str]:
        """Versions of the code or models whose change makes old rows incomparable."""
        return {}


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class SettingsError(Exception):
    """Settings of a stage that can't work here: one line with the fix. Raised in a worker, it ends the run."""
