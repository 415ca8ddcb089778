"""The `config.json` of a saved causal VAE, read without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.saved.config_file import CONFIG, WEIGHTS, read_config
from models.settings.vae import CODES, LEVELS, VAESettings

__all__ = ["CONFIG", "KIND", "WEIGHTS", "checked_statistics", "codes", "read", "statistics"]

KIND = "clipmill causal VAE"


def read(folder: str | Path) -> dict[str, Any]:
    """The config; its `settings` are a dict. Raises ValueError, in one line, for a folder that holds no VAE of
    clipmill.
    """
    return read_config(folder, "VAE", (KIND,), ("settings",))


def statistics(folder: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the latents as they were saved, one number per channel; None where none were
    saved. Raises ValueError where they don't fit the latents.
    """
    config = read(folder)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None and std is None:
        return None
    try:
        return checked_statistics(mean, std, config["settings"].get("channels", VAESettings.channels))
    except ValueError as error:
        raise ValueError(f"{folder}: {CONFIG} {error}") from error


def checked_statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both as tuples of floats. Raises ValueError unless they are `channels` finite numbers each, with std above 0."""
    found = []
    for name, values in (("latents_mean", mean), ("latents_std", std)):
        try:
            numbers = tuple(float(value) for value in values)  # type: ignore[union-attr]
        except (TypeError, ValueError):
            raise ValueError(f"has {name} {values!r}, not one number for each of {channels} channels") from None
        if len(numbers) != channels:
            raise ValueError(f"has {len(numbers)} numbers in {name} for {channels} channels: one each")
        if not all(math.isfinite(number) and (number > 0 or name == "latents_mean") for number in numbers):
            raise ValueError(f"has {list(numbers)} in {name}, which no latents have")
        found.append(numbers)
    return found[0], found[1]


def codes(settings: VAESettings) -> int | None:
    """The number of different tokens of the quantizer, None for continuous latents."""
    options = settings.quantizer_options
    if settings.quantizer == "vq":
        return int(options.get("codes", CODES))
    if settings.quantizer == "lfq":
        return 1 << settings.channels
    return math.prod(options.get("levels", LEVELS)) if settings.quantizer == "fsq" else None
