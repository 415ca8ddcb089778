"""Files that people look at: read back, they show what was written; half a file is never there."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.errors import UserError
from curate.generate import pictures


def drawn(seed=0, frames=9, height=48, width=64):
    """A smooth picture whose brightness and a bright bar change from frame to frame."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None, None, :, None] * rng.uniform(0.5, 1, 3)
    video = np.broadcast_to(ramp, (frames, height, width, 3)).copy()
    for index in range(frames):
        video[index, :, 6 * index % width : 6 * index % width + 6] = 250
    return video.round().astype(np.uint8)


def read_back(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        return stream, [seconds for seconds, _ in frames], np.stack([pixels for _, pixels in frames])


def apart(one, other):
    return np.abs(one.astype(int) - other.astype(int)).mean()


@pytest.mark.parametrize(("fps", "size"), [(8.0, (48, 64)), (29.97, (32, 40)), (12.5, (33, 47))])
def test_an_mp4_plays_everywhere_and_shows_every_frame_at_its_time(tmp_path, fps, size):
    video = drawn(frames=9, height=size[0], width=size[1])
    pictures.write_picture(tmp_path / "a.mp4", video, fps)
    stream, seconds, pixels = read_back(tmp_path / "a.mp4")
    assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    assert seconds == pytest.approx(np.arange(9) / fps, abs=1e-3)
    assert pixels.shape[1:3] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    shown = pixels[:, : size[0], : size[1]]
    assert apart(shown, video) < 4
    # The bar is where it was: nearer to its own frame than to the neighbour's.
    assert all(apart(shown[i], video[i]) < 0.5 * apart(shown[i], video[i - 1]) for i in range(1, 9))


@pytest.mark.parametrize("height", [64, 480, 720, 1080])
def test_red_is_red_in_a_player_at_every_size(height, tmp_path):
    """An MP4 of 720 lines and more is BT.709 to a player unless it says otherwise; BT.601 of red shows (255, 24, 0)."""
    video = np.broadcast_to(np.array([255, 0, 0], np.uint8), (4, height, 2 * height // 3 * 2, 3)).copy()
    pictures.write_picture(tmp_path / "a.mp4", video, 8.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
        shown = frame.reformat(format="rgb24", src_colorspace=1, src_color_range=1, dst_color_range=2).to_ndarray()
    assert np.abs(shown[height // 2, height // 2].astype(int) - [255, 0, 0]).max() <= 3


def test_a_gif_repeats_for_ever_and_lasts_as_long_as_the_video(tmp_path):
    video = drawn(frames=16)
    pictures.write_picture(tmp_path / "a.gif", video, 12.0)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 16 and gif.info["loop"] == 0
        lasting, worst = 0, 0.0
        for index in range(16):
            gif.seek(index)
            lasting += gif.info["duration"]
            worst = max(worst, apart(np.asarray(gif.convert("RGB")), video[index]))
    assert lasting == pytest.approx(1000 * 16 / 12, abs=10)
    assert worst < 6


def test_a_png_is_a_strip_of_frames_to_the_last_bit(tmp_path):
    video = drawn(frames=17, height=128, width=96)
    pictures.write_picture(tmp_path / "a.png", video, 8.0)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    margin, step = pictures.MARGIN, 96 + pictures.MARGIN
    for place, index in enumerate(range(0, 17, 2)):
        left = margin + place * step
        assert np.array_equal(sheet[margin : margin + 128, left : left + 96], video[index])
    assert sheet.shape[1] == 9 * step + margin


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 12), st.integers(0, 10_000))
def test_a_grid_shows_every_video_once_and_holds_the_last_frame_of_shorter_ones(count, frames, seed):
    rng = np.random.default_rng(seed)
    videos = [np.full((int(rng.integers(1, frames + 1)), 128, 128, 3), 10 + 20 * i, np.uint8) for i in range(count)]
    for video in videos:
        video[-1] += 7
    sheet = pictures.grid(videos, [f"number {i}" for i in range(count)])
    assert len(sheet) == max(len(video) for video in videos)
    for number in range(count):
        for index, value in ((0, videos[number][0, 0, 0, 0]), (-1, 17 + 20 * number)):
            assert (sheet[index, ..., 0] == value).sum() >= 128 * 128 * 0.99


def test_captions_stand_beneath_and_never_over_a_picture():
    """Long ones are broken into lines, and cut where even they are too many; the pictures stay whole."""
    black = [np.zeros((2, 128, 128, 3), np.uint8)] * 3
    words = ["a red circle", "a word " * 60, "w" * 400]
    sheet = pictures.grid(black, words, columns=3)[0]
    bare = pictures.grid(black, [""] * 3, columns=3)[0]
    top = pictures.MARGIN
    assert np.array_equal(sheet[top : top + 128], bare[top : top + 128])
    for number in range(3):
        left = pictures.MARGIN + number * (128 + pictures.MARGIN)
        below = sheet[top + 128 :, left : left + 128]
        assert below.min() < 100  # ink
        assert (sheet[:, left - 4 : left] > 240).all()  # and none of it beside


def test_originals_stand_above_their_reconstructions():
    originals = [drawn(seed, frames=5) for seed in range(3)]
    made = [255 - video for video in originals]
    sheet = pictures.side_by_side(originals, made)
    assert sheet.shape == (5, 96, 192, 3)
    for number in range(3):
        column = sheet[:, :, 64 * number : 64 * number + 64]
        assert np.array_equal(column[:, :48], originals[number]) and np.array_equal(column[:, 48:], made[number])


def test_small_videos_are_enlarged_by_whole_pixels():
    video = drawn(height=48, width=64)
    large = pictures.enlarged(video)
    assert large.shape == (9, 144, 192, 3) and np.array_equal(large[:, ::3, ::3], video)
    assert pictures.enlarged(drawn(height=200)).shape[1] == 200


@pytest.mark.parametrize("ending", pictures.ENDINGS)
def test_a_file_that_fails_leaves_the_one_that_was_there_and_nothing_beside(tmp_path, ending, monkeypatch):
    path = tmp_path / f"a{ending}"
    pictures.write_picture(path, drawn(0), 8.0)
    before = path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"can't write .*No space left"):
        pictures.write_picture(path, drawn(1), 8.0)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [path.name]


def test_several_videos_go_on_one_sheet(tmp_path):
    videos = [drawn(seed) for seed in range(3)]
    captions = ["one", "two", "three"]
    pictures.write_sheet(tmp_path / "a.png", videos, captions, 8.0)
    pictures.write_sheet(tmp_path / "a.gif", videos, captions, 8.0)
    pictures.write_sheet(tmp_path / "a.mp4", videos, captions, 8.0)
    strips = [pictures.strip(video, caption) for video, caption in zip(videos, captions, strict=True)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.concatenate(strips))
    assert len(read_back(tmp_path / "a.mp4")[1]) == 9


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.avi", r"ends with .mp4, .gif, .png"), ("a", "ends with"), ("no/a.mp4", "there is no folder no")],
)
def test_names_are_checked_before_any_work(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        pictures.check_name(name)
    with pytest.raises(UserError, match=said):
        pictures.write_picture(name, drawn(), 8.0)
