"""Turns decoded sound into levels: its K-weighted power (ITU-R BS.1770-4) and its peak, every millisecond.

libav's `biquad` filters do the weighting. Its `ebur128` has the same weighting, but gives loudness in steps of 100 ms
from the start of the file, and a clip may begin anywhere.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext

from stages.frames import LEVEL_SECONDS

STEPS = round(1 / LEVEL_SECONDS)  # per second
# Weights of BS.1770-4: channels at 60 to 120 degrees to the side count more. Those behind count more where they are the
# only surround channels (5.1), because then they stand at about 110 degrees.
SIDE_WEIGHT = 1.41
SIDES, BACKS, LOW = {"SL", "SR", "SDL", "SDR"}, {"BL", "BR"}, {"LFE", "LFE2"}

# Layouts by number of channels where the container names none (PCM in Matroska): libav's own guess.
GUESSED = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

Biquad = tuple[float, float, float, float, float]  # b0, b1, b2, a1, a2 with a0 = 1
Steps = tuple[np.ndarray, np.ndarray]  # (power, peak), each (n,) float32: see `stages.frames.Levels`


class AudioLevels:
    """Takes samples of one rate, format and layout in their order; gives levels, the first from the first sample on."""

    def __init__(self, frame: av.AudioFrame):
        self.kind, layout = kind_of(frame), layout_of(frame)
        self.rate = frame.sample_rate
        self.taken = 0  # samples given so far
        self._fifo = av.AudioFifo()
        self._weights = channel_weights(layout)
        self._pushed = 0
        graph = Graph()
        self._source = graph.add_abuffer(
            sample_rate=self.rate, format=frame.format, layout=layout, time_base=Fraction(1, self.rate)
        )
        split = graph.add("asplit", "2")
        self._source.link_to(split)
        weighting = [graph.add("biquad", f"b0={b0!r}:b1={b1!r}:b2={b2!r}:a0=1:a1={a1!r}:a2={a2!r}")
                     for b0, b1, b2, a1, a2 in k_weighting(self.rate)]  # fmt: skip
        self._plain = _linked(graph, split, 0, [])
        self._weighted = _linked(graph, split, 1, [graph.add("aformat", "sample_fmts=dblp"), *weighting])
        graph.configure()
        self._graph = graph

    def add(self, frame: av.AudioFrame) -> list[Steps]:
        """The levels of each second that is full with this frame."""
        frame.pts = None  # where it lies in time is the caller's business
        self._fifo.write(frame)
        self.taken += frame.samples
        return [self._levels(second) for second in self._fifo.read_many(self.rate)]

    def rest(self) -> Steps | None:
        """The levels of what is left of the last second. Less than half a step is counted to the step before it."""
        rest = self._fifo.read(0, partial=True) if self._fifo.samples_written else None
        return self._levels(rest) if rest is not None and rest.samples else None

    def _levels(self, frame: av.AudioFrame) -> Steps:
        frame.pts, frame.time_base = self._pushed, Fraction(1, self.rate)
        self._pushed += frame.samples
        self._source.push(frame)
        samples = frame.samples
        plain, weighted = (_pulled(sink).reshape(samples, -1) for sink in (self._plain, self._weighted))
        steps = max(1, round(samples * STEPS / self.rate))
        starts = np.arange(steps) * self.rate // STEPS
        power = np.add.reduceat(weighted * weighted, starts, axis=0) @ self._weights / np.diff(starts, append=samples)
        peak = np.maximum.reduceat(np.abs(plain), starts, axis=0).max(axis=1)
        return power.astype(np.float32), peak.astype(np.float32)


def _linked(graph: Graph, source: FilterContext, pad: int, filters: list[FilterContext]) -> FilterContext:
    """A sink of interleaved float64 behind these filters. (PyAV can't read eight planes of a frame.)"""
    for one in (*filters, graph.add("aformat", "sample_fmts=dbl"), sink := graph.add("abuffersink")):
        source.link_to(one, pad)
        source, pad = one, 0
    return sink


def _pulled(sink: FilterContext) -> np.ndarray:
    """(1, samples * channels) float64"""
    return cast(av.AudioFrame, sink.pull()).to_ndarray()


def kind_of(frame: av.AudioFrame) -> tuple[str, str, int]:
    """Format, layout and rate: one `AudioLevels` takes frames of one kind."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def layout_of(frame: av.AudioFrame) -> av.AudioLayout:
    """The layout of the frame's channels, guessed where it has none. Raises ValueError where nothing can be guessed."""
    layout = frame.layout
    if any(channel.name == "NONE" for channel in layout.channels):
        if layout.nb_channels not in GUESSED:
            raise ValueError(f"{layout.nb_channels} channels without a layout")
        return av.AudioLayout(GUESSED[layout.nb_channels])
    return layout


def channel_weights(layout: av.AudioLayout) -> np.ndarray:
    """(channels,): the weight of each channel's power; low-frequency effects have none."""
    names = [channel.name for channel in layout.channels]
    beside = SIDES if SIDES & {*names} else BACKS
    return np.array([0.0 if name in LOW else SIDE_WEIGHT if name in beside else 1.0 for name in names])


def k_weighting(rate: int) -> tuple[Biquad, Biquad]:
    """The two filters of BS.1770-4 (head, then high pass) at any rate, from the analogue ones that they stand for.

    At 48 kHz they are the standard's own coefficients; the analogue parameters are those of libebur128 and libav.
    """
    k = math.tan(math.pi * 1681.974450955533 / rate)
    quality, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band, scale = high**0.4996667741545416, 1 + k / quality + k * k
    head = (
        (high + band * k / quality + k * k) / scale,
        2 * (k * k - high) / scale,
        (high - band * k / quality + k * k) / scale,
        2 * (k * k - 1) / scale,
        (1 - k / quality + k * k) / scale,
    )
    k, quality = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    scale = 1 + k / quality + k * k
    return head, (1.0, -2.0, 1.0, 2 * (k * k - 1) / scale, (1 - k / quality + k * k) / scale)
