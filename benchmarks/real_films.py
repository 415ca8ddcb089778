"""Checks of cuts and duplicates on real films, which the project may not ship: they are not part of the tests.

    CLIPMILL_VIDEOS=FOLDER .venv/bin/python -m pytest benchmarks/real_films.py

Without the films (their names are in tests/films.py) every check is skipped. `cut_accuracy.py` and `dedup.py` print
the figures; this says whether they are good enough.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.curate.global_stages.test_planted_duplicates import judged
from tests.cut_scores import Score, boundaries, clips_of, score
from tests.films import Join, compose, real_takes, videos
from tests.planted import QUALITIES

pytestmark = pytest.mark.skipif(videos() is None, reason="no real videos: set CLIPMILL_VIDEOS")
SMALL = ("handheld_kitchen_240p.mkv", "cartoon_subtitles_watermark_360p.mp4")


def test_hard_cuts_between_real_takes_score_at_least_98_in_100(tmp_path):
    takes = real_takes()
    if len(takes) < 3:
        pytest.skip("no real videos: set CLIPMILL_VIDEOS")
    rng, total = np.random.default_rng(8), Score()
    for fps in (16, 24, 30):
        shots = []
        for k in range(14):
            shot = takes[(k * 3 + fps) % len(takes)]
            begin = float(rng.uniform(0, shot.seconds - 0.75))
            shots.append((shot, begin, begin + float(rng.uniform(0.7, min(1.6, shot.seconds - begin)))))
        truth = compose(tmp_path / "film.mp4", shots, fps=fps, size=(192, 108))
        total += score(truth, clips_of(truth.path))
    assert total.cuts == 39
    assert total.f1 >= 0.98


@pytest.mark.parametrize("fps", [16, 24, 30, 60])
def test_half_second_fades_between_real_takes_are_found_eight_times_in_ten(tmp_path, fps):
    takes = [shot for shot in real_takes() if shot.seconds >= 1.3]
    if len(takes) < 3:
        pytest.skip("no real videos: set CLIPMILL_VIDEOS")
    rng = np.random.default_rng(fps)
    film = []
    for k in range(9):
        shot = takes[(2 * k + fps) % len(takes)] if k else takes[-1]
        length = min(shot.seconds, float(rng.uniform(1.3, 2.4)))
        begin = float(rng.uniform(0, shot.seconds - length))
        film.append((shot, begin, begin + length))
    truth = compose(tmp_path / "film.mp4", film, Join("fade", 0.5), fps=fps, size=(192, 108))
    result = score(truth, clips_of(truth.path))
    assert result.fades == 8
    assert result.found_fades >= 0.8 * result.fades
    assert result.false_cuts <= 1


@pytest.mark.parametrize("name", ["one_take_ride_2160p.mp4", "one_take_press_480p.mp4", "handheld_kitchen_240p.mkv"])
def test_a_real_take_stays_one_clip(name):
    paths = {shot.path.name: shot.path for shot in real_takes()}
    if name not in paths:
        pytest.skip("no real videos: set CLIPMILL_VIDEOS")
    assert len(clips_of(paths[name])) == 1


def test_a_real_trailer_comes_apart_where_the_eye_says():
    """Frame numbers read from contact sheets: cuts, dips, and the title card between two blacks."""
    path = next((s.path for s in real_takes() if s.path.name.startswith("trailer")), None)
    if path is None:
        pytest.skip("no real videos: set CLIPMILL_VIDEOS")
    clips = clips_of(path)
    found = [(round(a / 512), round(b / 512)) for a, b in boundaries(clips)]
    hard = [a for a, b in found if a == b]
    gaps = [(a, b) for a, b in found if a != b]
    assert hard == [286, 523, 573, 610]
    seen = [(70, 104), (143, 176), (200, 258), (306, 348), (372, 430), (444, 503), (624, 655)]
    assert len(gaps) == len(seen)
    for (start, end), (first, last) in zip(gaps, seen, strict=True):
        assert abs(start - first) <= 6 and abs(end - last) <= 6


def test_copies_of_real_films_at_three_qualities_are_found(tmp_path):
    (tmp_path / "films").mkdir()
    films = [tmp_path / "films" / name for name in SMALL]
    for film in films:
        film.write_bytes((videos() / film.name).read_bytes())
    found = judged(tmp_path, films, QUALITIES)
    assert found.planted >= 6
    assert found.recall >= 0.95 and found.precision >= 0.98, found
