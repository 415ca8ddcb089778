"""How much of the time the encode stage keeps the network busy, when pixels are ready in memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu.report import Report

GOAL = 0.95


class InMemory:
    """Answers for windows as the prefetcher gives them, of pixels that are there already."""

    waited_s = 0.0

    def __init__(self, pixels: list[Any]):
        self.pixels = pixels

    def fetch(self, windows: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for number, window in enumerate(windows):
            yield window, self.pixels[number % len(self.pixels)]

    def close(self) -> None:
        pass


def run(report: Report, device: str) -> None:
    gpu = device == "cuda"
    report.case(
        "busy", lambda: busy(device, "81x256x256" if gpu else "5x32x32", 96 if gpu else 8), least=20 if gpu else 0
    )


def busy(device: str, name: str, count: int) -> dict[str, Any]:
    """The time in which the device had work of the network, by events, over the time that the stage took."""
    from models.saved.vae_files import save
    from models.settings.vae import sized
    from models.vae.causal_vae import CausalVAE
    from stages.base import Context
    from stages.encode.settings import EncodeSettings
    from stages.encode.stage import Encode
    from stages.unit import Clip, Source, Unit
    from stages.windows.buckets import Bucket
    from stages.windows.window import Pixels

    bucket = Bucket.parse(name)
    row = {
        "source_id": "film", "media": "video", "start_pts": 0, "end_pts": 10 * bucket.frames, "width": bucket.width,
        "height": bucket.height, "time_base_num": 1, "time_base_den": 80,
    }  # fmt: skip
    generator = np.random.default_rng(0)
    shape = (bucket.frames, bucket.height, bucket.width, 3)
    whole = (0, 0, bucket.width, bucket.height)
    pixels = [Pixels(generator.integers(0, 256, shape, np.uint8), [], whole) for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        save(CausalVAE(sized("published" if device == "cuda" else "debug")), Path(folder, "vae"))
        settings = EncodeSettings(
            vae=f"{folder}/vae", buckets=(bucket,), fps=8, sample=0, device=device,
            compile=device == "cuda", decoder={"children": 1},
        )  # fmt: skip
        encode = Encode(settings)
        encode.prepare(Context(f"{folder}/catalog"))
        encode.setup()
        encode.prefetcher.close()
        encode.prefetcher = InMemory(pixels)
        encode.network.encode([each.video for each in pixels[:1]])  # chooses kernels, compiles
        spent = watched(encode.network.coder, device)

        def units(clips: int) -> Iterator[Unit]:
            source = Source("film", "film.mp4")
            yield Unit("0", [Clip({**row, "clip_id": f"{number:032x}"}, source) for number in range(clips)])

        list(encode.stream(units(4)))
        spent.clear()
        began = time.perf_counter()
        done = [clip.results["latents"]["status"] for unit in encode.stream(units(count)) for clip in unit.clips]
        wall = time.perf_counter() - began
        if device == "cuda":
            torch.cuda.synchronize()
        in_network = sum(each() for each in spent)
        encode.close()
    if done != ["done"] * count:
        raise ValueError(f"{done.count('done')} of {count} clips were encoded")
    share = in_network / wall
    shown = f"busy {share:.3f} of the time, {count / wall:.2f} clips/s (>= .85, goal {GOAL})"
    return {"busy": share, "clips_per_s": count / wall, "wall_s": wall, "shown": shown}


def watched(coder: Any, device: str) -> list[Any]:
    """Makes the coder note, with each call, a function that gives its seconds once the device is done."""
    spent: list[Any] = []
    encode = coder.encode

    def noted(video: torch.Tensor) -> Any:
        if device != "cuda":
            began = time.perf_counter()
            found = encode(video)
            took = time.perf_counter() - began
            spent.append(lambda: took)
            return found
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        found = encode(video)
        end.record()
        spent.append(lambda: start.elapsed_time(end) / 1e3)
        return found

    coder.encode = noted
    return spent
