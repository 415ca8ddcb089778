"""The tiny model that ships is one that its script makes, loads without a network, and knows the demo's words."""

import json
import socket

import numpy as np
import pytest
import torch

from curate.demo import tiny_clip
from curate.demo.tiny_clip import train
from curate.demo.tiny_clip.examples import ANY_TITLE, describe, draw_examples, matches, random_scene, shown_by

FILES = ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def loaded():
    """(network, preprocessing, tokenizer) through OpenCLIP's own functions, with every connection refused."""

    import open_clip

    def refuse(*_):
        raise AssertionError("the tiny model asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        network, _, preprocess = open_clip.create_model_and_transforms(tiny_clip.MODEL)
        return network.eval(), preprocess, open_clip.get_tokenizer(tiny_clip.MODEL)


def test_scenes_that_it_never_saw_are_found_by_words(loaded):
    network, preprocess, tokenizer = loaded
    scenes = draw_examples(np.random.default_rng(77), 60, train.MOMENTS, train.fit_like(preprocess), train.SIDE)
    found = train.figures(network, tokenizer, scenes, np.random.default_rng(78))
    assert found["texts"] == 240
    assert found["recall"] >= 0.9 and found["first"] >= 0.9


def test_it_knows_every_word_of_a_caption_and_takes_unknown_ones(loaded):
    tokenizer = loaded[2].tokenizer
    rng = np.random.default_rng(5)
    for caption in (random_scene(rng).caption for _ in range(300)):
        tokens = tokenizer.encode(caption)
        assert tokenizer.unk_token_id not in tokens and len(tokens) <= train.CONTEXT, caption
    assert tokenizer.encode("an Éléphant!").count(tokenizer.unk_token_id) == 1


def test_the_files_are_what_the_script_writes_and_small(loaded, tmp_path):
    words = train.write_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tiny_clip.FOLDER / name).read_bytes()
    config = json.loads((tiny_clip.FOLDER / "open_clip_config.json").read_text())
    assert config == json.loads(json.dumps(train.config(words)))
    assert sum((tiny_clip.FOLDER / name).stat().st_size for name in FILES) < 1 << 20


def test_a_text_is_true_of_the_picture_it_was_made_for_and_of_those_that_show_as_much():
    rng = np.random.default_rng(3)
    shown = np.array([shown_by(random_scene(rng)) for _ in range(80)])
    mentioned = np.array([describe(row, rng)[1] for row in shown])
    true = matches(shown, mentioned)
    assert true.diagonal().all() and (mentioned >= 0).any(1).all()
    for text, said in enumerate(mentioned):
        for picture, seen in enumerate(shown):
            fits = all(
                word < 0 or word == there or (word == ANY_TITLE and kind == 3 and there >= 0)
                for kind, (word, there) in enumerate(zip(said, seen, strict=True))
            )
            assert true[text, picture] == fits


def test_the_same_seed_trains_the_same_weights(tmp_path, capsys):
    small = ["--scenes", "10", "--steps", "6", "--batch", "24", "--held-out", "6"]
    made, threads = [], torch.get_num_threads()
    for name in ("one", "two"):
        train.main(["-o", str(tmp_path / name), *small])
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(FILES)
        made.append((tmp_path / name / "open_clip_model.safetensors").read_bytes())
    torch.set_num_threads(threads)
    assert made[0] == made[1]
    assert "24 texts over 6 scenes it never saw" in capsys.readouterr().out
