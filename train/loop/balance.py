"""Batch sizes for which the steps of all buckets take alike long, from a short timed run of the network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from train.config.training import TrainConfig
from train.data.batch_sizes import Balance, clip_seconds
from train.data.batches import Batch, MicroBatch, TrainingData, micro_batches, to_device
from train.data.conditions import Conditions
from train.devices.mixed_precision import autocast, compute_dtype
from train.devices.throughput import synchronize
from train.loop.network import build, prepare_blocks
from train.loop.tasks import task_for
from train.optimization.ema import EMA
from train.optimization.optimizer import make_optimizer

BUCKETS = 4  # that are timed, from the shortest clips to the longest
ROUNDS = 5  # of every bucket, after one that warms up; the best counts
SECONDS = 20.0  # after which no further round is begun
TOLERATED = 1.25  # times that the slowest step may take longer than the fastest without a word


@dataclass(frozen=True)
class Timed:
    """The best time of a forward and backward pass."""

    bucket: str
    tokens: int  # of a clip
    clips: int
    seconds: float


def measure(
    config: TrainConfig, data: TrainingData, tokens: Mapping[str, int], batch_of: Callable[[str], Batch],
    device: torch.device,
) -> tuple[list[Timed], float]:  # fmt: skip
    """Times forward and backward pass on a batch of each of some buckets, as a step computes them on one rank, and
    the update after them: (times, seconds of an update). The network is a new one, dropped afterwards.

    `tokens` are those of a clip of each bucket.
    """
    network = build(config, data).to(device)
    compiled = device.type == "cuda" if config.compile is None else config.compile
    prepare_blocks(network, compiled, config.activation_checkpointing, config.text_attention == "maskless")
    task, dtype = task_for(config, network, data, device), compute_dtype(config.dtype, device)
    conditions = Conditions(
        data, network.settings.conditions, config.seed, 0, 0, text=bool(network.settings.text_dim)
    )  # fmt: skip
    average, optimizer = EMA(network, config.ema), make_optimizer(network, config.optimizer)

    def passes(part: MicroBatch) -> float:
        drawn = task.draw(part, 0, range(len(part.clip_ids)))
        synchronize(device)
        begin = time.perf_counter()
        with autocast(device, dtype):
            losses = task.losses(network, part, drawn)
        losses.mean().backward()
        synchronize(device)
        return time.perf_counter() - begin

    parts = {}
    for bucket in spread(tokens):
        batch = to_device(batch_of(bucket), device)
        (parts[bucket],) = micro_batches(batch, conditions(batch, drop=False), 1)
    best, updates, until = dict.fromkeys(parts, math.inf), [], time.perf_counter() + SECONDS
    for number in range(1 + ROUNDS):
        if number > 1 and time.perf_counter() > until:
            break
        for bucket, part in parts.items():  # in turn, so that a busy moment of the machine meets all of them
            seconds = passes(part)
            best[bucket] = min(best[bucket], seconds) if number else math.inf
        begin = time.perf_counter()
        optimizer.step()
        average.update()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        updates.append(time.perf_counter() - begin)
    found = [Timed(name, tokens[name], len(part.clip_ids), best[name]) for name, part in parts.items()]
    return found, min(updates)


def spread(tokens: Mapping[str, int]) -> list[str]:
    """At most `BUCKETS` buckets with different numbers of tokens, spread evenly from the fewest to the most."""
    of = {count: name for name, count in reversed(list(tokens.items()))}
    counts = sorted(of)
    chosen = {round(place * (len(counts) - 1) / (BUCKETS - 1)) for place in range(BUCKETS)}
    return [of[counts[index]] for index in sorted(chosen)]


def fitted_power(timed: Sequence[Timed]) -> float:
    """p of seconds = c * clips * tokens ** p, by least squares of the logarithms; 1 where all clips have as many
    tokens.
    """
    x = [math.log(each.tokens) for each in timed]
    y = [math.log(each.seconds / each.clips) for each in timed]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    width = sum((each - middle) ** 2 for each in x)
    return sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / width if width else 1.0


def balanced(
    config: TrainConfig,
    tokens: Mapping[str, int],
    samples: Mapping[str, int],
    timed: Sequence[Timed],
    update_s: float,
    ranks: int,
) -> Balance:
    """The sizes that the config's budget allows, multiples of ranks x accumulate: as many clips of each bucket as make
    its step as long as the others, at most the `samples` that there are; at least one for each rank and micro-batch.

    `tokens` are those of a clip of each bucket.
    """
    measured = [asdict(each) for each in timed]
    cost = {name: clip_seconds(measured, count) for name, count in tokens.items()}  # of a clip on one rank
    unit, most = ranks * config.accumulate, config.balance.tokens
    if most is not None:  # no step has more tokens, so the bucket that would have the most says how long steps are
        step = min(most / count * cost[name] / ranks for name, count in tokens.items())
    else:
        step = max(0.0, (config.balance.seconds or 0) - update_s)
    sizes = {}
    for name, each in cost.items():
        count = round(step * ranks / each / unit)
        if most is not None:
            count = min(count, most // (tokens[name] * unit))
        sizes[name] = max(1, min(count, samples.get(name, 0) // unit)) * unit
    return Balance(sizes, fitted_power(timed), update_s, config.balance.to_dict(), measured)


def said(balance: Balance, tokens: Mapping[str, int], ranks: int) -> list[str]:
    """Lines for the screen: what was chosen and why, and where one clip alone makes a step too long."""
    sizes = ", ".join(f"{size:,} of {bucket}" for bucket, size in balance.sizes.items())
    lines = [f"balanced batches: {sizes}; a clip costs tokens^{balance.power:.2f}, measured"]
    took = {name: balance.step_seconds(name, tokens[name], ranks) for name in balance.sizes}
    slow, fast = max(took, key=lambda name: took[name]), min(took, key=lambda name: took[name])
    if took[slow] > TOLERATED * took[fast]:
        lines.append(
            f"a step of {balance.sizes[slow]:,} of {slow} takes {took[slow] / took[fast]:.1f} times as long as one of "
            f"{balance.sizes[fast]:,} of {fast}: sizes are whole clips of each rank, and no more than a bucket has"
        )
    return lines
