"""Stages that look at a clip's frames through an OpenCLIP model: the frames' embeddings, computed once.

Three things run side by side: the next clips are fetched (upstream), their pictures are brought to the
network's size on threads, and the network runs on the batch before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.base import ClipError, ClipStage, Needs
from stages.frames import FrameRequest, Picture
from stages.pretrained.clip_models import (
    ClipModel,
    ClipModelSettings,
    ClipSource,
    available,
    load_model,
    settings_source,
)
from stages.pretrained.devices import cores, leave_a_core, on_gpu
from stages.unit import Clip, Unit

OVERSIZE = 2  # frames are asked for with a long side so many times the network's, so that it is what shrinks them
PREPARING_THREADS = 8  # threads that resize pictures ahead of the network, at most
NETWORK_IMAGES = 256  # pictures that go through the network at a time, at most


@dataclass
class FrameVectors:
    """Embeddings (k, width) float32, L2-normalised, of a clip's distinct frames in order of time."""

    vectors: np.ndarray
    revision: str  # hash of the weights that made them


class FrameEmbeddingStage(ClipStage):
    """Base of stages that score clips by the embeddings of their frames.

    Subclasses call `vectors_of(clips)`. The embeddings stay among the clip's features under the identity of
    the model, precision and frames, so that a later stage of the same model does not run the network again.
    """

    def __init__(self, settings: ClipModelSettings):
        super().__init__(settings.table)
        self.settings = settings
        self.batch_clips = settings.batch_clips
        self.source: ClipSource = settings_source(settings)
        self.needs = Needs(cpus=1.0, gpus=1.0 if on_gpu(settings.device) else 0.0)
        self.request = FrameRequest(tuple(settings.positions), OVERSIZE * self.source.image_size)
        self.model: ClipModel | None = None
        self._threads: ThreadPoolExecutor | None = None

    def check(self) -> None:
        """SettingsError for what could not work in a worker; loads no weights."""
        available(self.source)

    def wants(self) -> FrameRequest:
        return self.request

    def setup(self) -> None:
        leave_a_core()
        self.model = load_model(self.source, self.settings.device, self.settings.precision)
        self._threads = ThreadPoolExecutor(min(PREPARING_THREADS, cores()), thread_name_prefix="prepare")

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self.model = self._threads = None

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Units in their order, a batch behind: one batch is in the network while the next is gathered.

        On a GPU two are in the network, so that it has the next one's work when the first one's rows are made.
        """
        depth = 2 if self.model is not None and self.model.device == "cuda" else 1
        running: deque[Future] = deque()
        with ThreadPoolExecutor(depth, thread_name_prefix="network") as network:
            for batch in self._batches(units):
                running.append(network.submit(self._score, batch))
                if len(running) > depth:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()

    def _batches(self, units: Iterable[Unit]) -> Iterator[list[Unit]]:
        waiting: list[Unit] = []
        clips = 0
        for unit in units:
            waiting.append(unit)
            for clip in unit.lacking(self.table):
                self._begin(clip)
                clips += 1
            if clips >= self.batch_clips:
                yield waiting
                waiting, clips = [], 0
        if waiting:
            yield waiting

    @property
    def _key(self) -> tuple[Any, ...]:
        return ("frame_vectors", self.source.model, self.source.pretrained, self.settings.precision, self.request)

    def _begin(self, clip: Clip) -> None:
        """Starts to prepare a clip's pictures, unless its embeddings are there already."""
        frames = clip.pixels.get(self.request)
        if frames and self._key not in clip.features:
            clip.features[("prepared", *self._key)] = self._preparing(frames)

    def _preparing(self, frames: Sequence[Picture]) -> list[Future]:
        return [self._threads.submit(self.model.prepared, picture) for picture in _distinct(frames)]

    def vectors_of(self, clips: Sequence[Clip]) -> list[FrameVectors]:
        """The embeddings of each clip's frames. A frame that was asked for twice (a short clip) counts once."""
        todo = [clip for clip in clips if self._key not in clip.features]
        prepared = [clip.features.pop(("prepared", *self._key), None) or self._preparing(clip.frames) for clip in todo]
        ready = [future.result() for futures in prepared for future in futures]
        parts = [ready[at : at + NETWORK_IMAGES] for at in range(0, len(ready), NETWORK_IMAGES)]
        vectors = np.concatenate([self.model.encode_prepared(part) for part in parts]) if parts else None
        if vectors is not None and not np.isfinite(vectors).all():  # a batch is then taken apart, clip by clip
            raise ClipError(f"precision {self.model.precision} is too little for {self.source.name}: try bf16 or fp32")
        at = 0
        for clip, futures in zip(todo, prepared, strict=True):
            clip.features[self._key] = FrameVectors(vectors[at : at + len(futures)].copy(), self.model.revision)
            at += len(futures)
        return [clip.features[self._key] for clip in clips]


def _distinct(frames: Sequence[Picture]) -> list[np.ndarray]:
    return list({seconds: picture for seconds, picture in sorted(frames, key=lambda frame: frame[0])}.values())
