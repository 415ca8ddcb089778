"""Halved planes: shared by all that is made of a frame, near the exact average, never the frame's own memory."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode.display import Display
from stages.decode.planes import Planes
from stages.decode.scaler import Scaler
from stages.decode.video_frame import VideoFrame


def scene(width: int, height: int, seed: int = 0, blur: float = 1.0) -> np.ndarray:
    """(h, w) uint8 with detail, noise and full contrast."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.standard_normal((9, 16)), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), blur)
    picture = coarse / np.ptp(coarse) + 0.4 * fine / np.ptp(fine)
    return cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def decoded(width: int, height: int, name: str = "yuv420p", seed: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, name)
    for k, plane in enumerate(frame.planes):
        kind = np.uint16 if name.endswith("le") else np.uint8
        lines = np.frombuffer(plane, kind).reshape(plane.height, -1)
        lines[:, : plane.width] = scene(plane.width, plane.height, seed + k).astype(kind) << (
            2 if kind is np.uint16 else 0
        )
    frame.color_range, frame.colorspace = 2, 5
    return frame


def shown(frame: av.VideoFrame, scaler: Scaler | None = None) -> VideoFrame:
    display = Display.of(frame.width, frame.height, Fraction(1), 0, False)
    return VideoFrame(frame, 0, 0.0, display, scaler or Scaler())


def exact(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA).astype(int)


@pytest.mark.parametrize("size", [(426, 240), (854, 480), (1920, 1080), (3840, 2160), (1080, 1920), (3840, 1080)])
def test_the_small_frame_of_any_size_is_near_the_exact_average(size):
    frame = decoded(*size)
    display = Display.of(*size, Fraction(1), 0, False)
    planes = Planes().of(frame, 8)
    for k in range(3):
        whole = planes.whole(k)
        found = planes.small(k, display.stored_small).astype(int)
        assert np.abs(found - exact(whole, display.stored_small)).mean() < (2.5 if k == 0 else 4)


def test_fine_stripes_of_a_large_frame_do_not_flicker_in_the_small_one():
    """Lines that are left out must not turn a moving pattern into changing light."""
    means = []
    frame = av.VideoFrame(3840, 2160, "yuv420p")
    for shift in range(8):
        luma = np.frombuffer(frame.planes[0], np.uint8).reshape(2160, -1)
        luma[:] = (128 + 100 * np.sin((np.arange(2160) + shift) * 2 * np.pi / 8))[:, None]
        means.append(Planes().of(frame, 8).small(0, (128, 72)).astype(int))
    assert np.abs(np.diff(means, axis=0)).mean() < 12  # of a swing of 200


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(16, 700),
    height=st.integers(16, 500),
    side=st.integers(8, 800),
    name=st.sampled_from(["yuv420p", "yuv444p", "yuv420p10le"]),
)
def test_a_kept_picture_is_the_picture_whatever_becomes_of_the_frame(width, height, side, name):
    frame = decoded(width, height, name)
    one = shown(frame)
    picture, kept, small = one.picture(side), one.kept(side), one.small
    before = small.copy()
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 0
    assert max(picture.shape) == side
    assert np.array_equal(kept.made(), picture)
    assert np.array_equal(small, before)


def test_a_kept_picture_survives_the_frames_after_it():
    scaler = Scaler()
    frames = [decoded(854, 480, seed=10 * k) for k in range(3)]
    kept = []
    for frame in frames:
        one = shown(frame, scaler)
        kept.append((one.small, one.kept(320), one.gray(480)))
    for frame, (small, later, gray) in zip(frames, kept, strict=True):
        alone = shown(frame)
        assert np.array_equal(small, alone.small)
        assert np.array_equal(later.made(), alone.picture(320))
        assert np.array_equal(gray, alone.gray(480))


@pytest.mark.parametrize("size", [(1920, 1080), (960, 540)])
@pytest.mark.parametrize("full", [True, False])
def test_gray_of_halves_is_the_gray_of_libswscale(size, full):
    frame = decoded(*size)
    frame.color_range = 2 if full else 1
    luma = np.frombuffer(frame.planes[0], np.uint8).reshape(size[1], -1)[:, : size[0]].astype(float)
    if not full:
        luma = np.clip((luma - 16) * 255 / 219, 0, 255)
    found = shown(frame).gray(480)
    assert np.abs(found - cv2.resize(luma, (480, 270), interpolation=cv2.INTER_AREA)).mean() < 0.7
