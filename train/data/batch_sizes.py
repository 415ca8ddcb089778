"""How many clips a step takes of each bucket, and the measurement that `balanced` sizes follow from."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from models.settings.validation import ConfigError
from train.config.training import TrainConfig


@dataclass(frozen=True)
class Balance:
    """Batch sizes whose steps take alike long, as they were measured at the start of a run."""

    sizes: dict[str, int]  # clips of a step over all ranks, by bucket
    power: float  # p, where a clip of S tokens costs about S ** p
    update_s: float  # of a step, whatever its batch: optimizer and average of the weights
    asked: dict[str, Any]  # the config's `balance`
    timed: list[dict[str, Any]]  # what was measured: bucket, tokens, clips, seconds of a forward and backward pass

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**values)

    def step_seconds(self, bucket: str, tokens: int, ranks: int) -> float:
        """How long a step of the bucket takes, whose clips have so many tokens."""
        return self.update_s + self.sizes[bucket] / ranks * clip_seconds(self.timed, tokens)


def clip_seconds(timed: Sequence[Mapping[str, Any]], tokens: int) -> float:
    """Seconds of a forward and backward pass of a clip: those measured for its number of tokens, and a power law
    through the two measurements around it for others.
    """
    known = sorted((each["tokens"], each["seconds"] / each["clips"]) for each in timed)
    if len(known) == 1:
        return known[0][1] * tokens / known[0][0]
    above = min(max(1, bisect_left(known, (tokens, 0.0))), len(known) - 1)
    (low, least), (high, most) = known[above - 1 : above + 1]
    return least * (tokens / low) ** (math.log(most / least) / math.log(high / low))


def drawn_buckets(config: TrainConfig, buckets: Mapping[str, Any]) -> list[str]:
    """The buckets that steps are drawn from: all, or those that `loader.mix` gives a share."""
    mix = config.loader.mix
    return [name for name in buckets if mix is None or mix.get(name, 0) > 0]


def batch_sizes(
    config: TrainConfig, buckets: Mapping[str, Any], ranks: int, balance: Balance | None = None
) -> dict[str, int]:
    """Clips of a step over all ranks, for each bucket that steps are drawn from. Raises ConfigError where the config
    names another bucket or leaves one out, and for a size that does not divide into ranks and micro-batches.
    """
    wanted, drawn = config.batch_size, drawn_buckets(config, buckets)
    if isinstance(wanted, str):
        if balance is None:
            raise ConfigError(f"batch_size {wanted!r}: its sizes have not been measured")
        wanted = balance.sizes
    if isinstance(wanted, int):
        found = dict.fromkeys(drawn, wanted)
    else:
        if unknown := [name for name in wanted if name not in buckets]:
            raise ConfigError(f"batch_size of {', '.join(unknown)}: the dataset has the buckets {', '.join(buckets)}")
        if missing := [name for name in drawn if name not in wanted]:
            raise ConfigError(f"batch_size lacks a size for the bucket {', '.join(missing)} of the dataset")
        found = {name: wanted[name] for name in drawn}
    for name, size in found.items():
        if size % (ranks * config.accumulate):
            of = "" if isinstance(config.batch_size, int) else f" of {name}"
            raise ConfigError(
                f"batch_size {size}{of} does not divide into {ranks} ranks x accumulate {config.accumulate}"
            )
    return found
