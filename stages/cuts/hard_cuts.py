"""Finds hard cuts in a stream of frames, each as the exact PTS of the first frame of the new scene.

The pictures go through one of `stages.cuts.detectors`. What a detector reports late (the adaptive one by two frames,
TransNet V2 by up to 125) is mapped back to the frame it is about. A flash, a blink of black and a jump of exposure
are not cuts: the frames around a reported cut show them, and the cut is dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import cv2
import numpy as np

from stages.cuts.blend import FLAT, likeness
from stages.cuts.detectors import Detector, build_detector
from stages.cuts.settings import CutSettings
from stages.frames import SmallFrame

FLASH_SECONDS = 0.15  # the take is back within this time: a flash or a blink, not two cuts
BESIDE_CHANGE, BESIDE_LIKENESS = 0.5, 0.6  # a second cut beside one: so much of its change, so little alike
SAME_STRUCTURE = 0.93  # correlation of two pictures of one take under a jump of exposure


class HardCut(NamedTuple):
    """The first frame of a new scene."""

    pts: int
    seconds: float


class HardCutFinder:
    """Feed every frame in order; get hard cuts, in order, some frames late.

    `settled_s`: no cut before this time will be reported any more.
    """

    def __init__(self, settings: CutSettings, tick_s: float = 0.0):
        """`tick_s`: seconds by which the time of a frame may be off."""
        self._tick_s = tick_s
        built = build_detector(settings)
        self._detector = None if built is None else built.detector
        self._late, self._padding = (0, 0) if built is None else (built.late, built.padding)
        self._half = settings.detector in ("adaptive", "content")  # at 64 px as exact, at 0.6 of the cost
        self._every = settings.seconds if settings.detector == "fixed" else None
        self._next_fixed: float | None = None
        self._count = 0  # frames given to the detector, padding included
        self._recent: list[tuple[int, HardCut, np.ndarray]] = []  # (count, frame, picture) of the last frames
        self._waiting: list[HardCut] = []  # cuts that may turn out to be a flash
        self._reported = -(1 << 62)  # pts of the last cut that was given out or dropped
        self.settled_s = -1e18

    def observe(self, frame: SmallFrame, reduced: np.ndarray) -> list[HardCut]:
        """`reduced` is the frame's `shrink` (36, 64, 3), for the detectors that compare pixels."""
        here = HardCut(frame.pts, frame.seconds)
        detector = self._detector
        if detector is None:
            self.settled_s = here.seconds
            return self._fixed(here)
        picture = reduced if self._half else frame.small
        recent = self._recent
        if not recent:
            for _ in range(self._padding):  # neighbours for the first frames, which the detector's window needs
                self._detect(detector, picture)
        recent.append((self._count, here, picture))
        if cuts := self._detect(detector, picture):
            self._report(cuts)
        self._forget(here.seconds)
        settled = recent[max(0, len(recent) - 1 - self._late)][1].seconds - FLASH_SECONDS
        self.settled_s = min(settled, self._waiting[0].seconds) if self._waiting else settled
        return self._release(here.seconds) if self._waiting else []

    def finish(self) -> list[HardCut]:
        """The cuts of the last frames."""
        if self._detector is None or not self._recent:
            return []
        for _ in range(self._padding):
            self._report(self._detect(self._detector, self._recent[-1][2]))
        self._report(self._detector.last(self._count - 1))
        self.settled_s = 1e18
        return self._release(1e18)

    def _detect(self, detector: Detector, picture: np.ndarray) -> list[int]:
        """The counts of the pictures that are now known to begin a scene."""
        cuts = detector.next(self._count, picture)
        self._count += 1
        return cuts

    def _report(self, cuts: list[int]) -> None:
        first = self._recent[0][0] if self._recent else 0
        for cut in cuts:
            k = cut - first
            for at in (k, *self._beside(k)):
                if 0 < at < len(self._recent) and not self._exposure_jump(at):
                    self._wait_for(self._recent[at][1])

    def _beside(self, k: int) -> list[int]:
        """Cuts within the adaptive window of a cut (scenes of a frame or two): each raises the other's mean."""
        if not self._padding or not 0 < k < len(self._recent):
            return []
        least = BESIDE_CHANGE * self._change(k)
        near = range(max(1, k - self._padding), min(len(self._recent), k + self._padding + 1))
        return [j for j in near if j != k and self._change(j) > least and self._alike(j) < BESIDE_LIKENESS]

    def _wait_for(self, cut: HardCut) -> None:
        if cut.pts > self._reported and cut not in self._waiting:
            self._waiting = sorted([*self._waiting, cut], key=lambda waiting: waiting.pts)

    def _fixed(self, here: HardCut) -> list[HardCut]:
        if self._every is None:
            return []
        if self._next_fixed is None:
            self._next_fixed = here.seconds + self._every
            return []
        rounded = here.seconds + self._tick_s + 1e-6
        if rounded < self._next_fixed:
            return []
        while self._next_fixed <= rounded:
            self._next_fixed += self._every
        return [here]

    # -- flashes

    def _release(self, now: float) -> list[HardCut]:
        """The waiting cuts that are FLASH_SECONDS old, without those of a flash."""
        out = []
        while self._waiting and (now - self._waiting[0].seconds) > FLASH_SECONDS:
            cut = self._waiting.pop(0)
            self._reported = cut.pts
            back = self._flash_end(cut)
            if back is None:
                out.append(cut)
            else:
                self._waiting = [later for later in self._waiting if later.seconds > back + 1e-6]
                self._reported = max(
                    self._reported, *(at.pts for _, at, _ in self._recent if at.seconds <= back + 1e-6)
                )
        return out

    def _exposure_jump(self, k: int) -> bool:
        """True for the same picture under other light, or two dark tones, where hue means nothing."""
        before, after = _tiny(self._recent[k - 1][2]), _tiny(self._recent[k][2])
        if max(before.std(), after.std()) < FLAT and abs(float(before.mean() - after.mean())) < 4 * FLAT:
            return True
        return likeness(before, after) > SAME_STRUCTURE

    def _alike(self, k: int) -> float:
        return likeness(_tiny(self._recent[k - 1][2]), _tiny(self._recent[k][2]))

    def _change(self, k: int) -> float:
        return float(np.abs(_tiny(self._recent[k][2]) - _tiny(self._recent[k - 1][2])).mean())

    def _flash_end(self, cut: HardCut) -> float | None:
        """The time of the frame where the take before the cut continues, None where it does not.

        Only for a flash (the same picture lit up, or blown out) and a blink of one tone: a frame or two of another
        picture are a scene.
        """
        times = [at.seconds for _, at, _ in self._recent]
        k = bisect_left(times, cut.seconds - 1e-6)
        if k == 0:
            return None
        before, after = _tiny(self._recent[k - 1][2]), _tiny(self._recent[k][2])
        if likeness(before, after) < 0.5 and after.std() > max(6.0, 0.5 * before.std()):
            return None
        apart = float(np.abs(after - before).mean())
        for _, at, small in self._recent[k + 1 :]:
            if at.seconds - cut.seconds > FLASH_SECONDS:
                return None
            if float(np.abs(_tiny(small) - before).mean()) < 0.35 * apart:
                return at.seconds
        return None

    def _forget(self, now: float) -> None:
        keep = self._late + 2
        old = now - 2 * FLASH_SECONDS
        while len(self._recent) > keep and self._recent[0][1].seconds < old:
            if self._waiting and self._recent[1][1].seconds >= self._waiting[0].seconds:
                break
            self._recent.pop(0)


def _tiny(small: np.ndarray) -> np.ndarray:
    """(9, 16) float32 luma."""
    tiny = cv2.resize(small, (16, 9), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(tiny, cv2.COLOR_BGR2GRAY).astype(np.float32)
