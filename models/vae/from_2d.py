"""Initial weights for the causal VAE from a 2D one: Stable Diffusion's autoencoder, by the names of its weights in
diffusers (AutoencoderKL), older names of its attention included. diffusers itself is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.tensors import read_tensors
from models.vae.causal_vae import CausalVAE
from models.vae.layers.causal_ops import CausalConv3d, FrameGroupNorm

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # before diffusers 0.15
# Layers that depend on the number and kind of latents, which may differ from the 2D network's.
BOTTLENECK = ("encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in")


@torch.no_grad()
def load_2d(
    vae: CausalVAE, weights: Mapping[str, Tensor] | str | Path, how: Literal["tail", "average"] = "tail"
) -> list[str]:
    """Takes over a 2D VAE's weights (a state dict, or a safetensors file). `tail` puts each kernel on the newest frame,
    so that latent i is at first the 2D latent of frame 4i; `average` spreads it over all frames (OD-VAE, 3.3).

    Returns the names of layers left as they were, because the latents differ there: none if `channels` and quantizer
    are the 2D network's. Raises ValueError for weights that do not fit, before anything is changed.
    """
    if how not in ("tail", "average"):
        raise ValueError(f"unknown initialisation {how!r}: tail or average")
    if vae.settings.shortcut:
        raise ValueError("a 2D VAE has no weights for a shortcut: set shortcut: false")
    weights = _read(weights) if isinstance(weights, str | Path) else weights
    planned: list[tuple[CausalConv3d | nn.Linear | FrameGroupNorm, Tensor, Tensor]] = []
    left: list[str] = []
    for name, layer in vae.named_modules():
        if getattr(layer, "weight", None) is None:
            continue
        if not isinstance(layer, CausalConv3d | nn.Linear | FrameGroupNorm):
            raise ValueError(f"{name} is a {type(layer).__name__}: a 2D VAE has group norms, set norm: group")
        weight, bias = _found(weights, name)
        wanted = _kernel(layer)
        if isinstance(layer, nn.Linear) and weight.ndim == 4:
            weight = weight[:, :, 0, 0]  # attention as 1 x 1 convolutions
        if tuple(weight.shape) == wanted:
            planned.append((layer, weight, bias))
        elif name in BOTTLENECK:
            left.append(name)
        else:
            raise ValueError(f"{name} takes a weight of {wanted}, the 2D VAE has {tuple(weight.shape)}")
    _refuse_deeper(vae, weights)
    for layer, weight, bias in planned:
        if isinstance(layer, CausalConv3d):
            layer.load_2d_kernel(weight, bias, how)
        else:
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return left


def name_in_2d(name: str) -> str:
    """The 2D network's name of a layer: encoder.levels.0 is encoder.down_blocks.0, its resize downsamplers.0."""
    part, dot, rest = name.partition(".")
    if part in ("encoder", "decoder"):
        blocks, resizers = ("down_blocks", "downsamplers") if part == "encoder" else ("up_blocks", "upsamplers")
        rest = rest.replace("levels.", f"{blocks}.").replace(".resize.", f".{resizers}.0.")
        rest = rest.replace("mid_block.attention.", "mid_block.attentions.0.")
        rest = rest.replace("attentions.0.norm", "attentions.0.group_norm").replace("to_out", "to_out.0")
    return part + dot + rest


def _found(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    new = name_in_2d(name)
    old = new
    for now, before in OLD_NAMES.items():
        old = old.replace(now, before)
    for each in (new, old):
        if f"{each}.weight" in weights and f"{each}.bias" in weights:
            return weights[f"{each}.weight"], weights[f"{each}.bias"]
    raise ValueError(f"the 2D VAE has no {new}.weight: is it an AutoencoderKL of {len(weights)} weights, this deep?")


def _refuse_deeper(vae: CausalVAE, weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError where the 2D network has layers that ours lacks: they would silently be left out."""
    known = {name_in_2d(name) for name, _ in vae.named_modules()}
    for name in weights:
        layer = name.rpartition(".")[0]
        for now, before in OLD_NAMES.items():
            layer = layer.replace(f"attentions.0.{before}", f"attentions.0.{now}")
        if layer.startswith(("encoder.", "decoder.")) and layer not in known:
            raise ValueError(f"the 2D VAE's {layer} has no counterpart here: it has other levels or blocks")


def _kernel(layer: CausalConv3d | nn.Linear | FrameGroupNorm) -> tuple[int, ...]:
    shape = tuple(layer.weight.shape)
    return (*shape[:2], *shape[3:]) if isinstance(layer, CausalConv3d) else shape


def _read(path: str | Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as safetensors: {error}") from error
