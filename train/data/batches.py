"""What training takes from a data loader: batches of encoded clips, and what must be known of the dataset."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from train.data.batch_sizes import Balance


class Batch(Protocol):
    """One rank's share of a step's clips, all of one shape, in the order of the global batch."""

    epoch: int
    bucket: str
    clip_ids: list[str]
    latents: dict[str, Tensor]  # "mean" (B, C, T, H, W) and, if stored, "logvar"; or "tokens" (B, T, H, W) int64
    text: Tensor | None  # (B, L, D), zeros after the end of each text
    text_mask: Tensor | None  # (B, L) bool, true for the tokens of the text
    conditions: Tensor | None  # (B, K) float32, NaN where unknown
    skipped: list[Any]  # clips that could not be read: `place` in the global batch, `clip_id`, `by` which replaced


class ResumableLoader(Protocol):
    """An endless stream of batches whose position is a few integers, so that a resumed run continues exactly."""

    def __iter__(self) -> Iterator[Any]: ...  # of Batch; a loader may have a class of its own for it
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class TrainingData:
    """What a run trains on. `contract` says what made the latents: stages/shards/contract.py's, as JSON has it."""

    loader: ResumableLoader
    contract: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # shape of one sample's latents, by bucket
    identity: str = ""  # hash over the samples; a resumed run must have the same
    empty_text: Tensor | None = None  # (L, D), the encoded empty prompt; None: no text
    # Mean and standard deviation of each condition, in the order of a batch's columns.
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    held_out: Sequence[Batch] = ()  # this rank's share, for validation
    balance: Balance | None = None  # the sizes of `batch_size: balanced`


@dataclass
class MicroBatch:
    """Some clips of a batch on the network's device, with the conditions that the network is given for them."""

    clip_ids: list[str]
    latents: dict[str, Tensor]
    condition: dict[str, Tensor]  # those of text (B, L, D), text_mask (B, L) and conditions (B, K) that there are


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A copy of the batch with its tensors on the device."""

    def to(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device, non_blocking=True)

    there = copy.copy(batch)
    there.latents = {name: value.to(device, non_blocking=True) for name, value in batch.latents.items()}
    there.text, there.text_mask, there.conditions = to(batch.text), to(batch.text_mask), to(batch.conditions)
    return there


def micro_batches(batch: Batch, condition: Mapping[str, Tensor], count: int) -> list[MicroBatch]:
    """The batch cut into `count` parts of equal size."""
    size = len(batch.clip_ids) // count
    slices = [slice(start, start + size) for start in range(0, size * count, size)]
    return [
        MicroBatch(
            batch.clip_ids[part],
            {name: value[part] for name, value in batch.latents.items()},
            {name: value[part] for name, value in condition.items()},
        )
        for part in slices
    ]
