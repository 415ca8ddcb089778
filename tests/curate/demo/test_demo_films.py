"""The demo's films are what their truth says, so that what is measured against them means something."""

import functools
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from curate.demo import films
from curate.demo.films import FilmTruth, film_scripts, read_truth, shot_at, write_truth
from curate.demo.queries import Question, questions, recall
from curate.demo.scenes import Painter


# Drawing all films takes 15 s of CPU: what looks at them is slow, and shares them with the tests of the demo.
@pytest.fixture(scope="module")
def drawn(drawn_films):
    """The folder of all films and the truth about them, by name."""
    folder, truth = drawn_films
    return folder, {film.name: film for film in truth}


@functools.cache
def small_frames(path) -> list[tuple[float, np.ndarray]]:
    """(seconds, (h, w) float32 luma a quarter as large) of every frame, turned as the header says."""
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(video=0):
            gray = np.rot90(frame.to_ndarray(format="gray"), frame.rotation // 90)
            size = (gray.shape[1] // 4, gray.shape[0] // 4)
            frames.append((frame.time, cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)))
        return frames


def videos(truth: dict[str, FilmTruth]) -> list[FilmTruth]:
    return [film for film in truth.values() if film.media == "video" and not film.duplicate_of]


@pytest.mark.slow
def test_every_file_of_the_truth_is_in_the_folder_and_nothing_else(drawn):
    folder, truth = drawn
    captions = {film.caption_file for film in truth.values() if film.caption_file}
    assert {path.name for path in folder.iterdir()} == set(truth) | captions


@pytest.mark.slow
def test_a_film_of_one_shot_has_its_caption_beside_it(drawn):
    folder, truth = drawn
    captioned = [film for film in truth.values() if film.caption_file]
    assert len(captioned) == 6
    for film in captioned:
        assert (folder / film.caption_file).read_text() == film.shots[0]["caption"] + "\n"
        assert len(film.shots) == 1 and film.caption_file == film.name.replace(".mp4", ".txt")


@pytest.mark.slow
def test_the_picture_changes_most_at_the_hard_cuts_and_nowhere_else(drawn):
    folder, truth = drawn
    checked = 0
    for film in videos(truth):
        if any(joint["kind"] != "cut" for joint in film.joints):
            continue
        frames = small_frames(folder / film.name)
        change = [np.abs(b - a).mean() for (_, a), (_, b) in pairwise(frames)]
        cuts = [joint["start_s"] for joint in film.joints]
        by_change = sorted(range(len(change)), key=change.__getitem__)[len(change) - len(cuts) :]
        found = sorted(frames[i + 1][0] for i in by_change)
        assert found == pytest.approx(cuts, abs=1.01 / film.fps), film.name
        checked += len(cuts)
    assert checked >= 12


@pytest.mark.slow
def test_a_cross_fade_lies_between_its_two_scenes(drawn):
    folder, truth = drawn
    film = truth["cross_fades.mp4"]
    frames = small_frames(folder / film.name)
    for joint in film.joints:
        before = [p for t, p in frames if t < joint["start_s"]][-1]
        after = next(p for t, p in frames if t >= joint["end_s"])
        middle = next(p for t, p in frames if t >= (joint["start_s"] + joint["end_s"]) / 2)
        far = np.abs(before - after).mean()
        assert np.abs(middle - (before + after) / 2).mean() < far / 3


@pytest.mark.slow
def test_a_dip_is_black_in_its_middle_and_bright_outside(drawn):
    folder, truth = drawn
    film = truth["dips.mp4"]
    frames = small_frames(folder / film.name)
    light = {t: p.mean() for t, p in frames}
    for joint in film.joints:
        inside = [v for t, v in light.items() if joint["start_s"] <= t < joint["end_s"]]
        around = [v for t, v in light.items() if 0 < joint["start_s"] - t < 0.2 or 0 <= t - joint["end_s"] < 0.2]
        assert min(inside) < 20 < min(around)


@pytest.mark.slow
def test_sizes_are_as_displayed(drawn):
    folder, truth = drawn
    for film in videos(truth):
        height, width = small_frames(folder / film.name)[0][1].shape
        with av.open(str(folder / film.name)) as container:
            aspect = container.streams.video[0].sample_aspect_ratio or 1
        assert (round(width * 4 * aspect), height * 4) == (film.width, film.height), film.name
    assert truth["phone.mp4"].height > truth["phone.mp4"].width


@pytest.mark.slow
def test_a_turned_film_is_upright_once_its_header_is_followed(drawn):
    folder, _ = drawn
    script = next(s for s in film_scripts(np.random.default_rng(0)) if s.name == "phone.mp4")
    _, first = next(films.film_frames(script))
    expected = cv2.resize(cv2.cvtColor(first, cv2.COLOR_RGB2GRAY), (48, 80), interpolation=cv2.INTER_AREA)
    shown = small_frames(folder / "phone.mp4")[0][1]
    assert np.corrcoef(expected.ravel(), shown.ravel())[0, 1] > 0.98


@pytest.mark.slow
def test_the_flaws_are_there(drawn):
    folder, truth = drawn
    largest_change = {}
    for name in ("still_life.mp4", "blink.mp4"):  # one that stands still, one that does not
        frames = [picture for _, picture in small_frames(folder / name)]
        largest_change[name] = max(np.abs(picture - frames[0]).max() for picture in frames)
    assert largest_change["still_life.mp4"] < 8 < 40 < largest_change["blink.mp4"]
    assert max(p.mean() for _, p in small_frames(folder / "lens_cap.mp4")) < 10 + 16  # black is 16 in video luma
    assert small_frames(folder / "blink.mp4")[-1][0] < 1.0
    bars = small_frames(folder / "bars.mp4")[0][1]
    assert bars[:8].max() < 20 < bars[10:50].min(initial=255, where=bars[10:50] > 16)
    steps = np.diff([t for t, _ in small_frames(folder / "changing_rate.mkv")])
    assert steps.max() > 2 * steps.min()
    assert {flaw for film in truth.values() for flaw in film.flaws} == {"static", "dark", "short", "bars"}


@pytest.mark.slow
def test_no_broken_file_yields_a_frame_and_every_other_file_does(drawn):
    folder, truth = drawn
    for film in truth.values():
        if film.media == "broken":
            with pytest.raises((av.FFmpegError, IndexError)):
                small_frames(folder / film.name)
        elif film.media == "image":
            assert cv2.imread(str(folder / film.name)).shape == (film.height, film.width, 3)
        else:
            assert small_frames(folder / film.name)


@pytest.mark.slow
def test_every_kind_of_duplicate_is_there_and_is_what_it_says(drawn):
    folder, truth = drawn
    copies = {film.change: film for film in truth.values() if film.duplicate_of}
    assert set(copies) == {"copy", "re-encoded", "resized", "trimmed", "brighter"}
    for change, film in copies.items():
        original = truth[film.duplicate_of]
        one, other = folder / film.name, folder / film.duplicate_of
        assert (one.read_bytes() == other.read_bytes()) == (change == "copy") == film.identical
        ours, theirs = dict(small_frames(one)), dict(small_frames(other))
        assert (len(ours) < len(theirs)) == (change == "trimmed")
        assert ((film.width, film.height) != (original.width, original.height)) == (change == "resized")
        for here, there in zip(film.shots, original.shots, strict=True):
            assert here["caption"] == there["caption"]
            # The same moment in both: the end of a shot lies where it lay, less what was cut off in front.
            ended = [max(t for t in times if t < shot["end_s"]) for times, shot in ((ours, here), (theirs, there))]
            if change == "trimmed" and here is film.shots[-1]:
                continue
            a, b = (cv2.resize(frames[t], (40, 24)) for frames, t in zip((ours, theirs), ended, strict=True))
            if change == "brighter":
                assert 1.05 < a.mean() / b.mean() < 1.3
                assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9
            else:
                assert np.abs(a - b).mean() < 5, (change, here)


@pytest.mark.slow
def test_there_are_fifty_questions_in_words_each_with_its_answers(drawn):
    _, truth = drawn
    asked = questions(list(truth.values()))
    assert len(asked) == 50 == len({question.text for question in asked})
    for question in asked:
        assert question.answers
        for film, number in question.answers:
            caption = truth[film].shots[number]["caption"]
            words = question.text.replace(" a ", " ").replace(" an ", " ").split()
            assert all(word in caption for word in words), (question.text, caption)


def test_recall_counts_answers_out_of_as_many_as_there_could_be():
    many = Question("a star", {("a", i) for i in range(7)})
    assert recall(many, [("a", i) for i in range(5)]) == 1
    assert recall(Question("a star", {("a", 0), ("b", 0)}), [("a", 0), ("c", 0), ("a", 1)]) == 0.5
    assert recall(many, []) == 0


def test_a_clip_belongs_to_the_shot_that_its_middle_lies_in():
    film = FilmTruth("a.mp4", shots=[{"start_s": 0.0, "end_s": 2.0}, {"start_s": 2.5, "end_s": 5.0}])
    assert [shot_at(film, *span) for span in ((0, 1.9), (1.9, 5), (1.5, 3))] == [0, 1, None]


@pytest.mark.slow
def test_the_same_seed_draws_the_same_bytes_and_another_seed_other_ones(tmp_path, drawn):
    folder, _ = drawn
    for seed, same in ((0, True), (1, False)):
        scripts = {script.name: script for script in film_scripts(np.random.default_rng(seed))}
        for name in ("blink.mp4", "cuts_vp9.webm", "narrow_pixels.mp4"):  # one of each encoder
            films._draw_script(tmp_path, scripts[name])
            assert ((tmp_path / name).read_bytes() == (folder / name).read_bytes()) == same, name


def test_neighbouring_shots_never_share_a_ground_or_a_colour():
    for seed in range(20):
        for script in film_scripts(np.random.default_rng(seed)):
            for one, two in pairwise(shot.scene for shot in script.shots):
                assert not {one.colour, one.ground} & {two.colour, two.ground}


def test_captions_tell_where_the_shape_goes():
    scripts = film_scripts(np.random.default_rng(3))
    moving = [shot.scene for script in scripts for shot in script.shots if shot.scene.movement == "moving left"]
    assert moving
    for scene in moving:
        assert "moving left" in scene.caption and scene.colour in scene.caption
        painter = Painter(scene, 160, 96)
        empty = painter._ground[:, :160]

        def centre(progress, painter=painter, empty=empty):
            changed = np.abs(painter.frame(progress, 0.0, 0) - empty).sum(-1) > 60
            return np.nonzero(changed)[1].mean()

        assert centre(0.9) < centre(0.1) - 40


@pytest.mark.slow
def test_truth_survives_its_file(tmp_path, drawn):
    _, truth = drawn
    write_truth(tmp_path / "films.jsonl", list(truth.values()))
    assert read_truth(tmp_path / "films.jsonl") == list(truth.values())
