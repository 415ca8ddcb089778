"""A diffusion transformer or token transformer on disk: a folder with `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.saved.config_file import CONFIG, WEIGHTS, read_config
from models.saved.network_folder import fingerprint, read_weights, write_network
from models.settings.transformers import DiTSettings, TokenSettings
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer

__all__ = ["CONFIG", "WEIGHTS", "fingerprint", "load", "save"]

DIT, TOKENS = "clipmill DiT", "clipmill token transformer"


def save(network: DiT | TokenTransformer, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Makes the folder if need be. Each file is whole or absent, the config last: a folder with a config is complete.

    `extra`, JSON values, is what else is needed to use the network. Other files of the folder are left alone.
    """
    write_network(network, Path(folder), DIT if isinstance(network, DiT) else TOKENS, extra=extra or {})


def load(folder: str | Path, device: str | torch.device = "cpu") -> tuple[DiT | TokenTransformer, dict[str, Any]]:
    """The saved network, for evaluation, and its `extra`. Raises ValueError, in one line, for a folder that holds none
    or one whose weights are not those that were saved.
    """
    folder = Path(folder)
    config = read_config(folder, "network", (DIT, TOKENS), ("settings", "extra"))
    values = config["settings"]
    network: DiT | TokenTransformer
    try:
        with torch.device("meta"):  # no weights are drawn only to be replaced
            if config["kind"] == DIT:
                network = DiT(DiTSettings.from_dict(values))
            else:
                network = TokenTransformer(TokenSettings.from_dict(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {CONFIG} describes a network that can't be built: {error}") from error
    read_weights(network, folder, config)
    return network.to(device).eval(), config["extra"]
