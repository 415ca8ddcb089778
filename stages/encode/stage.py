"""The stage `encode:` writes clips of one bucket into one shard of latents, and its rows for the table `latents`.

Child processes decode ahead of the network, also for the next shard. A clip that can't be decoded or has no caption
fails with its reason, and the shard goes on without it. A shard is published before its rows leave the stage, so a
row never names a shard that is missing or incomplete.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from stages.base import ClipError, Column, Context, Needs, SettingsError, ShardStage
from stages.encode.network import Network
from stages.encode.settings import CaptionEmbeddingSettings, EncodeSettings
from stages.encode.shard import ShardJob, sample_info, start_seconds, text_arrays
from stages.latent_coders.describe import describe_coder
from stages.pretrained.devices import cores, on_gpu
from stages.pretrained.lookup import named_path
from stages.shards.contract import Contract
from stages.shards.folder import WriteError
from stages.shards.format import ShardError
from stages.shards.writer import ShardWriter
from stages.text_encoders.describe import describe_text
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.load import load_text_encoder
from stages.unit import Clip, Row, Unit
from stages.windows.buckets import Bucket, choose, window_of
from stages.windows.prefetch import WindowPrefetcher
from stages.windows.window import PREPROCESSING_VERSION, Pixels, Window

PROGRESS_CLIPS = 64  # finished clips after which a unit reports its progress
# Numbers of a clip that say where it is in its source, not what it shows.
NO_CONDITIONS = {"scene", "start_s", "end_s", "start_pts", "end_pts", "time_base_num", "time_base_den", "frames"}
CAPTION_TOKENS, OTHER_BYTES = 64, 4096  # of a sample, estimated for the size of shards
UNFIT_CLIPS = 1000  # clips that fit no bucket, failed together


class Encode(ShardStage[EncodeSettings]):
    """Which shard holds the latents of a clip, and what made them.

    Writes <catalog>/shards/latents/<bucket>/<shard>.tar with its index beside it."""

    name: ClassVar[str] = "encode"
    default_table: ClassVar[str] = "latents"
    network: Network  # from `setup` on
    prefetcher: WindowPrefetcher

    def __init__(self, settings: EncodeSettings):
        super().__init__(settings)
        gpu = on_gpu(settings.device)
        self.needs = Needs(cpus=1.0, gpus=1.0 if gpu else 0.0)
        self.children = settings.decoder.children or (max(1, min(8, cores() - 1)) if gpu else 1)
        self.info = describe_coder(settings.vae, settings.subfolder, settings.revision)
        self.text_settings = _located(settings.text)
        self.text = describe_text(self.text_settings) if self.text_settings else None
        self.conditions: tuple[str, ...] = settings.conditions or ()
        self.folder = ""
        self.texts: TextEncoder | None = None

    @cached_property
    def contract(self) -> Contract:
        info, fields = self.info, self.text_fields
        return Contract(
            vae=info.kind,
            fingerprint=info.fingerprint,
            preprocessing=PREPROCESSING_VERSION,
            fps=self.settings.fps,
            channels=info.channels,
            time_stride=info.time_stride,
            first_frame=info.first_frame,
            space_stride=info.space_stride,
            mean=tuple(info.mean),
            std=tuple(info.std),
            dtype="int32" if info.codebook else self.settings.dtype,
            codebook=info.codebook,
            text={**self.text, "fields": fields} if self.text else None,
        )

    @property
    def text_fields(self) -> dict[str, str]:
        """Fields of a sample that hold text embeddings -> the column of clips with that caption."""
        columns = self.settings.text.captions if self.settings.text else ()
        return {"text" if index == 0 else f"text_{column}": column for index, column in enumerate(columns)}

    def check(self) -> None:
        if (self.info.codebook or 0) > 2**31:
            raise SettingsError(f"a codebook of {self.info.codebook:,} tokens: shards hold tokens of 32 bits")
        for bucket in self.settings.buckets:
            try:
                self.info.latent_shape(bucket.frames, bucket.height, bucket.width)
            except ValueError as error:
                raise SettingsError(f"bucket {bucket}: {error}") from error

    def prepare(self, context: Context) -> None:
        if self.info.note:
            print(f"encode: {self.info.note}", file=sys.stderr, flush=True)
        self.folder = f"{context.catalog_uri.rstrip('/')}/shards/{self.table}"
        if context.clips:
            self._check_clips(context.clips)

    def _check_clips(self, columns: Mapping[str, Any]) -> None:
        for wanted in (*(self.settings.conditions or ()), *self.text_fields.values()):
            if wanted not in columns:
                raise SettingsError(f"clips have no column {wanted!r}: run the recipe that makes it first")
        for name in self.text_fields.values():
            if not _is_text(columns[name]):
                raise SettingsError(f"column {name!r} is {columns[name]}, no text to embed")
        for name in self.settings.conditions or ():
            if not _is_number(columns[name]):
                raise SettingsError(f"condition {name!r} is {columns[name]}, no number")
        if self.settings.conditions is None:
            numbers = (name for name, kind in columns.items() if _is_number(kind) and name not in NO_CONDITIONS)
            self.conditions = tuple(sorted(name for name in numbers if not self._of_latents(name)))

    def _of_latents(self, column: str) -> bool:
        """Whether the column is one of this stage's own, under this table's name or another."""
        return any(column == signal or column.endswith(f"_{signal}") for signal in self.signals())

    def signals(self) -> dict[str, Column]:
        return {
            "shard": Column("string", "where the shard lies in the catalog"),
            "shard_hash": Column("string", "hash of the shard's bytes"),
            "shard_bytes": Column("int64", "size of the shard", "bytes"),
            "index_hash": Column("string", "hash of the index beside the shard"),
            "bucket": Column("string", "frames x height x width in pixels"),
            "window_start_s": Column("double", "time in the source where the encoded window begins", "s"),
            "window_fps": Column("double", "rate of the encoded window", "frames/s"),
            "decode_psnr": Column(
                "double", "of a sampled clip: PSNR of its decoded latents against its pixels, else NULL", "dB"
            ),
            "contract": Column("string", "JSON: VAE, scaling, preprocessing, dtype and text encoder"),
        }

    def versions(self) -> dict[str, str]:
        return {"encode": self.contract.digest}

    def setup(self) -> None:
        self.network = Network(self.settings, self.info)
        decoder = self.settings.decoder
        self.prefetcher = WindowPrefetcher(self.children, decoder, decoder.ahead_mb << 20)
        self.prefetcher.start()
        if self.text_settings is not None:
            self.texts = load_text_encoder(self.text_settings, self.network.coder.device)

    def close(self) -> None:
        if hasattr(self, "prefetcher"):
            self.prefetcher.close()
            del self.prefetcher, self.network
        self.texts = None

    def gather(self, clips: Iterable[Clip]) -> Iterator[list[Clip]]:
        """Clips of one bucket, as many as make a shard; clips that fit no bucket come in groups of their own."""
        groups: dict[Bucket | None, list[Clip]] = {}
        most = {bucket: self._clips_a_shard(bucket) for bucket in self.settings.buckets}
        met = set()
        for clip in clips:
            found = self._bucket(clip.row)
            bucket = None if isinstance(found, str) else found
            met.add(bucket)
            groups.setdefault(bucket, []).append(clip)
            if len(groups[bucket]) >= most.get(bucket, UNFIT_CLIPS):
                yield groups.pop(bucket)
        yield from groups.values()
        for bucket in sorted(set(most) - met):
            print(f"encode: no clip of this run takes the bucket {bucket}", file=sys.stderr, flush=True)

    def _bucket(self, row: Mapping[str, Any]) -> Bucket | str:
        return choose(self._row(row), self.settings.buckets, self.settings.fps, self.settings.max_upscale)

    def _clips_a_shard(self, bucket: Bucket) -> int:
        latents = math.prod(self.contract.latent_shape(str(bucket)))
        size = 4 * latents + OTHER_BYTES  # a mean and a logvar of two bytes each, or a token of four
        if self.text is not None:
            size += len(self.text_fields) * 2 * self.text["dim"] * min(CAPTION_TOKENS, self.text["max_tokens"])
        return int(max(1, min(self.settings.shard_clips, self.settings.shard_mb * 2**20 / size)))

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        raise TypeError("encode takes units by `stream`, which decodes ahead across shards")

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        return self.stream([unit])

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Shards in their order. A long one yields parts without rows on the way, which report its progress."""
        jobs: deque[ShardJob] = deque()

        def windows() -> Iterator[Window]:
            for unit in units:
                jobs.append(self._job(unit))
                yield from jobs[-1].windows

        answers = self.prefetcher.fetch(windows())
        try:
            for window, answer in answers:
                while window.clip_id not in jobs[0].left:
                    yield self._finished(jobs.popleft())
                job = jobs[0]
                self._take(job, window, answer)
                if job.left and job.finished - job.reported >= PROGRESS_CLIPS:
                    yield job.part()
            while jobs:
                yield self._finished(jobs.popleft())
        finally:
            answers.close()
            for job in jobs:
                job.close()

    def _job(self, unit: Unit) -> ShardJob:
        """The windows to decode for a unit; a clip that no bucket takes or that lacks a caption fails at once."""
        job = ShardJob(unit)
        for clip in unit.lacking(self.table):
            try:
                bucket = self._bucket(clip.row)
                if isinstance(bucket, str):
                    raise ClipError(bucket)
                self._captions(clip.row)
            except ClipError as error:
                self.add(clip, error)
                job.finished += 1
                continue
            window = window_of(self._row(clip.row), clip.source, bucket, self.settings.fps, self.settings.window)
            job.expect(clip, str(bucket), window)
        return job

    def _take(self, job: ShardJob, window: Window, answer: Pixels | str) -> None:
        job.left.discard(window.clip_id)
        if isinstance(answer, str):
            self._failed(job, window, ClipError(answer))
        else:
            job.waiting.append((window, answer))
        if len(job.waiting) >= self.network.batch or not job.left:
            self._encode(job)

    def _encode(self, job: ShardJob) -> None:
        """Runs the network on the decoded windows and adds them to the shard."""
        began = time.process_time()
        waiting, job.waiting = job.waiting, []
        answers = self.network.encode([pixels.video for _, pixels in waiting])
        captions_of = [self._captions(job.clips[window.clip_id].row) for window, _ in waiting]
        texts = self._text_arrays(captions_of)
        for (window, pixels), answer, captions, text in zip(waiting, answers, captions_of, texts, strict=True):
            if isinstance(answer, ClipError):
                self._failed(job, window, answer)
                continue
            row = job.clips[window.clip_id].row
            said = {"window_start_s": start_seconds(window), "window_fps": window.fps, "decode_psnr": None}
            if len(job.written) < self.settings.sample:
                said["decode_psnr"] = self.network.decode_psnr(answer, pixels.video)
            if job.writer is None:
                job.writer = self._writer(job.bucket)
            if said["decode_psnr"] is not None:
                job.writer.header.setdefault("decode_psnr", {})[window.clip_id] = said["decode_psnr"]
            info = sample_info(row, window, pixels, captions, self._conditions(row))
            info["truncated"] = self._truncated(captions)
            try:
                with _writing(self.folder):
                    job.writer.add(window.clip_id, answer | text, info)
            except ShardError as error:
                self._failed(job, window, ClipError(str(error)))
                continue
            job.written[window.clip_id] = said
            job.finished += 1
        job.unit.spent(self.name, time.process_time() - began)

    def _finished(self, job: ShardJob) -> Unit:
        """The unit with its rows, its shard published."""
        if job.waiting:
            self._encode(job)
        if job.writer is not None:
            with _writing(self.folder):
                published = job.writer.publish()
            shared = {
                "shard": f"shards/{self.table}/{published.shard}",
                "shard_hash": published.hash,
                "shard_bytes": published.bytes,
                "index_hash": published.index_hash,
                "bucket": job.bucket,
                "contract": self.contract.to_json(),
            }
            for clip, said in job.written.items():
                self.add(job.clips[clip], shared | said)
        return job.end()

    def _failed(self, job: ShardJob, window: Window, error: ClipError) -> None:
        self.add(job.clips[window.clip_id], error)
        job.finished += 1

    def _writer(self, bucket: str) -> ShardWriter:
        empty = {"text": self.texts.empty()} if self.texts is not None else {}
        with _writing(self.folder):
            made_by = {"vae_path": self.info.path, "vae_dtype": str(self.network.coder.dtype).removeprefix("torch.")}
            return ShardWriter(self.folder, self.contract, bucket, made_by, empty)

    def _row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A clip's columns; without its letterbox where the settings do not crop to it."""
        return row if self.settings.letterbox else {**row, "crop_x": None, "crop_w": None}

    def _captions(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Captions by column. Raises ClipError for a missing one where the settings require it."""
        found: dict[str, str] = {}
        if self.settings.text is None:
            return found
        for column in self.text_fields.values():
            text = (row.get(column) or "").strip()
            if not text and self.settings.text.missing == "fail":
                raise ClipError(f"no caption in column {column!r}")
            found[column] = text
        return found

    def _text_arrays(self, captions: Sequence[Mapping[str, str]]) -> list[dict[str, np.ndarray]]:
        """The text fields of each clip's sample, from its captions by column."""
        found: list[dict[str, np.ndarray]] = [{} for _ in captions]
        if self.texts is None:
            return found
        for name, column in self.text_fields.items():
            embeddings = self.texts.encode([each[column] for each in captions])
            for fields, embedding in zip(found, embeddings, strict=True):
                fields |= text_arrays(name, embedding)
        return found

    def _truncated(self, captions: Mapping[str, str]) -> list[str]:
        """Columns whose caption is longer than the text encoder takes."""
        texts = self.texts
        return [] if texts is None else [column for column, text in captions.items() if texts.truncated(text)]

    def _conditions(self, row: Mapping[str, Any]) -> dict[str, float | None]:
        values = {name: row.get(name) for name in self.conditions}
        return {name: None if value is None or value != value else float(value) for name, value in values.items()}


def _located(text: CaptionEmbeddingSettings | None) -> CaptionEmbeddingSettings | None:
    """The settings with absolute paths, because workers run in other working folders."""
    if text is None:
        return None
    paths = {"model": text.model, "pretrained": text.pretrained}
    return text.model_copy(
        update={name: os.path.abspath(named_path(p)) for name, p in paths.items() if p and named_path(p).exists()}
    )


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Turns a failed write into SettingsError, which ends the run: every clip would meet it."""
    try:
        yield
    except WriteError as error:
        raise SettingsError(f"shards can't be written to {folder}: {error}") from error


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
