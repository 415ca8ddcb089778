"""Audio: how loud the sound of a clip is, and how much of the clip is silent."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from stages.base import Column
from stages.frames import LEVEL_SECONDS, ClipAudio, Levels, Sample
from stages.measures.base import ClipFacts, Measure, Timed

BLOCK, HOP = 0.4, 0.1  # seconds of a gating block, and from the start of one to that of the next
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU
WINDOW = round(0.01 / LEVEL_SECONDS)  # steps that are silent or not together
SILENT = 10 ** (-60 / 20)  # of full scale: the threshold of libav's silencedetect


class Audio(Measure):
    """Integrated loudness of the clip's span (EBU R128, gated as in ITU-R BS.1770-4), and its share of silence.

    Decoded only where a recipe asks for it.
    """

    name = "audio"
    version = 1
    columns: ClassVar[dict[str, Column]] = {
        "loudness": Column(
            "double",
            "integrated loudness; -70 where all is below the absolute gate",
            "LUFS",
            also=("volume", "lufs", "audio"),
        ),
        "silence": Column("double", "time in which no sample is above -60 dB of full scale", "share, 0-1"),
        "audio_reason": Column("string", "why loudness and silence of a source with sound are unknown"),
    }
    unknown = "no sound; damaged sound (`audio_reason` says what); loudness of clips under 0.4 s"
    hears = True

    def observe(self, sample: Sample, previous: Sample | None) -> None:
        return None

    def aggregate(self, values: list[Timed], clip: ClipFacts) -> dict[str, Any]:
        audio = clip.audio
        if audio is None or audio.unknown:
            return {"loudness": None, "silence": None, "audio_reason": audio and audio.unknown}
        seconds = clip.end_s - clip.start_s
        return {"loudness": loudness(audio, seconds), "silence": silence(audio, seconds), "audio_reason": None}


def loudness(audio: ClipAudio, seconds: float) -> float | None:
    """Integrated loudness in LUFS of the sound in a clip of that length; None where no gating block fits into it."""
    blocks = np.concatenate([_blocks(levels, seconds) for levels in audio.stretches] or [np.empty(0)])
    if not len(blocks):  # without any sound data all is silent
        return None if audio.stretches or seconds < BLOCK else ABSOLUTE_GATE
    blocks = blocks[blocks > 10 ** ((ABSOLUTE_GATE + 0.691) / 10)]
    if not len(blocks):
        return ABSOLUTE_GATE
    blocks = blocks[blocks > blocks.mean() * 10 ** (RELATIVE_GATE / 10)]
    return -0.691 + 10 * math.log10(blocks.mean())


def silence(audio: ClipAudio, seconds: float) -> float | None:
    """Share (0-1) of silent hundredths of a second in a clip; time without any sound data is silent."""
    steps, loud = 0, 0
    for levels in audio.stretches:
        windows = np.arange(0, len(levels.peak), WINDOW)
        over = np.maximum.reduceat(levels.peak, windows) > SILENT
        loud += int(np.diff(windows, append=len(levels.peak))[over].sum())
        steps += len(levels.peak)
    steps = max(steps, round(seconds / LEVEL_SECONDS))
    return 1 - loud / steps if steps else None


def _blocks(levels: Levels, seconds: float) -> np.ndarray:
    """(n,) mean power of the gating blocks that lie wholly in the stretch and in the clip, of that length.

    A block may begin and end inside a step, which counts by its share: the gates can tip at a hundredth of a decibel.
    """
    start_s, end_s = levels.start_s, levels.start_s + len(levels.power) * LEVEL_SECONDS
    first, last = max(0.0, start_s), min(seconds, end_s)
    starts = first + HOP * np.arange(max(0, math.floor((last - first - BLOCK) / HOP + 1e-3) + 1))
    total = np.concatenate([[0.0], np.cumsum(levels.power, dtype=np.float64)])
    at = np.linspace(start_s, end_s, len(total))
    energy = np.interp(starts + BLOCK, at, total) - np.interp(starts, at, total)
    return energy * LEVEL_SECONDS / BLOCK
