"""How well cuts and fades are found: films composed of real takes (where they are) and of drawn footage.

python benchmarks/cut_accuracy.py [--detectors NAME ...] [--seeds N] [--takes real|drawn] [--rates FPS ...]

Prints JSON: per film and detector F1 of the hard cuts (to within 2 frames), recall of the gradual transitions,
false cuts, and CPU milliseconds per frame of the cutter alone; PySceneDetect's AdaptiveDetector on the same small
frames beside it. The real takes are looked for in $CLIPMILL_VIDEOS, else in ../shared/videos.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.cuts.scenes import SceneCutter
from stages.cuts.settings import CutSettings
from stages.decode.readers import open_reader
from stages.decode.sources import open_source
from tests.cut_scores import Score, score
from tests.films import Drawn, Join, Truth, compose, real_takes

RATES = (16, 24, 30, 60, "uneven")
JOINS = {
    "cut": Join("cut"),
    "fade 0.25 s": Join("fade", 0.25),
    "fade 0.5 s": Join("fade", 0.5),
    "fade 1 s": Join("fade", 1.0),
    "fade 2 s": Join("fade", 2.0),
    "dip to black": Join("black", 1.0, 0.2),
    "dip to white": Join("white", 1.0, 0.2),
    "cut, dark": Join("cut"),  # both takes at a sixth of their light
    "cut, quick": Join("cut"),  # shots of 0.2 to 0.6 s
    "cut, same take": Join("cut"),  # from one part of a take to another
    "cut, flashes": Join("cut"),  # two flashes of 0.1 s in each shot, which are no cuts
    "cut, shaken": Join("cut"),  # whip pans: the picture jumps by up to a fifth of its width in single frames
}


@dataclass
class Remembered:
    pts: int
    seconds: float
    small: np.ndarray


class Altered:
    """A take as a hard case has it."""

    def __init__(self, take, name: str, rng: np.random.Generator):
        self.take, self.name, self.seconds = take, name, take.seconds
        self.at = rng.uniform(0, take.seconds, 2 * round(take.seconds))  # of flashes and jolts

    def picture(self, t: float, size: tuple[int, int]) -> np.ndarray:
        picture = self.take.picture(t, size)
        near = float(np.abs(self.at - t).min(initial=9.0))
        if self.name == "cut, dark":
            return picture // 6
        if self.name == "cut, flashes" and near < 0.05:
            return np.clip(picture.astype(np.int16) + 150, 0, 255).astype(np.uint8)
        if self.name == "cut, shaken" and near < 0.15:
            return np.roll(picture, int(size[0] / 5 * np.sin(40 * t)), axis=1)
        return picture


def film(path: Path, name: str, rate, seed: int, real: bool) -> Truth | None:
    """Ten shots of 1 s to 3 s, longer where the join needs it. None where the real takes are missing."""
    join = JOINS[name]
    rng = np.random.default_rng((seed, RATES.index(rate), list(JOINS).index(name)))
    needed = 2 * join.seconds + (0.2 if name == "cut, quick" else 0.5)
    if real:
        takes = [take for take in real_takes() if take.seconds >= needed]
    else:
        takes = [_drawn(rng, seed * 100 + k, needed + 3) for k in range(10)]
    if len(takes) < 3:
        return None
    takes = [Altered(take, name, rng) for take in takes] if name.startswith("cut, ") else takes
    shots, last = [], None
    while len(shots) < 10:
        take = takes[int(rng.integers(len(takes)))]
        shortest, longest = (0.2, 0.6) if name == "cut, quick" else (1, 3)
        length = min(take.seconds, max(needed, float(rng.uniform(shortest, longest))))
        if name == "cut, same take" and len(shots) % 2 == 1 and last is not None:
            take, length = last[0], min(length, last[1])  # as far from the part before as the take allows
            begin = 0.0 if last[1] > last[0].seconds / 2 else take.seconds - length
            if abs(begin - last[1]) < 0.5:
                begin = 0.0
        elif last is not None and take is last[0]:
            continue
        else:
            begin = float(rng.uniform(0, take.seconds - length))
        last = take, begin + length
        shots.append((take, begin, begin + length))
    uneven = seed if rate == "uneven" else None
    return compose(path, shots, join, 24 if rate == "uneven" else rate, uneven=uneven)


def _drawn(rng: np.random.Generator, seed: int, seconds: float) -> Drawn:
    return Drawn(
        int(rng.integers(1 << 20)) + seed,
        seconds,
        pan=tuple(rng.uniform(-0.25, 0.25, 2)),
        zoom=float(rng.uniform(0.85, 1.2)),
        shake=float(rng.choice([0, 0.01, 0.03])),
        noise=float(rng.choice([0, 2, 6])),
        still=bool(rng.integers(2)),
    )


def measure(truth: Truth, detectors: list[str]) -> tuple[dict[str, tuple[Score, float]], float]:
    """({detector: (score, CPU ms a frame)}, CPU ms a frame of PySceneDetect's detector), all on the same frames."""
    with open_source(str(truth.path)) as file:
        reader = open_reader(file)
        frames = [Remembered(f.pts, f.seconds, f.small) for f in reader]
        end, base = reader.last_end_pts, reader.info.time_base
    found = {}
    for detector in detectors:
        cutter, began = SceneCutter(CutSettings(detector=detector), base), time.process_time()
        clips = [clip for frame in frames for clip in cutter.observe(frame)] + cutter.finish(end)
        found[detector] = score(truth, clips), 1e3 * (time.process_time() - began) / len(frames)
    peer, began = AdaptiveDetector(), time.process_time()
    for k, frame in enumerate(frames):
        peer.process_frame(FrameTimecode(k, fps=24.0), frame.small)
    return found, 1e3 * (time.process_time() - began) / len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--detectors", nargs="+", default=["adaptive"])
    parser.add_argument("--seeds", type=int, default=1, help="films of each kind")
    parser.add_argument("--takes", choices=("real", "drawn", "both"), default="both")
    parser.add_argument("--kinds", nargs="+", default=list(JOINS), choices=list(JOINS), help="of joins")
    parser.add_argument("--rates", nargs="+", default=list(map(str, RATES)), help="frames per second, or uneven")
    options = parser.parse_args()
    films, totals = [], {}
    costs = {name: [] for name in [*options.detectors, "peer"]}
    with tempfile.TemporaryDirectory() as folder:
        for real in {"real": (True,), "drawn": (False,), "both": (True, False)}[options.takes]:
            for name in options.kinds:
                for rate in [rate for rate in RATES if str(rate) in options.rates]:
                    for seed in range(1000, 1000 + options.seeds):
                        truth = film(Path(folder) / "film.mp4", name, rate, seed, real)
                        if truth is None:
                            continue
                        results, peer = measure(truth, options.detectors)
                        costs["peer"].append(peer)
                        for detector, (result, ours) in results.items():
                            row = _row(detector, "real" if real else "drawn", name, result)
                            films.append(row | {"fps": rate, "cpu_ms_per_frame": round(ours, 3)})
                            key = detector, row["takes"], name
                            totals[key] = totals.get(key, Score()) + result
                            costs[detector].append(ours)
    medians = {name: round(float(np.median(some)), 3) for name, some in costs.items() if some}
    report = {
        "benchmark": "cut_accuracy",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "peer": "PySceneDetect AdaptiveDetector on the same 128 px frames, hard cuts only",
        "cpu_ms_per_frame_median": medians,
        "totals": [_row(*key, total) for key, total in totals.items()],
        "films": films,
    }
    print(json.dumps(report, indent=1))


def _row(detector: str, takes: str, joins: str, result: Score) -> dict:
    row = {"detector": detector, "takes": takes, "joins": joins, "false_cuts": result.false_cuts}
    if result.cuts:
        row |= {"cuts": result.cuts, "f1": round(result.f1, 4)}
    if result.fades:
        row |= {"fades": result.fades, "fade_recall": round(result.found_fades / result.fades, 4)}
        off = np.abs(np.array(result.fade_errors or ((0, 0),)))
        row |= {"frames_off_median": float(np.median(off)), "frames_off_p90": float(np.percentile(off, 90))}
    return row


if __name__ == "__main__":
    main()
