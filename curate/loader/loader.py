"""The loader: batches of latents for a trainer, read by threads ahead of it, in an order that nothing disturbs.

loader = Loader("datasets/demo", batch_size=256, rank=rank, world=world, device="cuda")
for batch in loader:  # for ever; loader.state_dict() is where it stands
    ...
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from curate.datasets.files import Dataset, open_dataset
from curate.errors import UserError
from curate.loader.batch import Batch, Job
from curate.loader.buffers import Buffers
from curate.loader.errors import log
from curate.loader.filling import Filler
from curate.loader.order import BLOCK, WINDOW, Order, Population
from curate.loader.permutation import key
from curate.loader.samples import Samples, Verify
from curate.loader.sources import open_source
from curate.loader.texts import Asked, Texts
from curate.loader.threads import Threads

PIECES = 2  # of a batch for each thread: the last to finish is waited for


class Loader:
    """Endless batches; `len_epoch` of them take every sample once.

    `batch_size` is that of all ranks together: a number, or one for each bucket. Rank r of `world` gets the r-th
    part of each global batch, which is the same however many ranks there are.
    `fields`: which latents (None: all). `text`: a text field, several with their shares, or None.
    `mix`: bucket -> share of the samples drawn (None: by the samples and weights that each has).
    `verify`: compare samples with their hashes 'off', the 'first' time, 'always'; 'auto': 'first' with xxhash.
    `bad`: 'raise', or 'skip': log it, count it in `skipped`, take another sample that follows from its place.
    `threads` read (None: 2, of a remote root 16), `ahead` batches at a time. With a CUDA `device` batches come there,
    through pinned memory.
    `stride`: give every so many steps only, for processes that take turns.
    `root`: where shards lie, if not where the dataset says. Of a remote one, pieces are kept in the folder `cache`,
    `cache_gb` at most.

    UserError for what can't work: no dataset, shards that are missing, too few samples for a batch, ...
    BadSample for a sample that is not what was written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        batch_size: int | Mapping[str, int],
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        fields: Sequence[str] | None = None,
        text: Asked = "text",
        mix: Mapping[str, float] | None = None,
        verify: Verify = "auto",
        bad: Literal["raise", "skip"] = "raise",
        threads: int | None = None,
        ahead: int = 3,
        device: str | torch.device | None = None,
        root: str | None = None,
        cache: str | None = None,
        cache_gb: float = 50.0,
        block: int = BLOCK,
        window: int = WINDOW,
        stride: int = 1,
    ):
        if not 0 <= rank < world:
            raise UserError(f"rank {rank} of {world}: expected 0 to {world - 1}")
        if bad not in ("raise", "skip"):
            raise UserError(f"bad {bad!r}: expected raise or skip")
        self.dataset = open_dataset(folder)
        self.seed, self.rank, self.world, self.ahead = seed, rank, world, max(1, ahead)
        self.stride = stride
        self.device = torch.device(device) if device is not None else None
        if text == "text" and not self.dataset.text:
            text = None
        texts = Texts(self.dataset, text, seed) if text is not None else None
        latents = _latents(self.dataset, fields)
        read = [*latents, *(texts.names if texts else []), *(texts.masks.values() if texts else [])]
        source, usual = open_source(self.dataset, root, cache, cache_gb)
        self.order = Order(_populations(self.dataset, batch_size, world, mix), seed, block, window)
        self.filler = Filler(
            self.dataset, Samples(self.dataset, source, read, verify), self.order, texts, bad == "skip"
        )
        self.identity = _identity(self.dataset, self.order)
        self.step = 0
        self.skipped = 0  # samples that others had to take the place of, on this rank
        self.waited_s = 0.0  # that the trainer waited for batches
        self._buffers = Buffers(pinned=self.device is not None and self.device.type == "cuda")
        self._jobs: deque[Job] = deque()
        self._threads = Threads(threads or usual)
        self._pieces = PIECES * (threads or usual)

    @property
    def len_epoch(self) -> int:
        """Batches of an epoch: of the first; others may have one more of a bucket, or one fewer."""
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
            batch = self._hand_over(job)
        except BaseException:
            job.buffer.taken = False
            self._drop()
            raise
        self.skipped += len(job.replaced)
        self.step += self.stride
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands. Any number of ranks goes on from it exactly."""
        return {"step": self.step, "seed": self.seed, "order": self.identity}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """UserError for the state of another order: another dataset, seed, batch size, mix, block or window."""
        if state["seed"] != self.seed or state["order"] != self.identity:
            what = f"seed {state['seed']}, not {self.seed}" if state["seed"] != self.seed else (
                "another dataset, batch_size, mix, block or window")  # fmt: skip
            raise UserError(f"this state is of {what}: going on from it would repeat and leave out samples")
        self._drop()
        self.step = int(state["step"])

    def close(self) -> None:
        """Ends the threads. A loader that is dropped closes itself."""
        self._drop()
        self._threads.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, step: int) -> Job:
        plan = self.order.plan(step)
        rows = len(plan.rows) // self.world
        job = self.filler.job(plan, self.rank * rows, rows, self._buffers)
        for call in job.split(self.filler.fill, self._pieces):
            self._threads.put(call)
        return job

    def _hand_over(self, job: Job) -> Batch:
        memory = job.buffer.lend(job.layout.bytes)
        if self.device is not None and self.device.type != "cpu":
            memory = memory.to(self.device, non_blocking=True)
            if self.device.type == "cuda":
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(self.device))
                job.buffer.copied(event)
        return self.filler.batch(job, job.layout.tensors(memory))

    def _drop(self) -> None:
        """Lets go of what was read ahead."""
        while self._jobs:
            job = self._jobs.popleft()
            job.error = job.error or RuntimeError("dropped")
            job.wait()
            job.buffer.taken = False


def _latents(dataset: Dataset, fields: Sequence[str] | None) -> list[str]:
    for field in fields or ():
        if field not in dataset.latents:
            raise UserError(f"the dataset has no latents {field!r}: it has {', '.join(dataset.latents)}")
    return [field for field in dataset.latents if fields is None or field in fields]


def _populations(
    dataset: Dataset, batch_size: int | Mapping[str, int], world: int, mix: Mapping[str, float] | None
) -> list[Population]:
    """The buckets with their draws of an epoch, as weights and mix give them. UserError for what gives no batch."""
    weights = dataset.columns(["weight"])["weight"].to_numpy() if dataset.weighted else None
    for name, share in (mix or {}).items():
        if name not in dataset.buckets or not 0 <= share < np.inf:
            raise UserError(
                f"mix {name}: {share!r}: expected buckets of {', '.join(dataset.buckets)} and shares from 0"
            )
    shares, sums = {}, {}
    for name, bucket in dataset.buckets.items():
        own = weights[bucket.first : bucket.first + bucket.samples] if weights is not None else None
        sums[name] = np.cumsum(own) if own is not None else None
        total = float(sums[name][-1]) if own is not None else float(bucket.samples)
        shares[name] = total if mix is None else float(mix.get(name, 0.0)) * (total > 0)
    whole = sum(shares.values())
    if not whole > 0:
        raise UserError("the shares of mix give no sample at all")
    found = []
    for name, bucket in dataset.buckets.items():
        if shares[name] > 0:
            size = batch_size if isinstance(batch_size, int) else batch_size.get(name, 0)
            if size < 1 or size % world:
                raise UserError(f"batch_size {size} of bucket {name}: expected a multiple of {world}, the ranks")
            draws = max(1, round(dataset.samples * shares[name] / whole))
            found.append(Population(name, bucket.first, bucket.samples, draws, size, sums[name]))
    _refuse_too_few(dataset, found)
    return found


def _refuse_too_few(dataset: Dataset, populations: Sequence[Population]) -> None:
    small = [p for p in populations if p.samples < p.batch_size]
    said = ", ".join(f"{p.name} has {p.samples} for a batch of {p.batch_size}" for p in small)
    if len(small) == len(populations):
        raise UserError(f"too few clips for one batch: {said}. Take a smaller batch_size, or more clips")
    if small:
        log.warning("buckets with fewer clips than a batch, whose batches hold some twice: %s", said)


def _identity(dataset: Dataset, order: Order) -> int:
    """A number for all that the order depends on, besides the seed."""
    made = zlib.crc32(f"{dataset.name} {dataset.about.get('created')} {dataset.contract.digest}".encode())
    numbers = [order.block, order.window, dataset.samples, made]
    for population in order.populations:
        numbers += [population.first, population.samples, population.draws, population.batch_size]
    return key(*numbers) >> 1
