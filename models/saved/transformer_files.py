"""A diffusion or token transformer on disk: a folder with `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.saved.vae_files import fingerprint
from models.settings.transformers import DiTSettings, TokenSettings
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KINDS = {"clipmill DiT": (DiT, DiTSettings), "clipmill token transformer": (TokenTransformer, TokenSettings)}


def save(network: DiT | TokenTransformer, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Makes the folder if need be. Each file is whole or absent, the config last: a folder with one is complete.

    `extra` is what else must be known to use it, as JSON has it. Other files of the folder are left alone.
    """
    folder = Path(folder)
    kind = next(name for name, (made, _) in KINDS.items() if isinstance(network, made))
    config = {"kind": kind, "fingerprint": fingerprint(network), "settings": network.settings.to_dict()}
    text = json.dumps({**config, "extra": extra or {}}, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in network.state_dict().items()}
    save_file(state, folder / f"{WEIGHTS}.part")
    os.replace(folder / f"{WEIGHTS}.part", folder / WEIGHTS)
    (folder / f"{CONFIG}.part").write_text(text)
    os.replace(folder / f"{CONFIG}.part", folder / CONFIG)


def load(folder: str | Path, device: str | torch.device = "cpu") -> tuple[DiT | TokenTransformer, dict[str, Any]]:
    """The network that was saved there, for evaluation, and its `extra`. Raises ValueError, in one line, for a folder
    that holds none or one whose weights are not those that were saved.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is no network of clipmill: {CONFIG} can't be read ({error})") from error
    kind = config.get("kind") if isinstance(config, dict) else None
    if kind not in list(KINDS) or not all(isinstance(config.get(name), dict) for name in ("settings", "extra")):
        raise ValueError(f"{folder} is no network of clipmill: {CONFIG} does not say {' or '.join(map(repr, KINDS))}")
    made, settings = KINDS[kind]
    try:
        with torch.device("meta"):  # no weights are drawn only to be replaced
            network = made(settings.from_dict(config["settings"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {CONFIG} describes a network that can't be built: {error}") from error
    try:
        # Cloned out of the mapped file: kernels may round otherwise where memory is not aligned.
        state = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        network.load_state_dict(state, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder}: {WEIGHTS} is not what {CONFIG} describes: {reason}") from error
    if (found := fingerprint(network)) != config.get("fingerprint"):
        raise ValueError(
            f"{folder}: {WEIGHTS} or {CONFIG} was changed: their hash is {found[:12]}..., not the recorded one"
        )
    return network.to(device).eval(), config["extra"]
