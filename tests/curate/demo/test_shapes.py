"""The films to learn from are what their captions say, and the judge of samples sees it, blurred or noisy too."""

import av
import cv2
import numpy as np
import pytest

from curate.demo import shapes
from curate.demo.shape_judge import Seen, judge
from curate.demo.shapes import Subject, draw_shape_films, film_takes, random_take, subjects, take_frames

pytestmark = pytest.mark.slow

FRAMES = 9
CLIPS = 60  # for each way of spoiling them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Films of two takes."""
    place = tmp_path_factory.mktemp("shapes")
    return place, draw_shape_films(place, takes=2)


@pytest.fixture(scope="module")
def clips():
    """(subject, (9, 64, 64, 3)) of takes that no film of seed 0 has."""
    rng = np.random.default_rng(77)
    some = [subjects()[number % len(subjects())] for number in range(CLIPS)]
    return [(subject, take_frames(random_take(subject, rng, number), FRAMES)) for number, subject in enumerate(some)]


def each(video, change):
    return np.stack([change(frame) for frame in video])


def pooled(video, size):
    """Means over boxes of that many pixels, as large again: all that a poor VAE may leave."""
    small = (video.shape[1] // size, video.shape[2] // size)
    return each(
        video,
        lambda frame: cv2.resize(
            cv2.resize(frame, small, interpolation=cv2.INTER_AREA), frame.shape[:2], interpolation=cv2.INTER_NEAREST
        ),
    )


def noisy(video, deviation):
    noise = np.random.default_rng(int(video.sum()) % 2**32).normal(0, deviation, video.shape)
    return np.clip(video + noise, 0, 255).astype(np.uint8)


SPOILED = {
    "as drawn": lambda video: video,
    "noise": lambda video: noisy(video, 20),
    "boxes of 4": lambda video: pooled(video, 4),
    "boxes of 8": lambda video: pooled(video, 8),
    "soft": lambda video: each(video, lambda frame: cv2.GaussianBlur(frame, (0, 0), 3)),
    "boxes of 4 and noise": lambda video: noisy(pooled(video, 4), 12),
    "pale": lambda video: (0.6 * video + 45).astype(np.uint8),
    "smaller": lambda video: each(video, lambda frame: cv2.resize(frame, (48, 48), interpolation=cv2.INTER_AREA)),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_the_judge_sees_what_was_drawn(clips, spoil):
    right = {"colour": 0, "shape": 0, "direction": 0}
    for subject, video in clips:
        for name, correct in judge(SPOILED[spoil](video)).right(subject).items():
            right[name] += correct
    # Boxes nearly half as wide as a shape leave little of its corners.
    least = {**dict.fromkeys(right, 0.99), **({"shape": 0.95} if spoil == "boxes of 8" else {})}
    assert all(count >= least[name] * CLIPS for name, count in right.items()), right


def test_the_judge_goes_by_nothing_but_the_pixels_it_is_shown(clips):
    """Turned round in time, a shape goes the other way; upside down, it goes down where it went up."""
    back = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for subject, video in clips[:60]:
        if subject.shape == "triangle":  # which upside down is none of the three
            continue
        turned = judge(video[::-1])
        assert turned == Seen(subject.colour, subject.shape, back[subject.direction])
        flipped = judge(video[:, ::-1])
        vertical = subject.direction in ("up", "down")
        assert flipped.direction == (back[subject.direction] if vertical else subject.direction)


def test_the_judge_says_nothing_where_nothing_is_to_be_seen():
    grey = np.full((FRAMES, 64, 64, 3), 60, np.uint8)
    assert judge(grey) == Seen()
    assert judge(noisy(grey, 6)) == Seen()
    still = np.repeat(take_frames(random_take(Subject("red", "circle", "up"), np.random.default_rng(0)), 1), FRAMES, 0)
    assert judge(still) == Seen("red", "circle", "")
    with pytest.raises(ValueError, match=r"\(3, 64, 48, 3\)"):
        judge(np.zeros((3, 64, 48, 3), np.uint8))


def test_guessing_is_far_from_right(clips):
    """A judge of noise that moves would be right by chance in one of sixty: no way around the pixels."""
    rng = np.random.default_rng(3)
    videos = [cv2.GaussianBlur(rng.normal(90, 160, (64, 64, 3 * FRAMES)), (0, 0), 5) for _ in range(60)]
    shown = [
        np.clip(video, 0, 255).astype(np.uint8).reshape(64, 64, FRAMES, 3).transpose(2, 0, 1, 3) for video in videos
    ]
    right = sum(all(judge(video).right(subject).values()) for (subject, _), video in zip(clips, shown, strict=False))
    assert right <= 6


def test_every_subject_has_a_film_with_its_caption_beside_it(folder):
    place, truth = folder
    assert len(truth) == len(subjects()) == 60
    for subject, film in zip(subjects(), truth, strict=True):
        assert (place / film.caption_file).read_text().strip() == subject.caption == film.shots[0]["caption"]
        assert len(film.shots) == 2 and film.shots[-1]["end_s"] == 2 * shapes.TAKE_SECONDS
        assert film.name == f"{subject.colour}_{subject.shape}_{subject.direction}.mp4"
    assert len(list(place.iterdir())) == 2 * len(truth)


def test_a_film_shows_its_takes_one_after_another_each_as_the_caption_says(folder):
    """Through the codec, and split where a fixed cut splits it."""
    place, _ = folder
    for subject in subjects()[::7]:
        with av.open(str(place / subject.film)) as container:
            frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        drawn = np.concatenate([take_frames(take) for take in film_takes(subject, 0, 2)])
        assert np.abs(np.stack([pixels for _, pixels in frames]).astype(int) - drawn).mean() < 4
        for number in range(2):
            start = number * shapes.TAKE_SECONDS
            take = [
                pixels for seconds, pixels in frames if start - 1e-6 <= seconds < start + shapes.TAKE_SECONDS - 1e-6
            ]
            assert len(take) == round(shapes.TAKE_SECONDS * shapes.FPS)
            assert judge(np.stack(take[:FRAMES])) == Seen(subject.colour, subject.shape, subject.direction)


def test_a_shape_never_leaves_the_picture():
    rng = np.random.default_rng(5)
    for subject in subjects() * 3:
        video = take_frames(random_take(subject, rng)).astype(int)
        ground = video[0, 0, 0]
        edges = np.concatenate([video[:, [0, -1]].reshape(-1, 3), video[:, :, [0, -1]].reshape(-1, 3)])
        assert np.abs(edges - ground).max() <= 1, subject


def test_takes_differ_and_the_same_seed_draws_the_same(folder, tmp_path):
    place, _ = folder
    takes = film_takes(subjects()[0], 0, 12)
    assert len({(take.size, take.x, take.y, take.speed, take.ground) for take in takes}) == 12
    assert takes[:2] == film_takes(subjects()[0], 0, 2) and takes != film_takes(subjects()[0], 1, 12)
    for subject in subjects()[3:]:  # those that are there are left as they are
        (tmp_path / subject.film).write_bytes(b"there already")
    draw_shape_films(tmp_path, takes=2)
    for subject in subjects()[:3]:
        assert (tmp_path / subject.film).read_bytes() == (place / subject.film).read_bytes()
    assert (tmp_path / subjects()[5].film).read_bytes() == b"there already"
