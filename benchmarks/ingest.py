"""CPU seconds of the whole process tree per minute of video, for a complete `clipmill run ingest`.

    python benchmarks/ingest.py FOLDER [--rounds 3]

Both engines and PySceneDetect's AdaptiveDetector alone on the same files, interleaved. Start-up (the same
command on a folder with one small picture) is measured beside and taken off. Floor: pure decode.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import interleaved, median, run_tree, show

CLIPMILL = str(Path(sys.executable).with_name("clipmill"))
ENDINGS = {".mp4", ".mkv", ".mov", ".webm", ".avi"}


def minutes_of(files: list[Path]) -> float:
    import av

    seconds = 0.0
    for file in files:
        with av.open(str(file)) as container:
            seconds += (container.duration or 0) / 1e6
    return seconds / 60


def ingest(folder: Path, engine: str, scratch: Path) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of one run into a new catalog."""
    catalog = scratch / "catalog"
    shutil.rmtree(catalog, ignore_errors=True)
    cost = run_tree([CLIPMILL, "run", "ingest", "--input", str(folder), "--catalog", str(catalog), "--engine", engine])
    if cost.code not in (0, 1):
        raise SystemExit(f"clipmill run ended with {cost.code}")
    return cost.cpu_s, cost.wall_s


def python(code: str, files: list[Path]) -> float:
    """CPU seconds of a Python process that runs the code on the files."""
    return run_tree([sys.executable, "-c", code, *map(str, files)]).cpu_s


def pyscenedetect(files: list[Path]) -> float:
    code = (
        "import sys, cv2; cv2.setNumThreads(1)\n"
        "from scenedetect import AdaptiveDetector, SceneManager, open_video\n"
        "for path in sys.argv[1:]:\n"
        "    m = SceneManager(); m.add_detector(AdaptiveDetector()); m.detect_scenes(open_video(path))\n"
    )
    return python(code, files)


def pure(files: list[Path]) -> float:
    code = (
        "import sys, av\n"
        "for path in sys.argv[1:]:\n"
        "    c = av.open(path); s = c.streams.video[0]; s.thread_type = 'NONE'; s.codec_context.thread_count = 1\n"
        "    for _ in c.decode(s): pass\n"
    )
    return python(code, files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="take every file so many times (hard links)")
    args = parser.parse_args()
    files = sorted(f for f in args.folder.rglob("*") if f.suffix.lower() in ENDINGS)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        work, tiny = scratch / "videos", scratch / "tiny"
        work.mkdir()
        tiny.mkdir()
        for copy in range(args.repeat):
            for file in files:
                shutil.copy(file, work / f"{copy}_{file.name}")
        picture = "import cv2, numpy, sys; cv2.imwrite(sys.argv[1], numpy.zeros((64, 64, 3), 'uint8'))"
        subprocess.run([sys.executable, "-c", picture, str(tiny / "one.png")], check=True)
        videos = sorted(work.iterdir())
        minutes = minutes_of(videos)
        walls: dict[str, list[float]] = {}

        def timed(key: str, folder: Path, engine: str) -> float:
            cpu, wall = ingest(folder, engine, scratch)
            walls.setdefault(key, []).append(wall)
            return cpu

        tasks = {
            f"{what}_{engine}": (lambda w=what, e=engine: timed(f"{w}_{e}", tiny if w == "start" else work, e))
            for engine in ("inline", "ray")
            for what in ("start", "run")
        }
        tasks |= {"pyscenedetect": lambda: pyscenedetect(videos), "pure_decode": lambda: pure(videos)}
        runs = {name: median(values) for name, values in interleaved(args.rounds, tasks).items()}
    peer = runs["pyscenedetect"] / minutes
    result = {"minutes_of_video": round(minutes, 3), "rounds": args.rounds, "cpu_s": runs}
    for engine in ("inline", "ray"):
        work_cpu = (runs[f"run_{engine}"] - runs[f"start_{engine}"]) / minutes
        result[engine] = {
            "cpu_s_per_minute": round(work_cpu, 3),
            "of_pyscenedetect": round(work_cpu / peer, 3),
            "start_up_wall_s": median(walls[f"start_{engine}"]),
            "start_up_cpu_s": runs[f"start_{engine}"],
            "run_wall_s": median(walls[f"run_{engine}"]),
        }
    result["pyscenedetect_cpu_s_per_minute"] = round(peer, 3)
    result["pure_decode_cpu_s_per_minute"] = round(runs["pure_decode"] / minutes, 3)
    show(result)


if __name__ == "__main__":
    main()
