"""A small made-up dataset in memory: two buckets (pictures and clips), captions, two conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from train.data.batches import TrainingData

CHANNELS, DIM = 4, 6
SHAPES = {"1x32x32": (CHANNELS, 1, 4, 4), "9x32x32": (CHANNELS, 3, 4, 4)}
CODES = 16
CONTRACT = {
    "vae": "clipmill causal VAE",
    "fingerprint": "f" * 64,
    "channels": CHANNELS,
    "mean": [0.5, -0.5, 1.0, 0.0],
    "std": [2.0, 1.0, 0.5, 1.0],
    "dtype": "float16",
    "codebook": None,
    "text": {"dim": DIM, "max_tokens": 5},
}
TOKENS = {**CONTRACT, "dtype": "int32", "codebook": CODES, "mean": [], "std": []}


@dataclass
class MadeBatch:
    epoch: int
    bucket: str
    clip_ids: list[str]
    latents: dict[str, Tensor]
    text: Tensor | None
    text_mask: Tensor | None
    conditions: Tensor | None
    skipped: list[Any] = field(default_factory=list)


@dataclass
class Clips:
    """Endless batches, a pure function of (seed, step), of `count` clips in each bucket."""

    batch_size: int
    rank: int = 0
    world: int = 1
    seed: int = 0
    count: int = 12
    kind: str = "dit"
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: dict(SHAPES))
    bad: tuple[str, ...] = ()
    step: int = 0

    def __iter__(self) -> Iterator[MadeBatch]:
        while True:
            buckets = list(self.shapes)
            bucket = buckets[self.step % len(buckets)]
            order = torch.Generator().manual_seed(self.seed * 1000 + self.step)
            chosen = torch.randperm(self.count, generator=order)[: self.batch_size].tolist()
            share = self.batch_size // self.world
            epoch = self.step // 3
            self.step += 1
            yield self.batch(bucket, chosen[self.rank * share : (self.rank + 1) * share], epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]

    def batch(self, bucket: str, chosen: list[int], epoch: int = 0) -> MadeBatch:
        samples = [self.sample(bucket, number) for number in chosen]
        texts = [text for _, _, text, _ in samples]
        longest = max(len(text) for text in texts)
        padded = torch.stack([torch.cat([text, torch.zeros(longest - len(text), DIM)]) for text in texts])
        mask = torch.tensor([[place < len(text) for place in range(longest)] for text in texts])
        names = [name for name, *_ in samples]
        stacked = {key: torch.stack([latents[key] for _, latents, *_ in samples]) for key in samples[0][1]}
        values = torch.stack([values for *_, values in samples])
        return MadeBatch(epoch, bucket, names, stacked, padded.half(), mask, values)

    def sample(self, bucket: str, number: int) -> tuple[str, dict[str, Tensor], Tensor, Tensor]:
        name, own = f"{bucket}-{number:02d}", torch.Generator().manual_seed(number)
        text = torch.randn(1 + number % 3, DIM, generator=own)
        conditions = torch.tensor([float(number), torch.nan if number % 4 == 0 else 24.0])
        shape = self.shapes[bucket]
        if self.kind == "tokens":
            tokens = torch.randint(CODES, shape[1:], generator=own)
            return name, {"tokens": tokens}, text, conditions
        mean = torch.randn(shape, generator=own).half()
        if name in self.bad:
            mean[0, 0, 0, 0] = torch.nan
        return name, {"mean": mean, "logvar": torch.full(shape, -6.0).half()}, text, conditions


def data(batch_size: int, rank: int = 0, world: int = 1, held_out: int = 0, **changes: Any) -> TrainingData:
    clips = Clips(batch_size, rank, world, **changes)
    bucket = list(clips.shapes)[-1]
    share = held_out // world
    numbers = list(range(100 + rank * share, 100 + (rank + 1) * share))
    return TrainingData(
        loader=clips,
        contract=TOKENS if clips.kind == "tokens" else CONTRACT,
        shapes=clips.shapes,
        identity="12 made up clips",
        empty_text=torch.full((2, DIM), 0.5).half(),
        scales={"motion": (5.5, 3.5), "fps": (24.0, 0.0)},
        held_out=[clips.batch(bucket, numbers)] if held_out else (),
    )
