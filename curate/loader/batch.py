"""A batch as a trainer gets it, and a batch job: a batch that threads are filling."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from curate.loader.buffers import Buffer, Layout
from curate.loader.order import BatchPlan
from curate.loader.texts import TextChoice


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be read, and the one that took its place."""

    place: int  # in the global batch
    clip_id: str
    by: str  # id of the clip that took its place
    why: str


@dataclass
class Batch:
    """This rank's part of the global batch of a step.

    `latents`: "mean" and perhaps "logvar" (B, Z, T, h, w) in the stored dtype, or "tokens" (B, T, h, w) int64.
    `text` (B, L, D) is zero after the end of each text; `text_mask` (B, L) is its attention mask, True for tokens.
    `conditions` (B, K) float32, NaN where unknown.
    """

    step: int
    epoch: int
    bucket: str
    clip_ids: list[str]
    latents: dict[str, Tensor]
    text: Tensor | None = None
    text_mask: Tensor | None = None
    conditions: Tensor | None = None
    skipped: list[Skipped] = field(default_factory=list)  # of this rank, by place


class BatchJob:
    """The samples from place `first` on of a global batch, while threads read them into a buffer.

    `samples` are their rows in the index: at first those of the plan, in the end with those that replaced bad ones.
    `choice` are their texts, None without text.
    """

    def __init__(self, plan: BatchPlan, choice: TextChoice | None, first: int, layout: Layout, buffer: Buffer):
        self.plan, self.first, self.layout, self.buffer = plan, first, layout, buffer
        own = slice(first, first + layout.rows)
        self.samples = plan.rows[own].copy()
        self.choice = TextChoice(choice.fields[own], choice.tokens[own]) if choice is not None else None
        self.memory = memoryview(buffer.array.data)
        self.arrays = layout.arrays(buffer.array)
        self.skipped: list[Skipped] = []  # in any order
        self.error: BaseException | None = None
        self._open = 0
        self._lock = threading.Lock()
        self._done = threading.Event()

    def span(self, name: str, row: int, size: int) -> memoryview:
        """The first `size` bytes of a row of a field."""
        part = self.layout.parts[name]
        start = part.offset + row * part.row_bytes
        return self.memory[start : start + size]

    def split(self, fill: Callable[[BatchJob, int], None], pieces: int) -> list[Callable[[], None]]:
        """At most `pieces` calls for any thread, which together fill every row."""
        ends = np.linspace(0, self.layout.rows, min(pieces, self.layout.rows) + 1).astype(int).tolist()
        self._open = len(ends) - 1
        return [partial(self._fill, fill, begin, end) for begin, end in itertools.pairwise(ends)]

    def _fill(self, fill: Callable[[BatchJob, int], None], begin: int, end: int) -> None:
        try:
            for row in range(begin, end):
                if self.error is None:
                    fill(self, row)
        except BaseException as error:
            self.error = error
        with self._lock:
            self._open -= 1
            if not self._open:
                self._done.set()

    def wait(self) -> None:
        self._done.wait()
