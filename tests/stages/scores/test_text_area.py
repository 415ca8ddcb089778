"""Text on screen: drawn text is measured, pictures without a letter read as none, whatever comes together."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.demo.scenes import SHAPES, Painter, Scene
from stages.base import SettingsError
from stages.scores.settings import TextAreaSettings
from stages.scores.text_area import TextArea, covered
from stages.unit import Clip, Unit
from tests.stages.units import clip_of, rows_of

WIDTH, HEIGHT = 640, 360
WORDS = ("ONLY TODAY", "Chapter Seven", "the long way home", "BREAKING NEWS", "Paris, 1984", "ALL RIGHTS RESERVED")


@pytest.fixture(scope="module")
def text() -> TextArea:
    stage = TextArea(TextAreaSettings())
    stage.setup()
    yield stage
    stage.close()


def scene(seed: int, title: str = "") -> np.ndarray:
    """A textured ground with a star on it, as the demo's films are drawn, (360, 640, 3) BGR."""
    painter = Painter(Scene("star", "blue", "moving left", "grey", seed, title=title), WIDTH, HEIGHT)
    return np.clip(painter.frame(0.5, 1.0, 0), 0, 255).astype(np.uint8)[..., ::-1].copy()


def letterless(shape: str) -> np.ndarray:
    """A small film's frame, enlarged: grain and soft edges, (360, 640, 3) BGR."""
    painter = Painter(Scene(shape, "red", "moving left", "grey", 3), 320, 180)
    picture = np.clip(painter.frame(0.3, 1.0, 0), 0, 255).astype(np.uint8)[..., ::-1]
    return cv2.resize(picture, (WIDTH, HEIGHT))


def ground(seed: int) -> np.ndarray:
    """Light and dark clouds without a letter, (360, 640, 3) BGR."""
    rng = np.random.default_rng(seed)
    relief = sum(cv2.resize(rng.uniform(-1, 1, (n, 2 * n)), (WIDTH, HEIGHT), interpolation=2) / n for n in (3, 6, 12))
    return np.repeat(np.clip(110 + 160 * relief, 0, 255)[..., None], 3, 2).astype(np.uint8)


def written(picture: np.ndarray, words: str, x: int, y: int, scale: float) -> float:
    """Writes on the picture; gives the share of it that lies in the box around what was written."""
    blank = np.zeros(picture.shape[:2], np.uint8)
    cv2.putText(blank, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(2 * scale)), cv2.LINE_AA)
    cv2.putText(picture, words, (x + 1, y + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), max(2, round(3 * scale)))
    picture[blank > 127] = (240, 240, 240)
    _, _, width, height = cv2.boundingRect(blank)
    return width * height / blank.size


def clip(*pictures: np.ndarray) -> Clip:
    return clip_of("a", pictures)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    words=st.sampled_from(WORDS),
    seed=st.integers(0, 99),
    x=st.integers(10, 120),
    y=st.integers(60, HEIGHT - 20),
    scale=st.sampled_from((0.8, 1.2, 1.6)),
)
def test_drawn_text_covers_the_share_that_it_was_drawn_on(text, words, seed, x, y, scale):
    picture = ground(seed)
    true = written(picture, words, x, y, scale)
    (answer,) = text.score([clip(picture)])
    assert 1.1 * true <= answer["text_area"] <= 1.8 * true  # detectors leave a rim about the letters
    assert answer["text_boxes"] >= 1


def test_the_share_grows_with_every_line_of_subtitles(text):
    picture, shares = ground(5), []
    for line, y in enumerate((330, 290, 250)):
        written(picture, WORDS[line], 60, y, 1.1)
        shares.append(text.score([clip(picture.copy())])[0]["text_area"])
    assert shares[0] > 0.02
    assert shares[1] > 1.4 * shares[0]
    assert shares[2] > 1.25 * shares[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_films_without_a_letter_have_no_text(text, shape):
    (answer,) = text.score([clip(letterless(shape))])
    assert (answer["text_area_max"], answer["text_boxes"]) == (0.0, 0)


def test_the_detector_alone_takes_pictures_without_a_letter_for_text():
    """Why boxes are confirmed by reading: without this the rule would be a cost without a use."""
    alone = TextArea(TextAreaSettings(confirm=False))
    alone.setup()
    assert alone.score([clip(letterless("star"))])[0]["text_area"] > 0.1


def test_flat_noisy_and_tiny_pictures_have_no_text(text):
    rng = np.random.default_rng(0)
    noise = [np.clip(rng.normal(128, deviation, (HEIGHT, WIDTH, 3)), 0, 255) for deviation in (8, 60)]
    pictures = [np.full((HEIGHT, WIDTH, 3), level) for level in (0, 128, 255)] + noise + [np.zeros((1, 64, 3))]
    for answer in text.score([clip(picture.astype(np.uint8)) for picture in pictures]):
        assert answer["text_area_max"] == 0.0


def test_a_title_of_the_demo_is_found_and_the_same_shot_without_it_is_clean(text):
    with_title, without = text.score([clip(scene(11, "THE OLD MILL")), clip(scene(11))])
    assert 0.05 < with_title["text_area"] < 0.3
    assert without["text_area"] == 0.0


def test_mean_largest_and_most_boxes_are_over_the_frames_of_the_clip(text):
    titled = scene(11, "THE OLD MILL")
    (alone,) = text.score([clip(titled)])
    (mixed,) = text.score([clip(scene(11), titled, scene(12), scene(13))])
    assert mixed["text_area_max"] == alone["text_area_max"]
    assert mixed["text_area"] == pytest.approx(alone["text_area"] / 4)
    assert mixed["text_boxes"] == alone["text_boxes"]


@pytest.mark.slow
def test_figures_do_not_depend_on_which_clips_come_together_nor_in_which_order(text):
    clips = [clip(scene(n, title)) for n, title in enumerate(("ONE WORD", "", "AND ANOTHER LINE"))]
    together = text.score(clips)
    assert together == [text.score([one])[0] for one in clips]
    assert together[::-1] == text.score(clips[::-1])


def test_boxes_that_overlap_are_counted_once():
    square = np.array([[0, 0], [49, 0], [49, 49], [0, 49]], np.float32)
    beside = square + np.array([25, 0], np.float32)
    assert covered(np.stack([square, square, beside]), (100, 100)) == pytest.approx(0.375)
    assert covered(np.zeros((0, 4, 2)), (100, 100)) == 0.0
    assert covered(np.array([[[0, 0], [99, 0], [99, 99], [0, 99]]]), (100, 100)) == 1.0


def test_another_detector_by_path_gives_the_same_boxes_under_its_own_name(text, tmp_path, monkeypatch):
    theirs = text._files()[0]
    copy = tmp_path / "mine.onnx"
    copy.write_bytes(theirs.read_bytes())
    monkeypatch.chdir(tmp_path)
    mine = TextArea(TextAreaSettings(**{"weights": "mine.onnx", "as": "signs", "confirm": False}))
    monkeypatch.chdir("/")  # as a worker may stand
    mine.setup()
    picture = scene(11, "THE OLD MILL")
    assert np.array_equal(mine.boxes(picture), text.boxes(picture))
    (answer,) = mine.score([clip(picture)])
    assert answer["model"] == "mine"
    assert set(mine.columns()) == {"signs"}
    assert "signs_text_area" in mine.columns()["signs"]
    assert mine.versions() != text.versions()


def test_a_stage_travels_before_setup_and_fills_its_table(text):
    stage = pickle.loads(pickle.dumps(TextArea(TextAreaSettings(positions=(0.5,)))))
    stage._engine, stage._revision = text._engine, text._revision
    unit = Unit("u", [clip_of("a", [scene(11, "THE OLD MILL")], stage.wants()), clip_of("b")])
    rows = rows_of(stage(unit), "text")
    done, failed = rows["a"], rows["b"]
    assert set(done) == {"clip_id", "source_id", "status", "reason", *stage.columns()["text"]}
    assert (done["status"], done["text_model"], len(done["text_revision"])) == ("done", "PP-OCRv6_det_small", 16)
    assert (failed["status"], failed["reason"] is None) == ("failed", False)


def test_what_is_wrong_is_said_in_one_line(tmp_path, monkeypatch):
    broken, other = tmp_path / "broken.onnx", tmp_path / "other.onnx"
    broken.write_bytes(b"not a network")
    other.write_bytes(classifier())
    assert said(weights=str(tmp_path / "none.onnx")).endswith("none.onnx: no such file")
    assert "can't be loaded by onnxruntime" in said(weights=str(broken))
    assert "are no PP-OCR text detector" in said(weights=str(other))
    assert "runs on CPUs only" in said(device="cuda")
    with pytest.raises(ValueError, match="shares of the clip"):
        TextAreaSettings(positions=(0.5, 1.5))
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    assert said().endswith("needs the package rapidocr: pip install 'clipmill[ocr]'")


def said(**given) -> str:
    with pytest.raises(SettingsError) as caught:
        TextArea(TextAreaSettings(**given)).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def classifier() -> bytes:
    """An ONNX network that takes a vector, so no detector."""
    from onnx import TensorProto, helper

    vector = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", vector[:1], vector[1:])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
