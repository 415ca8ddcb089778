"""Sample sheets during training: clips, and below them samples of the averaged weights for the same captions."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from curate.datasets.files import Dataset
from curate.errors import UserError
from curate.loader import Loader
from curate.training.batches import fixed_batches
from curate.training.held_out import split
from stages.shards.format import JSON, ShardError, read_index, read_sample
from train.config.training import TrainConfig
from train.data.batches import TrainingData
from train.devices.parallel import Ranks
from train.loop.tasks import objective_from
from train.objectives.objective import Objective
from train.run.run_folder import SAMPLES
from train.sampling.guidance import Guidance
from train.sampling.trained_run import Prompt, SamplingSettings, TrainedRun

if TYPE_CHECKING:
    from models.transformers.dit import DiT
    from models.transformers.token_transformer import TokenTransformer


class Sheets:
    """Called with a step and a network, writes RUN/samples/<step>.png (strips of frames) and .mp4: some clips above
    samples for their captions, made from the same noise at every step.

    The clips are of the longest bucket, held-out ones if there are any. UserError if the config names no `vae`.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        dataset: Dataset,
        extra: dict[str, Any],
        folder: Path,
        ranks: Ranks,
    ):
        self.config, self.data, self.extra, self.folder, self.ranks = config, data, extra, folder, ranks
        if not config.vae:
            raise UserError("samples.every needs the VAE that decodes the samples: set vae, too")
        from stages.latent_coders.load import load_coder

        self.coder = load_coder(config.vae, device=str(ranks.device))
        source = split(dataset, config.validation)[1] or dataset
        longest = max(source.buckets.values(), key=lambda each: (each.latent[-3], each.samples))
        self.shape, count = longest.latent, min(config.samples.count, longest.samples)
        text = config.loader.text or ("text" if dataset.text else None)
        open_loader = partial(Loader, text=text, root=config.loader.root)
        (self.batch,) = fixed_batches(source, {longest.name: count}, count, 1, open_loader)
        self.captions = captions(source, self.batch.clip_ids, config.loader.root or dataset.root)

    def __call__(self, step: int, network: nn.Module) -> None:
        """With FSDP every rank must call it; the first one writes."""
        network = cast("DiT | TokenTransformer", network)
        config, empty = self.config, self.data.empty_text
        objective = objective_from(config) if config.kind == "dit" else Objective()
        run = TrainedRun(network, objective, self.data.contract, self.extra, None if empty is None else empty.float())
        run.empty = None if run.empty is None else run.empty.to(run.device)
        settings = SamplingSettings(steps=config.samples.steps, guidance=Guidance(config.samples.guidance))
        made = run.sample(self._prompts(network), self.shape, settings)
        if not self.ranks.first:
            return
        try:
            real = self.batch.latents["tokens" if run.tokens else "mean"]
            videos = [video for each in (real, made) for video in self._decoded(each, run.tokens)]
            self._write(step, videos)
        except (OSError, UserError) as error:  # a missing picture is no reason to end a run
            print(f"step {step:,}: samples could not be written ({error})", file=sys.stderr)

    def _prompts(self, network: DiT | TokenTransformer) -> list[Prompt]:
        """The captions and conditions of the clips."""
        batch, found = self.batch, []
        for row in range(len(batch.clip_ids)):
            text, conditions = None, {}
            if network.settings.text_dim and batch.text is not None and batch.text_mask is not None:
                text = batch.text[row][batch.text_mask[row]].float()
            if batch.conditions is not None:
                told = dict(zip(self.data.scales, batch.conditions[row].tolist(), strict=True))
                conditions = {name: told[name] for name in network.settings.conditions if not math.isnan(told[name])}
            found.append(Prompt(text, conditions=conditions, seed=self.config.seed + row))
        return found

    def _decoded(self, latents: Tensor, tokens: bool) -> list[np.ndarray]:
        """(T, H, W, 3) uint8 RGB of each."""
        from curate.generate.text_to_video import as_pixels

        with torch.autocast(self.ranks.device.type, enabled=False):
            video = self.coder.decode_tokens(latents) if tokens else self.coder.decode(latents.float())
        return list(as_pixels(video))

    def _write(self, step: int, videos: list[np.ndarray]) -> None:
        from curate.generate.pictures import write_sheet

        place = self.folder / SAMPLES
        place.mkdir(exist_ok=True)
        said = [f"clip: {each}" for each in self.captions] + [f"step {step:,}: {each}" for each in self.captions]
        for ending in ("png", "mp4"):
            write_sheet(place / f"{step:08d}.{ending}", videos, said, self.data.contract["fps"])


def captions(dataset: Dataset, clip_ids: list[str], root: str) -> list[str]:
    """The captions of clips from the shards below `root`; the id of a clip that has none."""
    if not dataset.text:
        return clip_ids
    column = next(iter(dataset.text.values()))["column"]
    columns = dataset.columns(["clip_id", "shard"])
    rows = pc.index_in(pa.array(clip_ids), value_set=columns["clip_id"].combine_chunks())
    found = []
    for clip_id, shard in zip(clip_ids, columns["shard"].take(rows).to_pylist(), strict=True):
        path = f"{root.rstrip('/')}/{dataset.shards[shard].path}"
        try:
            index = read_index(path)
            own = pc.and_(pc.equal(index["clip_id"], clip_id), pc.equal(index["field"], JSON))
            found.append(read_sample(path, index.filter(own))[JSON]["captions"].get(column) or clip_id)
        except (ShardError, KeyError):
            found.append(clip_id)
    return found
