"""CLIPSIM (Wu et al. 2021): how well the frames of a video match its text, in a shared embedding space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clipsim(frames: Tensor, texts: Tensor) -> Tensor:
    """(N,) float64 from -1 to 1: cosine similarity of a video's frames (N, T, D) and its text (N, D), mean over the
    frames. The caller chooses the model that embeds; embeddings may have any length.

    Raises ValueError for shapes that don't fit, and for embeddings of length 0 or with values that are not finite.
    """
    if frames.ndim != 3 or texts.ndim != 2 or frames.shape[0] != len(texts) or frames.shape[2] != texts.shape[1]:
        shapes = f"{tuple(frames.shape)} and {tuple(texts.shape)}"
        raise ValueError(f"embeddings of shapes {shapes}: (N, T, D) of frames and (N, D) of texts are needed")
    found = torch.einsum("ntd,nd->nt", *(F.normalize(each.double(), dim=-1, eps=0) for each in (frames, texts)))
    if not found.isfinite().all():
        raise ValueError("an embedding has length 0, or values that are not finite")
    return found.mean(1)
