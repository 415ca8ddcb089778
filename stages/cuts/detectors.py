"""Builds the detector of hard cuts that a recipe names: PySceneDetect's or TransNet V2, fed with small pictures.

The adaptive one, which most recipes name, is `stages.cuts.adaptive`: the same scores at a third of the cost. A
detector counts pictures instead of reading times, so no PTS is ever rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from stages.cuts.adaptive import WINDOW, Adaptive
from stages.cuts.settings import CUT_VERSION, CutSettings
from stages.pretrained import devices

if TYPE_CHECKING:
    from scenedetect.detector import SceneDetector

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


def check(settings: CutSettings) -> None:
    """Raises SettingsError where the package or the weights of the detector are not there. Loads no model."""
    if settings.detector == "transnetv2":
        from stages.cuts.transnet.weights import find_weights

        find_weights(settings)


def on_gpu(settings: CutSettings) -> bool:
    """Whether a worker should ask for a share of a GPU."""
    if settings.detector != "transnetv2" or (settings.weights is not None and settings.weights.endswith(".onnx")):
        return False
    return devices.on_gpu(settings.device)


def versions(settings: CutSettings) -> dict[str, str]:
    """Of the code that cuts, and of the weights that it cuts by. SettingsError as `check`."""
    if settings.detector == "transnetv2":
        from stages.cuts.transnet.weights import revision

        return {"cut": str(CUT_VERSION), "transnetv2": revision(settings)}
    return {"cut": str(CUT_VERSION)}


class Detector(Protocol):
    """Takes every picture (h, w, 3) uint8 BGR with its count, 0, 1, 2, ..., and tells which of them begin a scene."""

    def next(self, count: int, picture: np.ndarray) -> list[int]:
        """The counts of the pictures that are now known to begin a scene."""
        ...

    def last(self, count: int) -> list[int]:
        """Those that are still open when the picture with that count was the last."""
        ...


class BuiltDetector(NamedTuple):
    """`late`: how many pictures late the detector reports; `padding`: how many it needs before and after the source."""

    detector: Detector
    late: int
    padding: int


def build_detector(settings: CutSettings) -> BuiltDetector | None:
    """The detector of the settings; None where they name 'fixed' or 'none', which look at no picture."""
    name = settings.detector
    if name in ("fixed", "none"):
        return None
    value = THRESHOLDS[name] if settings.threshold is None else settings.threshold
    if name == "adaptive":
        return BuiltDetector(_Adaptive(value), 2 * WINDOW, WINDOW)
    if name == "transnetv2":
        from stages.cuts.transnet.stream import LATE, TransNetDetector
        from stages.cuts.transnet.weights import load

        return BuiltDetector(TransNetDetector(load(settings), value), LATE, 0)
    return BuiltDetector(_SceneDetect(_scene_detector(settings, value)), 0, 0)


class _Adaptive:
    """`stages.cuts.adaptive` as a Detector."""

    def __init__(self, threshold: float):
        self._adaptive = Adaptive(threshold, LEAST_CONTENT)

    def next(self, count: int, picture: np.ndarray) -> list[int]:
        return [count - WINDOW] if self._adaptive.is_cut(picture) else []

    def last(self, count: int) -> list[int]:
        return []


class _SceneDetect:
    """One of PySceneDetect's as a Detector; it takes a time, made of the count here."""

    def __init__(self, detector: SceneDetector):
        from scenedetect.common import FrameTimecode

        self._detector, self._timecode = detector, FrameTimecode

    def next(self, count: int, picture: np.ndarray) -> list[int]:
        cuts = self._detector.process_frame(self._timecode(count, fps=25.0), picture)
        return [cut.frame_num for cut in cuts]

    def last(self, count: int) -> list[int]:
        return [cut.frame_num for cut in self._detector.post_process(self._timecode(count, fps=25.0))]


def _scene_detector(settings: CutSettings, threshold: float) -> SceneDetector:
    from scenedetect import detectors

    # A scene may be a single frame: min_scene_len is one, or zero where the detector merges short scenes.
    if settings.detector == "content":
        return detectors.ContentDetector(threshold=threshold, min_scene_len=0)
    if settings.detector == "histogram":
        return detectors.HistogramDetector(threshold=threshold, min_scene_len=1)
    if settings.detector == "hash":
        return detectors.HashDetector(threshold=threshold, min_scene_len=1)
    # The cut where light comes back: halfway would be a time long past.
    return detectors.ThresholdDetector(threshold=threshold, min_scene_len=1, fade_bias=1.0)
