"""Dense optical flow on small gray frames: what motion and shake share.

DIS (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search"), as OpenCV has it, on small frames.
It follows shifts of up to 10 % of the diagonal (Farneback 6 %) and reads less than that on noise.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from stages.frames import Sample

FLOW_SIDE = 128  # long side of the frames that flow is computed on, pixels
SPACING = 4  # pixels between the vectors that are handed on
_LEAST_SIDE = 32  # DIS needs a few patches of 8 pixels in each direction


class Flow:
    """A dense flow estimator. DIS keeps buffers, so an instance belongs to one measure of one process.

    Refinement costs twice the search, and adds 20 % to a pan of 0.5 % per second; without it, 7 %. `fine`
    searches down to half the size instead of a quarter: a zoom, fastest at the edges, then reads 10 % low
    instead of 20 %, at 2.5 times the cost.
    """

    def __init__(self, *, fine: bool = False):
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_FAST)
        self._dis.setVariationalRefinementIterations(0)
        if fine:
            self._dis.setFinestScale(1)
            self._dis.setPatchStride(6)
            self._dis.setGradientDescentIterations(12)

    def step(self, sample: Sample) -> np.ndarray:
        """The flow between the last two frames of the sample's trail, computed once for all measures."""
        if sample.step_flow is None:
            sample.step_flow = self.between(sample.trail[-2][1], sample.trail[-1][1])
        return sample.step_flow

    def between(self, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        """The flow in percent of the frame's diagonal between two gray frames (any size, uint8).

        (h, w, 2) with a vector for every `SPACING` pixels each way; DIS searches no finer.
        """
        first, second = _small(earlier), _small(later)
        if first.shape != second.shape:
            second = cv2.resize(second, first.shape[::-1], interpolation=cv2.INTER_AREA)
        flow = self._dis.calc(first, second, None)  # type: ignore[call-overload]  # the stubs lack None: no first guess
        half = SPACING // 2
        return flow[half::SPACING, half::SPACING] * np.float32(100.0 / math.hypot(*first.shape))


def _small(gray: np.ndarray) -> np.ndarray:
    height, width = gray.shape
    scale = FLOW_SIDE / max(height, width)
    size = (max(_LEAST_SIDE, round(width * scale)), max(_LEAST_SIDE, round(height * scale)))
    if size == (width, height):
        return np.ascontiguousarray(gray)
    shrinks = size[0] <= width and size[1] <= height
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
