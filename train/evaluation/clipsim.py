"""CLIPSIM (Wu et al. 2021): how well the frames of a video fit its text, in a shared space of embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clipsim(frames: Tensor, texts: Tensor) -> Tensor:
    """(N,) float64 from -1 to 1: the cosine between the embeddings of a video's frames (N, T, D) and of its text
    (N, D), mean over the frames. Which model embeds, and how long the embeddings are, is the caller's affair.

    Raises ValueError for shapes that don't fit, and for embeddings of length 0 or that are no numbers.
    """
    if frames.ndim != 3 or texts.ndim != 2 or frames.shape[0] != len(texts) or frames.shape[2] != texts.shape[1]:
        shapes = f"{tuple(frames.shape)} and {tuple(texts.shape)}"
        raise ValueError(f"embeddings of shapes {shapes}: (N, T, D) of frames and (N, D) of texts are needed")
    found = torch.einsum("ntd,nd->nt", *(F.normalize(each.double(), dim=-1, eps=0) for each in (frames, texts)))
    if not found.isfinite().all():
        raise ValueError("an embedding has length 0, or is no number")
    return found.mean(1)
