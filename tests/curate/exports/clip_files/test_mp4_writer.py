"""Every MP4 that clipmill writes: colours as a player shows them, every frame at its time, the index first."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from curate.exports.clip_files.mp4_writer import MP4Writer

COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
    (255, 128, 0),
    (9, 60, 200),
]
RED_TO_BLUE = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}  # Kr, Kb by the matrix, ISO/IEC 23091-4


def bars(width, height):
    picture = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(COLOURS):
        picture[:, number * width // 8 : (number + 1) * width // 8] = colour
    return picture


def written(frames, size, rate=Fraction(24), times=None, time_base=None):
    target = io.BytesIO()
    with MP4Writer(target, size, rate, len(frames), time_base) as writer:
        for number, pixels in enumerate(frames):
            writer.add(pixels, *(times[number] if times else ()))
    return target.getvalue()


def decoded(data):
    with av.open(io.BytesIO(data)) as container:
        return list(container.decode(video=0))


def as_a_player_shows(frame):
    """(h, w, 3) float RGB by the frame's own tags, or, without any, by a player's guess from the size."""
    assert frame.color_range in (0, 1)
    matrix = frame.colorspace if frame.colorspace != 2 else 1 if frame.height >= 720 else 5
    red, blue = RED_TO_BLUE[matrix]
    height, width = frame.height, frame.width
    planes = frame.to_ndarray(format="yuv420p").astype(float).reshape(-1)
    luma = (planes[: height * width].reshape(height, width) - 16) * 255 / 219
    quarter = height * width // 4
    cb, cr = (
        ((planes[at : at + quarter] - 128) * 255 / 224).reshape(height // 2, width // 2).repeat(2, 0).repeat(2, 1)
        for at in (height * width, height * width + quarter)
    )
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    return np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], axis=-1)


@pytest.mark.parametrize("size", [(96, 64), (848, 480), (1280, 720), (720, 1280), (1920, 1080)])
def test_a_player_shows_the_colours_that_were_written_at_every_size(size):
    frame = decoded(written([bars(*size)] * 3, size))[1]
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    shown = as_a_player_shows(frame)
    for number, colour in enumerate(COLOURS):
        middle = number * size[0] // 8 + size[0] // 16
        assert np.abs(shown[size[1] // 2, middle] - colour).max() <= 3, colour


def test_the_index_stands_before_the_pictures():
    data = written([bars(96, 64)] * 300, (96, 64))
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_uneven_times_and_the_length_of_the_last_frame_are_kept():
    base, starts, end = Fraction(1, 1000), [0, 41, 83, 190, 1190], 1250
    steps = [later - one for one, later in zip(starts, [*starts[1:], end], strict=True)]
    frames = [np.full((64, 96, 3), 30 * number, np.uint8) for number in range(5)]
    data = written(frames, (96, 64), times=list(zip(starts, steps, strict=True)), time_base=base)
    assert [frame.pts * frame.time_base for frame in decoded(data)] == [start * base for start in starts]
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == end * base


def test_an_odd_size_is_made_even_by_its_last_line():
    picture = bars(97, 63)
    [frame] = decoded(written([picture], (97, 63)))
    assert (frame.width, frame.height) == (98, 64)
    shown = as_a_player_shows(frame)
    assert np.abs(shown[63, 10:20] - shown[62, 10:20]).max() < 8


@pytest.mark.parametrize("uneven", [False, True])
def test_the_room_for_the_index_is_enough_for_many_frames(uneven):
    """libav refuses to end a file whose index has outgrown its place."""
    rng, frames = np.random.default_rng(1), 3000
    steps = rng.integers(1, 90, frames) if uneven else np.full(frames, 40)
    starts = np.concatenate([[0], np.cumsum(steps)[:-1]])
    times = [(int(start), int(step)) for start, step in zip(starts, steps, strict=True)]
    pictures = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(8)]
    data = written([pictures[n % 8] for n in range(frames)], (32, 32), times=times, time_base=Fraction(1, 1000))
    assert [round(frame.pts * frame.time_base * 1000) for frame in decoded(data)] == starts.tolist()


def test_the_same_frames_give_the_same_bytes():
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (72, 96, 3), np.uint8) // 4
    frames = [ground + np.roll(ground, 3 * number, axis=1) for number in range(36)]
    assert len({written(frames, (96, 72)) for _ in range(4)}) == 1
