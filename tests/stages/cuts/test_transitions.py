"""Cross-fades and dips: found at any length and rate, their frames in no clip, nothing else taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from stages.cuts.blend import FrameFeatures, line_fit, ramp_fit, sag, shrink
from stages.cuts.settings import CutSettings
from tests.cut_scores import Score, boundaries, clips_of, score
from tests.films import Drawn, Join, compose
from tests.stages.cuts.test_cuts import SIZE, cut_up, take

pytestmark = pytest.mark.slow


def shots(count: int, seconds: float, seed: int) -> list:
    rng = np.random.default_rng(seed)
    return [
        Drawn(
            seed + k,
            seconds + float(rng.uniform(0, 0.8)),
            pan=tuple(rng.uniform(-0.15, 0.15, 2)),
            zoom=float(rng.uniform(0.9, 1.15)),
            shake=0.01 * (k % 2),
            noise=float(k % 3),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize(
    ("fps", "seconds"),
    [(16, 0.5), (24, 0.5), (30, 0.5), (60, 0.5), ("uneven", 0.5), (24, 0.25), (30, 1.0), (24, 2.0)],
)
def test_cross_fades_of_drawn_takes_are_found(tmp_path, fps, seconds):
    even = 24 if fps == "uneven" else fps
    film = shots(6, 2 * seconds + 0.7, seed=40)
    truth = compose(
        tmp_path / "film.mp4",
        film,
        Join("fade", seconds),
        fps=even,
        uneven=3 if fps == "uneven" else None,
        size=SIZE,
    )
    result = score(truth, clips_of(truth.path))
    assert result.fades == 5
    assert result.found_fades >= 4
    assert result.false_cuts <= 1
    assert np.median(np.abs(result.fade_errors)) <= max(1, 0.1 * seconds * even)


@pytest.mark.parametrize("kind", ["black", "white"])
@pytest.mark.parametrize(("seconds", "hold"), [(0.5, 0.0), (1.0, 0.3), (2.0, 1.0)])
def test_dips_are_one_gap_from_the_first_darkened_frame_to_the_first_clean_one(tmp_path, kind, seconds, hold):
    truth = compose(tmp_path / "film.mp4", shots(5, seconds + 0.8, 60), Join(kind, seconds, hold), size=SIZE)
    result = score(truth, clips_of(truth.path))
    assert result.found_fades == result.fades == 4
    assert result.false_cuts == 0
    assert np.median(np.abs(result.fade_errors)) <= 1


def test_cuts_and_fades_in_one_film_are_told_apart(tmp_path):
    joins = [Join("cut"), Join("fade", 0.5), Join("cut"), Join("black", 0.8), Join("cut"), Join("fade", 1.0)]
    truth = compose(tmp_path / "film.mp4", shots(7, 2.2, 80), joins, size=SIZE)
    result = score(truth, clips_of(truth.path))
    assert (result.cuts, result.right_cuts) == (3, 3)
    assert (result.fades, result.found_fades) == (3, 3)
    assert result.false_cuts == 0


def test_without_gradual_no_frame_is_left_out(tmp_path):
    truth = compose(tmp_path / "film.mp4", shots(4, 1.8, 90), Join("fade", 0.5), size=SIZE)
    clips = clips_of(truth.path, CutSettings(gradual=False))
    assert all(end == start for end, start in boundaries(clips))
    assert any(end != start for end, start in boundaries(clips_of(truth.path)))


def test_short_black_beside_a_fade_belongs_to_it_and_long_black_is_a_scene():
    black = np.zeros((72, 128, 3), np.uint8)
    one, two = take(1, 60), take(2, 60)
    fading = [(p * (1 - (k + 1) / 13)).astype(np.uint8) for k, p in enumerate(one[40:52])]
    short = cut_up(one[:40] + fading + [black] * 24 + two)
    assert len(short) == 2
    assert abs(short[0][1] - 40) <= 1 and short[1] == (76, 136)
    long = cut_up(one[:40] + fading + [black] * 72 + two)
    assert len(long) == 3
    assert long[2] == (124, 184)


def test_a_fade_to_black_at_the_end_leaves_the_black_out():
    black = np.zeros((72, 128, 3), np.uint8)
    one = take(1, 60)
    fading = [(p * (1 - (k + 1) / 13)).astype(np.uint8) for k, p in enumerate(one[40:52])]
    clips = cut_up(one[:40] + fading + [black] * 10)
    assert len(clips) == 1
    assert abs(clips[0][1] - 40) <= 1


def test_cutting_to_and_from_black_is_no_transition():
    black = [np.zeros((72, 128, 3), np.uint8)] * 12
    assert cut_up(take(1, 40) + black + take(2, 40)) == [(0, 40), (40, 52), (52, 92)]


def test_a_blend_lies_on_the_line_and_sags_and_a_pan_does_not_sag():
    first, last = take(1, 1)[0], take(2, 1)[0]
    places = np.linspace(0, 1, 9)
    blend = [(first * (1 - a) + last * a).astype(np.uint8) for a in places]
    pan = take(1, 9, pan=(3.0, 0))
    fits = []
    for pictures in (blend, pan):
        looks = [FrameFeatures(0, 0.0, shrink(picture)) for picture in pictures]
        fit, found = line_fit(np.array([one.tiny for one in looks]))
        fits.append((fit, sag(looks[0], looks[-1], [one.energy for one in looks], found), found))
    assert np.allclose(fits[0][2], places, atol=0.02)
    assert fits[0][0].residual < 0.01 and 0.9 < fits[0][1] < 1.1
    assert fits[1][0].residual > 0.1 or fits[1][1] < 0.4


def test_the_ends_of_a_ramp_are_found_between_frames():
    seconds = np.linspace(0, 2, 49)
    begin, end, error = ramp_fit(seconds, np.clip((seconds - 0.75) / 0.5, 0, 1))
    assert begin == pytest.approx(0.75, abs=0.05)
    assert end == pytest.approx(1.25, abs=0.05)
    assert error < 0.02


def test_scores_add_up():
    total = Score(4, 4, 0) + Score(4, 3, 1)
    assert (total.cuts, total.right_cuts, total.false_cuts) == (8, 7, 1)
    assert total.f1 == pytest.approx(14 / 16)
