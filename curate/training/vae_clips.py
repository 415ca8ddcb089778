"""The clips that a VAE trains on: random windows of a catalog's clips, decoded in parallel with the training.

The windows of a step are a pure function of the seed and the step, so that a resumed run sees what it would have seen.
A source is held out whole or not at all.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect, query
from curate.errors import UserError
from curate.training.held_out import held_out_ids, one_source_note
from curate.training.vae_order import ClipOrder
from stages.unit import Place, Source
from stages.windows.buckets import Bucket, choose, frames_of, window_of
from stages.windows.prefetch import WindowPrefetcher
from stages.windows.window import Window, rate
from train.config.vae import VAETrainConfig
from train.vae.windows import Windows

NEEDED = ("clip_id", "source_id", "uri", "media", "start_pts", "end_pts", "time_base_num", "time_base_den")
SHAPE = ("width", "height", "crop_x", "crop_y", "crop_w", "crop_h")
RENDERING = ("hdr", "deinterlace")
WHOLE = 8  # windows: a clip that is no longer is decoded and kept in memory as a whole
SAMPLE = 256  # windows, at most, that the statistics of latents are computed from


@dataclass(frozen=True)
class TrainingClip:
    """A clip, its bucket, and how many frames it has at the rate of the config."""

    row: dict[str, Any]
    bucket: Bucket
    frames: int

    @property
    def clip_id(self) -> str:
        return self.row["clip_id"]

    def window(self, fps: float, first: int, frames: int) -> Window:
        """`frames` frames at `fps` from frame `first` on."""
        row, size = self.row, self.row["bytes"]
        source = Source(row["source_id"], row["uri"], bytes=size, place=Place.known(row["archive_offset"], size))
        whole = window_of(self.row, source, self.bucket, fps, where="start")
        return replace(whole, offset_s=float(first / rate(fps)), frames=frames)


@dataclass(frozen=True)
class ClipWindow:
    """The frames of a clip that a step sees."""

    clip: TrainingClip
    first: int
    frames: int
    flip: bool


class VAEClips:
    """The selected clips of a catalog, decoded by a pool of child processes. A context manager.

    UserError if no clip is selected, or none is long and large enough.
    """

    def __init__(self, config: VAETrainConfig, catalog: str):
        self.config, self.fps = config, config.clips.fps
        rows = _chosen(Catalog.open(catalog), config.clips.select)
        clips, refused = _with_buckets(rows, config)
        self.skipped = len(refused)
        if not clips:
            clip, reason = next(iter(refused.items()))
            raise UserError(f"none of {len(rows):,} clips fits clips.buckets; the first, {clip}: {reason}")
        sources = {clip.row["source_id"] for clip in clips}
        held = held_out_ids(sources, config.validation.share, config.validation.least)
        self.training = [clip for clip in clips if clip.row["source_id"] not in held]
        self.validation = [clip for clip in clips if clip.row["source_id"] in held]
        self.sources = {"training": len({c.row["source_id"] for c in self.training}), "held_out": len(held)}
        videos = _groups(clip for clip in self.training if clip.row["media"] != "image")
        images = _groups(self.training)  # a frame of a video is an image too
        share = config.clips.image_share
        self.order = ClipOrder(images, videos, share, config.batch_size, config.seed, config.steps)
        names = [f"{clip.clip_id} {clip.bucket}" for clip in self.training]
        cut = (self.fps, share, config.clips.flip)
        self.identity = hashlib.sha256("\n".join([str(cut), *names]).encode()).hexdigest()
        self._pool = WindowPrefetcher(config.loader.threads)
        self._one_fetch = threading.Lock()  # the pool serves one fetch at a time
        self._memory: dict[str, np.ndarray | str] = {}  # pixels of whole clips, or why there are none
        self._room = config.loader.cache_gb * 1e9

    @property
    def summary(self) -> str:
        """One line for people."""
        held, trained = self.sources["held_out"], self.sources["training"]
        skipped = f"; {self.skipped:,} fit no bucket" if self.skipped else ""
        return (
            f"{len(self.training):,} clips of {trained:,} sources to train on, {len(self.validation):,} clips of "
            f"{held:,} sources held out{skipped}{one_source_note(held)}"
        )

    def __enter__(self) -> VAEClips:
        self._pool.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def batches(self, step: int) -> Generator[Windows, None, None]:
        """The windows of every step from `step` on, decoded ahead by a thread."""
        ready: queue.Queue[Windows | BaseException] = queue.Queue(maxsize=self.config.loader.ahead)
        leaving = threading.Event()

        def work() -> None:
            try:
                at = step
                while not leaving.is_set():
                    steps = range(at, at + self.config.loader.ahead)
                    for windows in self._decoded([self.cuts(each) for each in steps], leaving):
                        _put(ready, windows, leaving)
                    at = steps.stop
            except BaseException as error:
                _put(ready, error, leaving)

        worker = threading.Thread(target=work, name="windows", daemon=True)
        worker.start()
        try:
            while True:
                found = ready.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            leaving.set()
            worker.join()

    def held_out(self) -> Iterator[Windows]:
        """The middle of each held-out clip, one at a time, in the same order each time."""
        return self._middles(_spread(self.validation, self.config.validation.clips))

    def training_sample(self) -> Iterator[Windows]:
        """The middle of some clips to train on, the same each time."""
        return self._middles(_spread(self.training, SAMPLE))

    def cuts(self, step: int) -> list[ClipWindow]:
        """The frames that a step sees: all of one bucket, images or videos."""
        rng = np.random.default_rng((self.config.seed, step))
        image, bucket, clips = self.order.step(step)
        frames, found = 1 if image else bucket.frames, []
        for clip in clips:
            first, mirrored = int(rng.integers(clip.frames - frames + 1)), bool(rng.random() < 0.5)
            found.append(ClipWindow(clip, first, frames, mirrored and self.config.clips.flip))
        return found

    def _middles(self, clips: list[TrainingClip]) -> Iterator[Windows]:
        """The middle window of each, one after another."""
        for start in range(0, len(clips), self.config.loader.ahead):
            some = clips[start : start + self.config.loader.ahead]
            cuts = [ClipWindow(c, (c.frames - c.bucket.frames) // 2, c.bucket.frames, False) for c in some]
            yield from self._decoded([[cut] for cut in cuts], threading.Event(), empty=True)

    def _decoded(
        self, steps: list[list[ClipWindow]], leaving: threading.Event, empty: bool = False
    ) -> Iterator[Windows]:
        """The windows of some steps. Clips are decoded source by source, so that each is opened once."""
        wanted: dict[Any, Window] = {}
        for cut in (cut for cuts in steps for cut in cuts):
            key, window = self._wanted(cut)
            if cut.clip.clip_id not in self._memory:
                wanted[key] = window
        found: dict[Any, np.ndarray | str] = {}
        order = sorted(wanted.items(), key=lambda each: (each[1].uri, each[1].start_pts, each[1].offset_s))
        with self._one_fetch, closing(self._pool.fetch(window for _, window in order)) as answers:
            for (key, window), (_, pixels) in zip(order, answers, strict=True):
                if leaving.is_set():
                    return
                found[key] = pixels if isinstance(pixels, str) else pixels.video
                size = 0 if isinstance(pixels, str) else pixels.video.nbytes
                if key == window.clip_id and size <= self._room:
                    self._memory[key] = found[key]
                    self._room -= size
        for cuts in steps:
            yield self._windows(cuts, found, empty)

    def _wanted(self, cut: ClipWindow) -> tuple[Any, Window]:
        """(key, window to decode): the whole clip, by its id, if it is short enough to keep, else only its frames."""
        clip, whole = cut.clip, cut.clip.frames <= WHOLE * cut.clip.bucket.frames
        if whole and self.config.loader.cache_gb:
            window = clip.window(self.fps, 0, clip.frames)
            if window.nbytes <= self._room:
                return clip.clip_id, window
        return (clip.clip_id, cut.first, cut.frames), clip.window(self.fps, cut.first, cut.frames)

    def _windows(self, cuts: list[ClipWindow], found: dict[Any, np.ndarray | str], empty: bool) -> Windows:
        videos, clip_ids, failed = [], [], {}
        for cut in cuts:
            clip, span = cut.clip.clip_id, slice(cut.first, cut.first + cut.frames)
            pixels = self._memory.get(clip, found.get(clip))
            if pixels is None:
                pixels, span = found[clip, cut.first, cut.frames], slice(None)
            if isinstance(pixels, str):
                failed[clip] = pixels
                continue
            video = pixels[span]
            videos.append(np.ascontiguousarray(video[:, :, ::-1]) if cut.flip else video)
            clip_ids.append(clip)
        if not videos and not empty:
            clip, reason = next(iter(failed.items()))
            raise UserError(f"none of a step's {len(cuts)} clips could be decoded; the first, {clip}: {reason}")
        shape = (cuts[0].frames, cuts[0].clip.bucket.height, cuts[0].clip.bucket.width, 3)
        video = np.stack(videos) if videos else np.empty((0, *shape), np.uint8)
        return Windows(torch.from_numpy(video), clip_ids, failed)


def _place(text: str) -> float:
    """A hash of the text as a number from 0 to 1."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def _chosen(catalog: Catalog, select: str) -> list[dict[str, Any]]:
    """The rows of the clips that `select` gives, sorted by id, with the size of their sources."""
    text = select.strip().rstrip(";")
    with connect(catalog) as sql:
        try:
            names, _ = query(sql, f"SELECT * FROM ({text}\n) AS chosen LIMIT 0")
        except UserError as error:
            raise UserError(f"clips.select {text}: {error}") from error
        if "clip_id" not in names:
            raise UserError(f"clips.select must give clip_id; it gives {', '.join(names)}")
        there = set(query(sql, "SELECT * FROM clips LIMIT 0")[0])
        asked = [f"clips.{name}" if name in there else f"NULL AS {name}" for name in (*NEEDED, *SHAPE, *RENDERING)]
        columns, rows = query(
            sql,
            f"SELECT {', '.join(asked)}, sources.bytes, sources.archive_offset "
            "FROM clips LEFT JOIN sources USING (source_id) "
            f"WHERE clip_id IN (SELECT chosen.clip_id FROM ({text}\n) AS chosen) ORDER BY clip_id",
        )
    if not rows:
        raise UserError(f"clips.select gives no clip of this catalog: {text}")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _with_buckets(rows: list[dict[str, Any]], config: VAETrainConfig) -> tuple[list[TrainingClip], dict[str, str]]:
    """(clips with their buckets, reason by id for clips that fit none). An image is one frame of a bucket's size."""
    buckets = [Bucket.parse(text) for text in config.clips.buckets]
    single = [Bucket(1, bucket.height, bucket.width) for bucket in buckets]
    clips: list[TrainingClip] = []
    refused: dict[str, str] = {}
    for row in rows:
        of = single if row["media"] == "image" else buckets
        bucket = choose(row, of, config.clips.fps, config.clips.max_upscale)
        if isinstance(bucket, str):
            refused[row["clip_id"]] = bucket
        else:
            clips.append(TrainingClip(row, bucket, frames_of(row, config.clips.fps)))
    return clips, refused


def _groups(clips: Iterable[TrainingClip]) -> dict[Bucket, list[TrainingClip]]:
    """Clips by bucket, sorted by bucket."""
    found: dict[Bucket, list[TrainingClip]] = {}
    for clip in clips:
        found.setdefault(clip.bucket, []).append(clip)
    return dict(sorted(found.items()))


def _spread(clips: list[TrainingClip], count: int) -> list[TrainingClip]:
    """At most `count` clips, chosen by a hash of their ids."""
    return sorted(clips, key=lambda clip: _place(clip.clip_id))[:count]


def _put(ready: queue.Queue[Windows | BaseException], value: Windows | BaseException, leaving: threading.Event) -> None:
    """Waits for room in the queue, unless its reader is leaving."""
    while not leaving.is_set():
        try:
            return ready.put(value, timeout=0.1)
        except queue.Full:
            continue
