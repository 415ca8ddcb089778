"""Scans one source: decodes it once, cuts it into clips and measures them; runs in the decoder's child process.

A clip is yielded as soon as its end is known. Memory is bounded by the longest clip, never by the length of the source.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from stages.base import SettingsError
from stages.cuts.detectors import build_detector, versions
from stages.cuts.scenes import SceneCutter
from stages.decode.messages import Call, Message
from stages.decode.readers import Reader, open_reader
from stages.decode.reading import SafeFile
from stages.decode.ticks import forgiven
from stages.frames import FrameRequest, Sample, SourceError, SourceInfo, Span
from stages.measures.base import ClipFacts
from stages.measures.observations import Observations
from stages.measures.registry import measure_classes
from stages.scan.messages import THUMBNAIL, ScannedClip, ScannedSource, ScanSettings
from stages.scan.samples import Candidates, Sampler, encode_jpeg
from stages.unit import Row

BATCH_FRAMES = 32  # cut and measured together: decoder and cutter evict each other from the processor's caches
RATE_MARGIN = 0.01  # a stated rate is taken where the frames that were decoded come so near to it
BATCH_SECONDS = 1.0  # at most in a batch: a clip's frames must still be kept when its end is known
NO_CLIP = "no clip: all of it is a fade or another gradual transition"


def run(call: Call) -> Iterator[Message]:
    """The child's task: ScanSettings in, messages of ScannedSource and ScannedClip out."""
    for answer in scan(call.file, ScanSettings.from_json(call.request), call.progress):
        yield answer.to_message()


def load_detector(call: Call) -> Iterator[Message]:
    """The child's task before the first source: loads what cuts, so that a fault of it ends the run."""
    try:
        build_detector(ScanSettings.from_json(call.request).on_device)
    except SettingsError as error:
        yield Message(str(error))


def scan(
    file: SafeFile, settings: ScanSettings, progress: Callable[[int], None]
) -> Iterator[ScannedSource | ScannedClip]:
    """Columns of `sources` (header first, totals last) and the clips, in order. Closes the file.

    Raises SourceError with the reason why the source can't be taken.
    """
    cv2.setNumThreads(1)  # one decoder a core: OpenCV's own threads would only fight over the same cores
    began = time.process_time()
    with file:
        yield ScannedSource(bytes=file.size, modified_at=file.modified)
        hear = any(measure.hears for measure in measure_classes(settings.measures))
        reader = open_reader(file, settings.probe.backend, settings.probe.threads, settings.probe.rendering, hear=hear)
        info = reader.info
        yield _header(info)
        frames, no_clip = None, None
        if _too_short(info, settings) or (info.hdr and settings.probe.hdr == "drop"):
            yield _undecoded(info, settings)
            duration = info.duration_s
        else:
            pass_ = _Pass(reader, info, settings)
            yield from pass_.clips(progress)
            frames, duration, no_clip = reader.frames, pass_.duration_s, pass_.no_clip
            if reader.disordered:
                raise SourceError(reader.disordered)
            if reader.truncated and settings.probe.truncated == "fail":
                raise SourceError(reader.truncated)
        yield ScannedSource(
            duration_s=duration,
            fps=_rate(info.fps, frames, duration, reader.decode_errors > 0),
            frames=frames,
            field_order=reader.field_order,
            decode_errors=reader.decode_errors if frames is not None else None,
            audio_errors=reader.audio.errors if frames is not None and reader.audio is not None else None,
            content_hash=file.content_hash(),
            cpu_seconds=time.process_time() - began,
            reason=no_clip,
        )


class _Seen(NamedTuple):
    """What is kept of a frame after the decoder has gone on to the next."""

    pts: int
    seconds: float
    small: np.ndarray
    sample: Sample | None


class _Pass:
    """One pass over the frames of a reader."""

    def __init__(self, reader: Reader, info: SourceInfo, settings: ScanSettings):
        self.reader, self.info, self.settings = reader, info, settings
        self.cutter = SceneCutter(settings.on_device, info.time_base, float(forgiven(info.time_base, info.fps)))
        self.sampler = Sampler()
        self.observations = Observations(settings.measures)
        self.requests: tuple[FrameRequest, ...] = (THUMBNAIL, *settings.wants)
        made_by = versions(settings.cut) | self.observations.versions
        self.versions = " ".join(f"{name}={version}" for name, version in made_by.items())
        self.candidates = Candidates(
            max(request.long_side for request in self.requests), interval_s=0.25 if settings.wants else 0.5
        )
        self.duration_s: float | None = None  # known at the end
        self.no_clip: str | None = NO_CLIP  # None once there is one
        self.pts: deque[int] = deque()  # of frames that belong to no clip so far
        self.unheard: deque[tuple[ScannedClip, ClipFacts]] = deque()  # clips whose sound is not decoded yet

    def clips(self, progress: Callable[[int], None]) -> Iterator[ScannedClip]:
        first: int | None = None
        batch: list[_Seen] = []
        for number, frame in enumerate(self.reader):
            if first is None:
                first = frame.pts
            if number % 16 == 0:
                progress(number)
            self.pts.append(frame.pts)
            batch.append(_Seen(frame.pts, frame.seconds, frame.small, self.sampler.observe(frame)))
            self.candidates.offer(frame)
            if len(batch) == BATCH_FRAMES or frame.seconds >= batch[0].seconds + BATCH_SECONDS:
                yield from self._heard(self._look(batch), frame.seconds)
                batch.clear()
        yield from self._heard(self._look(batch))
        end = self.reader.last_end_pts
        if first is None or end is None:
            raise SourceError("no frame could be decoded")
        if self.info.media == "video":  # what was decoded: headers are often wrong or silent
            self.duration_s = float((end - first) * self.info.time_base)
        yield from self._heard(self._close(span) for span in self.cutter.finish(end))

    def _heard(
        self, clips: Iterable[tuple[ScannedClip, ClipFacts]], seen_s: float | None = None
    ) -> Iterator[ScannedClip]:
        """The clips in order, each with the columns of its sound as soon as that is decoded.

        `seen_s`: how far the pictures are; None at the end, where no clip waits any longer.
        """
        self.unheard.extend(clips)
        audio = self.reader.audio
        while self.unheard:
            clip, facts = self.unheard[0]
            if audio is not None and seen_s is not None and not audio.ready(facts.end_s, seen_s):
                return
            self.unheard.popleft()
            if audio is not None:
                facts = replace(facts, audio=audio.clip(facts.start_s, facts.end_s))
            clip.columns.update(self.observations.hear(facts))
            yield clip

    def _look(self, batch: list[_Seen]) -> Iterator[tuple[ScannedClip, ClipFacts]]:
        """The clips that became final with these frames."""
        for seen in batch:
            if seen.sample is not None:
                self.observations.observe(seen.sample)
            for span in self.cutter.observe(seen):
                yield self._close(span)

    def _close(self, span: Span) -> tuple[ScannedClip, ClipFacts]:
        info, self.no_clip = self.info, None
        while self.pts and self.pts[0] < span.start_pts:  # frames inside a transition
            self.pts.popleft()
        frames = 0
        while self.pts and self.pts[0] < span.end_pts:
            self.pts.popleft()
            frames += 1
        seconds = span.end_s - span.start_s
        image = info.media == "image"
        fps = None if image or seconds <= 0 else frames / seconds
        facts = ClipFacts(
            width=info.width,
            height=info.height,
            fps=fps,
            frames=frames,
            start_s=span.start_s,
            end_s=span.end_s,
            packet_bytes=None if image else self.reader.packets_bytes(span.start_pts, span.end_pts),
            media=info.media,
        )
        columns = _columns(info, span, frames, fps, self.settings) | self.observations.close(span, facts)
        columns["versions"] = self.versions
        columns["damaged_frames"] = self.reader.damaged_frames(span.start_pts, span.end_pts)
        if self.reader.has_interlaced:
            columns["deinterlace"] = self.settings.probe.deinterlace
        take = self.candidates.take
        pictures = [take(span, request, spare=request is THUMBNAIL) for request in self.requests]
        self.candidates.forget(span.end_s)
        thumbnail = None
        if pictures[0]:
            picture = pictures[0][0][1]
            thumbnail = (picture.shape[1], picture.shape[0], encode_jpeg(picture))
        return ScannedClip(span, columns, thumbnail, pictures[1:]), facts


def _header(info: SourceInfo) -> ScannedSource:
    ratio = info.sample_aspect_ratio
    return ScannedSource(
        media=info.media,
        container=info.container,
        codec=info.codec,
        pixel_format=info.pixel_format,
        bit_depth=info.bit_depth,
        color_transfer=info.color_transfer,
        color_primaries=info.color_primaries,
        color_matrix=info.color_matrix,
        width=info.width,
        height=info.height,
        rotation=info.rotation,
        sample_aspect_ratio=f"{ratio.numerator}:{ratio.denominator}",
        fps=info.fps,
        duration_s=info.duration_s,
        video_stream=info.video_stream if info.media == "video" else None,
        video_streams=info.video_streams if info.media == "video" else None,
        has_audio=info.audio is not None,
        audio_codec=info.audio.codec if info.audio else None,
        audio_channels=info.audio.channels if info.audio else None,
        audio_rate=info.audio.rate if info.audio else None,
    )


def _rate(stated: float | None, frames: int | None, duration: float | None, damaged: bool) -> float | None:
    """Frames per second on average: as stated, unless what was decoded says otherwise and has no gaps by damage."""
    if not frames or not duration or (stated and damaged):
        return stated
    found = frames / duration
    return stated if stated and abs(found - stated) <= RATE_MARGIN * stated else found


def _columns(info: SourceInfo, span: Span, frames: int | None, fps: float | None, settings: ScanSettings) -> Row:
    return {
        "scene": span.scene,
        "start_s": span.start_s,
        "end_s": span.end_s,
        "start_pts": span.start_pts,
        "end_pts": span.end_pts,
        "time_base_num": info.time_base.numerator,
        "time_base_den": info.time_base.denominator,
        "width": info.width,
        "height": info.height,
        "fps": fps,
        "frames": frames,
        "source_s": info.duration_s,
        "hdr": settings.probe.hdr if info.hdr else None,
    }


def _too_short(info: SourceInfo, settings: ScanSettings) -> bool:
    if info.media == "image" or info.duration_s is None:
        return False
    return info.duration_s + forgiven(info.time_base, info.fps) < settings.probe.min_seconds


def _undecoded(info: SourceInfo, settings: ScanSettings) -> ScannedClip:
    """The one clip of a source that is not to be decoded: its span, and no scores."""
    seconds = info.duration_s or 0.0
    span = Span(0, 0, round(seconds / info.time_base), 0.0, seconds)
    return ScannedClip(span, _columns(info, span, None, info.fps, settings), None)
