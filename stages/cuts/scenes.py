"""Turns hard cuts and gradual transitions into clips, and splits long scenes while the source is decoded.

A clip is final once no boundary can fall into it any more. Memory is the times of the frames of one clip.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction

from stages.cuts.blend import shrink
from stages.cuts.hard_cuts import HardCut, HardCutFinder
from stages.cuts.settings import CutSettings
from stages.cuts.transition_fit import Transition
from stages.cuts.transitions import TransitionFinder
from stages.frames import SmallFrame, Span


@dataclass(frozen=True)
class Gap:
    """Where one scene ends and the next begins: at one frame for a hard cut (start = end)."""

    start_pts: int
    end_pts: int


class SceneCutter:
    """The frames of a source in, its clips out, in order.

    `settled_s`: no clip still to come begins or ends before this time.
    """

    def __init__(self, settings: CutSettings, time_base: Fraction, forgiven_s: float = 0.0):
        """`forgiven_s`: seconds by which a length may be off, as the container rounds times."""
        gradual = settings.gradual and settings.detector not in ("fixed", "none")
        self._cuts = HardCutFinder(settings, forgiven_s / 2)
        self._transitions = TransitionFinder() if gradual else None
        self._waiting: list[HardCut] = []  # hard cuts that may still turn out to be inside a transition
        self._spans = SpanBuilder(settings, time_base, forgiven_s)

    @property
    def settled_s(self) -> float:
        return min(self._boundaries_settled(), self._spans.earliest_s)

    def observe(self, frame: SmallFrame) -> list[Span]:
        """The clips that became final with this frame."""
        self._spans.frame(frame.pts)
        reduced = shrink(frame.small)
        self._take_cuts(self._cuts.observe(frame, reduced))
        out = self._take_transitions(self._transitions.observe(frame, reduced) if self._transitions else [])
        return out + self._spans.settle(self._boundaries_settled())

    def finish(self, end_pts: int) -> list[Span]:
        """The clips still open when the source ends at `end_pts`."""
        self._take_cuts(self._cuts.finish())
        out = self._take_transitions(self._transitions.finish() if self._transitions else [])
        out += self._cut_until(1e18)
        return out + self._spans.finish(end_pts)

    def _boundaries_settled(self) -> float:
        settled = self._cuts.settled_s
        return min(settled, self._transitions.settled_s) if self._transitions else settled

    def _take_cuts(self, cuts: list[HardCut]) -> None:
        self._waiting += cuts
        if self._transitions:
            for cut in cuts:
                self._transitions.cut(cut.seconds)

    def _take_transitions(self, transitions: list[Transition]) -> list[Span]:
        out: list[Span] = []
        for found in sorted(transitions, key=lambda t: t.start_pts):
            self._waiting = [c for c in self._waiting if not found.start_pts <= c.pts <= found.end_pts]
            out += self._cut_until(found.start_s)
            out += self._spans.gap(Gap(found.start_pts, found.end_pts))
        return out + self._cut_until(self._boundaries_settled())

    def _cut_until(self, seconds: float) -> list[Span]:
        out: list[Span] = []
        while self._waiting and self._waiting[0].seconds < seconds:
            cut = self._waiting.pop(0)
            out += self._spans.gap(Gap(cut.pts, cut.pts))
        return out


class SpanBuilder:
    """Gaps in order in, spans in order out, from times alone.

    A scene that has lasted 1.5 max_seconds gives a clip of max_seconds; the rest at its end is halved where it is
    longer than max_seconds, so no part of a long scene is shorter than half of max_seconds. Short scenes are spans too:
    a gate drops them, with their scores, so where clips begin and end does not depend on min_seconds.
    """

    def __init__(self, settings: CutSettings, time_base: Fraction, forgiven_s: float = 0.0):
        self._max, self._split_s = settings.max_seconds, 1.5 * settings.max_seconds
        self._forgiven = forgiven_s
        self._ticks, self._per = time_base.numerator, time_base.denominator
        self._pts: list[int] = []  # of the frames since the start of the current clip
        self._start: int | None = None  # of the current clip; None before the first frame
        self._scene = 0
        self._used = False  # the current scene has given a clip

    @property
    def earliest_s(self) -> float:
        """The first time at which the current clip may be split: half of a scene just above max_seconds."""
        return -1e18 if self._start is None else self._seconds(self._start) + self._max / 2

    def frame(self, pts: int) -> None:
        """Every frame, in order, before the gaps that begin at it."""
        if self._start is None:
            self._start = pts
        self._pts.append(pts)

    def gap(self, gap: Gap) -> list[Span]:
        """The current scene ends at gap.start_pts; the next one begins at gap.end_pts."""
        begun = gap.start_pts if self._start is None else self._start
        start = max(gap.start_pts, begun)
        out = self._close(begun, start) if gap.start_pts > begun else []
        self._start = max(gap.end_pts, start)
        if self._used:
            self._scene, self._used = self._scene + 1, False
        del self._pts[: bisect_left(self._pts, self._start)]
        return out

    def settle(self, settled_s: float) -> list[Span]:
        """The clips of a long scene that no boundary before `settled_s` can change any more."""
        out: list[Span] = []
        while self._start is not None:
            start_s = self._seconds(self._start)
            if settled_s < start_s + self._split_s:
                break
            k = self._at_or_after(start_s + self._max - self._forgiven / 2)
            if k == len(self._pts) or self._seconds(self._pts[k]) > settled_s:
                break
            out.append(self._cut_at(self._start, k))
        return out

    def finish(self, end_pts: int) -> list[Span]:
        return [] if self._start is None or self._start >= end_pts else self._close(self._start, end_pts)

    def _close(self, start: int, end: int) -> list[Span]:
        """The spans of the current clip, from `start` to `end`."""
        out: list[Span] = []
        while self._seconds(end) - self._seconds(start) >= self._split_s - self._forgiven:
            k = self._at_or_after(self._seconds(start) + self._max - self._forgiven / 2)
            if k == len(self._pts) or self._pts[k] >= end:
                break
            out.append(self._cut_at(start, k))
            start = out[-1].end_pts
        begin_s, end_s = self._seconds(start), self._seconds(end)
        if end_s - begin_s > self._max + self._forgiven + 1e-9:
            k = self._at_or_after((begin_s + end_s) / 2)
            if 0 < k < len(self._pts) and self._pts[k] < end:
                out.append(self._cut_at(start, k))
                start = out[-1].end_pts
        if end > start:
            out.append(self._span(start, end))
        return out

    def _cut_at(self, start: int, k: int) -> Span:
        """The span from `start` to frame k, at which the next clip begins."""
        span = self._span(start, self._pts[k])
        self._start = self._pts[k]
        del self._pts[:k]
        return span

    def _span(self, start: int, end: int) -> Span:
        self._used = True
        return Span(self._scene, start, end, self._seconds(start), self._seconds(end))

    def _at_or_after(self, seconds: float) -> int:
        """Index of the first frame at or after this time."""
        return bisect_left(self._pts, seconds - 1e-6, key=self._seconds)

    def _seconds(self, pts: int) -> float:
        return pts * self._ticks / self._per  # rounded once, as of the fraction itself
