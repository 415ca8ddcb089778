"""Hard cuts: PySceneDetect's detectors fed with our small frames, each cut given back as an exact PTS.

The adaptive one, which most recipes name, is `stages.cuts.adaptive`: the same scores at a third of the cost.

A detector counts frames instead of reading times, so no PTS is ever rounded; what it reports late (the
adaptive one by two frames, TransNetV2 by two hundred) is mapped back to the frame it is about. A flash, a
blink of black and a jump of exposure are not cuts: they are found among the frames around a reported cut
and taken back.
"""

from __future__ import annotations

from bisect import bisect_left
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from stages.cuts.adaptive import WINDOW, Adaptive
from stages.cuts.blend import FLAT, likeness
from stages.cuts.settings import CutSettings

# The value of `threshold` where the recipe gives none, tuned at 128 px on films of real and drawn takes.
THRESHOLDS = {
    "adaptive": 3.5,  # change over the mean change of two frames on either side (published best: 3.5)
    "content": 27.0,  # mean change of hue, saturation and value, 0-255
    "histogram": 0.15,  # 1 - correlation of luma histograms; at 0.20 one cut in ten is missed
    "hash": 0.35,  # share of 64 hash bits that differ
    "threshold": 12.0,  # mean pixel value below which the picture is black
    "transnetv2": 0.5,  # probability of a transition
}
LEAST_CONTENT = 15.0  # adaptive: no cut where hue, saturation and value change less on average
FLASH_SECONDS = 0.15  # the take is back within this time: a flash or a blink, not two cuts
BESIDE_CHANGE, BESIDE_LIKENESS = 0.5, 0.6  # a second cut beside one: so much of its change, so little alike
SAME_STRUCTURE = 0.93  # correlation of two pictures of one take under a jump of exposure


class DetectorMissing(Exception):
    """The detector of a recipe can't be used on this machine: one line with the fix."""


def check(settings: CutSettings) -> None:
    """Raise DetectorMissing where the package or the weights of the detector are not there."""
    if settings.detector == "transnetv2":
        if find_spec("onnxruntime") is None:
            raise DetectorMissing(
                "cut: detector 'transnetv2' needs the package onnxruntime: pip install 'clipmill[transnet]'"
            )
        if not settings.weights or not Path(settings.weights).is_file():
            raise DetectorMissing(
                f"cut: no weights at {settings.weights!r}: set `weights` to a local TransNetV2 .onnx file"
            )


class Cut(NamedTuple):
    """The first frame of a new scene."""

    pts: int
    seconds: float


class CutFinder:
    """Feed every frame in order; get hard cuts, in order, some frames late.

    `settled_s`: no cut before this time will be reported any more.
    """

    def __init__(self, settings: CutSettings):
        check(settings)
        self._detector, self._behind, self._padding = _build(settings)
        self._half = settings.detector in ("adaptive", "content")  # as exact at 64 px, at 0.6 of the cost
        self._every = settings.seconds if settings.detector == "fixed" else None
        self._next_fixed: float | None = None
        self._count = 0  # frames given to the detector, padding included
        self._recent: list[tuple[int, Cut, np.ndarray]] = []  # (count, frame, picture) of the last frames
        self._waiting: list[Cut] = []  # cuts that may yet turn out a flash
        self._told = -(1 << 62)  # pts of the last cut told or taken back
        self.settled_s = -1e18

    def observe(self, frame, middle: np.ndarray) -> list[Cut]:
        """`middle` is the frame's `shrink`, which the detectors that compare pixels are given."""
        here = Cut(frame.pts, frame.seconds)
        if self._detector is None:
            self.settled_s = here.seconds
            return self._fixed(here)
        picture = middle if self._half else frame.small
        recent = self._recent
        if not recent:
            for _ in range(self._padding):  # the first frames get the neighbours that the window asks for
                self._detect(picture)
        recent.append((self._count, here, picture))
        if cuts := self._detect(picture):
            self._report(cuts)
        self._forget(here.seconds)
        settled = recent[max(0, len(recent) - 1 - self._behind)][1].seconds - FLASH_SECONDS
        self.settled_s = min(settled, self._waiting[0].seconds) if self._waiting else settled
        return self._release(here.seconds) if self._waiting else []

    def finish(self) -> list[Cut]:
        """The cuts of the last frames."""
        if self._detector is None or not self._recent:
            return []
        for _ in range(self._padding):
            self._report(self._detect(self._recent[-1][2]))
        self._report(self._detector.last(self._count - 1))
        self.settled_s = 1e18
        return self._release(1e18)

    def _detect(self, picture: np.ndarray) -> list[int]:
        """The counts of the pictures that are known now to begin a scene."""
        cuts = self._detector.next(self._count, picture)
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
        """Cuts within the adaptive window of a cut, which raise each other's mean: scenes of a frame or
        two.
        """
        if not self._padding or not 0 < k < len(self._recent):
            return []
        least = BESIDE_CHANGE * self._change(k)
        near = range(max(1, k - self._padding), min(len(self._recent), k + self._padding + 1))
        return [j for j in near if j != k and self._change(j) > least and self._alike(j) < BESIDE_LIKENESS]

    def _wait_for(self, cut: Cut) -> None:
        if cut.pts > self._told and cut not in self._waiting:
            self._waiting = sorted([*self._waiting, cut], key=lambda waiting: waiting.pts)

    def _fixed(self, here: Cut) -> list[Cut]:
        if self._every is None:
            return []
        if self._next_fixed is None:
            self._next_fixed = here.seconds + self._every
            return []
        if here.seconds < self._next_fixed - 1e-6:
            return []
        while self._next_fixed <= here.seconds + 1e-6:
            self._next_fixed += self._every
        return [here]

    # -- flashes

    def _release(self, now: float) -> list[Cut]:
        """The waiting cuts that stood for FLASH_SECONDS, but for those of a flash."""
        out = []
        while self._waiting and (now - self._waiting[0].seconds) > FLASH_SECONDS:
            cut = self._waiting.pop(0)
            self._told = cut.pts
            back = self._flash_end(cut)
            if back is None:
                out.append(cut)
            else:
                self._waiting = [later for later in self._waiting if later.seconds > back + 1e-6]
                self._told = max(self._told, *(at.pts for _, at, _ in self._recent if at.seconds <= back + 1e-6))
        return out

    def _exposure_jump(self, k: int) -> bool:
        """The same picture, lit otherwise; or one dark tone and another, where hue means nothing."""
        before, after = _tiny(self._recent[k - 1][2]), _tiny(self._recent[k][2])
        if max(before.std(), after.std()) < FLAT and abs(float(before.mean() - after.mean())) < 4 * FLAT:
            return True
        return likeness(before, after) > SAME_STRUCTURE

    def _alike(self, k: int) -> float:
        return likeness(_tiny(self._recent[k - 1][2]), _tiny(self._recent[k][2]))

    def _change(self, k: int) -> float:
        return float(np.abs(_tiny(self._recent[k][2]) - _tiny(self._recent[k - 1][2])).mean())

    def _flash_end(self, cut: Cut) -> float | None:
        """The time of the frame where the take before the cut is back, None where it does not come back.

        Only for a flash (the same picture lit up, or blown out) and a blink of one tone: a frame or two of
        another picture are a scene.
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
        keep = self._behind + 2
        old = now - 2 * FLASH_SECONDS
        while len(self._recent) > keep and self._recent[0][1].seconds < old:
            if self._waiting and self._recent[1][1].seconds >= self._waiting[0].seconds:
                break
            self._recent.pop(0)


class _Adaptive:
    """`stages.cuts.adaptive` by the counts of its pictures."""

    def __init__(self, threshold: float):
        self._adaptive = Adaptive(threshold, LEAST_CONTENT)

    def next(self, count: int, picture: np.ndarray) -> list[int]:
        return [count - WINDOW] if self._adaptive.is_cut(picture) else []

    def last(self, count: int) -> list[int]:
        return []


class _SceneDetect:
    """One of PySceneDetect's detectors by the counts of its pictures: what it asks for is a time."""

    def __init__(self, detector: Any):
        from scenedetect.common import FrameTimecode

        self._detector, self._timecode = detector, FrameTimecode

    def next(self, count: int, picture: np.ndarray) -> list[int]:
        cuts = self._detector.process_frame(self._timecode(count, fps=25.0), picture)
        return [cut.frame_num for cut in cuts]

    def last(self, count: int) -> list[int]:
        return [cut.frame_num for cut in self._detector.post_process(self._timecode(count, fps=25.0))]


def _build(settings: CutSettings) -> tuple[_Adaptive | _SceneDetect | None, int, int]:
    """(detector, frames it reports late, frames of padding it needs at either end)."""
    name, value = settings.detector, settings.threshold
    value = THRESHOLDS.get(name) if value is None else value
    if name in ("fixed", "none"):
        return None, 0, 0
    if name == "adaptive":
        return _Adaptive(value), 2 * WINDOW, WINDOW
    from scenedetect import detectors

    # Scenes of a single frame count: one frame, or none where the detector filters by merging.
    if name == "content":
        detector = detectors.ContentDetector(threshold=value, min_scene_len=0)
    elif name == "histogram":
        detector = detectors.HistogramDetector(threshold=value, min_scene_len=1)
    elif name == "hash":
        detector = detectors.HashDetector(threshold=value, min_scene_len=1)
    elif name == "threshold":  # the cut where light comes back: halfway would point any time into the past
        detector = detectors.ThresholdDetector(threshold=value, min_scene_len=1, fade_bias=1.0)
    else:
        from scenedetect.detectors.transnet_v2 import TransnetV2Detector

        detector = TransnetV2Detector(
            settings.weights, onnx_providers=["CPUExecutionProvider"], threshold=value, min_scene_len=0
        )
    return _SceneDetect(detector), 200 if name == "transnetv2" else 0, 0


def _tiny(small: np.ndarray) -> np.ndarray:
    """(9, 16) float32 luma."""
    tiny = cv2.resize(small, (16, 9), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(tiny, cv2.COLOR_BGR2GRAY).astype(np.float32)
