"""Judges whether the frames between two times are a gradual transition, and fits where it begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.cuts.blend import Fit, correlation, line_fit, line_places, ramp_fit, sag
from stages.cuts.frame_history import FrameHistory, spread

LONGEST = 2.8  # no transition is longer, seconds
SHORTEST = 0.12  # nor shorter: that is a hard cut on two or three frames, seconds
RAMP_FRAMES = 40  # frames that a ramp is fitted to at most

LEAST_CHANGE = 8.0  # RMS distance of the two pictures, pixel values
MOST_LIKENESS = 0.82  # correlation of the two pictures
CLEAR_RESIDUAL = 0.12  # of an ordinary blend; 95 in 100 of those composed for tuning have less than 0.10
MOST_RESIDUAL = 0.2  # where things move: of a blend of unlike pictures that sags as it should
MOST_STEP = 0.45
MOST_BACK = 0.12


@dataclass(frozen=True)
class Transition:
    """Frames with start_pts <= pts < end_pts are blended: end is the first clean frame after."""

    start_pts: int
    end_pts: int
    start_s: float
    end_s: float


class BlendFitter:
    """Fits blends to the frames of a history."""

    def __init__(self, history: FrameHistory):
        self._history = history
        self._ramps: dict[tuple[float, float], tuple[float, float, float]] = {}  # by first and last time

    def forget(self, before: float) -> None:
        """Drops the ramps that begin before that time."""
        self._ramps = {pair: ramp for pair, ramp in self._ramps.items() if pair[0] >= before}

    def could_blend(self, first: int, last: int) -> float | None:
        """A cheap test of the frames between two indices: None, or a score; lower is likelier."""
        history = self._history
        a, b = history.frames[first], history.frames[last]
        way = b.tiny - a.tiny
        if float(way @ way) < LEAST_CHANGE**2 * len(way):
            return None
        alike = correlation(a.centred, b.centred)
        if alike > MOST_LIKENESS + 0.1 and not (history.flat(first) or history.flat(last)):
            return None
        chosen = spread(first, last)
        fit, places = line_fit(history.tiny(chosen), alike)
        if fit.residual > 1.25 * MOST_RESIDUAL or fit.step > MOST_STEP + 0.25 or fit.back > 2 * MOST_BACK:
            return None
        energies = history.energies(chosen)
        unlike = energies[0] + energies[-1]  # the distance of the gradients, were they wholly unlike
        sagging = sag(a, b, energies, places, unlike)
        return fit.residual - 0.2 * sagging if sagging > 0.2 else None

    def ramp(self, lo: int, hi: int) -> tuple[int, int, float]:
        """The last clean frame before the ramp among some frames, the first after it, the ramp's error."""
        history = self._history
        between = history.seconds[lo], history.seconds[hi]
        if between not in self._ramps:  # windows that overlap come to the same frames
            chosen = spread(lo, hi, RAMP_FRAMES)
            places = line_places(history.tiny(chosen))
            self._ramps[between] = ramp_fit(np.array([history.seconds[i] for i in chosen]), places)
        begin, end, error = self._ramps[between]
        return max(lo, history.at_or_before(begin)), min(hi, history.at_or_after(end)), error

    def judge(self, begin: float, end: float, accepts: Callable[[Fit, float], bool]) -> tuple[float, Transition] | None:
        """(score, Transition) of the frames between two times, None where they are not accepted."""
        history = self._history
        first, last = history.at_or_after(begin), history.at_or_after(end)
        if last - first < 3 or last >= len(history):
            return None
        near = (end - begin) / 3
        first, last = history.flat_before(first, near), history.flat_after(last, near)
        begin, end = history.seconds[first], history.seconds[last]
        chosen = spread(first, last)
        fit, places = line_fit(history.tiny(chosen))
        sagging = sag(history.frames[first], history.frames[last], history.energies(chosen), places)
        if history.flat(first) or history.flat(last):
            fit = fit._replace(likeness=0.0)  # one tone has no structure to be alike
        if not SHORTEST <= end - begin <= LONGEST or not accepts(fit, sagging):
            return None
        found = Transition(history.pts_after(first), history.frames[last].pts, begin, end)
        return fit.residual - 0.2 * sagging, found

    def accepts(self, fit: Fit, sagging: float) -> bool:
        """The verdict on a fitted ramp."""
        if not self._moves_on(fit):
            return False
        if fit.residual <= CLEAR_RESIDUAL:
            return fit.likeness <= MOST_LIKENESS and 0.55 <= sagging <= 1.5
        return fit.residual <= MOST_RESIDUAL and fit.likeness <= 0.35 and 0.75 <= sagging <= 1.3

    def accepts_slow(self, fit: Fit, sagging: float) -> bool:
        """The verdict on a window that no ramp was fitted in: stricter, for its ends are not sure."""
        if not self._moves_on(fit) or fit.step > 0.25:
            return False
        return fit.residual <= 0.16 and fit.likeness <= 0.5 and 0.8 <= sagging <= 1.3

    def _moves_on(self, fit: Fit) -> bool:
        return fit.change >= LEAST_CHANGE and fit.step <= MOST_STEP and fit.back <= MOST_BACK
