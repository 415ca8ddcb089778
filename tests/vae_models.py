"""Small VAEs with random weights, saved where the real code loads them from."""

from __future__ import annotations

from pathlib import Path

TINY = {"channels": 4, "width": 8, "multipliers": (1, 1, 1, 1), "encoder_blocks": 1, "decoder_blocks": 1, "groups": 4}


def vae_folder(path: Path, seed: int = 0, scaling: bool = True, **changes) -> Path:
    """The folder of a causal VAE of clipmill's with the weights of that seed."""
    import torch

    from models.saved.vae_files import save
    from models.settings.vae import VAESettings
    from models.vae.causal_vae import CausalVAE

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = CausalVAE(VAESettings.from_dict({**TINY, **changes}))
    channels = vae.settings.channels
    statistics = {"latents_mean": [0.1] * channels, "latents_std": [0.9] * channels} if scaling else {}
    save(vae, path, **statistics)
    return path
