"""Text and numbers that a network is given for the clips of a batch, some of them dropped in training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.batches import Batch, TrainingData


class Conditions:
    """Makes a network's conditions from batches; for guidance, shares of them are dropped (Ho and Salimans 2022).

    A dropped text is replaced by the encoded empty prompt, a dropped number by NaN, which means unknown.
    """

    def __init__(
        self, data: TrainingData, names: Sequence[str], seed: int, text_dropout: float, dropout: float, text: bool
    ):
        """`names` are the network's conditions; `text` says whether it takes text. Dropout rates are from 0 to 1."""
        self.names, self.seed, self.text_dropout, self.dropout = names, seed, text_dropout, dropout
        self.columns = [list(data.scales).index(name) for name in names]
        self.empty = data.empty_text if text else None  # (L, D)

    def __call__(self, batch: Batch, drop: bool = True) -> dict[str, Tensor]:
        """On the batch's device: text (B, L, D) and text_mask (B, L), conditions (B, K), those that there are."""
        found: dict[str, Tensor] = {}
        if self.empty is not None:
            found["text"], found["text_mask"] = self._texts(batch, self.empty, drop)
        if self.columns:
            assert batch.conditions is not None, "a loader gives the conditions that its dataset has scales of"
            values = batch.conditions[:, self.columns].clone()
            for column, name in enumerate(self.names):
                if drop and self.dropout:
                    lost = dropped_conditions(self.seed, batch.epoch, batch.clip_ids, self.dropout, name)
                    values[:, column].masked_fill_(lost.to(values.device), torch.nan)  # a GPU is not waited for
            found["conditions"] = values
        return found

    def _texts(self, batch: Batch, empty_text: Tensor, drop: bool) -> tuple[Tensor, Tensor]:
        """Captions, with the encoded empty prompt in place of dropped and missing ones."""
        device, count = next(iter(batch.latents.values())).device, len(batch.clip_ids)
        length = max(len(empty_text), 0 if batch.text is None else batch.text.shape[1])
        empty, empty_mask = _padded(empty_text[None].to(device), torch.ones(1, len(empty_text), device=device), length)
        if batch.text is None or batch.text_mask is None:
            return empty.expand(count, -1, -1), empty_mask.expand(count, -1)
        text, mask = _padded(batch.text.to(empty.dtype), batch.text_mask, length)
        lost = ~mask.any(1)
        if drop and self.text_dropout:
            lost |= dropped_conditions(self.seed, batch.epoch, batch.clip_ids, self.text_dropout).to(device)
        return torch.where(lost[:, None, None], empty, text), torch.where(lost[:, None], empty_mask, mask)


def dropped_conditions(seed: int, epoch: int, clip_ids: Sequence[str], rate: float, condition: str = "text") -> Tensor:
    """(B,) bool: the clips whose condition is dropped this time, each with probability `rate`.

    The draw is keyed on seed, epoch, clip and condition: it is the same after a resume and on any number of ranks,
    another one in each epoch, and independent between conditions.
    """
    keys = (f"{seed}/{epoch}/{condition}/{clip_id}".encode() for clip_id in clip_ids)
    draws = [int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64 for key in keys]
    return torch.tensor([draw < rate for draw in draws], dtype=torch.bool)


def _padded(text: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(B, L, D) and (B, L) padded to `length` with zeros and false."""
    more = length - text.shape[1]
    return F.pad(text, (0, 0, 0, more)), F.pad(mask.bool(), (0, more))
