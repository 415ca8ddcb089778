"""A causal VAE on disk: a folder with `config.json` and `model.safetensors`, identified by a hash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models.saved.network_folder import fingerprint, read_weights, write_network
from models.saved.vae_config import CONFIG, KIND, WEIGHTS, checked_statistics, read, statistics
from models.settings.vae import VAESettings
from models.vae.causal_vae import CausalVAE

__all__ = ["CONFIG", "KIND", "WEIGHTS", "fingerprint", "load", "save", "statistics"]


def save(
    vae: CausalVAE,
    folder: str | Path,
    latents_mean: Sequence[float] | None = None,
    latents_std: Sequence[float] | None = None,
) -> None:
    """Makes the folder if need be. Each file is whole or absent, the config last: a folder with a config is complete.

    `latents_mean` and `latents_std`, one number per channel, are what `statistics` gives back: a trainer sees (z -
    mean) / std. They are not part of the fingerprint. Raises ValueError where they do not fit the latents.
    """
    extra = {}
    if latents_mean is not None or latents_std is not None:
        mean, std = checked_statistics(latents_mean, latents_std, vae.settings.channels)
        extra = {"latents_mean": list(mean), "latents_std": list(std)}
    write_network(vae, Path(folder), KIND, **extra)


def load(folder: str | Path, device: str | torch.device = "cpu") -> CausalVAE:
    """The saved VAE, for evaluation. Raises ValueError, in one line, for a folder that holds none or one whose weights
    are not those that were saved.
    """
    folder = Path(folder)
    config = read(folder)
    try:
        with torch.random.fork_rng(devices=[]):  # drawing weights for a moment leaves the caller's randomness alone
            vae = CausalVAE(VAESettings.from_dict(config["settings"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {CONFIG} describes a VAE that can't be built: {error}") from error
    read_weights(vae, folder, config)
    return vae.to(device).eval()
