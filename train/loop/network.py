"""The network that a config and a dataset ask for, and what is done to its blocks for speed and memory."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.settings.transformers import BlockSettings, sized, sized_tokens
from models.settings.validation import ConfigError
from models.transformers.dit import DiT
from models.transformers.token_transformer import TokenTransformer
from train.config.training import TrainConfig
from train.data.batches import TrainingData


def settings_for(config: TrainConfig, data: TrainingData) -> BlockSettings:
    """The config's settings, and from the dataset what they don't say. Raises ConfigError, naming both sides, where
    they contradict the dataset.
    """
    wanted = dict(config.model)
    size = wanted.pop("size", "S")
    codes, dim = data.contract.get("codebook"), 0 if data.empty_text is None else data.empty_text.shape[1]
    if (config.kind == "tokens") != (codes is not None):
        holds = f"tokens of {codes} codes" if codes is not None else "continuous latents"
        raise ConfigError(f"kind {config.kind!r}, but the dataset holds {holds}")
    fixed = {"codes": codes} if config.kind == "tokens" else {"channels": data.contract["channels"]}
    for name, value in fixed.items():
        if wanted.get(name, value) != value:
            raise ConfigError(f"model.{name} {wanted[name]!r} in the config, {value!r} in the dataset's contract")
    if wanted.get("text_dim") not in (None, 0, dim):
        raise ConfigError(f"model.text_dim {wanted['text_dim']!r} in the config, {dim} in the dataset")
    names = tuple(wanted.get("conditions", data.scales))
    if unknown := [name for name in names if name not in data.scales]:
        known = ", ".join(data.scales) or "none"
        raise ConfigError(f"model.conditions {', '.join(unknown)} in the config, in the dataset there are {known}")
    changes = {"text_dim": dim, **wanted, **fixed, "conditions": names}
    try:
        if config.kind == "tokens":
            return sized_tokens(size, changes.pop("codes"), **changes)
        return sized(size, **changes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error


def build(config: TrainConfig, data: TrainingData) -> DiT | TokenTransformer:
    """With weights drawn by the config's seed, the same on every rank; checks that it takes the dataset's shapes."""
    settings = settings_for(config, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = TokenTransformer(settings) if config.kind == "tokens" else DiT(settings)
    network.set_condition_scales({name: data.scales[name] for name in settings.conditions})
    if isinstance(network, DiT):
        for bucket, shape in data.shapes.items():
            try:
                network.grid((1, *shape))
            except ValueError as error:
                raise ConfigError(f"bucket {bucket} of the dataset and the model of the config: {error}") from error
    return network


def prepare_blocks(network: nn.Module, compiled: bool, checkpointed: bool) -> None:
    """Each block compiled for itself (a network of a hundred blocks compiles as fast as one of one), or computed again
    in the backward pass instead of kept.
    """
    if compiled:  # for each bucket, with and without masks, training or not; beyond the limit torch no longer compiles
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for name in ("mixer", "blocks"):
        for block in getattr(network, name, []):
            if checkpointed:
                block.forward = _again(block.forward)
            if compiled:
                block.compile()


def _again(forward: Any) -> Any:
    @functools.wraps(forward)
    def recomputed(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        # Blocks draw no random numbers: no generator's state has to be kept.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **options)

    return recomputed
