"""The next step of a run, prepared by a thread while this one is computed: its batch, conditions and draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from train.data.batches import Batch, MicroBatch, ResumableLoader, micro_batches, to_device
from train.data.conditions import Conditions
from train.devices.parallel import Ranks
from train.loop.tasks import Drawn, Task


@dataclass(frozen=True)
class PreparedStep:
    """This rank's share of a step's batch on the device, in parts with what is drawn for each."""

    batch: Batch
    parts: Sequence[tuple[MicroBatch, Drawn | None]]
    loader_state: dict[str, Any]  # of the loader after this batch, for a checkpoint of this step


class StepFeed:
    """Prepares the steps of a run in `accumulate` parts each, one step ahead of the one that is computed.

    Draws depend on the step and the places of the clips alone, so that they are the same whenever they are made.
    """

    def __init__(self, loader: ResumableLoader, conditions: Conditions, task: Task, ranks: Ranks, accumulate: int):
        self.loader, self.conditions, self.task, self.ranks = loader, conditions, task, ranks
        self.accumulate = accumulate
        self._batches: Iterator[Batch] = iter(loader)
        self._next: tuple[int, Future[PreparedStep]] | None = None
        self._thread = ThreadPoolExecutor(1, "feed", initializer=_use, initargs=(ranks.device,))

    def take(self, step: int, more: bool) -> PreparedStep:
        """The step of this number, counted from 0; with `more`, the one after it is begun. Steps are taken in order.
        Raises what the loader raises, at the step that it concerns.
        """
        if self._next is None:
            self._next = step, self._thread.submit(self._prepare, step)
        number, future = self._next
        if number != step:
            raise ValueError(f"step {step} is taken, but {number} comes next")
        found = future.result()
        self._next = (step + 1, self._thread.submit(self._prepare, step + 1)) if more else None
        return found

    def close(self) -> None:
        """Ends the thread; a step that was prepared and not taken is dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, step: int) -> PreparedStep:
        batch = next(self._batches)
        state = self.loader.state_dict()
        batch = to_device(batch, self.ranks.device)
        parts = micro_batches(batch, self.conditions(batch), self.accumulate)
        size = len(batch.clip_ids) // self.accumulate
        start = self.ranks.rank * len(batch.clip_ids)  # position of this rank's first clip in the global batch
        drawn = []
        for index, part in enumerate(parts):
            places = range(start + index * size, start + (index + 1) * size)
            drawn.append((part, self.task.draw(part, step, places)))
        return PreparedStep(batch, drawn, state)


def _use(device: torch.device) -> None:
    """In a new thread: each begins with the first GPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
