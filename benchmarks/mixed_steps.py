"""Seconds of the training steps of a run on pictures and clips, bucket by bucket: one batch size against balanced ones.

    python benchmarks/mixed_steps.py [--size debug] [--tokens 2688] [--rounds 12]

The training loop itself runs on latents made on the fly. With one batch size the steps differ as the clips do; with
`batch_size: balanced` a short timed run at the start says what a clip of so many tokens costs, and so how many clips of
each bucket take alike long. Goal: the slowest bucket's step at most 1.25 times as long as the fastest one's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import show
from torch import Tensor

from train.config.training import TrainConfig
from train.data.batches import TrainingData
from train.devices.parallel import init_ranks
from train.loop.balance import balanced, measure
from train.loop.training import Training
from train.run.log import read_log

GOAL = 1.25
CHANNELS, TEXT, TEXT_DIM = 8, 16, 64  # of latents; tokens and channels of a text
SHAPES = {  # 64, 128, 320 and 1,344 tokens in patches of 2 x 2
    "1x128x128": (CHANNELS, 1, 16, 16),
    "5x128x128": (CHANNELS, 2, 16, 16),
    "17x128x128": (CHANNELS, 5, 16, 16),
    "81x128x128": (CHANNELS, 21, 16, 16),
}


@dataclass
class MadeBatch:
    bucket: str
    clip_ids: list[str]
    latents: dict[str, Tensor]
    text: Tensor
    text_mask: Tensor
    epoch: int = 0
    conditions: None = None
    skipped: list[Any] = field(default_factory=list)


@dataclass
class MadeLoader:
    """Endless batches of random latents, the buckets in turn."""

    sizes: Mapping[str, int]
    step: int = 0

    def __iter__(self) -> Iterator[MadeBatch]:
        names = list(self.sizes)
        while True:
            bucket = names[self.step % len(names)]
            self.step += 1
            yield made(bucket, self.sizes[bucket])

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def made(bucket: str, clips: int) -> MadeBatch:
    shape = (clips, *SHAPES[bucket])
    latents = {"mean": torch.randn(shape).half(), "logvar": torch.full(shape, -6.0).half()}
    text = torch.randn(clips, TEXT, TEXT_DIM).half()
    return MadeBatch(
        bucket, [f"{bucket}-{each}" for each in range(clips)], latents, text, torch.ones(text.shape[:2]) > 0
    )


def data(sizes: Mapping[str, int]) -> TrainingData:
    return TrainingData(
        loader=MadeLoader(sizes),
        contract={"channels": CHANNELS, "mean": [0.0] * CHANNELS, "std": [1.0] * CHANNELS, "codebook": None},
        shapes=dict(SHAPES),
        empty_text=torch.zeros(1, TEXT_DIM),
    )


def step_seconds(config: TrainConfig, there: TrainingData, device: str) -> dict[str, list[float]]:
    """Seconds of the steps by bucket; the first step of each, which allocates its memory, does not count."""
    with tempfile.TemporaryDirectory() as folder, init_ranks(device) as ranks:
        Training(config, there, Path(folder) / "run", ranks, quiet=True).run()
        lines = [line for line in read_log(Path(folder) / "run") if "loss" in line][len(SHAPES) :]
    return {name: [line["step_s"] for line in lines if line["bucket"] == name] for name in SHAPES}


def row(sizes: Mapping[str, int], seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """The medians, and the best times, which other work on the machine disturbs less."""
    found: dict[str, Any] = {"clips": dict(sizes)}
    for name, of in {"median": statistics.median, "best": min}.items():
        each = {bucket: round(of(times), 4) for bucket, times in seconds.items()}
        found |= {
            f"{name}_step_s": each,
            f"slowest_over_fastest_{name}": round(max(each.values()) / min(each.values()), 2),
        }
    return found


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if gpu else "cpu")
    parser.add_argument("--size", default="B" if gpu else "debug")
    parser.add_argument("--tokens", type=int, default=344_064 if gpu else 2688, help="most tokens of a step")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each bucket")
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    values = {
        "model": {"size": args.size},
        "steps": (args.rounds + 1) * len(SHAPES),
        "checkpoint": {"every": 10**6},
        "peak_tflops": 1.0,
    }
    tokens = {name: shape[1] * shape[2] * shape[3] // 4 for name, shape in SHAPES.items()}
    config = TrainConfig.from_dict({**values, "batch_size": "balanced", "balance": {"tokens": args.tokens}})

    def batch_of(bucket: str) -> MadeBatch:
        return made(bucket, max(1, args.tokens // tokens[bucket]))

    plenty = dict.fromkeys(SHAPES, 10**9)
    timed, update_s = measure(config, data(plenty), tokens, batch_of, torch.device(args.device))
    balance = balanced(config, tokens, plenty, timed, update_s, 1)
    there = data(balance.sizes)
    there.balance = balance
    one = max(1, args.tokens // max(tokens.values()))
    same = TrainConfig.from_dict({**values, "batch_size": one})
    rows = {
        "one_size": row(dict.fromkeys(SHAPES, one), step_seconds(same, data(dict.fromkeys(SHAPES, one)), args.device)),
        "balanced": row(balance.sizes, step_seconds(config, there, args.device)),
    }
    show(
        {
            "device": torch.cuda.get_device_name() if gpu else f"cpu, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "network": args.size,
            "tokens_of_a_clip": tokens,
            "goal": GOAL,
            "cost_is_tokens_to_the": round(balance.power, 3),
            **rows,
        }
    )


if __name__ == "__main__":
    main()
