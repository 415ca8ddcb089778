"""Captions become the hidden states that their model gives, trimmed, whatever they are encoded beside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from curate.demo.tiny_clip import FOLDER as TINY
from stages.base import SettingsError
from stages.text_encoders.describe import describe_text
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.load import load_text_encoder
from stages.text_encoders.settings import TextEncoderSettings
from tests.clip_model import by_hand, clip_folder
from tests.stages.model_hub import Hub
from tests.stages.text_models import MODELS, made, saved, tokenizer
from tests.torch_state import one_thread

__all__ = ["one_thread"]

OPEN_CLIP = {"open clip": None, "tiny clip": TINY}  # with open_clip's own tokenizer, and with one of transformers
EVERY = [*MODELS, *OPEN_CLIP]
INSIDE = {"clip": "text_model", "t5 with decoder": "encoder", "bert with head": "bert", "llama": "model"}
SENTENCES = {
    "tiny clip": ["a red circle", "", "a blue square on a green ground", "red " * 50, "a circle moves left"],
    "open clip": ["a red circle", "", "wow ! a blue square !", "red " * 50, "!"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("text")
    found = {name: saved(name, root / name.replace(" ", "-")) for name in MODELS}
    return found | {"open clip": clip_folder(), "tiny clip": TINY}


@pytest.fixture(scope="module")
def encoders(folders) -> dict[str, TextEncoder]:
    return {name: load_text_encoder(TextEncoderSettings(model=str(folder))) for name, folder in folders.items()}


def sentences(name: str) -> list[str]:
    return SENTENCES.get(name, ["w1 w2 w3", "", "w4", "w5 w6 w7 w8 w9 w10 w11", "w12 " * 30, "w13 w2", "w14 never"])


def in_float32(encoder: TextEncoder, monkeypatch) -> None:
    """What is stored is rounded to float16, which would hide differences of its last place."""
    monkeypatch.setattr(encoder, "_kept", lambda state, text: state.float().numpy())


@pytest.mark.parametrize("name", MODELS)
def test_a_text_gives_what_transformers_gives_for_it_alone(name, encoders, monkeypatch):
    encoder, network, tokens = encoders[name], made(name), tokenizer()
    if name in INSIDE:
        network = getattr(network, INSIDE[name])
    in_float32(encoder, monkeypatch)
    for text, found in zip(sentences(name), encoder.encode(sentences(name)), strict=True):
        ids = tokens(text, truncation=True, max_length=encoder.max_tokens, return_tensors="pt")
        with torch.inference_mode():
            wanted = network(input_ids=ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state[0]
        assert found.shape == wanted.shape == (ids.input_ids.shape[1], encoder.info["dim"])
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_an_open_clip_tower_gives_what_its_pooled_embedding_is_made_of(encoders, monkeypatch):
    """Its state at the end of the text, projected, is the embedding that open_clip gives."""
    encoder = encoders["open clip"]
    network, _, tokens = by_hand(clip_folder())
    in_float32(encoder, monkeypatch)
    with torch.inference_mode():
        for text, found in zip(sentences("open clip"), encoder.encode(sentences("open clip")), strict=True):
            wanted = network.encode_text(tokens([text]))[0]
            np.testing.assert_allclose(found[-1] @ network.text_projection.numpy(), wanted, atol=1e-4)
            assert len(found) == min(16, len(tokens.encode(text)) + 2)


@pytest.mark.parametrize("name", EVERY)
def test_a_text_is_the_same_in_any_company(name, encoders, monkeypatch):
    encoder = encoders[name]
    in_float32(encoder, monkeypatch)
    texts = sentences(name)
    alone = [encoder.encode([text])[0] for text in texts]
    monkeypatch.setattr("stages.text_encoders.encoder.BATCH_TOKENS", 40)
    for order in (texts, texts[::-1]):
        for text, found in zip(order, encoder.encode(order), strict=True):
            np.testing.assert_allclose(found, alone[texts.index(text)], atol=1e-4)
    assert len({each.tobytes() for each in alone}) == len(texts)
    assert encoder.encode([]) == []


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 59), max_size=30).map(lambda ids: " ".join(f"w{i}" for i in ids)), max_size=9))
def test_each_text_has_its_own_length_and_longer_ones_are_told(encoders, texts):
    encoder = encoders["bert"]
    found = encoder.encode(texts)
    for text, states in zip(texts, found, strict=True):
        words = len(text.split())
        assert states.dtype == np.float16
        assert states.shape == (min(words + 1, 20), 16)
        assert encoder.truncated(text) == (words + 1 > 20)


@pytest.mark.parametrize("name", EVERY)
def test_the_empty_prompt_is_that_of_the_model(name, encoders):
    empty = encoders[name].empty()
    assert empty.dtype == np.float16
    assert len(empty) in (1, 2)
    np.testing.assert_array_equal(empty, encoders[name].encode([""])[0])


def test_a_model_whose_tokenizer_adds_nothing_has_an_empty_prompt_still(tmp_path):
    encoder = load_text_encoder(TextEncoderSettings(model=str(saved("llama", tmp_path, end=False))))
    assert encoder.empty().shape == (1, 16)
    assert [len(each) for each in encoder.encode(["w1 w2", ""])] == [2, 1]


@pytest.mark.parametrize("name", ["umt5", "clip text", "open clip", "tiny clip"])
def test_captions_are_cut_to_the_length_that_is_asked_for(name, folders):
    for limit in (3, 5, 1000):
        wanted = TextEncoderSettings(model=str(folders[name]), max_tokens=limit)
        encoder = load_text_encoder(wanted)
        most = {"umt5": 1000, "clip text": 20, "open clip": 16, "tiny clip": 32}[name]
        assert describe_text(wanted)["max_tokens"] == encoder.max_tokens == min(limit, most)
        long = {"open clip": "red " * 99, "tiny clip": "red " * 99}.get(name, "w1 " * 1200)
        assert len(encoder.encode([long])[0]) == min(limit, most)
        assert encoder.truncated(long)
        assert not encoder.truncated("w1" if name in MODELS else "a")


def test_numbers_that_float16_cannot_hold_are_refused_and_not_cut(encoders):
    encoder = encoders["t5"]
    for value in (1e6, float("nan"), -float("inf")):
        with pytest.raises(ValueError, match="that float16 can't hold for 'a caption'"):
            encoder._kept(torch.full((2, 3), value), "a caption")


@pytest.mark.parametrize("name", ["umt5", "bert", "tiny clip", "open clip"])
def test_in_bf16_it_is_nearly_the_same(name, folders, encoders):
    reduced = load_text_encoder(TextEncoderSettings(model=str(folders[name]), dtype="bfloat16"))
    for found, wanted in zip(reduced.encode(sentences(name)), encoders[name].encode(sentences(name)), strict=True):
        assert np.abs(found - wanted).mean() < 0.1 * np.abs(wanted).mean()
        assert (found != wanted).any()


def test_an_encoder_is_described_without_torch(folders, encoders):
    code = "import json, sys\nfrom stages.text_encoders.describe import describe_text\n"
    code += "from stages.text_encoders.settings import TextEncoderSettings\n"
    code += f"found = [describe_text(TextEncoderSettings(model=m)) for m in {[str(folders[n]) for n in EVERY]!r}]\n"
    code += (
        "heavy = sorted({'torch', 'transformers', 'open_clip'} & set(sys.modules))\nprint(json.dumps([found, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, heavy = json.loads(done.stdout)
    assert heavy == []
    assert found == [encoders[name].info for name in EVERY]
    assert len({each["fingerprint"] for each in found}) == len(EVERY)
    for name, each in zip(EVERY, found, strict=True):
        assert each["dim"] == encoders[name].empty().shape[1]
        assert each["encoder"] == folders[name].name


def test_the_fingerprint_is_of_weights_config_and_tokenizer(folders, tmp_path):
    def now() -> str:
        return describe_text(TextEncoderSettings(model=str(tmp_path)))["fingerprint"]

    saved("umt5", tmp_path)
    wanted = describe_text(TextEncoderSettings(model=str(folders["umt5"])))["fingerprint"]
    assert now() == wanted
    found = {wanted}
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"transformers_version": "0", "dtype": "bfloat16"}))
    assert now() == wanted
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-5}))
    found.add(now())
    words = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(words.replace('"w59"', '"w60"'))
    found.add(now())
    weights = load_file(tmp_path / "model.safetensors")
    weights["encoder.final_layer_norm.weight"].view(torch.int32)[0] ^= 1
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    found.add(now())
    assert len(found) == 4
    tokens = [describe_text(TextEncoderSettings(model=str(tmp_path), max_tokens=n)) for n in (7, 9)]
    assert [each["max_tokens"] for each in tokens] == [7, 9]
    assert tokens[0]["fingerprint"] == tokens[1]["fingerprint"]


def test_the_encoder_of_a_whole_pipeline_is_found_with_the_tokenizer_beside_it(folders, tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    made("umt5").save_pretrained(tmp_path / "text_encoder")
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    made("clip text").save_pretrained(tmp_path / "text_encoder_2")
    tokenizer().save_pretrained(tmp_path / "tokenizer_2")
    for subfolder, name in ((None, "umt5"), ("text_encoder_2", "clip text")):
        encoder = load_text_encoder(TextEncoderSettings(model=str(tmp_path), subfolder=subfolder))
        alone = load_text_encoder(TextEncoderSettings(model=str(folders[name])))
        np.testing.assert_array_equal(encoder.encode(["w1 w2"])[0], alone.encode(["w1 w2"])[0])
        assert encoder.info["fingerprint"] == alone.info["fingerprint"]


def test_of_a_pipeline_on_the_hub_the_encoder_is_fetched_with_its_tokenizer(folders, tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub", tmp_path / "cache", monkeypatch)
    (hub.folder / "transformer").mkdir(parents=True)
    (hub.folder / "transformer" / "model.safetensors").write_text("large")
    (hub.folder / "model_index.json").write_text("{}")
    made("umt5").save_pretrained(hub.folder / "text_encoder")
    tokenizer().save_pretrained(hub.folder / "tokenizer")
    encoder = load_text_encoder(TextEncoderSettings(model="someone/a-pipeline"))
    alone = load_text_encoder(TextEncoderSettings(model=str(folders["umt5"])))
    np.testing.assert_array_equal(encoder.encode(["w1 w2"])[0], alone.encode(["w1 w2"])[0])
    assert encoder.info == {**alone.info, "encoder": "someone/a-pipeline"}
    assert "transformer/model.safetensors" not in hub.asked
    hub.asked.clear()
    assert describe_text(TextEncoderSettings(model="someone/a-pipeline")) == encoder.info
    assert hub.asked == []


def test_weights_pickled_by_torch_are_taken_where_there_are_no_others(folders, tmp_path):
    saved("bert", tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    encoder = load_text_encoder(TextEncoderSettings(model=str(tmp_path)))
    alone = load_text_encoder(TextEncoderSettings(model=str(folders["bert"])))
    np.testing.assert_array_equal(encoder.encode(["w1 w2"])[0], alone.encode(["w1 w2"])[0])
    before = encoder.info["fingerprint"]
    weights = made("bert").state_dict()
    weights["encoder.layer.0.output.dense.bias"][0] += 1
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert describe_text(TextEncoderSettings(model=str(tmp_path)))["fingerprint"] != before


def refusal(load: bool = False, **values) -> str:
    with pytest.raises(SettingsError) as error:
        (load_text_encoder if load else describe_text)(TextEncoderSettings(**values))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    return str(error.value)


def test_what_is_no_text_encoder_is_refused_in_one_line(folders, tmp_path, monkeypatch):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert "no such folder" in refusal(model=str(tmp_path / "none"))
    assert "holds no config.json: it is no text encoder" in refusal(model=str(tmp_path))
    assert "the hub can't be asked" in refusal(model="someone/an-encoder")
    assert "leave `revision` out" in refusal(model=str(TINY), revision="main")
    assert "no checkpoint at" in refusal(model="ViT-B-32", pretrained="/none/at/all.bin")
    checkpoint = str(folders["bert"] / "model.safetensors")
    assert "reads text through roberta-base" in refusal(model="roberta-ViT-B-32", pretrained=checkpoint)
    assert "(CoCa)" in refusal(model="coca_ViT-B-32", pretrained=checkpoint)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    weights = (folders["bert"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert "has no tokenizer" in refusal(model=str(tmp_path))
    tokenizer().save_pretrained(tmp_path)
    assert "is no text encoder: its config says no model_type" in refusal(model=str(tmp_path))
    (tmp_path / "config.json").write_bytes((folders["bert"] / "config.json").read_bytes())
    for damaged in (b"", weights[:-5]):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        assert "is no whole safetensors file" in refusal(model=str(tmp_path))
    found = load_file(folders["bert"] / "model.safetensors")
    found.pop("embeddings.LayerNorm.bias")
    save_file(found, tmp_path / "model.safetensors", {"format": "pt"})
    assert "lacks 1 of its weights, embeddings.LayerNorm.bias" in refusal(load=True, model=str(tmp_path))


@pytest.mark.parametrize(
    "values",
    [dict(), dict(model="m", captions=()), dict(model="m", captions=("a", "a")), dict(model="m", captions=("A b",)),
     dict(model="m", max_tokens=0), dict(model="m", other=1)],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(ValidationError):
        TextEncoderSettings(**values)


def test_a_clip_text_encoder_with_the_names_it_was_published_with_is_loaded_whole(folders, tmp_path):
    saved("clip text", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("text_model."): weight for name, weight in weights.items()}
    published = {f"text_model.{name}": weight for name, weight in bare.items()}
    published["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    save_file(published, tmp_path / "model.safetensors", {"format": "pt"})
    found = load_text_encoder(TextEncoderSettings(model=str(tmp_path))).encode(["w1 w2"])[0]
    alone = load_text_encoder(TextEncoderSettings(model=str(folders["clip text"])))
    np.testing.assert_array_equal(found, alone.encode(["w1 w2"])[0])
