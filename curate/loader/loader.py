"""The loader: batches of latents for a trainer, read ahead by threads, in an order that follows from seed and step.

loader = Loader("datasets/demo", batch_size=256, rank=rank, world=world, device="cuda")
for batch in loader:  # endless; loader.state_dict() is what to resume from
    ...
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from curate.datasets.files import Dataset, open_dataset, refuse_retired
from curate.errors import UserError
from curate.loader.batch import Batch, BatchJob
from curate.loader.buffers import Buffers
from curate.loader.filling import Filler
from curate.loader.order import BLOCK, WINDOW, SampleOrder
from curate.loader.populations import identity, populations
from curate.loader.sample_reader import SampleReader, Verify
from curate.loader.shard_reader import ShardReader, open_shards
from curate.loader.texts import Texts, TextShares
from curate.loader.threads import Threads

CACHE_GB = 50.0  # 2^30 bytes
PIECES = 2  # of a batch for each thread: small enough that no thread waits long for the last one


class Loader:
    """Endless batches; `len_epoch` of them take every sample once.

    `folder`: of a dataset, or an open dataset.
    `batch_size` is that of all ranks together: a number, or one for each bucket. Rank r of `world` gets the r-th
    part of each global batch, which is the same however many ranks there are.
    `fields`: which latents (None: all). `text`: a text field, several with their shares, or None.
    `mix`: bucket -> share of the samples drawn (None: by the number of samples and their weights).
    `verify`: compare samples with their hashes 'off', the 'first' time, 'always'; 'auto': 'first' with xxhash.
    `bad`: 'raise', or 'skip': log it, count it in `skipped`, take another sample that follows from its place.
    `threads` read (None: 2, of a remote root 16), `ahead` batches at a time. With a CUDA `device` batches are copied
    there, through pinned memory.
    `stride`: yield only every `stride`-th step, for processes that take turns.
    `root`: the folder or URI that holds shards/, if not the one in the dataset. Shards of a remote root are cached in
    the folder `cache`, `cache_gb` (2^30 bytes) at most.
    `shards`: what reads the shards, instead of `root`, `cache` and `cache_gb`.

    UserError for what can't work: no dataset, shards that are missing, too few samples for a batch, ...
    BadSample for a sample that is not what was written.
    """

    def __init__(
        self,
        folder: str | Path | Dataset,
        *,
        batch_size: int | Mapping[str, int],
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        fields: Sequence[str] | None = None,
        text: TextShares = "text",
        mix: Mapping[str, float] | None = None,
        verify: Verify = "auto",
        bad: Literal["raise", "skip"] = "raise",
        threads: int | None = None,
        ahead: int = 3,
        device: str | torch.device | None = None,
        root: str | None = None,
        cache: str | None = None,
        cache_gb: float = CACHE_GB,
        block: int = BLOCK,
        window: int = WINDOW,
        stride: int = 1,
        shards: ShardReader | None = None,
    ):
        if not 0 <= rank < world:
            raise UserError(f"rank {rank} of {world}: expected 0 to {world - 1}")
        if bad not in ("raise", "skip"):
            raise UserError(f"bad {bad!r}: expected raise or skip")
        self.dataset = refuse_retired(open_dataset(folder))
        self.seed, self.rank, self.world, self.ahead = seed, rank, world, max(1, ahead)
        self.stride = stride
        self.device = torch.device(device) if device is not None else None
        if text == "text" and not self.dataset.text:
            text = None
        texts = Texts(self.dataset, text, seed) if text is not None else None
        latents = _latents(self.dataset, fields)
        read = [*latents, *(texts.names if texts else []), *(texts.masks.values() if texts else [])]
        if shards is None:
            shards = open_shards(self.dataset, root, cache, cache_gb)
        threads = threads or shards.threads
        self.order = SampleOrder(populations(self.dataset, batch_size, world, mix), seed, block, window)
        reader = SampleReader(self.dataset, shards, read, verify)
        self.filler = Filler(self.dataset, reader, self.order, texts, skip=bad == "skip")
        self.identity = identity(self.dataset, self.order)
        self.step = 0
        self.skipped = 0  # samples of this rank that were replaced
        self.waited_s = 0.0  # that the trainer waited for batches
        self.buffers = Buffers(pinned=self.device is not None and self.device.type == "cuda")
        self._jobs: deque[BatchJob] = deque()
        self._threads = Threads(threads)
        self._pieces = PIECES * threads

    @property
    def len_epoch(self) -> int:
        """Batches of the first epoch; others may have one more or one fewer of a bucket."""
        return self.order.epoch_start(1) or 1

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while len(self._jobs) < self.ahead:
            self._jobs.append(self._start(self.step + len(self._jobs) * self.stride))
        began = time.perf_counter()
        job = self._jobs.popleft()
        job.wait()
        self.waited_s += time.perf_counter() - began
        try:
            if job.error is not None:
                raise job.error
            batch = self._finish(job)
        except BaseException:
            job.buffer.taken = False
            self._drop()
            raise
        self.skipped += len(job.skipped)
        self.step += self.stride
        return batch

    def state_dict(self) -> dict[str, int]:
        """The state to resume from: the next batch. The number of ranks may change."""
        return {"step": self.step, "seed": self.seed, "order": self.identity}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """UserError for the state of another order: another dataset, seed, batch size, mix, block or window."""
        if state["seed"] != self.seed or state["order"] != self.identity:
            what = f"seed {state['seed']}, not {self.seed}" if state["seed"] != self.seed else (
                "another dataset, batch_size, mix, block or window")  # fmt: skip
            raise UserError(f"this state is of {what}: resuming from it would repeat and leave out samples")
        self._drop()
        self.step = int(state["step"])

    def close(self) -> None:
        """Ends the threads. A loader that nothing refers to any more closes itself."""
        self._drop()
        self._threads.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, step: int) -> BatchJob:
        plan = self.order.plan(step)
        rows = len(plan.rows) // self.world
        job = self.filler.job(plan, self.rank * rows, rows, self.buffers)
        for call in job.split(self.filler.fill, self._pieces):
            self._threads.put(call)
        return job

    def _finish(self, job: BatchJob) -> Batch:
        """The batch of a job that is done, on the device."""
        memory = job.buffer.lend(job.layout.bytes)
        if self.device is not None and self.device.type != "cpu":
            memory = memory.to(self.device, non_blocking=True)
            if self.device.type == "cuda":
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(self.device))
                job.buffer.copied(event)
        return self.filler.batch(job, job.layout.tensors(memory))

    def _drop(self) -> None:
        """Waits for the batches that were read ahead, and frees their buffers."""
        while self._jobs:
            job = self._jobs.popleft()
            job.error = job.error or RuntimeError("dropped")
            job.wait()
            job.buffer.taken = False


def _latents(dataset: Dataset, fields: Sequence[str] | None) -> list[str]:
    """The names of the latents to read. UserError for one that the dataset has not."""
    for field in fields or ():
        if field not in dataset.latents:
            raise UserError(f"the dataset has no latents {field!r}: it has {', '.join(dataset.latents)}")
    return [field for field in dataset.latents if fields is None or field in fields]
