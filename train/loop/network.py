"""The network that a config and a dataset ask for, and how its blocks are compiled or checkpointed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.compiler.config
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.saved import transformer_files
from models.settings.transformers import DiTSettings, TokenSettings, sized, sized_tokens
from models.settings.validation import ConfigError
from models.transformers.dit import DiT
from models.transformers.layers.blocks import Block
from models.transformers.token_transformer import TokenTransformer
from train.config.training import TrainConfig
from train.data.batches import TrainingData
from train.run.lineage import model_folder

RECOMPILES = 64  # of a block, one per bucket, mask and training mode; after more, torch no longer compiles it


def set_up_compiling() -> None:
    """Settings of torch.compile, of the whole process.

    With DistributedDataParallel, torch would cut each compiled block into several graphs to send gradients earlier;
    blocks are small enough as they are.
    """
    torch.compiler.config.recompile_limit = max(RECOMPILES, torch.compiler.config.recompile_limit)
    torch._dynamo.config.optimize_ddp = False


def network_settings(config: TrainConfig, data: TrainingData) -> DiTSettings | TokenSettings:
    """The config's settings, completed from the dataset. Raises ConfigError, naming both sides, where they contradict
    the dataset.
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
        return sized_tokens(size, **changes) if config.kind == "tokens" else sized(size, **changes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error


def build(config: TrainConfig, data: TrainingData) -> DiT | TokenTransformer:
    """The network with weights drawn by the config's seed, the same on every rank. Raises ConfigError where it does not
    take the dataset's shapes.
    """
    settings = network_settings(config, data)
    network: DiT | TokenTransformer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = TokenTransformer(settings) if isinstance(settings, TokenSettings) else DiT(settings)
    network.set_condition_scales({name: data.scales[name] for name in settings.conditions})
    if isinstance(network, DiT):
        for bucket, shape in data.shapes.items():
            try:
                network.grid((1, *shape))
            except ValueError as error:
                raise ConfigError(f"bucket {bucket} of the dataset and the model of the config: {error}") from error
    return network


def start_from(network: DiT | TokenTransformer, place: str) -> None:
    """Gives the network the averaged weights of a run, or of a folder of its model. Raises ConfigError for none, or for
    a network of other settings.
    """
    try:
        found, _ = transformer_files.load(model_folder(place))
    except ValueError as error:
        raise ConfigError(f"start: {error}") from error
    there, here = found.settings.to_dict(), network.settings.to_dict()
    if odd := [f"{name} {there.get(name)!r} there, {here.get(name)!r} here" for name in sorted({*there, *here})
               if there.get(name) != here.get(name)]:  # fmt: skip
        raise ConfigError(f"start: {place} is a network of other settings: {'; '.join(odd)}")
    network.load_state_dict(found.state_dict())


def prepare_blocks(network: DiT | TokenTransformer, compiled: bool, checkpointed: bool, maskless: bool = False) -> None:
    """Compiles each block by itself, so that a network of a hundred blocks compiles as fast as one of one; computes
    blocks again in the backward pass instead of keeping their activations; and attends to text without a mask.
    """
    if compiled:
        set_up_compiling()
    for block in network.modules():
        if isinstance(block, Block):
            if block.cross is not None:
                block.cross.maskless = maskless
            if checkpointed:
                block.forward = _checkpointed(block.forward)  # type: ignore[method-assign]  # as torch's own wrappers do
            if compiled:
                block.compile()


def _checkpointed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def recomputed(*args: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*args)
        # Blocks draw no random numbers: the generator's state need not be kept.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False)

    return recomputed
