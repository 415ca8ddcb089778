"""A network in a folder: `model.safetensors`, `config.json`, and the hash that says whether they belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.files import remove_unfinished, write_whole
from models.saved.config_file import CONFIG, WEIGHTS
from models.saved.weight_hash import state_hash
from models.tensors import read_tensors, write_tensors
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from models.vae.causal_vae import CausalVAE

Network = CausalVAE | DiT | TokenTransformer


def write_network(network: Network, folder: Path, kind: str, **extra: Any) -> None:
    """Makes the folder if need be. Each file is whole or absent, the config last: a folder with a config is complete.

    `extra` goes into the config. Raises OSError where something can't be written: the folder then holds no network.
    """
    config = {"kind": kind, "fingerprint": fingerprint(network), "settings": network.settings.to_dict(), **extra}
    text = json.dumps(config, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    remove_unfinished(folder / WEIGHTS)
    write_tensors(folder / WEIGHTS, network.state_dict())
    write_whole(folder / CONFIG, text)


def read_weights(network: Network, folder: Path, config: Mapping[str, Any]) -> None:
    """Takes over the folder's weights, whose fingerprint must be the one in its config. Raises ValueError, in one line,
    for other weights.
    """
    try:
        network.load_state_dict(read_tensors(folder / WEIGHTS), assign=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder}: {WEIGHTS} is not what {CONFIG} describes: {reason}") from error
    if (found := fingerprint(network)) != config.get("fingerprint"):
        raise ValueError(
            f"{folder}: {WEIGHTS} or {CONFIG} was changed: their hash is {found[:12]}..., not the recorded one"
        )


def fingerprint(network: Network) -> str:
    """sha256, as hex, of the settings and of every weight and buffer with its name, dtype and shape. Weights cast to
    another dtype have another one: take it before casting.
    """
    return state_hash(json.dumps(network.settings.to_dict(), sort_keys=True), network.state_dict())
