"""How well cuts and fades are found: films composed of real takes (where they are) and of drawn footage.

python benchmarks/cut_accuracy.py [--detector NAME] [--seeds N]

Prints JSON: per film F1 of the hard cuts (to within 2 frames), recall of the gradual transitions, false
cuts, and CPU milliseconds per frame of the cutter alone; PySceneDetect's AdaptiveDetector on the same small
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
}


@dataclass
class Remembered:
    pts: int
    seconds: float
    small: np.ndarray


def film(path: Path, join: Join, rate, seed: int, real: bool) -> Truth | None:
    """Ten shots of 1 s to 3 s, longer where the join needs it. None where the real takes are missing."""
    rng = np.random.default_rng((seed, RATES.index(rate), list(JOINS.values()).index(join)))
    needed = 2 * join.seconds + 0.5
    if real:
        takes = [take for take in real_takes() if take.seconds >= needed]
    else:
        takes = [_drawn(rng, seed * 100 + k, needed + 3) for k in range(10)]
    if len(takes) < 3:
        return None
    shots, last = [], None
    while len(shots) < 10:
        take = takes[int(rng.integers(len(takes)))]
        if take is last:
            continue
        last, length = take, min(take.seconds, max(needed, float(rng.uniform(1, 3))))
        begin = float(rng.uniform(0, take.seconds - length))
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


def measure(truth: Truth, settings: CutSettings) -> tuple[Score, float, float]:
    """(score, CPU ms a frame of our cutter, CPU ms a frame of PySceneDetect's detector on the same frames)."""
    with open_source(str(truth.path)) as file:
        reader = open_reader(file)
        frames = [Remembered(f.pts, f.seconds, f.small) for f in reader]
        end, base = reader.last_end_pts, reader.info.time_base
    cutter, began = SceneCutter(settings, base), time.process_time()
    clips = [clip for frame in frames for clip in cutter.observe(frame)] + cutter.finish(end)
    ours = time.process_time() - began
    peer, began = AdaptiveDetector(), time.process_time()
    for k, frame in enumerate(frames):
        peer.process_frame(FrameTimecode(k, fps=24.0), frame.small)
    theirs = time.process_time() - began
    return score(truth, clips), 1e3 * ours / len(frames), 1e3 * theirs / len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--detector", default="adaptive")
    parser.add_argument("--seeds", type=int, default=1, help="films of each kind")
    options = parser.parse_args()
    settings = CutSettings(detector=options.detector)
    films, totals = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for real in (True, False):
            for name, join in JOINS.items():
                for rate in RATES:
                    for seed in range(1000, 1000 + options.seeds):
                        truth = film(Path(folder) / "film.mp4", join, rate, seed, real)
                        if truth is None:
                            continue
                        result, ours, theirs = measure(truth, settings)
                        takes = "real" if real else "drawn"
                        films.append(_row(takes, name, result) | {"fps": rate} | _cost(ours, theirs))
                        key = f"{takes}, {name}"
                        totals[key] = totals.get(key, Score()) + result
    cost = [film["cpu_ms_per_frame"] for film in films]
    peer = [film["peer_cpu_ms_per_frame"] for film in films]
    report = {
        "benchmark": "cut_accuracy",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "detector": options.detector,
        "cpu_ms_per_frame_median": round(float(np.median(cost)), 3),
        "peer": "PySceneDetect AdaptiveDetector on the same 128 px frames, hard cuts only",
        "peer_cpu_ms_per_frame_median": round(float(np.median(peer)), 3),
        "totals": [_row(*key.split(", "), total) for key, total in totals.items()],
        "films": films,
    }
    print(json.dumps(report, indent=1))


def _row(takes: str, joins: str, result: Score) -> dict:
    row = {"takes": takes, "joins": joins, "false_cuts": result.false_cuts}
    if result.cuts:
        row |= {"cuts": result.cuts, "f1": round(result.f1, 4)}
    if result.fades:
        row |= {"fades": result.fades, "fade_recall": round(result.found_fades / result.fades, 4)}
        off = np.abs(np.array(result.fade_errors or ((0, 0),)))
        row |= {"frames_off_median": float(np.median(off)), "frames_off_p90": float(np.percentile(off, 90))}
    return row


def _cost(ours: float, theirs: float) -> dict:
    return {"cpu_ms_per_frame": round(ours, 3), "peer_cpu_ms_per_frame": round(theirs, 3)}


if __name__ == "__main__":
    main()
