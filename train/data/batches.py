"""From what a loader gives to what a network is trained on. All that is random here is keyed on what it is for, so
that it is the same after a resume and on any number of ranks.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from train.sampling.guidance import dropped_conditions


class Batch(Protocol):
    """A rank's share of one step's clips, all of one shape, in the order of the global batch."""

    epoch: int
    bucket: str
    clip_ids: list[str]
    latents: dict[str, Tensor]  # "mean" (B, C, T, H, W) and, if stored, "logvar"; or "tokens" (B, T, H, W) int64
    text: Tensor | None  # (B, L, D), zeros behind the end
    text_mask: Tensor | None  # (B, L) bool
    conditions: Tensor | None  # (B, K) float32, NaN where unknown


class ResumableLoader(Protocol):
    """Batches for ever, and where in them one is, in a few integers."""

    def __iter__(self) -> Iterable[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class TrainingData:
    """What a run trains on, and what must be known of it. `contract` is stages/shards/contract.py's, as JSON has it."""

    loader: ResumableLoader
    contract: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # of a sample's latents, by bucket
    identity: str = ""  # what must be the same for a run to go on: a hash over the samples
    empty_text: Tensor | None = None  # (L, D), the encoded empty prompt; None: no text
    scales: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # mean and deviation of each condition, in order
    held_out: Sequence[Batch] = ()  # this rank's share, for validation


@dataclass
class Part:
    """Some clips of a batch on the network's device, and what the network is told of them."""

    clip_ids: list[str]
    latents: dict[str, Tensor]
    condition: dict[str, Tensor]  # text (B, L, D), text_mask (B, L), conditions (B, K), those that there are


class KeyedGenerators:
    """Generators of random numbers by key. `device` is where their numbers are made."""

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.seed, self.device = seed, torch.device(device)

    def __call__(self, *key: Any, cpu: bool = False) -> torch.Generator:
        """The generator of (seed, *key): another key, other numbers; the same key, the same ones."""
        text = "/".join(map(str, (self.seed, *key))).encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
        return torch.Generator("cpu" if cpu else self.device).manual_seed(number)


class Conditions:
    """What a network is told of the clips of a batch, with as much left out as is to be in training."""

    def __init__(
        self, data: TrainingData, names: Sequence[str], seed: int, text_dropout: float, dropout: float, text: bool
    ):
        """`names` are the conditions that the network has; `text` says whether it has text."""
        self.names, self.seed, self.text_dropout, self.dropout = names, seed, text_dropout, dropout
        self.columns = [list(data.scales).index(name) for name in names]
        self.empty = data.empty_text if text else None

    def __call__(self, batch: Batch, drop: bool = True) -> dict[str, Tensor]:
        """On the batch's device: text (B, L, D) and text_mask (B, L), conditions (B, K)."""
        found: dict[str, Tensor] = {}
        if self.empty is not None:
            found["text"], found["text_mask"] = self._texts(batch, drop)
        if self.columns:
            values = batch.conditions[:, self.columns].clone()
            for column, name in enumerate(self.names):
                if drop and self.dropout:
                    lost = dropped_conditions(self.seed, batch.epoch, batch.clip_ids, self.dropout, name)
                    values[lost.to(values.device), column] = torch.nan
            found["conditions"] = values
        return found

    def _texts(self, batch: Batch, drop: bool) -> tuple[Tensor, Tensor]:
        """Captions, and the encoded empty prompt where they are left out or where a clip has none."""
        device, count = next(iter(batch.latents.values())).device, len(batch.clip_ids)
        length = max(len(self.empty), 0 if batch.text is None else batch.text.shape[1])
        empty, empty_mask = _padded(self.empty[None].to(device), torch.ones(1, len(self.empty), device=device), length)
        if batch.text is None:
            return empty.expand(count, -1, -1), empty_mask.expand(count, -1)
        text, mask = _padded(batch.text.to(empty.dtype), batch.text_mask, length)
        lost = ~mask.any(1)
        if drop and self.text_dropout:
            lost |= dropped_conditions(self.seed, batch.epoch, batch.clip_ids, self.text_dropout).to(device)
        return torch.where(lost[:, None, None], empty, text), torch.where(lost[:, None], empty_mask, mask)


def _padded(text: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(B, L, D) and (B, L) to that length; zeros, and false, behind the end."""
    more = length - text.shape[1]
    return F.pad(text, (0, 0, 0, more)), F.pad(mask.bool(), (0, more))


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on that device."""

    def to(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device, non_blocking=True)

    return dataclasses.replace(
        batch,
        latents={name: to(value) for name, value in batch.latents.items()},
        text=to(batch.text),
        text_mask=to(batch.text_mask),
        conditions=to(batch.conditions),
    )


def parts(batch: Batch, condition: dict[str, Tensor], count: int) -> list[Part]:
    """The batch in `count` parts of one size."""
    size = len(batch.clip_ids) // count
    slices = [slice(start, start + size) for start in range(0, size * count, size)]
    return [
        Part(
            batch.clip_ids[each],
            {name: value[each] for name, value in batch.latents.items()},
            {name: value[each] for name, value in condition.items()},
        )
        for each in slices
    ]


def normalized(
    latents: Mapping[str, Tensor], contract: Mapping[str, Any], generators: Iterable[torch.Generator] | None
) -> Tensor:
    """(B, C, T, H, W) float32: z = mean + exp(logvar / 2) noise, each sample's noise by its generator (None: the mean),
    then (z - mean) / std by the contract's, channel by channel.
    """
    z = latents["mean"].float()
    if generators is not None and "logvar" in latents:
        z = z + (latents["logvar"].float() / 2).exp() * normal(z, generators)
    mean, std = (torch.tensor(contract[name], device=z.device).view(-1, 1, 1, 1) for name in ("mean", "std"))
    return (z - mean) / std


def normal(like: Tensor, generators: Iterable[torch.Generator]) -> Tensor:
    """Gaussian noise of the shape and device of `like` (B, ...), a generator for each sample."""
    shape = like.shape[1:]
    return torch.stack([torch.randn(shape, generator=each, device=each.device).to(like.device) for each in generators])
