"""What the name of a model means: `clipmill:NAME` is a folder that ships, from any working folder."""

import os

import pytest

from stages.base import SettingsError
from stages.pretrained.lookup import local_folder, located, named_path
from stages.pretrained.open_clip_lookup import find_model
from stages.text_encoders.describe import describe_text
from stages.text_encoders.settings import TextEncoderSettings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_text"])
def test_a_model_that_ships_is_a_folder_with_weights_from_anywhere(name):
    folder = local_folder(f"clipmill:{name}")
    assert folder is not None and folder.is_absolute() and list(folder.glob("*.safetensors"))


def test_recipes_keep_its_name_and_not_the_path_of_this_machine():
    assert located("clipmill:tiny_text") == "clipmill:tiny_text"


def test_it_is_the_same_model_by_name_and_by_path():
    by_name, by_path = (
        TextEncoderSettings(model=model) for model in ("clipmill:tiny_text", str(named_path("clipmill:tiny_text")))
    )
    assert describe_text(by_name) == describe_text(by_path)
    assert find_model("clipmill:tiny_clip") == find_model(str(named_path("clipmill:tiny_clip")))


@pytest.mark.parametrize("name", ["tiny_klip", "", "../pretrained", "tiny_clip/", "."])
@pytest.mark.parametrize("find", [local_folder, located, named_path, find_model])
def test_a_name_that_does_not_ship_is_refused_with_those_that_do(find, name):
    os.mkdir("tiny_klip")  # no folder of the user stands in for it
    with pytest.raises(SettingsError, match="these do: clipmill:tiny_clip, clipmill:tiny_text") as caught:
        find(f"clipmill:{name}")
    assert f"'clipmill:{name}'" in str(caught.value)
