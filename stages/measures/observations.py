"""Buffers what the measures observe until it is known which clip it belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stages.frames import Sample, Span
from stages.measures.base import ClipFacts, Measure
from stages.measures.registry import measure_classes

SLACK_S = 1e-6  # seconds are floats of exact PTS
RECENT = 16  # the newest observations are never merged: a cut among them is not known yet (8 s at 2 fps)


@dataclass
class _Track:
    """One measure with what it observed: (since, at, value), oldest first."""

    measure: Measure
    seen: list[tuple[float, float, Any]] = field(default_factory=list)


class Observations:
    """Feed it every sample of a source in order, and close its clips in order: each gives one row of columns.

    Observations that look across a cut, or at frames between clips, belong to no clip. Memory is bounded by
    the longest clip in scalars, and by `most_kept` in everything larger.
    """

    def __init__(self, names: Iterable[str]):
        """The named measures; ValueError where one does not exist."""
        measures = [measure() for measure in measure_classes(names)]
        self._tracks = [_Track(measure) for measure in measures if not measure.hears]
        self._hearing = [measure for measure in measures if measure.hears]
        self.versions = {measure.name: str(measure.version) for measure in measures}  # kept beside their values
        self._previous: Sample | None = None

    @property
    def hears(self) -> bool:
        """Whether any measure asks for the sound."""
        return bool(self._hearing)

    def observe(self, sample: Sample) -> None:
        """Lets every measure observe the sample."""
        previous = self._previous
        if previous is not None and previous.seconds >= sample.seconds:
            previous = None  # time ran backwards: no pair
        for track in self._tracks:
            value = track.measure.observe(sample, previous)
            if value is not None:
                track.seen.append((_since(track.measure, sample, previous), sample.seconds, value))
                _merge_old(track)
        self._previous = sample

    def close(self, span: Span, facts: ClipFacts) -> dict[str, Any]:
        """The columns of the clip at `span` that its pictures give; drops the observations before its end."""
        row: dict[str, Any] = {}
        end_s = max(span.end_s - SLACK_S, span.start_s + SLACK_S)  # an image has no length but its one frame
        for track in self._tracks:
            inside = [(at, value) for since, at, value in track.seen if since >= span.start_s - SLACK_S and at < end_s]
            found = track.measure.aggregate(inside, facts)
            row.update({column: _plain(found[column]) for column in track.measure.columns})
        self.forget(span.end_s)
        return row

    def hear(self, facts: ClipFacts) -> dict[str, Any]:
        """The columns of a clip that its sound gives."""
        row: dict[str, Any] = {}
        for measure in self._hearing:
            found = measure.aggregate([], facts)
            row.update({column: _plain(found[column]) for column in measure.columns})
        return row

    def forget(self, before_s: float) -> None:
        """Drops observations of frames before that time: no later clip can own them."""
        for track in self._tracks:
            track.seen = [seen for seen in track.seen if seen[0] >= before_s - SLACK_S]


def _since(measure: Measure, sample: Sample, previous: Sample | None) -> float:
    if measure.reach == "pair" and previous is not None:
        return previous.seconds
    if measure.reach == "trail" and sample.trail:
        return sample.trail[0][0]
    return sample.seconds


def _merge_old(track: _Track) -> None:
    most, seen = track.measure.most_kept, track.seen
    if most is None or len(seen) <= most + RECENT:
        return
    old, recent = seen[:-RECENT], seen[-RECENT:]
    merged = [
        (first[0], second[1], track.measure.merge(first[2], second[2]))
        for first, second in zip(old[::2], old[1::2], strict=False)
    ]
    track.seen = merged + (old[-1:] if len(old) % 2 else []) + recent


def _plain(value: Any) -> Any:
    """A Python value for a numpy one; NaN and infinity become None, unknown."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
