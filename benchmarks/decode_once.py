"""CPU seconds of pure decode, of the whole decode pass, of that with the measure `audio`, and of PySceneDetect's
AdaptiveDetector alone.

    python benchmarks/decode_once.py FILE... [--rounds 5]

Each in a process of its own, interleaved; medians and ratios as JSON. Floor: every frame must be decoded
once, so pure decode (PyAV, one thread, frames thrown away) is what no pass can beat. What the sound costs is the
median over the rounds of the ratio of the two passes of one round; files without sound have no such figure.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import interleaved, median, show

RECIPE_MEASURES = (
    "motion",
    "shake",
    "sharpness",
    "exposure",
    "letterbox",
    "static",
    "phash",
    "bits_per_pixel",
)


def pure(path: str) -> int:
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def whole(path: str, measures: tuple[str, ...] = RECIPE_MEASURES) -> int:
    from stages.cuts.settings import CutSettings
    from stages.decode.settings import ProbeSettings
    from stages.decode.sources import open_source
    from stages.scan.messages import ScannedClip, ScanSettings
    from stages.scan.scan import scan

    settings = ScanSettings(ProbeSettings(min_seconds=2), CutSettings(), measures)
    answers = scan(open_source(path), settings, progress=lambda n: None)
    return sum(isinstance(answer, ScannedClip) for answer in answers)


def with_audio(path: str) -> int:
    return whole(path, (*RECIPE_MEASURES, "audio"))


def has_audio(path: str) -> bool:
    import av

    with av.open(path) as container:
        return bool(container.streams.audio)


def cuts(path: str) -> int:
    import cv2
    from scenedetect import AdaptiveDetector, SceneManager, open_video

    cv2.setNumThreads(1)
    manager = SceneManager()
    manager.add_detector(AdaptiveDetector())
    manager.detect_scenes(open_video(path))
    return len(manager.get_scene_list())


TASKS = {"pure_decode": pure, "whole_pass": whole, "whole_pass_with_audio": with_audio, "pyscenedetect_adaptive": cuts}


def once(task: str, path: str) -> float:
    """CPU seconds of the task less those of importing its libraries, measured inside its own process."""
    out = subprocess.run([sys.executable, __file__, "--task", task, path], capture_output=True, text=True, check=True)
    return float(out.stdout)


def inside(task: str, path: str) -> float:
    with tempfile.TemporaryDirectory() as folder:  # imports and first calls are start-up, not work
        TASKS[task](short_film(Path(folder) / "warm.mp4"))
    began = resource.getrusage(resource.RUSAGE_SELF)
    TASKS[task](path)
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


def short_film(path: Path) -> str:
    """A film of two seconds, so that every library has done once what it does once."""
    import av
    import numpy as np

    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=24)
        stream.width, stream.height = 320, 176
        picture = np.random.default_rng(0).integers(0, 255, (176, 320, 3)).astype(np.uint8)
        for number in range(48):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, 3 * number, axis=1), "rgb24")))
        out.mux(stream.encode(None))
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        print(inside(args.task, args.files[0]))
        return
    results = []
    totals = dict.fromkeys(TASKS, 0.0)
    for file in args.files:
        tasks = [task for task in TASKS if task != "whole_pass_with_audio" or has_audio(file)]
        runs = interleaved(args.rounds, {task: lambda t=task, f=file: once(t, f) for task in tasks})
        medians = {task: median(values) for task, values in runs.items()}
        for task, value in medians.items():
            totals[task] += value
        found = {"file": Path(file).name, "cpu_s": medians, **ratios(medians)}
        if heard := runs.get("whole_pass_with_audio"):
            found["audio/whole"] = median([one / other for one, other in zip(heard, runs["whole_pass"], strict=True)])
        results.append(found)
    show({"rounds": args.rounds, "files": results, "all": {"cpu_s": totals, **ratios(totals)}})


def ratios(cpu: dict[str, float]) -> dict[str, float]:
    return {
        "whole/pure": round(cpu["whole_pass"] / cpu["pure_decode"], 3),
        "whole/pyscenedetect": round(cpu["whole_pass"] / cpu["pyscenedetect_adaptive"], 3),
    }


if __name__ == "__main__":
    main()
