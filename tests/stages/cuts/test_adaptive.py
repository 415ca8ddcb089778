"""The adaptive detector is PySceneDetect's: the same change of every picture, the same cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from stages.cuts.adaptive import WINDOW, Adaptive


def pictures(seed: int, steps: list[str]) -> list[np.ndarray]:
    """A film of noise that stays, drifts, flickers or cuts, step by step: (36, 64, 3) each."""
    rng = np.random.default_rng(seed)
    now = rng.integers(0, 256, (36, 64, 3))
    film = []
    for step in steps:
        if step == "cut":
            now = rng.integers(0, rng.integers(2, 256), (36, 64, 3))
        elif step == "drift":
            now = np.roll(now, 1, axis=1)
        elif step == "flicker":
            now = now + int(rng.integers(-40, 40))
        elif step == "black":
            now = now * 0
        film.append(np.clip(now, 0, 255).astype(np.uint8))
    return film


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    steps=st.lists(st.sampled_from(["still", "still", "drift", "flicker", "cut", "black"]), min_size=1, max_size=60),
    threshold=st.floats(1.0, 6.0),
    least=st.floats(0.0, 30.0),
)
def test_every_change_and_every_cut_is_that_of_pyscenedetect(seed, steps, threshold, least):
    ours = Adaptive(threshold, least)
    changes = Adaptive(threshold, least)
    theirs = AdaptiveDetector(adaptive_threshold=threshold, min_content_val=least, min_scene_len=1)
    found, expected = [], []
    for count, picture in enumerate(pictures(seed, steps)):
        if ours.is_cut(picture):
            found.append(count - WINDOW)
        expected += [cut.frame_num for cut in theirs.process_frame(FrameTimecode(count, fps=25.0), picture)]
        assert changes.change(picture) == theirs._frame_score  # to the last bit
    assert found == expected


def test_a_plain_cut_is_found():
    """The claim above can fail: there are cuts to find."""
    adaptive = Adaptive(3.5, 15.0)
    film = pictures(1, ["still"] * 10 + ["cut"] + ["still"] * 10)
    assert [k - WINDOW for k, picture in enumerate(film) if adaptive.is_cut(picture)] == [10]


@pytest.mark.parametrize("shape", [(36, 64, 3), (1, 1, 3), (72, 128, 3)])
def test_what_it_was_given_is_not_changed(shape):
    adaptive = Adaptive(3.5, 15.0)
    film = [np.full(shape, value, np.uint8) for value in (10, 200, 30, 90, 120, 250)]
    before = [picture.copy() for picture in film]
    for picture in film:
        adaptive.is_cut(picture)
    assert all(np.array_equal(a, b) for a, b in zip(film, before, strict=True))
