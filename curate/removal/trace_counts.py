"""How often a run drew certain clips up to a step: computed from its config, its data and its log."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.datasets.files import Dataset
from curate.datasets.pseudonyms import PURGED, pseudonym
from curate.errors import UserError
from curate.loader.draw_counts import DrawCounts
from curate.loader.order import SampleOrder
from curate.loader.populations import identity, populations
from curate.removal.trace_runs import RunRecord
from curate.training.held_out import split
from curate.training.vae_order import ClipOrder
from curate.training.vae_split import read_split
from stages.windows.buckets import Bucket
from train.config.training import ValidationConfig
from train.run.lineage import BALANCED


class Counter(Protocol):
    """Counts for the clips that are traced, K of them."""

    held: np.ndarray  # (K,) bool, in the validation of the run, which never trains on them
    trained: np.ndarray  # (K,) bool, among the clips that the run draws from

    def before(self, step: int) -> np.ndarray:
        """(K,) int64, how often each clip was in a batch of the first `step` steps."""


class DatasetCounter:
    """Of a run on a dataset. UserError where its order can't be computed."""

    def __init__(self, run: RunRecord, dataset: Dataset, clips: pa.Array):
        config = run.config
        trained, held = split(dataset, ValidationConfig.from_dict(config["validation"]))
        at = rows_of(trained, clips)
        self.trained, self.places = at >= 0, np.flatnonzero(at >= 0)
        self.held = rows_of(held, clips) >= 0 if held is not None else np.zeros(len(clips), bool)
        sizes = config[BALANCED]["sizes"] if BALANCED in config else config["batch_size"]
        drawn = populations(trained, sizes, 1, config["loader"]["mix"])
        order = SampleOrder(drawn, config["seed"])
        if (recorded := run.recorded_order()) is not None and recorded != identity(trained, order):
            raise UserError(
                f"the order of the run {run.folder} can't be computed: its checkpoints were made in another one, by "
                "another version of clipmill"
            )
        self.draws = DrawCounts(order, at[self.places])
        self.replaced: list[tuple[int, int, int]] = []  # step, clip, +1 or -1 draws
        if config["loader"]["bad"] == "skip":
            numbers = {clip: number for number, clip in enumerate(clips.to_pylist())}
            for line in run.log_lines("replaced"):
                for each in line["replaced"]:
                    changes = ((each["clip_id"], -1), (each["by"], 1))
                    self.replaced += [(line["step"], numbers[c], n) for c, n in changes if c in numbers]

    def before(self, step: int) -> np.ndarray:
        found = np.zeros(len(self.trained), np.int64)
        found[self.places] = self.draws.before(step)
        for made, clip, change in self.replaced:
            found[clip] += change * (made <= step)
        return found


class VAECounter:
    """Of the run of a VAE, on the clips in its clips.parquet."""

    def __init__(self, run: RunRecord, clips: pa.Array):
        config = run.config
        table = read_split(run.folder)
        held = table["held_out"].to_numpy()
        at = pc.index_in(table["clip_id"].combine_chunks(), value_set=clips).fill_null(-1).to_numpy()
        self.held, self.trained = (np.zeros(len(clips), bool) for _ in range(2))
        self.held[at[held & (at >= 0)]] = True
        self.trained[at[~held & (at >= 0)]] = True
        images: dict[Bucket, list[int]] = {}
        videos: dict[Bucket, list[int]] = {}
        kinds = table["bucket"].combine_chunks().dictionary_encode()
        buckets = [Bucket.parse(name) for name in kinds.dictionary.to_pylist()]
        media = table["media"].to_pylist()
        for row in np.flatnonzero(~held).tolist():
            bucket, number = buckets[kinds.indices[row].as_py()], int(at[row])
            images.setdefault(bucket, []).append(number)
            if media[row] != "image":
                videos.setdefault(bucket, []).append(number)
        share, steps = config["clips"]["image_share"], config["steps"]
        images, videos = (dict(sorted(groups.items())) for groups in (images, videos))
        self.order = ClipOrder(images, videos, share, config["batch_size"], config["seed"], steps)
        self.failed: list[tuple[int, int, int]] = []  # step, clip, how often it was to be in that batch
        numbers = {clip: number for number, clip in enumerate(clips.to_pylist())}
        for line in run.log_lines("failed"):
            for number in {numbers[clip] for clip in line["failed"] if clip in numbers}:
                drawn = self.order.step(line["step"] - 1)[2]
                self.failed.append((line["step"], number, drawn.count(number)))

    def before(self, step: int) -> np.ndarray:
        found = np.zeros(len(self.trained), np.int64)
        for (_, _, clips), counts in zip(self.order.groups, self.order.counts_before(step), strict=True):
            numbers = np.array(clips)
            np.add.at(found, numbers[numbers >= 0], counts[numbers >= 0])
        for made, clip, count in self.failed:
            found[clip] -= count * (made <= step)
        return found


def rows_of(dataset: Dataset, clips: pa.Array) -> np.ndarray:
    """(K,) int64: the row of each clip in the index of the dataset, -1 for those that it does not hold."""
    ids = dataset.columns(["clip_id"])["clip_id"].combine_chunks()
    found = pc.index_in(clips, value_set=ids)
    if pc.any(pc.starts_with(ids, PURGED)).as_py():
        found = pc.coalesce(found, pc.index_in(pa.array(map(pseudonym, clips.to_pylist())), value_set=ids))
    return found.fill_null(-1).to_numpy().astype(np.int64)
