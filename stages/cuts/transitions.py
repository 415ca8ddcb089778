"""Gradual transitions: cross-fades, and fades to and from a flat picture, found in a stream of frames.

A cascade, as Stable Video Diffusion uses with frame rates. A cheap test runs a dozen times a second, whatever the
frame rate: at several lengths, could a window of a few frames be a blend? A window that could is examined on all its
frames as soon as enough of the following frames are known, and its two ends are fitted. Between two such tests a
frame costs an entry in a list. Memory is KEPT_SECONDS of small frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stages.cuts.blend import FLAT
from stages.cuts.frame_history import FrameHistory
from stages.cuts.transition_fit import LONGEST, BlendFitter, Transition
from stages.frames import SmallFrame

WINDOWS = (0.3, 0.5, 0.9, 1.5, 2.2)  # lengths tried, seconds: a blend of 0.2 to 2.5 s fills one of them
LONG = 1.3  # windows longer than this are judged as they are where no ramp fits, seconds
EVERY = 1 / 12  # a window is tried this often, and long ones six times in their length, seconds
KEPT_SECONDS = 6.0
HOLD = 2.0  # flat frames beside a fade belong to it for this long, seconds; longer, they are a scene
REACH = 0.15  # a close look goes this far beyond either end, in lengths
END = 1 << 62  # the pts where a transition ends that the source ends in

NEARLY_FLAT = 4 * FLAT  # a picture with more in it is no neighbour of a flat one in a fade
MOST_RAMP_ERROR = 0.1


@dataclass
class _Candidate:
    begin: float
    end: float
    due: float
    floor: float = -1e18
    ceiling: float = 1e18
    tried: tuple[float, float] = (0.0, 0.0)  # begin and end as first asked for
    window: int = -1
    score: float = 0.0


class TransitionFinder:
    """Feed every frame in order, with the hard cuts known so far; get transitions once they are final."""

    def __init__(self) -> None:
        self._history = FrameHistory()
        self._fitter = BlendFitter(self._history)
        self._cuts: list[float] = []
        self._candidates: list[_Candidate] = []
        self._refused: set[tuple[float, float]] = set()  # (begin, end) from which a close look found nothing
        self._next_try = [-1e18] * len(WINDOWS)
        self._tried = 0  # frames in the history when the windows were last tried
        self._next_search = -1e18
        self._pending: Transition | None = None
        self._last_end = -1e18
        self.now = -1e18

    @property
    def settled_s(self) -> float:
        """No transition that begins before this time will be reported any more."""
        horizon = self.now - KEPT_SECONDS
        return min(horizon, self._pending.start_s) if self._pending else horizon

    def cut(self, seconds: float) -> None:
        """Call it for every hard cut, with the time of its frame."""
        self._cuts.append(seconds)

    def observe(self, frame: SmallFrame, reduced: np.ndarray) -> list[Transition]:
        """The transitions that are final now; `reduced` is the frame's `shrink` (36, 64, 3)."""
        self.now = frame.seconds
        self._history.add(frame.pts, frame.seconds, reduced)
        if self.now < self._next_search:
            return []
        self._next_search = self.now + EVERY - 1e-3
        self._search()
        out = self._settle(self.now)
        self._forget()
        return out

    def finish(self) -> list[Transition]:
        """The transitions that are still open after the last frame."""
        if self._tried < len(self._history):
            self._search()
        out = self._settle(1e18)
        if self._pending:
            out.append(self._through_hold(self._pending))
            self._pending = None
        return out

    # -- the cheap search among the newest frames

    def _search(self) -> None:
        self._look_for_flat(max(0, self._tried - 1))
        self._try_windows()
        self._tried = len(self._history)

    def _look_for_flat(self, since: int) -> None:
        """Adds a candidate where flat pictures begin or end in the frames after index `since`."""
        history, newest = self._history, len(self._history) - 1
        if min(history.deviation(since), history.deviation(newest)) > NEARLY_FLAT:
            return  # no fade passes through a flat picture in so short a time
        for k in range(since + 1, newest + 1):
            before, flat = history.flat(k - 1), history.flat(k)
            if flat and not before:  # perhaps the end of a fade to a flat picture
                at = history.seconds[k]
                self._add(at - 0.5, at, due=at, ceiling=at)
            if before and not flat:  # perhaps the start of a fade from one
                at = history.seconds[k - 1]
                self._add(at, at + 0.5, due=at + 0.75, floor=at)

    def _forget(self) -> None:
        if self._history.seconds[0] < self.now - KEPT_SECONDS - 1.0:
            oldest = self._history.forget(self.now - KEPT_SECONDS)
            self._tried = len(self._history)
            self._refused = {pair for pair in self._refused if pair[0] >= oldest}
            self._fitter.forget(oldest)
            self._cuts = [cut for cut in self._cuts if cut >= oldest]

    # -- candidates

    def _add(self, begin: float, end: float, due: float, floor: float = -1e18, ceiling: float = 1e18) -> None:
        self._candidates.append(_Candidate(begin, end, due, floor, ceiling))

    def _try_windows(self) -> None:
        n, now = len(self._history) - 1, self._history.seconds[-1]
        for w, length in enumerate(WINDOWS):
            if now < self._next_try[w]:
                continue
            self._next_try[w] = now + max(EVERY, length / 6) - 1e-3
            if now - length < max(self._history.seconds[0], self._last_end) - 1e-3:
                continue
            first = self._history.at_or_after(now - length - 1e-3)
            if n - first < 4:
                first = n - 4  # a low frame rate: too few frames in so short a window
            if first < 0 or now - self._history.seconds[first] > LONGEST:
                continue
            score = self._fitter.could_blend(first, n)
            if score is not None:
                self._add_best(w, score, self._history.seconds[first], now)

    def _add_best(self, window: int, score: float, begin: float, end: float) -> None:
        """Of windows of one length that mostly overlap, the likeliest is enough."""
        due = end + REACH * (end - begin)
        new = _Candidate(begin, end, due, tried=(begin, end), window=window, score=score)
        for k, old in enumerate(self._candidates):
            if old.window == window and begin - old.begin < 0.4 * (end - begin):
                if score < old.score:
                    self._candidates[k] = new
                return
        self._candidates.append(new)

    # -- the close look

    def _settle(self, now: float) -> list[Transition]:
        """Looks closely at the candidates that are due; of those that overlap the best wins."""
        due = [c for c in self._candidates if c.due <= now]
        if not due:
            return self._release([]) if self._pending else []
        self._candidates = [c for c in self._candidates if c.due > now]
        found = []
        for candidate in due:
            if candidate.begin < self._last_end - 0.3 * (candidate.end - candidate.begin):
                continue  # most of it is in a transition that was found before
            result = self._close_look(candidate, ended=now > 1e17)
            if isinstance(result, _Candidate):
                self._candidates.append(result)
            elif result is not None:
                found.append(result)
        return self._release(found)

    def _close_look(self, c: _Candidate, ended: bool) -> tuple[float, Transition] | _Candidate | None:
        """(score, Transition), None, or the candidate again, to be looked at when more frames are here."""
        history = self._history
        cuts_before = [cut for cut in self._cuts if cut <= c.begin + 1e-6]
        cuts_after = [history.time_before(cut) for cut in self._cuts if cut >= c.end - 1e-6]
        floor = max([c.floor, self._last_end, history.seconds[0], *cuts_before])
        ceiling = min([c.ceiling, *cuts_after])
        begin, end, error = max(c.begin, floor), min(c.end, ceiling), 1.0
        tried: set[tuple[float, float]] = set()
        for _ in range(8):
            length = end - begin
            if length <= 0 or (begin, end) in self._refused:
                error = 1.0
                break
            tried.add((begin, end))
            reach = min(REACH * length, (LONGEST - length) / 2)
            if reach <= 0:
                break
            wanted = min(end + reach, ceiling)
            if wanted > history.seconds[-1] + 1e-6 and not ended:
                return replace(c, begin=begin, end=end, due=wanted)
            lo = history.at_or_before(max(begin - reach, floor))
            hi = min(len(history) - 1, history.at_or_after(wanted))
            if hi - lo < 4:
                return None
            first, last, error = self._fitter.ramp(lo, hi)
            if (history.seconds[first], history.seconds[last]) == (begin, end):
                break
            begin, end = history.seconds[first], history.seconds[last]
        found = None
        if error <= MOST_RAMP_ERROR:
            found = self._fitter.judge(begin, end, self._fitter.accepts)
        if found is None and c.tried[1] - c.tried[0] > LONG:  # movement hides the ends of a slow blend
            found = self._fitter.judge(*c.tried, self._fitter.accepts_slow)
        if found is None:
            self._refused |= tried
        return found

    # -- the results

    def _release(self, found: list[tuple[float, Transition]]) -> list[Transition]:
        """Takes those of `found` that overlap none; returns the pending one once nothing can join it any more."""
        stand: list[Transition] = []
        for _, new in sorted(found, key=lambda scored: scored[0]):
            if new.start_s >= self._last_end - 1e-6 and all(
                new.start_s >= other.end_s - 1e-6 or new.end_s <= other.start_s + 1e-6 for other in stand
            ):
                stand.append(new)
        out = []
        for new in sorted(stand, key=lambda transition: transition.start_s):
            self._last_end = new.end_s
            new = self._with_hold(new)
            if self._pending is not None and new.start_s <= self._pending.end_s + 1e-6:
                new = replace(new, start_pts=self._pending.start_pts, start_s=self._pending.start_s)
            elif self._pending is not None:
                out.append(self._through_hold(self._pending))
            self._pending = new
        if self._pending is not None and not self._may_join(self._pending):
            out.append(self._through_hold(self._pending))
            self._pending = None
        return out

    def _with_hold(self, new: Transition) -> Transition:
        """A fade from a flat picture takes the flat frames before it along."""
        first, last = self._history.flat_run(self._history.at_or_before(new.start_s))
        if last < first or self._history.seconds[last] - self._history.seconds[first] > HOLD:
            return new
        return replace(new, start_pts=self._history.frames[first].pts, start_s=self._history.seconds[first])

    def _through_hold(self, old: Transition) -> Transition:
        """A fade to a flat picture takes the flat frames after it along, even to the end of the source."""
        first = self._history.at_or_after(old.end_s)
        _, last = self._history.flat_run(first)
        if last < first or self._history.seconds[last] - old.end_s > HOLD:
            return old
        if last + 1 == len(self._history):
            return replace(old, end_pts=END, end_s=self._history.seconds[last])
        return replace(old, end_pts=self._history.frames[last + 1].pts, end_s=self._history.seconds[last + 1])

    def _may_join(self, pending: Transition) -> bool:
        """True while a transition ends in flat frames that a fade may still lead out of."""
        first = self._history.at_or_after(pending.end_s)
        _, last = self._history.flat_run(first)
        if last < first or self._history.seconds[last] - pending.end_s > HOLD:
            return False
        leads_out = self._history.seconds[last]
        return last + 1 == len(self._history) or any(c.floor == leads_out for c in self._candidates)
