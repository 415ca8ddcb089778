"""The inception score (Salimans et al. 2016): how certain a classifier is of samples, and how many classes it sees."""

from __future__ import annotations

import torch
from torch import Tensor


def inception_score(logits: Tensor, splits: int = 1) -> tuple[float, float]:
    """exp(mean over samples of KL(p(y|x) || p(y))) from a classifier's logits (N, K), as mean and standard deviation
    over `splits` equal parts (10 in the paper; the deviation of one part is NaN). From 1 to K.

    Raises ValueError for fewer samples than parts, and for values that are not finite.
    """
    if logits.ndim != 2 or not logits.isfinite().all():
        raise ValueError(f"logits of shape {tuple(logits.shape)}: (N, K) finite numbers are needed")
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} samples in {splits} parts: at least one sample in each")
    scores = []
    for part in logits.double().log_softmax(1).chunk(splits):
        mixture = torch.logsumexp(part, 0) - torch.tensor(len(part), dtype=torch.float64).log()
        scores.append((part.exp() * (part - mixture)).sum(1).mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std()) if splits > 1 else float("nan")
