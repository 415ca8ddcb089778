"""Hard cuts: found to the frame by every detector, none in a take that is only lit, moved or shaken."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from stages.cuts.scenes import SceneCutter
from stages.cuts.settings import CutSettings
from tests.cut_scores import clips_of, score
from tests.films import Drawn, Join, compose

SIZE = (128, 72)
BASE = Fraction(1, 24000)


def drawn(count: int, seed: int, seconds: float = 2.0) -> list[Drawn]:
    return [Drawn(seed + k, seconds, pan=(0.04 * (k % 5), 0.02), noise=k % 3) for k in range(count)]


def cut_up(pictures: list[np.ndarray], fps: int = 24, **settings) -> list[tuple[int, int]]:
    """[first, last + 1) frame numbers of the clips of some pictures."""
    cutter = SceneCutter(CutSettings(**{"min_seconds": 0} | settings), BASE)
    step = 24000 // fps
    clips = []
    for k, picture in enumerate(pictures):
        frame = SimpleNamespace(pts=k * step, seconds=k / fps, small=picture)
        clips += cutter.observe(frame)
    clips += cutter.finish(len(pictures) * step)
    return [(clip.start_pts // step, clip.end_pts // step) for clip in clips]


def take(seed: int, frames: int, fps: int = 24, **settings) -> list[np.ndarray]:
    shot = Drawn(seed, frames / fps, **settings)
    return [shot.picture(k / fps, SIZE) for k in range(frames)]


@pytest.mark.slow
@pytest.mark.parametrize("fps", [16, 24, 30, 60, "uneven"])
def test_hard_cuts_between_drawn_takes_are_found_to_the_frame(tmp_path, fps):
    even = 24 if fps == "uneven" else fps
    shots = [(shot, 0.0, 0.7 + 0.1 * k) for k, shot in enumerate(drawn(8, 300))]
    truth = compose(tmp_path / "film.mp4", shots, fps=even, uneven=5 if fps == "uneven" else None, size=SIZE)
    result = score(truth, clips_of(truth.path))
    assert result.cuts == 7
    assert result.f1 >= 0.98
    assert set(result.errors) == {0}


@pytest.mark.parametrize("detector", ["adaptive", "content", "histogram", "hash"])
def test_every_detector_finds_the_cuts_of_a_plain_film(detector):
    pictures = take(1, 20) + take(2, 30) + take(3, 25) + take(4, 20)
    starts = [start for start, _ in cut_up(pictures, detector=detector)]
    assert starts == [0, 20, 50, 75]


def test_the_threshold_detector_cuts_where_light_comes_back_after_black():
    pictures = take(1, 30) + [np.zeros((72, 128, 3), np.uint8)] * 6 + take(2, 30)
    assert cut_up(pictures, detector="threshold", gradual=False) == [(0, 36), (36, 66)]


def test_a_threshold_in_the_recipe_replaces_the_tuned_one():
    pictures = take(1, 20) + take(2, 20)
    assert len(cut_up(pictures, detector="content")) == 2
    assert len(cut_up(pictures, detector="content", threshold=200)) == 1


@pytest.mark.parametrize("where", [1, 2, 3, 37, 38, 39])
def test_cuts_in_the_first_and_last_frames_are_not_missed(where):
    pictures = take(1, where) + take(2, 40 - where)
    assert cut_up(pictures) == [(0, where), (where, 40)]


def test_a_scene_of_one_frame_is_a_clip_of_one_frame():
    pictures = take(1, 30) + take(2, 1) + take(3, 30)
    assert cut_up(pictures) == [(0, 30), (30, 31), (31, 61)]


def test_one_frame_of_another_picture_inside_a_take_is_not_taken_for_a_flash():
    one = take(1, 40)
    assert cut_up(one[:20] + take(2, 1) + one[21:]) == [(0, 20), (20, 21), (21, 40)]


def test_a_flash_and_a_blink_of_black_are_not_cuts():
    one = take(1, 60, pan=(0.1, 0))
    flash = [np.clip(p.astype(int) + 170, 0, 255).astype(np.uint8) for p in one[20:22]]
    blink = [np.zeros_like(one[0])] * 2
    assert cut_up(one[:20] + flash + one[22:40] + blink + one[42:]) == [(0, 60)]


def test_flicker_is_not_a_cut():
    assert len(cut_up(take(1, 90, flicker=0.3))) == 1


@pytest.mark.parametrize(
    "how",
    [
        {"pan": (0.1, 0)},
        {"pan": (0.6, 0.1)},
        {"pan": (1.2, 0)},
        {"pan": (0, 0), "zoom": 1.3},
        {"pan": (0, 0), "zoom": 2.0},
        {"shake": 0.06, "noise": 8},
    ],
    ids=str,
)
def test_a_drawn_take_stays_one_clip(how):
    assert len(cut_up(take(77, 110, **how))) == 1


def test_fixed_clips_are_cut_by_time_at_any_frame_rate():
    assert cut_up(take(1, 50), detector="fixed", seconds=0.5) == [(0, 12), (12, 24), (24, 36), (36, 48), (48, 50)]
    pictures = take(1, 20) + take(2, 20)
    assert cut_up(pictures, fps=16, detector="fixed", seconds=1.0) == [(0, 16), (16, 32), (32, 40)]


def test_no_detector_means_one_scene():
    assert cut_up(take(1, 20) + take(2, 20), detector="none") == [(0, 40)]


def test_black_film_and_single_frames_are_one_clip_each():
    black = [np.zeros((72, 128, 3), np.uint8)] * 30
    assert cut_up(black) == [(0, 30)]
    assert cut_up(black[:1]) == [(0, 1)]


def test_a_shot_in_a_composed_film_must_hold_its_joins(tmp_path):
    with pytest.raises(ValueError, match="shot 1"):
        compose(tmp_path / "film.mp4", [(d, 0, 0.8) for d in drawn(3, 9)], Join("fade", 0.5), size=SIZE)
