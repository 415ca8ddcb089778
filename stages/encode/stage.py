"""The stage `encode:` writes clips of one bucket into one shard of latents, and its rows for the table `latents`.

Child processes decode ahead of the network, also for the next shard. A clip that can't be decoded fails with its
reason, one that fits no bucket or has no caption is unfit with its reason, and the shard goes on without it. A shard is
published before its rows leave the stage, so a row never names a shard that is missing or incomplete.

A clip of which only captions or conditions have changed since it was encoded keeps its latents: they are copied into a
new shard, and no video is decoded. Such clips are in shards of their own.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar

import numpy as np

from stages.base import ClipError, Column, Context, Needs, SettingsError, ShardStage, UnfitError
from stages.encode.columns import check_captions, check_rendering, choose_conditions, condition_values
from stages.encode.earlier import EarlierSamples
from stages.encode.network import Network
from stages.encode.settings import EncodeSettings
from stages.encode.shard import ShardJob, sample_info, start_seconds
from stages.encode.texts import Texts
from stages.latent_coders.describe import describe_coder
from stages.pretrained.devices import cores, on_gpu, torch_device
from stages.shards.contract import Contract
from stages.shards.folder import WriteError
from stages.shards.format import JSON, ShardError
from stages.shards.made_of import MADE_OF, conditions_hash, crop_hash, window_hash
from stages.shards.rights import rights_info
from stages.shards.writer import ShardWriter
from stages.unit import Clip, Row, Unit
from stages.windows.buckets import Bucket, choose, window_of
from stages.windows.prefetch import WindowPrefetcher
from stages.windows.window import PREPROCESSING_VERSION, Pixels, Window

PROGRESS_CLIPS = 64  # finished clips after which a unit reports its progress ...
PROGRESS_SECONDS = 2.0  # ... or fewer of them after so long
CAPTION_TOKENS, OTHER_BYTES = 64, 4096  # of a sample, estimated for the size of shards
UNFIT_CLIPS = 1000  # clips that fit no bucket, in one unit


class Encode(ShardStage[EncodeSettings]):
    """Which shard holds the latents of a clip, and what made them.

    Writes <catalog>/shards/latents/<bucket>/<shard>.tar with its index beside it."""

    name: ClassVar[str] = "encode"
    default_table: ClassVar[str] = "latents"
    own_signals: ClassVar[Mapping[str, Column]] = {
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
        **MADE_OF,
    }
    prefetcher: WindowPrefetcher  # from `setup` on

    def __init__(self, settings: EncodeSettings):
        super().__init__(settings)
        gpu = on_gpu(settings.device)
        self.needs = Needs(cpus=1.0, gpus=1.0 if gpu else 0.0)
        self.children = settings.decoder.children or (max(1, min(8, cores() - 1)) if gpu else 1)
        self.info = describe_coder(settings.vae, settings.subfolder, settings.revision)
        self.texts = Texts(settings.text)
        self.conditions: tuple[str, ...] = settings.conditions or ()
        self.catalog = self.folder = ""

    @cached_property
    def contract(self) -> Contract:
        info, texts = self.info, self.texts
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
            hdr=self.settings.hdr,
            deinterlace=self.settings.deinterlace,
            dtype="int32" if info.codebook else self.settings.dtype,
            codebook=info.codebook,
            text={**texts.about, "fields": texts.fields} if texts.about else None,
        )

    @cached_property
    def network(self) -> Network:
        """The VAE, loaded in the worker when the first pixels come: where only texts have changed, none is needed."""
        return Network(self.settings, self.info)

    def check(self) -> None:
        if (self.info.codebook or 0) > 2**31:
            raise SettingsError(f"a codebook of {self.info.codebook:,} tokens: shards hold tokens of 32 bits")
        self.info.check_chunk(self.settings.chunk)
        for bucket in self.settings.buckets:
            try:
                self.info.latent_shape(bucket.frames, bucket.height, bucket.width)
            except ValueError as error:
                raise SettingsError(f"bucket {bucket}: {error}") from error

    def prepare(self, context: Context) -> None:
        if self.info.note:
            print(f"encode: {self.info.note}", file=sys.stderr, flush=True)
        self.catalog = context.catalog_uri.rstrip("/")
        self.folder = f"{self.catalog}/shards/{self.table}"
        if context.clips:
            check_captions(self.texts.fields.values(), context.clips)
            own = {name: kind for name, kind in context.clips.items() if name not in context.manifest}
            taken = context.clips if self.settings.conditions is not None else own
            self.conditions = choose_conditions(self.settings.conditions, taken)
            print(f"encode: conditions beside the latents: {', '.join(self.conditions) or 'none'}", file=sys.stderr)

    def versions(self) -> dict[str, str]:
        return {"encode": self.contract.digest}

    def loads(self) -> tuple[str, ...]:
        """The VAE is loaded when the first pixels come."""
        vae = f"VAE {self.settings.vae}"
        return (vae, f"text encoder {self.settings.text.model}") if self.settings.text is not None else (vae,)

    def setup(self) -> None:
        decoder = self.settings.decoder
        self.prefetcher = WindowPrefetcher(self.children, decoder, decoder.ahead_mb << 20)
        self.prefetcher.start()
        self.texts.load(torch_device(self.settings.device))

    def close(self) -> None:
        if hasattr(self, "prefetcher"):
            self.prefetcher.close()
            del self.prefetcher
        self.__dict__.pop("network", None)
        self.texts.close()

    def gather(self, clips: Iterable[Clip]) -> Iterator[list[Clip]]:
        """Clips of one bucket, as many as make a shard, those that keep their latents apart from those to decode; clips
        that fit no bucket come in groups of their own.
        """
        groups: dict[tuple[Bucket | None, bool], list[Clip]] = {}
        most = {bucket: self._clips_a_shard(bucket) for bucket in self.settings.buckets}
        met = set()
        for clip in clips:
            found = self._bucket(clip.row)
            bucket = None if isinstance(found, str) else found
            met.add(bucket)
            key = bucket, bool(clip.earlier)
            groups.setdefault(key, []).append(clip)
            if len(groups[key]) >= most.get(bucket, UNFIT_CLIPS):
                yield groups.pop(key)
        yield from groups.values()
        for bucket in sorted(set(most) - met) if met else ():
            print(f"encode: no clip of this run takes the bucket {bucket}", file=sys.stderr, flush=True)

    def _bucket(self, row: Mapping[str, Any]) -> Bucket | str:
        return choose(self._row(row), self.settings.buckets, self.settings.fps, self.settings.max_upscale)

    def _clips_a_shard(self, bucket: Bucket) -> int:
        latents = math.prod(self.contract.latent_shape(str(bucket)))
        size = 4 * latents + OTHER_BYTES  # a mean and a logvar of two bytes each, or a token of four
        if (about := self.texts.about) is not None:
            size += len(self.texts.fields) * 2 * about["dim"] * min(CAPTION_TOKENS, about["max_tokens"])
        return int(max(1, min(self.settings.shard_clips, self.settings.shard_mb * 2**20 / size)))

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        raise TypeError("encode takes units by `stream`, which decodes ahead across shards")

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        return self.stream([unit])

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Shards in their order. A long one yields parts without rows on the way, which report its progress."""
        for keep, some in groupby(units, key=lambda unit: any(clip.earlier for clip in unit.clips)):
            if keep:
                for unit in some:
                    yield from self._copied(unit)
            else:
                yield from self._decoded(some)

    def _copied(self, unit: Unit) -> Iterator[Unit]:
        """A shard of clips whose latents stay."""
        job = ShardJob(unit)
        clips = list(unit.lacking(self.table))
        with closing(EarlierSamples(self.catalog)) as samples:
            try:
                for start in range(0, len(clips), PROGRESS_CLIPS):
                    if start:
                        yield job.part()
                    self._copy(job, samples, clips[start : start + PROGRESS_CLIPS])
                yield self._finished(job)
            finally:
                job.close()

    def _copy(self, job: ShardJob, samples: EarlierSamples, clips: Sequence[Clip]) -> None:
        """Adds clips to a shard: their latents as they are, captions and conditions as the catalog has them now."""
        began = time.process_time()
        captions: dict[str, dict[str, str]] = {}
        for clip in clips:
            job.clips[clip.clip_id] = clip
            try:
                captions[clip.clip_id] = self.texts.captions(clip.row)
            except ClipError as error:
                self._failed(job, clip, error)
        clips = [clip for clip in clips if clip.clip_id in captions]
        again = [clip.clip_id for clip in clips if self.texts.hash(clip.row) != clip.earlier["captions_hash"]]
        texts = dict(zip(again, self.texts.arrays([captions[clip] for clip in again]), strict=True))
        for clip in clips:
            try:
                fields = samples.read(clip.earlier["shard"], clip.clip_id)
            except ShardError as error:
                why = f"its latents can't be copied ({error}): --retry-failed encodes it from its source"
                self._failed(job, clip, ClipError(why))
                continue
            vae_dtype = samples.header["vae_dtype"]
            if job.writer is None:
                job.bucket = clip.earlier["bucket"]
                job.writer = self._writer(job.bucket, vae_dtype)
            place = {name: clip.earlier[name] for name in ("window_start_s", "decode_psnr")}
            if vae_dtype != job.writer.header["vae_dtype"]:
                place["decode_psnr"] = None  # the header names one
            info = fields.pop(JSON) | self._beside(clip.row, captions[clip.clip_id])
            self._add(job, clip, fields | texts.get(clip.clip_id, {}), info, place)
        job.unit.spent(self.name, time.process_time() - began)

    def _decoded(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Shards of clips that are decoded and go through the VAE."""
        jobs: deque[ShardJob] = deque()

        def windows() -> Iterator[Window]:
            for unit in units:
                jobs.append(self._job(unit))
                yield from jobs[-1].windows

        answers, told = self.prefetcher.fetch(windows()), time.monotonic()
        try:
            for window, answer in answers:
                while window.clip_id not in jobs[0].left:
                    yield self._finished(jobs.popleft())
                job = jobs[0]
                self._take(job, window, answer)
                new = job.finished - job.reported
                if job.left and (new >= PROGRESS_CLIPS or (new and time.monotonic() - told >= PROGRESS_SECONDS)):
                    told = time.monotonic()
                    yield job.part()
            while jobs:
                yield self._finished(jobs.popleft())
        finally:
            answers.close()
            for job in jobs:
                job.close()

    def _job(self, unit: Unit) -> ShardJob:
        """The windows to decode for a unit; a clip that no bucket takes or that lacks a caption is unfit."""
        job = ShardJob(unit)
        for clip in unit.lacking(self.table):
            try:
                bucket = self._bucket(clip.row)
                if isinstance(bucket, str):
                    raise UnfitError(bucket)
                self.texts.captions(clip.row)
                check_rendering(clip.row, self.settings)
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
            self._failed(job, job.clips[window.clip_id], ClipError(answer))
        else:
            job.waiting.append((window, answer))
        if len(job.waiting) >= self.network.batch or not job.left:
            self._encode(job)

    def _encode(self, job: ShardJob) -> None:
        """Runs the network on the decoded windows and adds them to the shard."""
        began = time.process_time()
        waiting, job.waiting = job.waiting, []
        answers = self.network.encode([pixels.video for _, pixels in waiting])
        captions_of = [self.texts.captions(job.clips[window.clip_id].row) for window, _ in waiting]
        texts = self.texts.arrays(captions_of)
        for (window, pixels), answer, captions, text in zip(waiting, answers, captions_of, texts, strict=True):
            clip = job.clips[window.clip_id]
            if isinstance(answer, ClipError):
                self._failed(job, clip, answer)
                continue
            place = {"window_start_s": start_seconds(window), "decode_psnr": None}
            if len(job.written) < self.settings.sample:
                place["decode_psnr"] = self.network.decode_psnr(answer, pixels.video)
            if job.writer is None:
                job.writer = self._writer(job.bucket, str(self.network.coder.dtype).removeprefix("torch."))
            info = sample_info(clip.row, window, pixels) | self._beside(clip.row, captions)
            self._add(job, clip, answer | text, info, place)
        job.unit.spent(self.name, time.process_time() - began)

    def _add(self, job: ShardJob, clip: Clip, fields: Mapping[str, np.ndarray], info: Row, place: Row) -> None:
        """Adds a sample to the shard, and what its row says: `place` in its source, and what it was made of."""
        assert job.writer is not None
        try:
            with _writing(self.folder):
                job.writer.add(clip.clip_id, fields, info)
        except ShardError as error:
            self._failed(job, clip, ClipError(str(error)))
            return
        if place["decode_psnr"] is not None:
            job.writer.header.setdefault("decode_psnr", {})[clip.clip_id] = place["decode_psnr"]
        job.written[clip.clip_id] = place | self._made_of(clip.row, info["conditions"], job.bucket)
        job.finished += 1

    def _beside(self, row: Row, captions: Mapping[str, str]) -> Row:
        """What a sample's JSON says beside where its frames are from."""
        return {
            "captions": captions,
            "truncated": self.texts.truncated(captions),
            "conditions": condition_values(self.conditions, row),
            "rights": rights_info(row),
        }

    def _made_of(self, row: Row, conditions: Mapping[str, float | None], bucket: str) -> Row:
        return {
            "window_fps": self.settings.fps,
            "captions_hash": self.texts.hash(row),
            "crop_hash": crop_hash(row) if self.settings.letterbox else None,
            "window_hash": window_hash(row, self.settings.fps, bucket),
            "conditions_hash": conditions_hash(conditions.values()),
            "condition_names": json.dumps(list(conditions)),
        }

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

    def add(self, clip: Clip, answer: Row | ClipError) -> None:
        """Keeps a clip's row; of an unfit one with what it was judged by, so that a run after a change takes it."""
        super().add(clip, answer)
        if isinstance(answer, UnfitError):
            seen = {"contract": self.contract.to_json(), "captions_hash": self.texts.hash(clip.row)}
            seen["crop_hash"] = crop_hash(clip.row) if self.settings.letterbox else None
            clip.results[self.table] |= {self.column(name): value for name, value in seen.items()}

    def _failed(self, job: ShardJob, clip: Clip, error: ClipError) -> None:
        self.add(clip, error)
        job.finished += 1

    def _writer(self, bucket: str, vae_dtype: str) -> ShardWriter:
        """`vae_dtype` is that of the VAE as it made the latents."""
        with _writing(self.folder):
            made_by = {"vae_path": self.info.path, "vae_dtype": vae_dtype}
            return ShardWriter(self.folder, self.contract, bucket, made_by, self.texts.empty())

    def _row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A clip's columns; without its letterbox where the settings do not crop to it."""
        return row if self.settings.letterbox else {**row, "crop_x": None, "crop_w": None}


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Turns a failed write into SettingsError, which ends the run: every clip would meet it."""
    try:
        yield
    except WriteError as error:
        raise SettingsError(f"shards can't be written to {folder}: {error}") from error
