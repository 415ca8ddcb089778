"""Changes of a config: settings from the command line, and what may differ when a run is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from models.settings.validation import ConfigError

# What a resumed run may change: nothing that is learned depends on it, except by rounding.
FREE = (
    *("checkpoint", "samples", "wandb", "peak_tflops", "vae", "text_model"),
    *("parallel", "compile", "activation_checkpointing", "accumulate", "deterministic", "text_attention"),
    *("loader.threads", "loader.verify", "loader.root", "loader.cache", "loader.cache_gb"),
    *("validation.every", "validation.clips", "validation.times"),
)


def with_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of a config's dict with the `a.b=c` of a command line set; c is JSON, or else text. Raises ConfigError."""
    changed: dict[str, Any] = json.loads(json.dumps(values))
    for setting in settings:
        path, equals, text = setting.partition("=")
        *parents, last = path.split(".")
        if not equals or not last:
            raise ConfigError(f"--set {setting}: write A.B=C, such as optimizer.lr=0.0003")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {setting}: {parent} is {place!r}, which holds no settings")
        try:
            place[last] = json.loads(text)
        except ValueError:
            place[last] = text
    return changed


def differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Why a run of config `here` can't continue from a checkpoint made with config `saved`: one line per setting.

    `FREE` settings may differ, and `steps` where the learning rate doesn't depend on it.
    """
    found = []
    constant = here.get("optimizer", {}).get("schedule") == "constant"
    old, new = dict(_leaves(saved)), dict(_leaves(here))
    for name in sorted(old.keys() | new.keys()):
        free = any(name == each or name.startswith(f"{each}.") for each in FREE) or (name == "steps" and constant)
        if not free and old.get(name) != new.get(name):
            found.append(f"{name}: {json.dumps(old.get(name))} in the checkpoint, {json.dumps(new.get(name))} here")
    return found


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value
