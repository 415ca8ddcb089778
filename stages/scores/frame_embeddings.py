"""Base of the stages that look at a clip's frames through an OpenCLIP model; each frame is embedded once.

Three things run at the same time: the stage before fetches the next clips, threads resize their pictures for the
network, and the network runs on the previous batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stages.base import ClipError, ClipStage, Needs, SettingsError
from stages.frames import FrameRequest, Picture
from stages.pretrained.devices import cores, leave_a_core, on_gpu
from stages.pretrained.open_clip_lookup import OpenClipSpec, available, find_model
from stages.pretrained.open_clip_model import OpenClipModel, load_model
from stages.scores.settings import OpenClipSettings
from stages.unit import Clip, Unit

if TYPE_CHECKING:
    from torch import Tensor

OVERSIZE = 2  # frames are asked for with a long side so many times the network's, so that it is what shrinks them
PREPARING_THREADS = 8  # threads that resize pictures ahead of the network, at most
NETWORK_IMAGES = 256  # pictures that go through the network at a time, at most


S = TypeVar("S", bound=OpenClipSettings)


@dataclass
class FrameVectors:
    """Embeddings (k, width) float32, L2-normalised, of a clip's distinct frames in order of time."""

    vectors: np.ndarray
    revision: str  # hash of the weights that made them


class FrameEmbeddingStage(ClipStage[S]):
    """Base of stages that score clips by the embeddings of their frames.

    Subclasses call `vectors_of(clips)`. The embeddings stay among the clip's features under a key of model, dtype and
    frames, so that a later stage with the same model does not run the network again.
    """

    model: OpenClipModel  # from `setup` on
    _threads: ThreadPoolExecutor

    def __init__(self, settings: S):
        super().__init__(settings)
        self.spec = spec_of(settings)
        self.needs = Needs(cpus=1.0, gpus=1.0 if on_gpu(settings.device) else 0.0)
        self.request = FrameRequest(tuple(settings.positions), OVERSIZE * self.spec.image_size)

    def check(self) -> None:
        """SettingsError for what could not work in a worker; loads no weights."""
        available(self.spec)

    def wants(self) -> FrameRequest:
        return self.request

    def loads(self) -> tuple[str, ...]:
        return (f"CLIP model {self.spec.name}",)

    def setup(self) -> None:
        leave_a_core()
        self.model = load_model(self.spec, self.settings.device, self.settings.dtype)
        self._threads = ThreadPoolExecutor(min(PREPARING_THREADS, cores()), thread_name_prefix="prepare")

    def close(self) -> None:
        if hasattr(self, "_threads"):
            self._threads.shutdown(cancel_futures=True)
            del self._threads, self.model

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Units in their order, one batch behind: a batch is in the network while the next is gathered.

        On a GPU two batches are submitted, so that the GPU goes on while the rows of the first one are made.
        """
        depth = 2 if self.model.device == "cuda" else 1
        running: deque[Future[list[Unit]]] = deque()
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
        """Of this model's embeddings among a clip's features; stages.captions.match makes the same one."""
        return ("frame_vectors", self.spec.model, self.spec.pretrained, self.settings.dtype, self.request)

    def _begin(self, clip: Clip) -> None:
        """Starts to prepare a clip's pictures, unless its embeddings are there already."""
        frames = clip.pixels.get(self.request)
        if frames and self._key not in clip.features:
            clip.features[("prepared", *self._key)] = self._preparing(frames)

    def _preparing(self, frames: Sequence[Picture]) -> list[Future[Tensor]]:
        return [self._threads.submit(self.model.prepared, picture) for picture in _distinct(frames)]

    def vectors_of(self, clips: Sequence[Clip]) -> list[FrameVectors]:
        """The embeddings of each clip's frames. A frame that was asked for twice (a short clip) counts once."""
        todo = [clip for clip in clips if self._key not in clip.features]
        prepared = [clip.features.pop(("prepared", *self._key), None) or self._preparing(clip.frames) for clip in todo]
        ready = [future.result() for futures in prepared for future in futures]
        parts = [ready[at : at + NETWORK_IMAGES] for at in range(0, len(ready), NETWORK_IMAGES)]
        vectors = np.concatenate([np.zeros((0, self.model.width), np.float32), *map(self.model.encode_prepared, parts)])
        if not np.isfinite(vectors).all():  # the batch is then scored again, clip by clip
            raise ClipError(f"dtype {self.model.dtype} is too little for {self.spec.name}: try bfloat16 or float32")
        start = 0
        for clip, futures in zip(todo, prepared, strict=True):
            clip.features[self._key] = FrameVectors(vectors[start : start + len(futures)].copy(), self.model.revision)
            start += len(futures)
        return [clip.features[self._key] for clip in clips]


def _distinct(frames: Sequence[Picture]) -> list[np.ndarray]:
    return list({seconds: picture for seconds, picture in sorted(frames, key=lambda frame: frame[0])}.values())


def spec_of(settings: OpenClipSettings) -> OpenClipSpec:
    """The model that settings name. SettingsError also where weights are given beside a folder, which holds its own."""
    spec = find_model(settings.model, settings.pretrained)
    if spec.pretrained is None and settings.pretrained and "pretrained" in settings.model_fields_set:
        raise SettingsError(f"model {settings.model} holds its own weights: leave `pretrained` out")
    return spec
