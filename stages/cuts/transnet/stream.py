"""Runs TransNet V2 over a stream of pictures: windows of 100 frames that overlap by 25 on either side, as published."""

from __future__ import annotations

import cv2
import numpy as np

from stages.cuts.transnet.weights import Predict

WINDOW, MARGIN = 100, 25  # frames looked at, and those at either end whose probabilities are left to the neighbours
STEP = WINDOW - 2 * MARGIN
SIZE = (48, 27)  # width, height that every picture is squeezed to
LONGEST = 50  # frames above the threshold after which a transition is reported, though it goes on
LATE = WINDOW - MARGIN + LONGEST  # pictures after which everything about a picture has been reported


class Probabilities:
    """Pictures in, each with its probability of being the last before a cut; they come up to 75 pictures late."""

    def __init__(self, predict: Predict):
        self._predict = predict
        self._window = np.empty((WINDOW, SIZE[1], SIZE[0], 3), np.uint8)
        self._filled = 0
        self._open = 0  # pictures whose probabilities are not given yet

    def push(self, picture: np.ndarray) -> np.ndarray:
        """The probabilities (n,) that are known now, of the next n pictures; `picture` (h, w, 3) is uint8 BGR."""
        small = cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA)[..., ::-1]
        if not self._filled:
            self._window[:MARGIN] = small
            self._filled = MARGIN
        self._open += 1
        return self._add(small)

    def finish(self) -> np.ndarray:
        """Those of the pictures that are still open; the last picture stands in for those that would follow."""
        found = [np.empty(0, np.float32)]
        wanted = self._open
        while self._open:
            found.append(self._add(self._window[self._filled - 1]))
        return np.concatenate(found)[:wanted]

    def _add(self, small: np.ndarray) -> np.ndarray:
        self._window[self._filled] = small
        self._filled += 1
        if self._filled < WINDOW:
            return np.empty(0, np.float32)
        found = self._predict(self._window[None])[0, MARGIN:-MARGIN]
        self._window[:-STEP] = self._window[STEP:].copy()
        self._filled -= STEP
        self._open = max(0, self._open - STEP)
        return found


class TransNetDetector:
    """A `stages.cuts.detectors.Detector`: cuts follow the most probable picture of each run above the threshold."""

    def __init__(self, predict: Predict, threshold: float):
        self._probabilities = Probabilities(predict)
        self._threshold = threshold
        self._count = 0  # pictures whose probabilities are known
        self._run = 0  # of these, the last so many are above the threshold
        self._peak = (0.0, 0)  # the highest probability of the run, and its picture's count

    def next(self, count: int, picture: np.ndarray) -> list[int]:
        return self._cuts(self._probabilities.push(picture))

    def last(self, count: int) -> list[int]:
        cuts = self._cuts(self._probabilities.finish())
        return [cut for cut in [*cuts, *self._end()] if cut <= count]

    def _cuts(self, probabilities: np.ndarray) -> list[int]:
        cuts = []
        for probability in probabilities.tolist():
            if probability <= self._threshold:
                cuts += self._end()
            else:
                self._run += 1
                if probability > self._peak[0]:
                    self._peak = (probability, self._count)
                if self._run == LONGEST:
                    cuts += self._end()
            self._count += 1
        return cuts

    def _end(self) -> list[int]:
        """The cut of the run that ends here, if there is one."""
        cuts = [self._peak[1] + 1] if self._run else []
        self._run, self._peak = 0, (0.0, 0)
        return cuts
