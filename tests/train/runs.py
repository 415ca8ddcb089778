"""Small training runs on made-up clips, in this process or in one that is started by torchrun or killed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.train.made_up import data
from train.config.training import TrainConfig
from train.devices.parallel import Ranks, exit_process, init_ranks
from train.loop.training import Training
from train.optimization.optimizer import DivergedError
from train.run.log import read_log

MODEL = {"size": "debug", "width": 48, "depth": 2, "heads": 4}


def config(**changes: Any) -> TrainConfig:
    """A config with everything random turned on: dropout, masks, posterior, dropped tokens."""
    values = {
        "kind": "dit",
        "model": {**MODEL, "mixer_depth": 1, "mask_ratio": 0.25},
        "steps": 8,
        "batch_size": 4,
        "conditions": {"text_dropout": 0.3, "dropout": 0.3, "masks": {"predict": 0.3, "spatial": 0.3}},
        "optimizer": {"lr": 2e-3, "warmup": 2, "weight_decay": 0.1},
        "ema": 0.9,
        "checkpoint": {"every": 3, "keep": 2},
        "peak_tflops": 0.1,
    }
    if changes.get("kind") == "tokens":
        values |= {"model": MODEL, "conditions": {"text_dropout": 0.3}}
    return TrainConfig.from_dict({**values, **changes})


def train(folder: Path, ranks: Ranks | None = None, made: dict[str, Any] | None = None, resume=False, **changes: Any):
    """Trains a run in the folder to its end; `made` is for the clips, the rest for the config."""
    chosen, ranks = config(**changes), ranks or Ranks()
    clips = data(chosen.batch_size, ranks.rank, ranks.world, kind=chosen.kind, **(made or {}))
    training = Training(chosen, clips, folder, ranks, resume=resume, quiet=True)
    training.run()
    return training


def weights(folder: Path, group: str = "model") -> dict[str, Tensor]:
    """The weights of the last checkpoint."""
    last = sorted(each for each in (folder / "checkpoints").iterdir() if each.name.isdigit())[-1]
    return load_file(last / f"{group}.safetensors")


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder) if "loss" in line]


def main() -> None:
    """What torchrun starts, or a test kills: trains runs, each a folder and its changes, one after another."""
    torch.set_num_threads(1)
    with init_ranks(os.environ.get("RUNS_DEVICE", "cpu")) as ranks:
        for folder, changes in json.loads(sys.argv[1]):
            try:
                train(Path(folder), ranks, **changes)
            except DivergedError as error:
                Path(f"{folder} diverged {ranks.rank}").write_text(str(error))


if __name__ == "__main__":
    main()
    exit_process(0)
