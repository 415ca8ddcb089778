"""The data of a training run: a loader over a dataset, held-out batches, and what the trainer must know of both."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from curate.datasets.files import Dataset, open_dataset, refuse_retired
from curate.errors import UserError
from curate.loader import Loader
from curate.loader.loader import CACHE_GB
from curate.training.balance import NoBatches, find_balance
from curate.training.batches import clips_per_rank, fixed_batches
from curate.training.held_out import one_source_note, split
from train.config.training import TrainConfig
from train.data.batch_sizes import batch_sizes
from train.data.batches import TrainingData
from train.devices.parallel import Ranks


def training_data(
    folder: str | Path, config: TrainConfig, ranks: Ranks, run: Path | None = None
) -> tuple[TrainingData, Loader, Dataset]:
    """This rank's data, its loader, which the caller closes, and the dataset. `run` is the folder of a run that is
    resumed. UserError, or ConfigError, for a dataset that does not fit the config.
    """
    whole = refuse_retired(open_dataset(folder))
    trained, held = split(whole, config.validation)
    if held and ranks.first:
        sources = len(held.columns(["source_id"])["source_id"].unique())
        print(
            f"held out: {held.samples:,} clips of {sources:,} sources, {trained.samples:,} clips to train on"
            f"{one_source_note(sources)}",
            file=sys.stderr,
        )
    open_loader = partial(
        Loader,
        rank=ranks.rank,
        world=ranks.world,
        text=config.loader.text or ("text" if whole.text else None),
        verify=config.loader.verify,
        bad=config.loader.bad,
        threads=config.loader.threads,
        root=config.loader.root,
        cache=config.loader.cache,
        cache_gb=CACHE_GB if config.loader.cache_gb is None else config.loader.cache_gb,
    )
    empty = whole.empty_text() if whole.text else None
    if whole.text and empty is None:
        raise UserError(f"{whole.folder} lacks empty_text.npy, the encoded empty prompt: make the dataset again")
    data = TrainingData(
        loader=NoBatches(),
        contract=whole.contract.to_dict(),
        shapes={name: bucket.latent for name, bucket in whole.buckets.items()},
        identity=whole.identity,
        empty_text=None if empty is None else as_tensor(empty, whole),
        scales=scales(trained),
    )
    if config.batch_size == "balanced":
        data.balance = find_balance(config, data, trained, ranks, run, open_loader)
    sizes = batch_sizes(config, data.shapes, ranks.world, data.balance)
    means = ["tokens" if whole.contract.codebook is not None else "mean"]  # enough where no latent is sampled
    loader = data.loader = open_loader(
        trained,
        fields=means if config.conditions.posterior == "mean" else None,
        batch_size={name: size for name, size in sizes.items() if name in trained.buckets},
        seed=config.seed,
        device=str(ranks.device) if ranks.device.type == "cuda" else None,
        mix=config.loader.mix,
    )
    if held:
        parts, least = ranks.world * config.accumulate, min(sizes.values())
        at_once = {name: max(1, sizes.get(name, least) // parts) for name in held.buckets}
        counts = clips_per_rank(held, config.validation.clips, ranks.world)
        data.held_out = fixed_batches(held, counts, at_once, ranks.world, partial(open_loader, fields=means))
        if not data.held_out:
            raise UserError(
                f"validation.share {config.validation.share} holds out {held.samples} clips, too few for a clip of one "
                f"shape on each of {ranks.world} ranks: take a larger share"
            )
    return data, loader, whole


def scales(dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each condition, over the samples for which it is known."""
    found = {}
    for name, column in dataset.columns(dataset.conditions).items():
        values = column.to_numpy().astype(np.float64)
        known = values[np.isfinite(values)]
        found[name] = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
    return found


def as_tensor(values: np.ndarray, dataset: Dataset) -> torch.Tensor:
    """An encoded text in its stored dtype; numpy holds the bits of a bfloat16 as uint16."""
    found = torch.from_numpy(np.ascontiguousarray(values))
    return found.view(torch.bfloat16) if found.dtype == torch.uint16 else found
