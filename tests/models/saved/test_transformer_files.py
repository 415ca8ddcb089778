"""Settings and networks are read from disk as they were saved, and every change to the files is noticed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from models.saved.transformer_files import CONFIG, WEIGHTS, load, save
from models.saved.vae_files import fingerprint
from models.settings.transformers import SIZES, DiTSettings, TokenSettings, sized, sized_tokens
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer

SMALL = dict(width=24, depth=1, heads=2, text_dim=4, conditions=("fps",))


def made(kind: str) -> DiT | TokenTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DiT(DiTSettings(**SMALL)) if kind == "dit" else TokenTransformer(TokenSettings(**SMALL, codes=5))


@pytest.mark.parametrize("kind", ["dit", "tokens"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_network_comes_back_as_it_was(kind, dtype, tmp_path):
    network = made(kind).to(dtype)
    network.set_condition_scales({"fps": (1000.5, 0.25)})
    extra = {"contract": {"vae": "a", "mean": [0.5]}, "dataset": None}
    save(network, tmp_path / "one" / "net", extra)
    (tmp_path / "one" / "net" / "empty.safetensors").write_bytes(b"another file")
    state = torch.get_rng_state()
    back, found = load(tmp_path / "one" / "net")
    assert torch.equal(torch.get_rng_state(), state)
    assert found == extra
    assert (type(back), back.settings, back.training) == (type(network), network.settings, False)
    one, two = network.state_dict(), back.state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)
    assert fingerprint(back) == fingerprint(network)
    save(network, tmp_path / "one" / "net")  # over it
    assert load(tmp_path / "one" / "net")[1] == {}
    assert sorted(path.name for path in (tmp_path / "one" / "net").iterdir()) == [CONFIG, "empty.safetensors", WEIGHTS]


def changed(**changes):
    def change(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))

    return change


def one_weight_less(folder):
    state = load_file(folder / WEIGHTS)
    state.pop("head.out.weight")
    save_file(state, folder / WEIGHTS)


def one_bit(folder):
    state = {name: each.clone() for name, each in load_file(folder / WEIGHTS).items()}
    state["time.layers.0.weight"].view(torch.int32)[0, 0] ^= 1
    save_file(state, folder / WEIGHTS)


BROKEN = {
    "no config": (lambda folder: (folder / CONFIG).unlink(), "is no network of clipmill"),
    "no JSON": (lambda folder: (folder / CONFIG).write_text("{"), "can't be read"),
    "a list": (lambda folder: (folder / CONFIG).write_text("[]"), "does not say 'clipmill DiT' or"),
    "another kind": (changed(kind="clipmill causal VAE"), "does not say 'clipmill DiT' or"),
    "kind of no word": (changed(kind=["clipmill DiT"]), "does not say 'clipmill DiT' or"),
    "unknown setting": (changed(settings={**SMALL, "depht": 3}), "unknown setting depht"),
    "missing setting": (changed(settings={"width": 24}), "setting depth, heads is missing"),
    "impossible setting": (changed(settings={**SMALL, "heads": 5}), "5 heads"),
    "another width": (changed(settings={**SMALL, "width": 48}), "is not what config.json describes"),
    "other settings": (changed(settings={**SMALL, "rotary_base": 9.0}), "was changed"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "is not what config.json describes"),
    "half the weights": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000]),
        "is not what config.json describes",
    ),
    "one weight less": (one_weight_less, "is not what config.json describes"),
    "one bit": (one_bit, "was changed"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_folder_that_is_not_what_was_saved_is_refused_in_one_line(how, tmp_path):
    folder = tmp_path / "net"
    save(made("dit"), folder)
    broken, words = BROKEN[how]
    broken(folder)
    with pytest.raises(ValueError) as refused:
        load(folder)
    assert words in str(refused.value)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    save(made("dit"), tmp_path, {"a": 1})
    with pytest.raises(TypeError):
        save(made("dit"), tmp_path, {"a": object()})
    assert load(tmp_path)[1] == {"a": 1}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    size=st.sampled_from(sorted(SIZES)),
    names=st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=3),
    attention=st.sampled_from(["full", "factorised"]),
)
def test_settings_come_back_from_json(size, names, attention):
    for one in (sized(size, conditions=names, attention=attention), sized_tokens(size, 9, conditions=names)):
        assert type(one).from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 25}, "width 25 and 4 heads"),
        ({"heads": 0}, "heads 0"),
        ({"depth": True}, "depth True"),
        ({"patch": [2, 2]}, r"patch \[2, 2\]: 3 values are expected, such as \[1, 2, 2\]"),
        ({"patch": [1, 2, 0]}, "patch 0"),
        ({"attention": "half"}, "attention 'half': there are full, factorised"),
        ({"mask_ratio": 1.0}, "mask_ratio 1.0"),
        ({"mask_ratio": 0.5, "attention": "factorised"}, "mask_ratio needs attention full"),
        ({"conditions": ["fps", "fps"]}, "names, each once"),
        ({"conditions": "fps"}, "conditions 'fps': a list is expected"),
        ({"mlp": 0}, "mlp 0"),
        ({"rotary_base": 1.0}, "rotary_base 1.0"),
        ({"text_dim": -1}, "text_dim -1"),
    ],
)
def test_settings_that_cannot_be_built_are_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        sized("debug", **changes)


def test_there_are_no_other_sizes():
    with pytest.raises(ValueError, match="unknown size 'XXL': debug, S, B, L, XL, XL128"):
        sized("XXL")


def test_settings_need_no_torch():
    code = "import sys, models.settings.transformers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
