"""How much of a clip goes through the causal VAE at a time, so that no activation is larger than a number of elements.

Memory then depends on a frame's size alone, not on the clip's length. (Indices of 32 bits end at 2^31 elements: beyond,
cuDNN has slow kernels, if any.)
"""

from __future__ import annotations

from typing import Literal

import torch

from models.settings.vae import CAUSAL, STRIDE, VAESettings

MOST_ELEMENTS = 2**31 - 1
CPU_ELEMENTS = 1 << 22  # 16 MB in float32; larger chunks were no faster
GPU_BYTES_PER_ELEMENT = 64  # of a GPU's whole memory: the largest activation takes 1/32 of it in bfloat16
BORDER = CAUSAL - 1  # frames, rows and columns that are put around the input of a convolution

Part = Literal["encoder", "decoder"]


def elements_on(device: torch.device) -> int:
    """The most elements that an activation should have on that device."""
    if device.type != "cuda":
        return CPU_ELEMENTS
    return min(MOST_ELEMENTS, torch.cuda.get_device_properties(device).total_memory // GPU_BYTES_PER_ELEMENT)


def choose_kernels_by_time(device: torch.device) -> None:
    """Has cuDNN time its kernels for each new shape of a convolution and keep the fastest: right for few shapes."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def largest_activation(settings: VAESettings, part: Part, frames: int, height: int, width: int) -> int:
    """Elements of the largest activation of one clip of that many frames and pixels, or of one piece of a clip; at most
    a twentieth more for clips of the usual size.
    """
    return max(elements * (-(-frames // step) + BORDER) for elements, step in _levels(settings, part, height, width))


def chunk_frames(settings: VAESettings, part: Part, elements: int, height: int, width: int) -> int:
    """Frames of the longest piece of one clip without an activation of more than so many elements: a multiple of four,
    and four where even they have more.
    """
    most = min((elements // each - BORDER) * step for each, step in _levels(settings, part, height, width))
    return max(STRIDE, most // STRIDE * STRIDE)


def latents_of_pieces(latents: int, chunk: int) -> list[int]:
    """Latents of each piece of a clip that goes through the VAE in pieces of at most `chunk` frames, four or more."""
    sizes = [min(latents, (chunk - 1 + STRIDE) // STRIDE)]  # of the first latent's four frames the clip has one
    while (left := latents - sum(sizes)) > 0:
        sizes.append(min(left, chunk // STRIDE))
    return sizes


def _levels(settings: VAESettings, part: Part, height: int, width: int) -> list[tuple[int, int]]:
    """For each level the elements of one frame of its largest activation, and how many of the clip's frames it is."""
    widths = [settings.width * multiplier for multiplier in settings.multipliers]
    last = len(widths) - 1
    found = []
    for level, channels in enumerate(widths):
        if part == "decoder":  # enlarges before it takes to fewer channels
            channels = max(channels, widths[min(level + 1, last)])
        pixels = (height // 2**level + BORDER) * (width // 2**level + BORDER)
        found.append((channels * pixels, 2 ** max(0, level - (last - 2))))
    return found
