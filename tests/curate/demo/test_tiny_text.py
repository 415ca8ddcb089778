"""The demo's text encoder says which words stand where, and that is all it has to."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from curate.demo import tiny_text
from curate.demo.shapes import subjects
from curate.demo.tiny_text.make import make
from stages.text_encoders.describe import describe_text
from stages.text_encoders.load import load_text_encoder
from stages.text_encoders.settings import TextEncoderSettings


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder(TextEncoderSettings(model=str(tiny_text.FOLDER)), device="cpu")


def test_every_word_of_a_caption_tells_on_its_own_token_and_hardly_on_others(encoder):
    captions = [subject.caption for subject in subjects()]
    states = dict(zip(captions, encoder.encode(captions), strict=True))
    for one in captions[::7]:
        for other in captions:
            apart = np.linalg.norm(states[one].astype(float) - states[other], axis=1)[1:-1]  # without start and end
            differ = [a != b for a, b in zip(one.split(), other.split(), strict=True)]
            assert all((distance > 5) == differs for distance, differs in zip(apart, differ, strict=True))


def test_the_script_makes_the_files_that_are_here(tmp_path):
    make(tmp_path)
    ours, made = (load_file(folder / "model.safetensors") for folder in (tiny_text.FOLDER, tmp_path))
    assert ours.keys() == made.keys()
    assert all(np.array_equal(ours[name], made[name]) for name in ours)
    told = [describe_text(TextEncoderSettings(model=str(folder))) for folder in (tiny_text.FOLDER, tmp_path)]
    assert told[0]["fingerprint"] == told[1]["fingerprint"]
    assert sum(file.stat().st_size for file in tiny_text.FOLDER.iterdir() if file.is_file()) < 200_000
