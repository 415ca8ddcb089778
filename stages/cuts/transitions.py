"""Gradual transitions: cross-fades, and fades to and from a flat picture, found in a stream of frames.

A cascade, as Stable Video Diffusion does it with frame rates: at several lengths, a window of a few frames
is asked whether it could be a blend (cheap, a dozen times a second, whatever the frame rate); what could be
is looked at closely on all its frames once enough of what follows is known, and its two ends are fitted.
Between two such questions a frame costs its place in a list. Memory is KEPT_SECONDS of small frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stages.cuts.blend import FLAT, Fit, correlation, line_fit, line_places, ramp_fit, sag
from stages.cuts.frame_history import Recall, spread

WINDOWS = (0.3, 0.5, 0.9, 1.5, 2.2)  # lengths tried, seconds: a blend of 0.2 to 2.5 s fills one of them
LONGEST = 2.8  # no transition is longer, seconds
LONG = 1.3  # windows longer than this are judged as they are where no ramp fits, seconds
SHORTEST = 0.12  # nor shorter: that is a hard cut on two or three frames
EVERY = 1 / 12  # a window is tried this often, and long ones six times in their length, seconds
KEPT_SECONDS = 6.0
HOLD = 2.0  # flat frames beside a fade belong to it for this long, seconds; longer, they are a scene
RAMP_FRAMES = 40  # frames that a ramp is fitted to at most
REACH = 0.15  # a close look goes this far beyond either end, in lengths
END = 1 << 62  # the pts where a transition ends that the source ends in

NEARLY_FLAT = 4 * FLAT  # a picture with more in it is no neighbour of a flat one in a fade
LEAST_CHANGE = 8.0  # RMS distance of the two pictures, pixel values
MOST_LIKENESS = 0.82  # correlation of the two pictures
CLEAR_RESIDUAL = 0.12  # of an ordinary blend; 95 in 100 of those composed for tuning have less than 0.10
MOST_RESIDUAL = 0.2  # where things move: of a blend of unlike pictures that sags as it should
MOST_STEP = 0.45
MOST_BACK = 0.12
MOST_RAMP_ERROR = 0.1


@dataclass(frozen=True)
class Transition:
    """Frames with start_pts <= pts < end_pts are blended: end is the first clean frame after."""

    start_pts: int
    end_pts: int
    start_s: float
    end_s: float


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
    """Feed every frame, in order, with the hard cuts known so far; get transitions as they are settled."""

    def __init__(self):
        self._seen = Recall()
        self._cuts: list[float] = []
        self._candidates: list[_Candidate] = []
        self._refused: set[tuple[float, float]] = set()  # (begin, end) that a close look led nowhere from
        self._ramps: dict[tuple[float, float], tuple[float, float, float]] = {}  # by first and last time
        self._next_try = [-1e18] * len(WINDOWS)
        self._asked = 0  # frames remembered when the windows were last tried
        self._next_question = -1e18
        self._pending: Transition | None = None
        self._last_end = -1e18
        self.now = -1e18

    @property
    def settled_s(self) -> float:
        """No transition that begins before this time will be reported any more."""
        horizon = self.now - KEPT_SECONDS
        return min(horizon, self._pending.start_s) if self._pending else horizon

    def cut(self, seconds: float) -> None:
        """Say that a hard cut was found at the frame with this time."""
        self._cuts.append(seconds)

    def observe(self, frame, middle: np.ndarray) -> list[Transition]:
        """`middle` is the frame's `shrink`."""
        self.now = frame.seconds
        self._seen.add(frame.pts, frame.seconds, middle)
        if self.now < self._next_question:
            return []
        self._next_question = self.now + EVERY - 1e-3
        self._ask()
        out = self._settle(self.now)
        self._forget()
        return out

    def finish(self) -> list[Transition]:
        """What is still open when the last frame has been seen."""
        if self._asked < len(self._seen):
            self._ask()
        out = self._settle(1e18)
        if self._pending:
            out.append(self._through_hold(self._pending))
            self._pending = None
        return out

    # -- what is asked of the newest frames

    def _ask(self) -> None:
        self._look_for_flat(max(0, self._asked - 1))
        self._try_windows()
        self._asked = len(self._seen)

    def _look_for_flat(self, since: int) -> None:
        """Whether a flat picture begins or ends in the frames after index `since`."""
        seen, newest = self._seen, len(self._seen) - 1
        if min(seen.deviation(since), seen.deviation(newest)) > NEARLY_FLAT:
            return  # no fade passes through a flat picture in so short a time
        for k in range(since + 1, newest + 1):
            before, flat = seen.flat(k - 1), seen.flat(k)
            if flat and not before:  # perhaps the end of a fade to a flat picture
                at = seen.seconds[k]
                self._add(at - 0.5, at, due=at, ceiling=at)
            if before and not flat:  # perhaps the start of a fade from one
                at = seen.seconds[k - 1]
                self._add(at, at + 0.5, due=at + 0.75, floor=at)

    def _forget(self) -> None:
        if self._seen.seconds[0] < self.now - KEPT_SECONDS - 1.0:
            oldest = self._seen.forget(self.now - KEPT_SECONDS)
            self._asked = len(self._seen)
            self._refused = {pair for pair in self._refused if pair[0] >= oldest}
            self._ramps = {pair: ramp for pair, ramp in self._ramps.items() if pair[0] >= oldest}
            self._cuts = [cut for cut in self._cuts if cut >= oldest]

    # -- candidates

    def _add(self, begin, end, due, floor=-1e18, ceiling=1e18) -> None:
        self._candidates.append(_Candidate(begin, end, due, floor, ceiling))

    def _try_windows(self) -> None:
        n, now = len(self._seen) - 1, self._seen.seconds[-1]
        for w, length in enumerate(WINDOWS):
            if now < self._next_try[w]:
                continue
            self._next_try[w] = now + max(EVERY, length / 6) - 1e-3
            if now - length < max(self._seen.seconds[0], self._last_end) - 1e-3:
                continue
            first = self._seen.at_or_after(now - length - 1e-3)
            if n - first < 4:
                first = n - 4  # a low frame rate: too few frames in so short a window
            if first < 0 or now - self._seen.seconds[first] > LONGEST:
                continue
            score = self._could_blend(first, n)
            if score is not None:
                self._add_best(w, score, self._seen.seconds[first], now)

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

    def _could_blend(self, first: int, last: int) -> float | None:
        """A quick look at a window: None, or a score, the lower the likelier."""
        seen = self._seen
        a, b = seen.looks[first], seen.looks[last]
        way = b.tiny - a.tiny
        if float(way @ way) < LEAST_CHANGE**2 * len(way):
            return None
        alike = correlation(a.centred, b.centred)
        if alike > MOST_LIKENESS + 0.1 and not (seen.flat(first) or seen.flat(last)):
            return None
        chosen = spread(first, last)
        fit, places = line_fit(seen.tiny(chosen), alike)
        if fit.residual > 1.25 * MOST_RESIDUAL or fit.step > MOST_STEP + 0.25 or fit.back > 2 * MOST_BACK:
            return None
        energies = seen.energies(chosen)
        unlike = energies[0] + energies[-1]  # the distance of the gradients, were they wholly unlike
        sagging = sag(a, b, energies, places, unlike)
        return fit.residual - 0.2 * sagging if sagging > 0.2 else None

    # -- the close look

    def _settle(self, now: float) -> list[Transition]:
        """Look closely at the candidates whose time has come; the best of those that meet wins."""
        due = [c for c in self._candidates if c.due <= now]
        if not due:
            return self._release([]) if self._pending else []
        self._candidates = [c for c in self._candidates if c.due > now]
        found = []
        for candidate in due:
            if candidate.begin < self._last_end - 0.3 * (candidate.end - candidate.begin):
                continue  # most of it has been told
            result = self._close_look(candidate, ended=now > 1e17)
            if isinstance(result, _Candidate):
                self._candidates.append(result)
            elif result is not None:
                found.append(result)
        return self._release(found)

    def _close_look(self, c: _Candidate, ended: bool):
        """A (score, Transition), None, or the candidate again where more frames must be seen first."""
        seen = self._seen
        cuts_before = [cut for cut in self._cuts if cut <= c.begin + 1e-6]
        cuts_after = [seen.time_before(cut) for cut in self._cuts if cut >= c.end - 1e-6]
        floor = max([c.floor, self._last_end, seen.seconds[0], *cuts_before])
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
            if wanted > seen.seconds[-1] + 1e-6 and not ended:
                return replace(c, begin=begin, end=end, due=wanted)
            lo = seen.at_or_before(max(begin - reach, floor))
            hi = min(len(seen) - 1, seen.at_or_after(wanted))
            if hi - lo < 4:
                return None
            first, last, error = self._ramp(lo, hi)
            if (seen.seconds[first], seen.seconds[last]) == (begin, end):
                break
            begin, end = seen.seconds[first], seen.seconds[last]
        found = None
        if error <= MOST_RAMP_ERROR:
            found = self._judge(begin, end, self.accepts)
        if found is None and c.tried[1] - c.tried[0] > LONG:  # movement drowned the ends of a slow blend
            found = self._judge(*c.tried, self.accepts_slow)
        if found is None:
            self._refused |= tried
        return found

    def _ramp(self, lo: int, hi: int) -> tuple[int, int, float]:
        """The last clean frame before the ramp among some frames, the first after it, the ramp's error."""
        seen = self._seen
        between = seen.seconds[lo], seen.seconds[hi]
        if between not in self._ramps:  # windows that overlap come to the same frames
            chosen = spread(lo, hi, RAMP_FRAMES)
            places = line_places(seen.tiny(chosen))
            self._ramps[between] = ramp_fit(np.array([seen.seconds[i] for i in chosen]), places)
        begin, end, error = self._ramps[between]
        return max(lo, seen.at_or_before(begin)), min(hi, seen.at_or_after(end)), error

    def _judge(self, begin: float, end: float, accepts) -> tuple[float, Transition] | None:
        """(score, Transition) of the frames between two times, None where they are not accepted."""
        seen = self._seen
        first, last = seen.at_or_after(begin), seen.at_or_after(end)
        if last - first < 3 or last >= len(seen):
            return None
        near = (end - begin) / 3
        first, last = seen.flat_before(first, near), seen.flat_after(last, near)
        begin, end = seen.seconds[first], seen.seconds[last]
        chosen = spread(first, last)
        fit, places = line_fit(seen.tiny(chosen))
        sagging = sag(seen.looks[first], seen.looks[last], seen.energies(chosen), places)
        if seen.flat(first) or seen.flat(last):
            fit = fit._replace(likeness=0.0)  # one tone has no structure to be alike
        if not SHORTEST <= end - begin <= LONGEST or not accepts(fit, sagging):
            return None
        found = Transition(seen.looks[first].after, seen.looks[last].pts, begin, end)
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

    # -- the way out

    def _release(self, found: list[tuple[float, Transition]]) -> list[Transition]:
        """Those of `found` that stand, and the pending one once nothing can join it any more."""
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
        if self._pending is not None and not self._may_join():
            out.append(self._through_hold(self._pending))
            self._pending = None
        return out

    def _with_hold(self, new: Transition) -> Transition:
        """A fade from a flat picture takes the flat frames before it along."""
        first, last = self._seen.flat_run(self._seen.at_or_before(new.start_s))
        if last < first or self._seen.seconds[last] - self._seen.seconds[first] > HOLD:
            return new
        return replace(new, start_pts=self._seen.looks[first].pts, start_s=self._seen.seconds[first])

    def _through_hold(self, old: Transition) -> Transition:
        """A fade to a flat picture takes the flat frames after it along, even to the end of the source."""
        first = self._seen.at_or_after(old.end_s)
        _, last = self._seen.flat_run(first)
        if last < first or self._seen.seconds[last] - old.end_s > HOLD:
            return old
        if last + 1 == len(self._seen):
            return replace(old, end_pts=END, end_s=self._seen.seconds[last])
        return replace(old, end_pts=self._seen.looks[last + 1].pts, end_s=self._seen.seconds[last + 1])

    def _may_join(self) -> bool:
        """True while the pending transition ends in flat frames that a fade may still lead out of."""
        first = self._seen.at_or_after(self._pending.end_s)
        _, last = self._seen.flat_run(first)
        if last < first or self._seen.seconds[last] - self._pending.end_s > HOLD:
            return False
        leads_out = self._seen.seconds[last]
        return last + 1 == len(self._seen) or any(c.floor == leads_out for c in self._candidates)
