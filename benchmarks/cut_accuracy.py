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
    parser.add_argument("--rates", nargs="+", default=list(map(str, RATES)), help="frames per second, or uneven")
    options = parser.parse_args()
    films, totals = [], {}
    costs = {name: [] for name in [*options.detectors, "peer"]}
    with tempfile.TemporaryDirectory() as folder:
        for real in {"real": (True,), "drawn": (False,), "both": (True, False)}[options.takes]:
            for name, join in JOINS.items():
                for rate in [rate for rate in RATES if str(rate) in options.rates]:
                    for seed in range(1000, 1000 + options.seeds):
                        truth = film(Path(folder) / "film.mp4", join, rate, seed, real)
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
