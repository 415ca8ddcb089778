"""Loudness and silence of sound levels, against libav's ebur128 and the text of BS.1770-4."""

from __future__ import annotations

import itertools
import math

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode.audio_levels import AudioLevels, channel_weights, k_weighting
from stages.frames import ClipAudio, Levels
from stages.measures.audio import Audio, loudness, silence
from tests.sounds import HIGH_PASS, SHELF, ebur128, loudness_of, speech, tones
from tests.stages.drawn import facts

LAYOUTS = {"mono": 1, "1 channels": 1, "6 channels": 6, "stereo": 2, "5.1": 6, "5.1(side)": 6, "quad": 4}


def levels(sound: np.ndarray, rate: int, layout: str, frame_samples: int = 4096) -> ClipAudio:
    """The levels of samples (channels, n), given in frames of that size."""
    meter, pieces = None, []
    for at in range(0, sound.shape[1], frame_samples):
        part = np.ascontiguousarray(sound[:, at : at + frame_samples].T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(part, "dbl", layout)
        frame.sample_rate = rate
        meter = meter or AudioLevels(frame)
        pieces += meter.add(frame)
    if meter is not None and (rest := meter.rest()) is not None:
        pieces.append(rest)
    power, peak = (np.concatenate(values) for values in zip(*pieces, strict=True))
    return ClipAudio([Levels(0.0, power, peak)])


RATES = [8000, 12000, 16000, 22050, 32000, 44100, 88200, 96000, 192000]
KINDS = [(rate, "stereo") for rate in RATES] + [(48000, layout) for layout in LAYOUTS]


@pytest.mark.parametrize(("rate", "layout"), KINDS)
def test_loudness_is_that_of_ebur128_at_every_rate_and_layout(rate, layout):
    sound = speech(2, rate, LAYOUTS[layout], seed=rate)
    named = {"1 channels": "mono", "6 channels": "5.1"}.get(layout, layout)  # what a player takes it for
    assert loudness(levels(sound, rate, layout), 2) == pytest.approx(ebur128(sound, rate, named), abs=0.1)


@pytest.mark.parametrize(("rate", "layout", "weights"), [
    (48000, "mono", [1]), (48000, "stereo", [1, 1]), (44100, "stereo", [1, 1]), (24000, "mono", [1]),
    (48000, "5.1", [1, 1, 1, 0, 1.41, 1.41]), (48000, "7.1", [1, 1, 1, 0, 1, 1, 1.41, 1.41]),
])  # fmt: skip
def test_loudness_is_that_of_the_standard_s_text(rate, layout, weights):
    sound = speech(2, rate, len(weights), seed=3)
    assert loudness(levels(sound, rate, layout), 2) == pytest.approx(loudness_of(sound, rate, weights), abs=0.05)


def test_the_filters_at_48_khz_are_those_of_the_standard_s_tables():
    for made, (numerator, denominator) in zip(k_weighting(48000), (SHELF, HIGH_PASS), strict=True):
        assert made == pytest.approx((*numerator, *denominator[1:]), abs=1e-9)


def test_the_tones_of_ebu_tech_3341_read_as_they_must():
    """Test cases 1 to 4 of the EBU's document, within its 0.1 LU."""
    ends = [(10, -36), (60, -23), (10, -36)]
    cases = [[(20, -23)], [(20, -33)], ends, [(10, -72), *ends, (10, -72)]]
    for case, spans, wanted in zip(range(1, 5), cases, (-23, -33, -23, -23), strict=True):
        sound = tones(spans, 48000, 2, hz=1000)
        seconds = sound.shape[1] / 48000
        assert loudness(levels(sound, 48000, "stereo"), seconds) == pytest.approx(wanted, abs=0.1), case


@pytest.mark.parametrize("sample_format", ["u8", "u8p", "s16", "s16p", "s32", "s32p", "flt", "fltp", "dbl", "dblp"])
def test_every_sample_format_reads_alike(sample_format):
    sound = tones([(1, -12), (1, -math.inf), (1, -20)], 48000, 2)
    meter, pieces = None, []
    resampler = av.AudioResampler(sample_format, "stereo", 48000)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.astype(np.float32)), "fltp", "stereo")
    frame.sample_rate = 48000
    for made in resampler.resample(frame):
        meter = meter or AudioLevels(made)
        pieces += meter.add(made)
    power, peak = (np.concatenate(values) for values in zip(*pieces, strict=True))
    heard = ClipAudio([Levels(0.0, power, peak)])
    assert loudness(heard, 3) == pytest.approx(ebur128(sound, 48000, "stereo"), abs=0.1)
    if not sample_format.startswith("u8"):  # whose steps are coarser than the threshold
        assert silence(heard, 3) == pytest.approx(1 / 3, abs=0.01)


@settings(max_examples=25)
@given(
    spans=st.lists(st.tuples(st.floats(0.1, 1.5), st.booleans()), min_size=1, max_size=6),
    rate=st.sampled_from([8000, 11025, 22050, 44100, 48000]),
    frame_samples=st.sampled_from([160, 1024, 4096, 10_000]),
)
def test_planted_silence_is_found_to_a_hundredth(spans, rate, frame_samples):
    sound = tones([(seconds, -20 if loud else -math.inf) for seconds, loud in spans], rate, 1)
    total = sound.shape[1] / rate
    share = sum(seconds for seconds, loud in spans if not loud) / sum(seconds for seconds, _ in spans)
    slack = 0.01 * len([*itertools.groupby(loud for _, loud in spans)]) / total  # a step at each edge
    found = silence(levels(sound, rate, "mono", frame_samples), total)
    assert found == pytest.approx(share, abs=0.01 + slack)
    assert total < 2 or len(spans) > 2 or found == pytest.approx(share, abs=0.01)


@settings(max_examples=15)
@given(size=st.integers(50, 5000), rate=st.sampled_from([11025, 22050, 48000]), seed=st.integers(0, 99))
def test_how_the_samples_are_parted_into_frames_changes_no_level(size, rate, seed):
    sound = speech(1.7, rate, 2, seed)
    whole, parted = (levels(sound, rate, "stereo", samples).stretches[0] for samples in (10**6, size))
    assert len(whole.power) == 1700
    assert np.allclose(whole.power, parted.power, rtol=1e-6, atol=1e-12)
    assert np.array_equal(whole.peak, parted.peak)


def test_silence_is_minus_seventy_and_what_is_too_short_for_a_block_is_unknown():
    quiet = levels(np.zeros((2, 48000)), 48000, "stereo")
    assert (loudness(quiet, 1), silence(quiet, 1)) == (-70, 1)
    short = levels(tones([(0.3, -20)], 48000, 1), 48000, "mono")
    assert (loudness(short, 0.3), loudness(short, 2)) == (None, None)
    assert silence(short, 0.3) == 0 and silence(short, 2) == pytest.approx(0.85)
    assert (loudness(ClipAudio([]), 2), silence(ClipAudio([]), 2)) == (-70, 1)  # the sound has ended before the clip


def test_sound_that_begins_inside_a_clip_is_as_loud_as_by_itself():
    part = levels(tones([(1, -23)], 48000, 2), 48000, "stereo")
    assert loudness(part, 3) == pytest.approx(loudness(part, 1)) == pytest.approx(-23, abs=0.1)
    assert silence(part, 3) == pytest.approx(2 / 3, abs=0.01)


def test_without_sound_or_with_damaged_sound_nothing_is_said():
    unknown = {"loudness": None, "silence": None, "audio_reason": None}
    assert Audio().aggregate([], facts(0, 2)) == unknown
    damaged = facts(0, 2, audio=ClipAudio([], "damaged"))
    assert Audio().aggregate([], damaged) == unknown | {"audio_reason": "damaged"}


@pytest.mark.parametrize(("layout", "weights"), [
    ("mono", [1]), ("5.1", [1, 1, 1, 0, 1.41, 1.41]), ("5.1(side)", [1, 1, 1, 0, 1.41, 1.41]),
    ("quad", [1, 1, 1.41, 1.41]), ("7.1", [1, 1, 1, 0, 1, 1, 1.41, 1.41]),
])  # fmt: skip
def test_channels_have_the_weights_of_their_places(layout, weights):
    assert channel_weights(av.AudioLayout(layout)).tolist() == weights
