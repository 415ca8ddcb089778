"""Settings of stages: one base class that refuses what it does not know, imported without the stages themselves."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import stages
from stages.settings import Settings

ROOT = Path(stages.__file__).parent
MODULES = ["stages.settings", *(f"stages.{path.parent.name}.settings" for path in sorted(ROOT.glob("*/settings.py")))]
HEAVY = (
    "av",
    "cv2",
    "diffusers",
    "onnxruntime",
    "open_clip",
    "rapidocr",
    "ray",
    "scenedetect",
    "torch",
    "transformers",
)


def models() -> list[type[BaseModel]]:
    """Every settings model, in the module that defines it."""
    found = [
        value for name in MODULES for _, value in inspect.getmembers(importlib.import_module(name), inspect.isclass)
    ]
    return [value for value in dict.fromkeys(found) if issubclass(value, BaseModel) and value.__module__ in MODULES]


def test_settings_are_imported_without_what_their_stages_need():
    code = f"import sys, {', '.join(MODULES)}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_settings_model_refuses_unknown_keys_and_is_frozen():
    assert len(models()) > 15
    for model in models():
        assert issubclass(model, Settings), model
        assert model.model_config["extra"] == "forbid" and model.model_config["frozen"], model
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            model.model_validate({"no_such_setting": 1})


def test_no_two_settings_models_share_a_name():
    names = [model.__name__ for model in models()]
    assert sorted(set(names)) == sorted(names)
