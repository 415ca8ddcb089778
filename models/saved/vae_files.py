"""A causal VAE on disk: a folder with `config.json` and `model.safetensors`; and the hash that says which it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.saved.vae_config import CONFIG, KIND, WEIGHTS, checked, read, statistics
from models.settings.vae import VAESettings
from models.vae.causal_vae import CausalVAE

__all__ = ["CONFIG", "KIND", "WEIGHTS", "fingerprint", "load", "save", "statistics"]


def save(
    vae: CausalVAE,
    folder: str | Path,
    latents_mean: Sequence[float] | None = None,
    latents_std: Sequence[float] | None = None,
) -> None:
    """Makes the folder if need be. Each file is whole or absent, the config last: a folder with one is complete.

    `latents_mean` and `latents_std`, one number a channel, are what `statistics` gives back: a trainer sees
    (z - mean) / std. They are no part of the fingerprint. Raises ValueError where they do not fit the latents.
    """
    config = {"kind": KIND, "fingerprint": fingerprint(vae), "settings": vae.settings.to_dict()}
    if latents_mean is not None or latents_std is not None:
        mean, std = checked(latents_mean, latents_std, vae.settings.channels)
        config |= {"latents_mean": list(mean), "latents_std": list(std)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in vae.state_dict().items()}
    save_file(state, folder / f"{WEIGHTS}.part")
    os.replace(folder / f"{WEIGHTS}.part", folder / WEIGHTS)
    (folder / f"{CONFIG}.part").write_text(json.dumps(config, indent=2) + "\n")
    os.replace(folder / f"{CONFIG}.part", folder / CONFIG)


def load(folder: str | Path, device: str | torch.device = "cpu") -> CausalVAE:
    """The VAE that was saved there, for evaluation. Raises ValueError, in one line, for a folder that holds none or
    one whose weights are not those that were saved.
    """
    folder = Path(folder)
    config = read(folder)
    try:
        with torch.random.fork_rng(devices=[]):  # drawing weights for a moment leaves the caller's randomness alone
            vae = CausalVAE(VAESettings.from_dict(config["settings"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {CONFIG} describes a VAE that can't be built: {error}") from error
    try:
        # Cloned out of the mapped file: kernels may round otherwise where memory is not aligned.
        state = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        vae.load_state_dict(state, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder}: {WEIGHTS} is not what {CONFIG} describes: {reason}") from error
    if (found := fingerprint(vae)) != config.get("fingerprint"):
        raise ValueError(
            f"{folder}: {WEIGHTS} or {CONFIG} was changed: their hash is {found[:12]}..., not the recorded one"
        )
    return vae.to(device).eval()


def fingerprint(vae: CausalVAE) -> str:
    """sha256 of the settings and of every weight and buffer with its name, dtype and shape, as hex. Weights cast to
    another dtype are other weights: take it before casting.
    """
    found = hashlib.sha256(json.dumps(vae.settings.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
