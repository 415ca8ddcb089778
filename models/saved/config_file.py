"""The `config.json` of a saved network, read without torch."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def read_config(folder: str | Path, what: str, kinds: Collection[str], parts: Collection[str]) -> dict[str, Any]:
    """The config of a network of one of the `kinds`, whose `parts` are dicts. `what` names such a network in errors.

    Raises ValueError, in one line, for a folder that holds none.
    """
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is no {what} of clipmill: {CONFIG} can't be read ({error})") from error
    kind = config.get("kind") if isinstance(config, dict) else None
    if kind not in list(kinds) or not all(isinstance(config.get(part), dict) for part in parts):
        raise ValueError(f"{folder} is no {what} of clipmill: {CONFIG} does not say {' or '.join(map(repr, kinds))}")
    return config
