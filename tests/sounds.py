"""Films with sound for tests: any coding, layout, rate and place in time, and their loudness by another computation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.filter import Graph

from tests.hostile import moving_square

# The filters of BS.1770-4 at 48 kHz, tables 1 and 2: numerator, denominator.
SHELF = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]
HIGH_PASS = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]


def write_film(
    path: Path,
    sound: np.ndarray | None,
    *,
    seconds: float = 4.0,
    rate: int = 48000,
    layout: str = "stereo",
    codec: str = "aac",
    sample_format: str | None = None,
    container: str = "mp4",
    start_s: float = 0.0,
    late_packets: bool = False,
    video_codec: str = "libx264",
    pictures: Iterable[np.ndarray] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A film of 24 frames a second with that sound: (channels, samples) float, from `start_s` on; None for no sound.

    With `late_packets` all packets of the sound come after those of the video, where the container lets them.
    """
    with open(path, "wb") as raw, av.open(raw, "w", format=container, options=options or {}) as out:
        stream = out.add_stream(video_codec, rate=24)
        pictures = iter(pictures or moving_square(round(24 * seconds)))
        first = next(pictures)
        stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        if video_codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "10"}
        track = None
        if sound is not None:
            lenient = {"strict": "experimental"} if codec == "vorbis" else {}
            track = out.add_stream(codec, rate=rate, layout=layout, options=lenient)
            if codec.startswith("wma"):
                track.bit_rate = 128_000
            if sample_format:
                track.format = sample_format
        packets: list[tuple[float, av.Packet]] = []
        for number, picture in enumerate(chain([first], pictures)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            packets += [(number / 24, packet) for packet in stream.encode(frame)]
        packets += [(seconds, packet) for packet in stream.encode()]
        if track is not None:
            for at, frame in sound_frames(sound, rate, layout, track.codec_context, start_s):
                packets += [(at, packet) for packet in track.encode(frame)]
            packets += [(start_s + sound.shape[1] / rate, packet) for packet in track.encode()]
        if not late_packets:
            packets.sort(key=lambda one: one[0])
        for _, packet in packets:
            out.mux_one(packet) if late_packets else out.mux(packet)
    return path


def sound_frames(
    sound: np.ndarray, rate: int, layout: str, context: av.AudioCodecContext, start_s: float = 0.0
) -> Iterator[tuple[float, av.AudioFrame]]:
    """(seconds, frame) as the encoder wants them."""
    step = context.frame_size or rate // 10
    for at in range(0, sound.shape[1], step):
        part = np.ascontiguousarray(sound[:, at : at + step].T.reshape(1, -1).astype(np.float32))
        frame = av.AudioFrame.from_ndarray(part, "flt", layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(context.format.name, layout, rate)
        for made in resampler.resample(frame):
            made.pts, made.time_base = round(start_s * rate) + at, Fraction(1, rate)
            yield start_s + at / rate, made


def tones(levels_db: Iterable[tuple[float, float]], rate: int, channels: int, hz: float = 997.0) -> np.ndarray:
    """(channels, samples): a sine whose amplitude changes, given as (seconds, dB of full scale); -inf is silence."""
    gains = [np.full(round(seconds * rate), 10 ** (db / 20)) for seconds, db in levels_db]
    gain = np.concatenate(gains)
    return np.tile(gain * np.sin(2 * np.pi * hz * np.arange(len(gain)) / rate), (channels, 1))


def speech(seconds: float, rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """(channels, samples): noise whose strength jumps several times a second, with pauses; channels differ."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * rate)
    gain = np.zeros(samples)
    at = 0
    while at < samples:
        length = int(rng.uniform(0.05, 0.4) * rate)
        gain[at : at + length] = 0.0 if rng.random() < 0.25 else 10 ** (rng.uniform(-45, -12) / 20)
        at += length
    noise = rng.standard_normal((channels, samples))
    blurred = np.stack([np.convolve(channel, np.ones(40) / 6, "same") for channel in noise])  # stronger below 1 kHz
    return np.clip(gain * 0.2 * (noise + blurred), -1, 1)


def ebur128(sound: np.ndarray, rate: int, layout: str) -> float:
    """Integrated loudness by libav's filter of that name, which the code under test does not use."""
    graph = Graph()
    source = graph.add_abuffer(sample_rate=rate, format="dbl", layout=layout, time_base=Fraction(1, rate))
    meter, sink = graph.add("ebur128", "metadata=1:framelog=quiet"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T.reshape(1, -1)), "dbl", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    source.push(frame)
    source.push(None)
    last = None
    while True:
        try:
            last = sink.pull().metadata.get("lavfi.r128.I", last)
        except (av.BlockingIOError, av.EOFError):
            return float(last)


def decoded(path: Path) -> tuple[np.ndarray, float]:
    """The sound of a file as a plain player has it, (channels, samples), and the second at which it begins."""
    parts, start = [], None
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            start = frame.time if start is None else start
            for made in av.AudioResampler("dbl", frame.layout, frame.sample_rate).resample(frame):
                parts.append(made.to_ndarray().reshape(made.samples, -1))
    return np.concatenate(parts).T, start


def loudness_of(sound: np.ndarray, rate: int, weights: Iterable[float]) -> float:
    """Integrated loudness by ITU-R BS.1770-4, sample by sample in float64, from the text of the standard.

    The filters are run as difference equations; at other rates than 48 kHz the standard's filters are carried over
    by the bilinear transform of their poles and zeros, not by the formulas of the code under test.
    """
    shelf, high = (_resampled(*one, rate) for one in (SHELF, HIGH_PASS))
    weighted = np.stack([_filtered(_filtered(channel, *shelf), *high) for channel in sound.astype(np.float64)])
    size, hop = round(0.4 * rate), round(0.1 * rate)
    starts = range(0, weighted.shape[1] - size + 1, hop)
    power = np.array([[np.mean(channel[at : at + size] ** 2) for at in starts] for channel in weighted])
    summed = np.array(list(weights)) @ power
    level = -0.691 + 10 * np.log10(np.maximum(summed, 1e-30))
    above = summed[level > -70]
    if not len(above):
        return -70.0
    relative = -0.691 + 10 * math.log10(above.mean()) - 10
    total = summed[(level > -70) & (level > relative)].mean()
    return -0.691 + 10 * math.log10(total)


def _resampled(numerator: list[float], denominator: list[float], rate: int) -> tuple[np.ndarray, np.ndarray]:
    """A filter given at 48 kHz as one at another rate: its roots mapped to the analogue plane and back."""
    if rate == 48000:
        return np.array(numerator), np.array(denominator)

    def carried(coefficients: list[float]) -> np.ndarray:
        roots = np.roots(coefficients)
        analogue = 2 * 48000 * (roots - 1) / (roots + 1)
        return np.real(np.poly((1 + analogue / (2 * rate)) / (1 - analogue / (2 * rate))))

    top, bottom = carried(numerator), carried(denominator)

    def gain(b: np.ndarray, a: np.ndarray, of: int) -> float:
        z = np.exp(-2j * np.pi * 997 / of * np.arange(3))
        return float(abs(np.dot(b, z) / np.dot(a, z)))

    # The mapping keeps the gain but for a factor: that at 997 Hz is the standard's, at which it is calibrated.
    top = top * gain(np.array(numerator), np.array(denominator), 48000) / gain(top, bottom, rate)
    return top, bottom


def _filtered(samples: np.ndarray, b: np.ndarray, a: np.ndarray) -> np.ndarray:
    out = np.empty(len(samples))
    x1 = x2 = y1 = y2 = 0.0
    b0, b1, b2, a1, a2 = (float(value) for value in (*b, *a[1:]))
    for index, x in enumerate(samples.tolist()):
        y = b0 * x + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
        out[index] = y
        x2, x1, y2, y1 = x1, x, y1, y
    return out
