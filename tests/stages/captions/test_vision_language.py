"""Captions by real models of transformers, tiny and random: loaded and asked through the code that users run."""

import importlib.util
import json
import shutil

import pytest

from stages.base import Context, SettingsError
from stages.captions.settings import CaptionSettings
from stages.captions.stage import Caption
from tests.stages.captions.made import rows_of, run, unit_of
from tests.stages.captions.tiny_models import save_blip, save_llava

FRAMES = {"positions": [0.1, 0.5, 0.9], "long_side": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of a LLaVA and a BLIP."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    at = tmp_path_factory.mktemp("models")
    yield {"llava": save_llava(at / "llava"), "blip": save_blip(at / "blip")}
    torch.set_num_threads(threads)


def stage_of(name, **settings):
    model = {"source": "model", "model": str(name), "frames": FRAMES, "max_tokens": 8, "device": "cpu"}
    return Caption(CaptionSettings.model_validate(model | {"prompts": "describe the dog"} | settings))


def captions(stage, numbers):
    rows = rows_of(run(stage, [unit_of(numbers, stage)]))
    assert {row["status"] for row in rows.values()} == {"done"}, rows
    return {number: row["caption"] for number, row in rows.items()}


def test_a_model_says_what_it_says_when_called_by_hand(folder):
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    stage = stage_of(folder["llava"])
    unit = unit_of([1], stage)
    said = captions(stage, [1])[1]
    processor = AutoProcessor.from_pretrained(folder["llava"])
    model = AutoModelForImageTextToText.from_pretrained(folder["llava"], dtype=torch.float32).eval()
    pictures = [Image.fromarray(p[:, :, ::-1].copy()) for _, p in unit.clips[0].pixels[stage.wants()]]
    inputs = processor(
        images=pictures, text="USER: <image> <image> <image> describe the dog ASSISTANT:", return_tensors="pt"
    )
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert said == processor.decode(out, skip_special_tokens=True).strip() != ""


def test_a_seed_gives_the_same_captions_whatever_comes_together(folder):
    alike = captions(stage_of(folder["llava"], temperature=1.0, seed=5), [1, 2, 3, 4])
    assert captions(stage_of(folder["llava"], temperature=1.0, seed=5, batch_clips=1), [4, 2]) == {
        2: alike[2],
        4: alike[4],
    }
    assert captions(stage_of(folder["llava"], temperature=1.0, seed=6), [1, 2, 3, 4]) != alike
    assert len(set(alike.values())) > 1  # other frames, other captions


def test_the_row_names_model_and_weights_and_says_when_it_was_cut_off(folder):
    stage = stage_of(folder["llava"])
    row = rows_of(run(stage, [unit_of([1], stage)]))[1]
    assert row["captions_model"] == "llava"
    assert len(row["captions_revision"]) == 16
    assert row["captions_revision"] in stage.versions()["caption"]
    assert row["caption_truncated"] is True  # a random model never ends a sentence
    assert row["caption_source"] == "model"


def test_a_model_without_a_chat_template_goes_on_from_the_prompt(folder):
    begun = captions(stage_of(folder["blip"], prompts="a red circle"), [1])[1]
    plain = captions(stage_of(folder["blip"], prompts=""), [1])[1]
    assert begun and plain and begun != plain
    assert not begun.startswith("a red circle")


def test_answers_of_a_model_are_kept_too(folder, tmp_path):
    stage = stage_of(folder["blip"])
    stage.prepare(Context(str(tmp_path)))
    first = captions(stage, [1])
    assert [file.stem for file in tmp_path.rglob("*.json")] == [f"{1:032x}"]
    file = next(tmp_path.rglob("*.json"))
    answers = json.loads(file.read_text())
    next(iter(answers.values()))["text"] = "what was kept"
    file.write_text(json.dumps(answers))
    again = stage_of(folder["blip"])
    again.prepare(Context(str(tmp_path)))
    assert captions(again, [1]) == {1: "what was kept"} != first


def broken(at, source, **files):
    shutil.copytree(source, at)
    for name, text in files.items():
        (at / name.replace("__", ".")).write_text(text)
    return at


def test_a_path_that_is_no_model_is_one_line_before_any_clip(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "weightless").mkdir()
    shutil.copy(folder["blip"] / "config.json", tmp_path / "weightless")
    for name, why in [
        (tmp_path / "empty", "holds no config.json: it is no transformers model"),
        (tmp_path / "weightless", "has no weights"),
        (tmp_path / "nowhere", "no such folder"),
        ("./nowhere", "no such folder"),
        ("some-org/some-model", "is no folder here and the hub can't be asked for it .* give the path of a folder"),
    ]:
        with pytest.raises(SettingsError, match=why) as caught:
            stage_of(name).check()
        assert "\n" not in str(caught.value)


def test_a_model_that_can_not_be_loaded_is_one_line(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    lacking = broken(tmp_path / "lacking", folder["blip"])
    weights = load_file(lacking / "model.safetensors")
    weights.pop(max(name for name in weights if name.startswith("vision_model")))
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    unknown = broken(tmp_path / "unknown", folder["blip"], config__json='{"model_type": "no-such"}')
    text = broken(tmp_path / "text", folder["blip"], config__json='{"model_type": "bert"}')
    for model, why in [(lacking, "lacks 1 of its weights"), (unknown, "can't be loaded"), (text, "can't be loaded")]:
        stage = stage_of(model)
        stage.check()
        with pytest.raises(SettingsError, match=why) as caught:
            stage.setup()
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"config.json can't be read"):
        stage_of(broken(tmp_path / "json", folder["blip"], config__json="{")).check()


def test_a_missing_package_is_named_with_what_installs_it(folder, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else there(name))
    with pytest.raises(SettingsError, match=r"transformers: pip install 'clipmill\[caption\]'"):
        stage_of(folder["blip"]).check()
