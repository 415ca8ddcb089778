"""Black borders: exact where there are some, none where there are none, unknown where nothing can be seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.measures.observations import Observations
from tests.stages.drawn import DrawnFrame, facts, film, measured, noisy, samples, span, view

HD = (1280, 720)


def barred(picture: np.ndarray, top: int, bottom: int, left: int = 0, right: int = 0, black: int = 0):
    """The picture with that many pixels of border drawn over it."""
    height, width = picture.shape[:2]
    framed = np.full_like(picture, black)
    framed[top : height - bottom, left : width - right] = picture[top : height - bottom, left : width - right]
    return framed


def boxed(draw, seconds: float = 1.1, fps: float = 4) -> tuple[int, int, int, int] | None:
    """(x, y, w, h) of the crop box."""
    row = measured(film(draw, seconds, fps), "letterbox")
    return None if row["crop_x"] is None else tuple(row[f"crop_{key}"] for key in "xywh")


def panning(width: int, height: int, dim: float = 1.0):
    return lambda t: cv2.convertScaleAbs(view(80 * t, 20 * t, width, height), alpha=dim)


def assert_within_2(found, x, y, w, h):
    """No border left (but 2 px), and at most 2 px of picture lost."""
    assert found is not None
    assert all(value % 2 == 0 for value in found)
    for got, want in zip(
        (found[0], found[1], found[0] + found[2], found[1] + found[3]), (x, y, x + w, y + h), strict=True
    ):
        assert abs(got - want) <= 2


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    bars=st.sampled_from(["letter", "pillar", "window"]),
    thickness=st.integers(4, 250),
    off=st.integers(-2, 2),
    size=st.sampled_from([(426, 240), (854, 480), (1280, 720), (720, 1280)]),
    black=st.sampled_from([0, 1, 16]),
    noise=st.sampled_from([0, 1.5]),
    dim=st.sampled_from([1.0, 0.4]),
)
def test_the_crop_box_is_right_to_2_pixels(bars, thickness, off, size, black, noise, dim):
    width, height = size
    rng = np.random.default_rng(0)
    bar = min(thickness, height // 3 if bars == "letter" else width // 3 if bars == "pillar" else min(size) // 4)
    other = max(2, bar + off)
    sides = {"letter": (bar, other, 0, 0), "pillar": (0, 0, bar, other), "window": (bar, other, bar, other)}[bars]
    top, bottom, left, right = sides
    draw = panning(width, height, dim)
    found = boxed(lambda t: noisy(barred(draw(t), *sides, black=black), noise, rng))
    assert_within_2(found, left, top, width - left - right, height - top - bottom)


@pytest.mark.parametrize("sides", [(277, 277, 0, 0), (0, 0, 480, 480), (140, 140, 240, 240), (3, 3, 0, 0)])
def test_bars_of_4k_are_right_to_2_pixels(sides):
    top, bottom, left, right = sides
    found = boxed(lambda t: barred(view(80 * t, 0, 3840, 2160), *sides), 0.6, 4)
    assert_within_2(found, left, top, 3840 - left - right, 2160 - top - bottom)


def test_the_share_is_the_borders_area():
    row = measured(film(lambda t: barred(panning(*HD)(t), 90, 90), 1.1, 12), "letterbox")
    assert row["letterbox"] == pytest.approx(0.25, abs=0.003)


def test_a_picture_without_border_has_none():
    row = measured(film(panning(*HD), 1.1, 12), "letterbox")
    assert row == {"letterbox": 0.0, "crop_x": 0, "crop_y": 0, "crop_w": 1280, "crop_h": 720}


def test_pixels_that_are_not_square_are_counted_as_displayed():
    observations = Observations(["letterbox"])
    for sample in samples(film(lambda t: barred(panning(720, 576)(t), 72, 72, 40, 40), 1.1, 12)):
        observations.observe(sample)
    row = observations.close(span(0, 1.1), facts(0, 1.1, 1024, 576))
    assert_within_2((row["crop_x"], row["crop_y"], row["crop_w"], row["crop_h"]), round(40 * 1024 / 720), 72, 910, 432)


@pytest.mark.parametrize("text", ["ONE LINE", "A SUBTITLE OF QUITE SOME LENGTH, SET IN THE BAR"])
@pytest.mark.parametrize("top", [90, 60])
def test_subtitles_and_logos_in_the_border_do_not_shrink_it(text, top):
    def draw(t: float) -> np.ndarray:
        picture = barred(panning(*HD)(t), top, 90)
        width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.1, 3)[0][0]
        cv2.putText(picture, text, (640 - width // 2, 688), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255,) * 3, 3)
        cv2.rectangle(picture, (1150, 18), (1230, 48), (0, 200, 250), -1)
        return picture

    assert_within_2(boxed(draw), 0, top, 1280, 720 - top - 90)


def test_subtitles_over_the_picture_are_no_edge():
    def draw(t: float) -> np.ndarray:
        picture = barred(panning(*HD, dim=0.5)(t), 90, 90)
        cv2.putText(picture, "OVER THE PICTURE", (400, 600), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255,) * 3, 4)
        return picture

    assert_within_2(boxed(draw), 0, 90, 1280, 540)


def test_a_fade_from_black_hides_no_border_and_makes_none():
    for bar in (0, 88):
        found = boxed(lambda t, bar=bar: barred(panning(*HD, dim=min(1.0, t / 2))(t), bar, bar), 2.1)
        assert_within_2(found, 0, bar, 1280, 720 - 2 * bar)


def test_the_smallest_border_of_the_clip_counts():
    """A film that opens up to the full frame for some seconds is cropped by what is always border."""
    found = boxed(lambda t: barred(panning(*HD)(t), *((90, 90) if t < 1 else (40, 40))), 2.1)
    assert_within_2(found, 0, 40, 1280, 640)


def lamp(t: float) -> np.ndarray:
    """A dark room with a lamp: the light falls off softly to black on all sides."""
    y, x = np.mgrid[:720, :1280].astype(np.float32)
    light = 220 * np.exp(-(((x - 640 - 40 * t) / 300) ** 2) - ((y - 360) / 130) ** 2)
    return cv2.merge([light.astype(np.uint8)] * 3)


def skyline(t: float) -> np.ndarray:
    """Roofs of different heights below a black sky."""
    picture = np.zeros((720, 1280, 3), np.uint8)
    ground = view(30, 0, 1280, 720)
    for left, top in zip(range(0, 1280, 160), (300, 420, 350, 460, 280, 390, 440, 330), strict=True):
        picture[top:, left : left + 160] = ground[top:, left : left + 160]
    return picture


def glow(t: float) -> np.ndarray:
    """A band of light that falls off above and below, as wide as the picture."""
    light = (120 + 40 * t) * np.exp(-(((np.arange(720) - 360) / 120) ** 2))
    return cv2.convertScaleAbs(view(60 * t, 0, *HD) * (light / 120)[:, None, None])


def vignette(t: float) -> np.ndarray:
    """Corners and sides go dark, as in old lenses."""
    y, x = np.mgrid[-1:1:720j, -1:1:1280j]
    return cv2.convertScaleAbs(view(60 * t, 0, *HD) * np.clip(1.05 - x**4, 0, 1)[..., None] * (1.02 - y**4)[..., None])


@pytest.mark.parametrize("scene", [lamp, skyline, glow, vignette])
def test_a_dark_scene_has_no_border(scene):
    assert boxed(scene) == (0, 0, 1280, 720)


@pytest.mark.parametrize("level", [0, 6, 15])
def test_a_clip_too_dark_to_tell_is_unknown(level):
    rng = np.random.default_rng(1)
    frames = film(lambda _: noisy(np.full((240, 426, 3), level, np.uint8), 2, rng), 1, 6)
    assert set(measured(frames, "letterbox").values()) == {None}


def test_a_title_on_black_leaves_the_border_unknown():
    title = np.zeros((480, 854, 3), np.uint8)
    cv2.putText(title, "THE FILM", (250, 260), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 255, 255), 3)
    assert set(measured(film(lambda _: title, 1, 6), "letterbox").values()) == {None}


def test_an_image_is_cropped_too():
    row = measured(iter([DrawnFrame(0, barred(view(0, 0, *HD), 0, 0, 160, 160))]), "letterbox")
    assert (row["crop_x"], row["crop_w"]) == (160, 960)
