"""Describes the VAE that a path or a name on the hub stands for, from its config and weights, without torch."""

from __future__ import annotations

import json

from models.saved import vae_config
from models.settings.vae import STRIDE, VAESettings
from stages.base import SettingsError
from stages.latent_coders.info import CoderInfo
from stages.latent_coders.published import PUBLISHED, scaling
from stages.pretrained.model_files import ModelFolder, find_folder
from stages.pretrained.weight_hash import files_hash, read_floats, tensor_places

OWN = vae_config.KIND
UNKNOWN = "no statistics of its latents were saved with this VAE: they are taken to have mean 0 and deviation 1"


def describe_coder(model: str, subfolder: str | None = None, revision: str | None = None) -> CoderInfo:
    """What is known of the VAE in a local folder (our own, or as diffusers saves them) or of that name on the hub;
    of a whole pipeline the one in `subfolder`, 'vae' by default.

    Reads configs and hashes weights, which are remembered while their files stay as they are. Raises SettingsError,
    in one line, for what is no VAE, or one with weights missing or damaged.
    """
    found = find_folder(model, subfolder, revision, part="vae", what="VAE")
    try:
        if found.config.get("kind") == OWN:
            return _own(found)
        return _published(found, model)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"its config has no {error}" if isinstance(error, KeyError) else str(error)
        raise SettingsError(f"model {model!r} can't be a VAE: {reason}") from error


def _own(found: ModelFolder) -> CoderInfo:
    settings = VAESettings.from_dict(vae_config.read(found.folder)["settings"])
    codebook = vae_config.codes(settings)
    statistics = vae_config.statistics(found.folder)
    mean, std = statistics or ((0.0,) * settings.channels, (1.0,) * settings.channels)
    fingerprint = files_hash(json.dumps(settings.to_dict(), sort_keys=True), found.weights)
    if fingerprint != found.config.get("fingerprint"):
        raise SettingsError(
            f"{found.folder}: {vae_config.WEIGHTS} or {vae_config.CONFIG} was changed: their hash is "
            f"{fingerprint[:12]}..., not the recorded one"
        )
    return CoderInfo(
        kind=OWN,
        channels=settings.channels,
        time_stride=STRIDE,
        first_frame=True,
        space_stride=settings.space,
        codebook=codebook,
        fingerprint=fingerprint,
        mean=mean,
        std=std,
        path=str(found.folder),
        streams=True,
        note="" if statistics or codebook else UNKNOWN,
    )


def _published(found: ModelFolder, model: str) -> CoderInfo:
    kind = found.config.get("_class_name")
    if kind not in PUBLISHED:
        said = f"its config.json names the class {kind!r}" if kind else "its config.json names no class of VAEs"
        raise SettingsError(f"model {model!r} is no VAE that clipmill knows: {said}; known are {', '.join(PUBLISHED)}")
    published = PUBLISHED[kind]
    config = published.filled(found.config)
    channels, time = int(config[published.channels]), published.time(config)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    if published.in_weights:
        tensors = tensor_places(path for path in found.weights if path.suffix == ".safetensors")
        try:
            mean, std = (read_floats(tensors[name]) for name in ("latents_mean", "latents_std"))
        except KeyError as error:
            raise SettingsError(f"model {model!r}: its weights (safetensors) lack {error}") from error
    mean, std = scaling(config, channels, mean, std)
    # Keys that say who saved it, and where, do not count: the same VAE saved again is the same.
    content = {key: value for key, value in found.config.items() if key == "_class_name" or not key.startswith("_")}
    return CoderInfo(
        kind=kind,
        channels=channels,
        time_stride=time,
        first_frame=published.first_frame,
        space_stride=published.space(config),
        codebook=None,
        fingerprint=files_hash(json.dumps(content, sort_keys=True), found.weights),
        mean=mean,
        std=std,
        path=str(found.folder),
        frame_step=time * published.frame_step,
    )
