"""Gradual transitions: cross-fades, and fades to and from a flat picture, found in a stream of frames.

A cascade, as Stable Video Diffusion does it with frame rates: at several lengths, a window of a few frames
is asked whether it could be a blend (cheap, a dozen times a second); what could be is looked at closely on
all its frames once enough of what follows is known, and its two ends are fitted. Memory is KEPT_SECONDS of
tiny frames.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

import cv2
import numpy as np

from stages.blend import SAMPLES, Fit, Look, line_fit, look, ramp_fit, sag

WINDOWS = (0.3, 0.5, 0.9, 1.5, 2.4)  # lengths tried, seconds: a blend of 0.2 to 2.5 s fills one of them
LONGEST = 2.8  # no transition is longer, seconds
SHORTEST = 0.12  # nor shorter: that is a hard cut on two or three frames
EVERY = 1 / 12  # a window is tried this often, and long ones six times in their length, seconds
KEPT_SECONDS = 6.0
CLOSEST = 1 / 64  # frames nearer than this to the one before are not remembered, seconds
HOLD = 2.0  # flat frames beside a fade belong to it for this long, seconds; longer, they are a scene
REACH = 0.15  # a close look goes this far beyond either end, in lengths

FLAT = 5.0  # standard deviation of the luma of a picture that shows nothing
LEAST_CHANGE = 8.0  # RMS distance of the two pictures, pixel values
MOST_LIKENESS = 0.82  # correlation of the two pictures
MOST_RESIDUAL = 0.15
LEAST_SAG = 0.5
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
    window: int = -1
    score: float = 0.0


class TransitionFinder:
    """Feed every frame, in order, with the hard cuts known so far; get transitions as they are settled."""

    def __init__(self):
        self._looks: list[Look] = []
        self._seconds: list[float] = []
        self._flat: list[bool] = []
        self._cuts: list[float] = []
        self._candidates: list[_Candidate] = []
        self._next_try = [0.0] * len(WINDOWS)
        self._brightest: np.ndarray | None = None
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

    def observe(self, frame) -> list[Transition]:
        if self._looks and self._looks[-1].after is None:
            self._looks[-1].after = frame.pts
        self.now = frame.seconds
        if self._looks and frame.seconds - self._seconds[-1] < CLOSEST - 1e-4:
            return []
        self._remember(look(frame))
        self._try_windows()
        out = self._settle(self.now)
        self._forget()
        return out

    def finish(self) -> list[Transition]:
        """What is still open when the last frame has been seen."""
        out = self._settle(1e18)
        if self._pending:
            out.append(self._pending)
            self._pending = None
        return out

    # -- what is remembered

    def _remember(self, now: Look) -> None:
        flat = self._is_flat(now.gray)
        before = self._flat[-1] if self._flat else flat
        self._looks.append(now)
        self._seconds.append(now.seconds)
        self._flat.append(flat)
        n = len(self._looks) - 1
        if flat and not before:  # perhaps the end of a fade to a flat picture
            self._add(now.seconds - 0.5, now.seconds, due=now.seconds, ceiling=now.seconds)
        if before and not flat and n > 0:  # perhaps the start of a fade from one
            last_flat = self._seconds[n - 1]
            self._add(last_flat, last_flat + 0.5, due=last_flat + 0.75, floor=last_flat)

    def _is_flat(self, gray: np.ndarray) -> bool:
        """True for one even tone, whatever the letterbox around it (pixels that were never bright)."""
        self._brightest = gray.copy() if self._brightest is None else np.maximum(self._brightest, gray)
        active = (self._brightest > 24).view(np.uint8)
        if np.count_nonzero(active) < active.size // 8:
            active = None
        _, deviation = cv2.meanStdDev(gray, mask=active)
        return float(deviation[0, 0]) < FLAT

    def _forget(self) -> None:
        old = self._seconds[-1] - KEPT_SECONDS
        if self._seconds[0] < old - 1.0:
            n = bisect_left(self._seconds, old)
            del self._looks[:n], self._seconds[:n], self._flat[:n]
            self._cuts = [cut for cut in self._cuts if cut >= self._seconds[0]]

    # -- candidates

    def _add(self, begin, end, due, floor=-1e18, ceiling=1e18) -> None:
        self._candidates.append(_Candidate(begin, end, due, floor, ceiling))

    def _try_windows(self) -> None:
        n, now = len(self._looks) - 1, self.now
        for w, length in enumerate(WINDOWS):
            if now < self._next_try[w]:
                continue
            self._next_try[w] = now + max(EVERY, length / 6) - 1e-3
            if now - length < max(self._seconds[0], self._last_end) - 1e-3:
                continue
            first = bisect_left(self._seconds, now - length - 1e-3)
            if n - first < 4:
                first = n - 4  # a low frame rate: too few frames in so short a window
            if first < 0 or now - self._seconds[first] > LONGEST:
                continue
            score = self._could_blend(first, n)
            if score is not None:
                self._add_best(w, score, self._seconds[first], now)

    def _add_best(self, window: int, score: float, begin: float, end: float) -> None:
        """Of windows of one length that mostly overlap, the likeliest is enough."""
        new = _Candidate(begin, end, end + REACH * (end - begin), window=window, score=score)
        for k, old in enumerate(self._candidates):
            if old.window == window and begin - old.begin < 0.4 * (end - begin):
                if score < old.score:
                    self._candidates[k] = new
                return
        self._candidates.append(new)

    def _could_blend(self, first: int, last: int) -> float | None:
        """A quick look at a window: None, or a score, the lower the likelier."""
        a, b = self._looks[first].tiny, self._looks[last].tiny
        way = b - a
        if float(way @ way) < LEAST_CHANGE**2 * len(way):
            return None
        chosen = _spread(first, last)
        energies = self._energies(chosen)
        fit, places = line_fit(np.stack([self._looks[i].tiny for i in chosen]))
        if (
            fit.likeness > MOST_LIKENESS + 0.1
            or fit.residual > 1.5 * MOST_RESIDUAL
            or fit.step > MOST_STEP + 0.25
            or fit.back > 2 * MOST_BACK
        ):
            return None
        unlike = energies[0] + energies[-1]  # the distance of the gradients, were they wholly unlike
        sagging = sag(self._looks[first], self._looks[last], energies, places, unlike)
        return fit.residual - 0.2 * sagging if sagging > 0.4 * LEAST_SAG else None

    def _energies(self, chosen: list[int]) -> np.ndarray:
        return np.array([self._looks[i].energy for i in chosen])

    # -- the close look

    def _settle(self, now: float) -> list[Transition]:
        """Look closely at the candidates whose time has come; the best of those that meet wins."""
        due = [c for c in self._candidates if c.due <= now]
        if not due:
            return self._release(now, [])
        self._candidates = [c for c in self._candidates if c.due > now]
        found = []
        for candidate in due:
            if candidate.end <= self._last_end:
                continue
            result = self._close_look(candidate, ended=now > 1e17)
            if isinstance(result, _Candidate):
                self._candidates.append(result)
            elif result is not None:
                found.append(result)
        return self._release(now, found)

    def _close_look(self, c: _Candidate, ended: bool):
        """A (score, Transition), None, or the candidate again where more frames must be seen first."""
        floor = max(
            [c.floor, self._last_end, self._seconds[0], *(t for t in self._cuts if t <= c.begin + 1e-6)]
        )
        ceiling = min([c.ceiling, *(self._before(t) for t in self._cuts if t >= c.end - 1e-6)])
        begin, end, error = max(c.begin, floor), min(c.end, ceiling), 1.0
        for _ in range(8):
            length = end - begin
            if length > LONGEST or length <= 0:
                return None
            wanted = min(end + REACH * length, ceiling)
            if wanted > self._seconds[-1] + 1e-6 and not ended:
                return _Candidate(begin, end, wanted, c.floor, c.ceiling)
            lo = max(0, bisect_right(self._seconds, max(begin - REACH * length, floor) + 1e-6) - 1)
            hi = min(len(self._looks) - 1, bisect_left(self._seconds, wanted - 1e-6))
            if hi - lo < 4:
                return None
            chosen = _spread(lo, hi, 40)
            _, places = line_fit(np.stack([self._looks[i].tiny for i in chosen]))
            at = np.array([self._seconds[i] for i in chosen])
            b, e, error = ramp_fit(at, places)
            first = max(lo, bisect_right(self._seconds, b + 1e-6) - 1)
            last = min(hi, bisect_left(self._seconds, e - 1e-6))
            if (self._seconds[first], self._seconds[last]) == (begin, end):
                break
            begin, end = self._seconds[first], self._seconds[last]
        if end - begin > LONGEST or last - first < 3 or error > MOST_RAMP_ERROR:
            return None
        chosen = _spread(first, last)
        fit, places = line_fit(np.stack([self._looks[i].tiny for i in chosen]))
        sagging = sag(self._looks[first], self._looks[last], self._energies(chosen), places)
        if self._flat[first] or self._flat[last]:
            fit = replace(fit, likeness=0.0)  # one tone has no structure to be alike
        if not self.accepts(fit, sagging, error, begin, end):
            return None
        start_pts = self._looks[first].after
        return fit.residual - 0.2 * sagging, Transition(start_pts, self._looks[last].pts, begin, end)

    def accepts(self, fit: Fit, sagging: float, error: float, begin: float, end: float) -> bool:
        """The verdict on a fitted ramp."""
        return (
            end - begin >= SHORTEST
            and fit.change >= LEAST_CHANGE
            and fit.likeness <= MOST_LIKENESS
            and fit.residual <= MOST_RESIDUAL
            and fit.step <= MOST_STEP
            and fit.back <= MOST_BACK
            and sagging >= LEAST_SAG
        )

    def _before(self, seconds: float) -> float:
        """The time of the last frame remembered before this time."""
        return self._seconds[max(0, bisect_left(self._seconds, seconds - 1e-6) - 1)]

    # -- the way out

    def _release(self, now: float, found: list[tuple[float, Transition]]) -> list[Transition]:
        """Those of `found` that stand, and the pending one once nothing can join it any more."""
        out = []
        for _, new in sorted(found, key=lambda f: f[0]):
            if new.start_s < self._last_end - 1e-6:
                continue
            self._last_end = new.end_s
            new = self._with_hold(new)
            if self._pending is not None and self._joined(self._pending, new):
                new = Transition(self._pending.start_pts, new.end_pts, self._pending.start_s, new.end_s)
            elif self._pending is not None:
                out.append(self._pending)
            self._pending = new
        if self._pending is not None and not self._may_join(now):
            out.append(self._pending)
            self._pending = None
        return out

    def _with_hold(self, new: Transition) -> Transition:
        """A fade from a flat picture takes the flat frames before it along."""
        k = bisect_right(self._seconds, new.start_s + 1e-6) - 1
        first = k
        while first > 0 and self._flat[first - 1] and self._flat[first]:
            first -= 1
        if not self._flat[k] or self._seconds[k] - self._seconds[first] > HOLD:
            return new
        return Transition(self._looks[first].pts, new.end_pts, self._seconds[first], new.end_s)

    def _joined(self, one: Transition, two: Transition) -> bool:
        """Nothing but flat frames between them, and not for long."""
        return two.start_s <= one.end_s + 1e-6

    def _may_join(self, now: float) -> bool:
        """True while the pending transition ends in flat frames that a fade may still lead out of."""
        k = bisect_left(self._seconds, self._pending.end_s - 1e-6)
        if k >= len(self._flat) or not self._flat[k]:
            return False
        while k + 1 < len(self._flat) and self._flat[k + 1]:
            k += 1
        if self._seconds[k] - self._pending.end_s > HOLD:
            return False
        return k == len(self._flat) - 1 or any(c.floor == self._seconds[k] for c in self._candidates)


def _spread(first: int, last: int, most: int = SAMPLES) -> list[int]:
    """At most `most` indices from first to last, evenly, both ends among them."""
    count = min(most, last - first + 1)
    return [first + round(i * (last - first) / (count - 1)) for i in range(count)]
