"""Named image classifiers: a small network saved here, loaded as any other, scores as transformers' own code does."""

from __future__ import annotations

import json
import pickle
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.base import SettingsError
from stages.scores.classify import Classify
from stages.scores.settings import ClassifySettings
from stages.unit import Clip, Unit
from tests.stages.units import clip_of, rows_of

torch = pytest.importorskip("torch")
LABELS = ("clean", "watermark", "channel logo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random vision transformer with three labels, as `save_pretrained` leaves it."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    path = tmp_path_factory.mktemp("models") / "marks"
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            initializer_range=0.4,  # far enough from zero that pictures get scores of their own
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
        )
        ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def stage(folder):
    made = Classify(chosen(folder))
    made.setup()
    yield made
    made.close()


@pytest.fixture
def changed(folder, tmp_path):
    """The folder again, its config.json changed by what is given."""

    def change(**values):
        copy = tmp_path / f"changed{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder, copy)
        config = json.loads((copy / "config.json").read_text()) | values
        (copy / "config.json").write_text(json.dumps(config))
        return copy

    return change


def chosen(folder, label="watermark", **given) -> ClassifySettings:
    return ClassifySettings(**{"model": str(folder), "label": label, "as": "watermark", **given})


def clips(counts, seed=0) -> list[Clip]:
    """One clip for each count of frames, sizes and pixels of their own."""
    rng = np.random.default_rng(seed)
    made = []
    for index, count in enumerate(counts):
        height, width = rng.integers(20, 90, 2)
        colour = rng.integers(0, 256, (count, 1, 1, 3))
        frames = np.clip(colour + rng.normal(0, 40, (count, height, width, 3)), 0, 255).astype(np.uint8)
        made.append(clip_of(str(index), frames))
    return made


def by_hand(folder, clip, labels=("watermark",)) -> list[float]:
    """Probabilities of the frames, one by one, by transformers alone."""
    from PIL import Image
    from transformers import pipeline

    pipe = pipeline("image-classification", model=str(folder), top_k=None, device="cpu")
    found = []
    for _, picture in clip.frames:
        scores = {one["label"]: one["score"] for one in pipe(Image.fromarray(picture[..., ::-1]))}
        found.append(sum(scores[label] for label in labels))
    return found


def test_scores_are_those_of_transformers_called_by_hand(folder, stage):
    made = clips([3, 1, 2])
    spread = []
    for clip, answer in zip(made, stage.score(made), strict=True):
        expected = by_hand(folder, clip)
        spread += expected
        assert answer["score"] == pytest.approx(max(expected), abs=1e-5)
        assert answer["mean"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert max(spread) - min(spread) > 0.05  # a score that says the same of every picture would prove nothing


@settings(max_examples=15, deadline=None, derandomize=True)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=7), seed=st.integers(0, 99), data=st.data())
def test_scores_do_not_depend_on_which_clips_come_together_nor_in_which_order(stage, counts, seed, data):
    made = clips(counts, seed)
    order = data.draw(st.permutations(range(len(made))))
    alone = [stage.score([made[place]])[0] for place in order]
    for one, other in zip(alone, stage.score([made[place] for place in order]), strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert one["mean"] == pytest.approx(other["mean"], abs=1e-5)


def test_a_folder_is_found_from_wherever_a_worker_stands(folder, stage, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    near = Classify(chosen("marks"))
    monkeypatch.chdir(tmp_path)
    near = pickle.loads(pickle.dumps(near))
    near.setup()
    (clip,) = clips([1])
    assert near.score([clip]) == stage.score([clip])
    assert near.versions() == stage.versions()


def test_of_several_labels_the_probabilities_are_added(folder):
    stage = Classify(chosen(folder, ["watermark", "channel logo"]))
    stage.setup()
    (clip,) = clips([2], seed=3)
    assert stage.score([clip])[0]["score"] == pytest.approx(max(by_hand(folder, clip, LABELS[1:])), abs=1e-5)


def test_labels_that_do_not_exclude_one_another_have_probabilities_of_their_own(changed):
    folder = changed(problem_type="multi_label_classification")
    stage = Classify(chosen(folder, ["watermark"]))
    stage.setup()
    (clip,) = clips([2], seed=4)
    assert stage.score([clip])[0]["score"] == pytest.approx(max(by_hand(folder, clip)), abs=1e-5)


def test_columns_carry_the_name_given_and_rows_the_model_and_its_revision(stage):
    columns = stage.columns()
    assert set(columns) == {"watermark"}
    assert set(columns["watermark"]) == {"watermark", "watermark_mean", "watermark_model", "watermark_revision"}
    fresh = pickle.loads(pickle.dumps(Classify(stage.settings)))
    fresh.setup()
    (clip,) = clips([3])
    asked = clip_of("0", [picture for _, picture in clip.frames], fresh.wants())
    row = rows_of(fresh(Unit("u", [asked])), "watermark")["0"]
    assert set(row) == {"clip_id", "source_id", "status", "reason", *columns["watermark"]}
    assert (row["status"], row["watermark_model"], len(row["watermark_revision"])) == ("done", "marks", 16)
    assert row["watermark"] == stage.score([clip])[0]["score"]


def test_one_changed_weight_is_another_revision_and_another_version(folder, stage, tmp_path):
    from transformers import ViTForImageClassification

    other = tmp_path / "marks"
    shutil.copytree(folder, other)
    same = Classify(chosen(other))
    assert same.versions() == stage.versions()  # wherever it lies
    model = ViTForImageClassification.from_pretrained(other)
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    model.save_pretrained(other)
    assert same.versions() != stage.versions()
    same.setup()
    (clip,) = clips([1])
    assert same.score([clip])[0]["revision"] != stage.score([clip])[0]["revision"]


def test_a_score_that_is_no_number_fails_its_clip_alone(stage, monkeypatch):
    given = iter([0.5, float("nan"), 0.25])
    monkeypatch.setattr(stage, "_probabilities", lambda pictures: [next(given) for _ in pictures])
    first, second = stage.score(clips([2, 1]))
    assert "no number" in str(first)
    assert second["score"] == 0.25


def said(settings_) -> str:
    with pytest.raises(SettingsError) as caught:
        Classify(settings_).check()  # a path that is none is refused before that
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_wrong_with_a_model_is_said_in_one_line(folder, changed, tmp_path):
    assert "has no label 'watermarks' (did you mean 'watermark'?): it knows 'clean'" in said(
        chosen(folder, "watermarks")
    )
    thousand = changed(id2label={str(n): f"kind {n}" for n in range(1000)})
    assert "it knows 1000, 'kind 0', " in said(chosen(thousand, "car"))
    assert said(chosen(tmp_path / "none")).endswith("none': no such folder")
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in said(chosen(tmp_path / "empty"))
    assert "is a file: name the folder" in said(chosen(folder / "config.json"))
    assert "is no image classifier: its config names CLIPModel" in said(chosen(changed(architectures=["CLIPModel"])))
    (tmp_path / "empty" / "config.json").write_text("{")
    assert "its config.json can't be read" in said(chosen(tmp_path / "empty"))


def test_a_model_without_all_its_weights_is_refused_and_not_filled_with_random_ones(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    headless = tmp_path / "headless"
    shutil.copytree(folder, headless)
    weights = load_file(headless / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "classifier" not in k}, headless / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SettingsError, match=r"lacks 2 of its weights, classifier\.bias among them"):
        Classify(chosen(headless)).setup()
    (headless / "model.safetensors").unlink()
    with pytest.raises(SettingsError, match="can't be loaded") as caught:
        Classify(chosen(headless)).setup()
    assert "\n" not in str(caught.value)


def test_a_hub_that_cant_be_reached_is_said_with_the_way_around_it(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    message = said(chosen("nobody/no-such-model-anywhere"))
    assert "no folder here and the hub can't be asked for it" in message
    assert "give the path of a folder that holds it" in message


def test_settings_need_a_name_for_the_score(folder):
    with pytest.raises(ValidationError, match="needs `as: NAME`"):
        ClassifySettings(model=str(folder), label="watermark")
    with pytest.raises(ValidationError, match="names no label"):
        chosen(folder, [])


@pytest.mark.parametrize("package", ["torch", "torchvision", "transformers"])
def test_a_missing_package_names_the_extra(folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert said(chosen(folder)) == f"needs the package {package}: pip install 'clipmill[classify]'"
