"""A config may be changed from the command line; a resumed run may differ only in what nothing learned depends on."""

from __future__ import annotations

import dataclasses

import pytest

from train.config.changes import FREE, differences, with_settings
from train.config.training import TrainConfig


def test_set_puts_values_over_those_of_the_file():
    values = {"optimizer": {"lr": 1e-4}, "model": {"size": "S"}}
    found = with_settings(values, ["optimizer.lr=0.5", "model.size=B", "compile=null", "conditions.masks.predict=0.1"])
    assert found["optimizer"]["lr"] == 0.5 and found["model"]["size"] == "B" and found["compile"] is None
    assert found["conditions"]["masks"] == {"predict": 0.1} and values["optimizer"]["lr"] == 1e-4


def leaves(values, before=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def changed(config, name):
    """The config with another value of that setting, as a file might have it."""
    value = dict(leaves(config))[name]
    other = (
        "other" if value is None or isinstance(value, (str, dict)) else not value if isinstance(value, bool) else None
    )
    other = other if other is not None else [0.5] if isinstance(value, list) else value + 1
    return with_settings(config, [f"{name}={other if isinstance(other, str) else str(other).lower()}"])


@pytest.mark.parametrize("name", [name for name, _ in leaves(TrainConfig().to_dict())])
def test_a_checkpoint_goes_with_every_setting_that_what_is_learned_depends_on(name):
    config = TrainConfig().to_dict()
    free = name == "steps" or any(name == each or name.startswith(f"{each}.") for each in FREE)
    found = differences(config, changed(config, name))
    assert bool(found) != free
    assert all(line.startswith(f"{name}: ") and " in the checkpoint, " in line for line in found)


def test_a_cosine_depends_on_where_it_ends():
    config = dataclasses.replace(
        TrainConfig(), optimizer=dataclasses.replace(TrainConfig().optimizer, schedule="cosine")
    )
    longer = dataclasses.replace(config, steps=2 * config.steps)
    assert differences(config.to_dict(), longer.to_dict()) == ["steps: 100000 in the checkpoint, 200000 here"]
