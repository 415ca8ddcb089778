"""Stages that say something of clips: frames (or nothing but columns) in, one row a clip out, in batches.

Such a stage fills one table, keyed by clip_id, which marks each clip as done or failed: inside `ingest` it
takes the frames that the decode pass hands on, in a recipe of its own those that `stages.decode.seek` fetches.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stages.base import SettingsError, Stage, one_line
from stages.frames import FrameRequest, Picture


class ClipError(Exception):
    """Why one clip could not be scored: the reason in its row."""


@dataclass
class ClipInput:
    """What a stage gets of one clip.

    `row` are the clip's columns so far, `entry` those of its source (uri, source_id and what the manifest
    said: caption, licence, ...). `frames` are those of the stage's own request, in order of its positions.
    `features` is shared by the stages of one worker: what one of them computed, the next need not.
    """

    row: dict[str, Any]
    entry: dict[str, Any]
    frames: list[Picture] = field(default_factory=list)
    features: dict[str, Any] = field(default_factory=dict)

    @property
    def clip_id(self) -> str:
        return self.row["clip_id"]


class ClipStage(Stage):
    """Subclasses give `score` and `signals`, and set `name` and `default_table`.

    `table` is the stage's `as:` setting. Under its default name a signal is a column by its plain name; under
    another name the table's name goes before it, so that another model's scores stand beside the first's.
    """

    default_table: ClassVar[str]
    gathers: ClassVar[bool] = False  # makes units of its own, see `gather`
    keeps_shards: ClassVar[bool] = False  # leaves files under <catalog>/shards/<table>, which its rows name
    batch_clips: int = 32  # clips that `score` is given at a time, across units

    def __init__(self, table: str | None = None):
        self.table = table or self.default_table

    def signals(self) -> dict[str, str]:
        """Columns by plain name -> Arrow type name, `model` and `revision` among them where there is a model."""
        raise NotImplementedError

    def score(self, clips: Sequence[ClipInput]) -> list[dict[str, Any] | ClipError]:
        """For each clip its signals by plain name, or why there are none. What it gives must not depend on
        which clips come together.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raises stages.base.SettingsError for settings that can't work here; loads no model."""

    def check_sources(self, columns: Collection[str]) -> None:
        """Told the columns of `sources` before a run over clips; raises SettingsError for one that is missing."""

    def check_clips(self, columns: Mapping[str, Any]) -> None:
        """Told the columns of `clips`, with their Arrow types, before a run; raises SettingsError as above."""

    def gather(self, clips: Iterable[ClipInput]) -> Iterator[list[ClipInput]] | None:
        """Clips in order of their source, put together to units as this stage wants them. None: by source.

        A stage that gathers stands alone in its recipe, gates aside.
        """
        return None

    def bind(self, catalog_uri: str) -> None:
        """Told before a run where its catalog lies."""

    def left_over(self) -> set[str]:
        """Clips of which a stage keeps something beside the catalog, until it is told that they are committed."""
        return set()

    def committed(self, clip_ids: Collection[str]) -> None:
        """Told in the driver that these clips are done and their rows committed."""

    def column(self, signal: str) -> str:
        """The column of a signal: `model`, `revision` and `frames` always carry the table's name."""
        if self.table == self.default_table and signal not in ("model", "revision", "frames"):
            return signal
        return f"{self.table}_{signal}" if signal != self.default_table else self.table

    def columns(self) -> dict[str, dict[str, str]]:
        return {self.table: {self.column(name): kind for name, kind in self.signals().items()}}

    def __call__(self, unit: Any) -> Iterator[Any]:
        return self.stream([unit])

    def stream(self, units: Iterable[Any]) -> Iterator[Any]:
        """Units in their order, held back until a batch of clips is full or there are no more units."""
        waiting: list[Any] = []
        clips = 0
        for unit in units:
            waiting.append(unit)
            clips += len(self._chosen(unit))
            if clips >= self.batch_clips:
                yield from self._score(waiting)
                waiting, clips = [], 0
        yield from self._score(waiting)

    def _chosen(self, unit: Any) -> list[dict[str, Any]]:
        if unit.failure is not None:
            return []
        have, passing = unit.have.get(self.table, ()), unit.passing
        lacking = (row for row in unit.clips if row["clip_id"] not in have)
        return [row for row in lacking if passing is None or row["clip_id"] in passing]

    def clips_of(self, unit: Any) -> list[ClipInput]:
        """What is to be scored of a unit; a clip without the frames it needs is failed at once."""
        request, found = self.wants(), []
        for row in self._chosen(unit):
            clip = row["clip_id"]
            frames = unit.pixels.get(clip, {}).get(request, []) if request else []
            if request and not frames:
                self.add(unit, row, ClipError(unit.lost.get(clip, "no frame of it could be had")))
            else:
                found.append(ClipInput(row, unit.entry_of(row), frames, unit.features.setdefault(clip, {})))
        return found

    def _score(self, units: list[Any]) -> list[Any]:
        began = time.process_time()
        jobs = [(unit, clip) for unit in units for clip in self.clips_of(unit)]
        for start in range(0, len(jobs), self.batch_clips):
            batch = jobs[start : start + self.batch_clips]
            answers = self._answers([clip for _, clip in batch])
            for (unit, clip), answer in zip(batch, answers, strict=True):
                self.add(unit, clip.row, answer)
        spent = time.process_time() - began
        for unit in units:
            unit.seconds[self.name] = unit.seconds.get(self.name, 0.0) + spent / len(units)
        return units

    def _answers(self, clips: list[ClipInput]) -> list[dict[str, Any] | ClipError]:
        """A batch that raises is taken apart, so that one bad clip costs itself alone."""
        try:
            return self.score(clips)
        except SettingsError:
            raise  # would meet every clip: ends the run
        except Exception as error:
            if len(clips) == 1:
                return [error if isinstance(error, ClipError) else ClipError(one_line(error))]
            return [self._answers([clip])[0] for clip in clips]

    def add(self, unit: Any, row: dict[str, Any], answer: dict[str, Any] | ClipError) -> None:
        """A clip's row into the unit's rows."""
        made = {"clip_id": row["clip_id"], "source_id": row["source_id"]}
        if isinstance(answer, ClipError):
            made |= {"status": "failed", "reason": one_line(answer)[:500]}
        else:
            made |= {"status": "done", "reason": None} | {self.column(k): v for k, v in answer.items()}
        unit.rows.setdefault(self.table, []).append(made)


def requests_of(stages: Iterable[Stage]) -> tuple[FrameRequest, ...]:
    """The distinct frame requests of stages, in their order."""
    return tuple(dict.fromkeys(want for stage in stages if (want := stage.wants()) is not None))
