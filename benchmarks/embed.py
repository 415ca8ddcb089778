"""Clips per second through fetching by seeks, preprocessing and the network, against the slower of the two alone.

    python benchmarks/embed.py FILE... [--model ViT-B-32] [--clips 120] [--rounds 5]
    python benchmarks/embed.py --gpu-only [--gpu-model ViT-L-14] [--images 8192]

Floor: the clips' frames must be decoded and must go through the network; where both run at once, the slower
of them alone sets the time. Goal: at least 0.85 of its rate. Decode alone is `FetchFrames` with nothing behind
it; network alone is the same batches as ready tensors, with the threads that the stage itself takes. Each
round measures all three, one after the other. CPU seconds stand beside, since what both together spend over
the two alone is the cost of preprocessing and of moving pixels, on a busy machine too.

On a GPU besides: images/s of the stage from ready pictures (preprocessing and rows included) against a bare
loop of the same network over ready tensors. Goal: at least 0.9. Weights are random: they change no speed, and
none are downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
from measuring import interleaved, median, show

from stages.decode.seek import FetchFrames
from stages.pretrained.open_clip_lookup import find_model
from stages.scores.embed import Embed
from stages.scores.settings import EmbedSettings
from stages.unit import Clip, Source, Unit

UNIT_CLIPS = 8


def random_model(architecture: str, folder: Path) -> str:
    """A folder with that architecture of open_clip and random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = open_clip.create_model(architecture, pretrained=None)
    config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return str(folder)


def units_of(files: list[Path], clip_seconds: float, count: int) -> list[Unit]:
    """The files cut into clips of one length, a few to a unit, as a catalog would give them; again up to `count`."""
    import av

    units: list[Unit] = []
    for file in files:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            base = Fraction(stream.time_base)
            seconds = (container.duration or 0) / 1e6
            start = stream.start_time or 0
        length = round(clip_seconds / base)
        rows = [
            {
                "clip_id": f"{file.name}{i}", "source_id": file.name, "start_pts": start + i * length,
                "end_pts": start + (i + 1) * length, "time_base_num": base.numerator, "time_base_den": base.denominator,
            }
            for i in range(int(seconds / clip_seconds))
        ]  # fmt: skip
        source = Source(file.name, str(file))
        for at in range(0, len(rows), UNIT_CLIPS):
            units.append(Unit(f"{file.name}/{at}", [Clip(row, source) for row in rows[at : at + UNIT_CLIPS]]))
    if not units:
        raise SystemExit(f"no file holds a clip of {clip_seconds:g} s")
    once, turn = list(units), 0
    while sum(len(unit.clips) for unit in units) < count:
        turn += 1
        units += [
            Unit(
                f"{unit.unit_id}/{turn}",
                [Clip(clip.row | {"clip_id": f"{clip.clip_id}/{turn}"}, clip.source) for clip in unit.clips],
            )
            for unit in once
        ]
    return units


def fresh(units: list[Unit]) -> Iterator[Unit]:
    for unit in units:
        yield Unit(unit.unit_id, [Clip(clip.row, clip.source) for clip in unit.clips])


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_of_tree() -> float:
    """CPU seconds so far of this process and its decoder."""
    me = psutil.Process()
    return sum(t.user + t.system for t in (process.cpu_times() for process in [me, *me.children(recursive=True)]))


def end_to_end(files: list[Path], args: argparse.Namespace) -> dict:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        model = random_model(args.model, Path(folder))
        embed = Embed(EmbedSettings(model=model, batch_clips=args.batch_clips))
        embed.setup()
    fetch = FetchFrames((embed.wants(),))
    fetch.setup()
    units = units_of(files, args.clip_seconds, args.clips)
    # A first turn warms the child and the page cache.
    found = [clip for unit in fetch.stream(fresh(units)) for clip in unit.clips if clip.pixels]
    count = len(found)
    prepared = [
        embed.model.prepared(picture) for clip in found for asked in clip.pixels.values() for _, picture in asked
    ]
    embed.model.encode_prepared(prepared[:8])
    del found
    batch = embed.batch_clips * len(embed.settings.positions)

    def decode() -> None:
        for _ in fetch.stream(fresh(units)):
            pass

    def network() -> None:
        for at in range(0, len(prepared), batch):
            embed.model.encode_prepared(prepared[at : at + batch])

    def both() -> None:
        done = 0
        for unit in embed.stream(fetch.stream(fresh(units))):
            done += sum(clip.results["embeddings"]["status"] == "done" for clip in unit.clips)
        if done != count:
            raise SystemExit(f"{done} of {count} clips were embedded")

    threads, device = torch.get_num_threads(), embed.model.device
    cpu: dict[str, list[float]] = {}

    def measured(name: str, work: Callable[[], None]) -> float:
        before = cpu_of_tree()
        seconds = timed(work)
        cpu.setdefault(name, []).append((cpu_of_tree() - before) / count)
        return seconds

    work = {"decode": decode, "network": network, "both": both}
    tasks = {name: lambda n=name, w=task: measured(n, w) for name, task in work.items()}
    runs = interleaved(args.rounds, tasks)
    shares = [max(d, n) / b for d, n, b in zip(runs["decode"], runs["network"], runs["both"], strict=True)]
    rates = {name: round(count / median(values), 3) for name, values in runs.items()}
    fetch.close()
    embed.close()
    return {
        "architecture": args.model,
        "device": device,
        "network_threads": threads,
        "batch_clips": args.batch_clips,
        "clips": count,
        "frames_per_clip": len(embed.settings.positions),
        "rounds": args.rounds,
        "clips_per_s": rates,
        "cpu_s_per_clip": {name: median(values) for name, values in cpu.items()},
        "of_the_slower_alone": median(shares),
        "of_the_slower_alone_by_round": [round(share, 3) for share in shares],
        "goal": 0.85,
    }


def on_gpu(architecture: str, images: int, rounds: int) -> dict:
    import torch

    if not torch.cuda.is_available():
        return {"skipped": "no GPU that torch can use on this machine"}
    with tempfile.TemporaryDirectory() as folder:
        made = EmbedSettings(model=random_model(architecture, Path(folder)), device="cuda", batch_clips=128)
        embed = Embed(made)
        embed.setup()
    model, frames = embed.model, len(made.positions)
    rng = np.random.default_rng(0)
    side = find_model(architecture).image_size
    pictures = [rng.integers(0, 255, (side * 2 * 9 // 16, side * 2, 3)).astype(np.uint8) for _ in range(64)]
    batch = torch.rand(256, 3, side, side, device="cuda")
    clips = images // frames

    def bare() -> float:
        torch.cuda.synchronize()
        spent = timed(lambda: ([model.encode_tensor(batch) for _ in range(images // 256)], torch.cuda.synchronize()))
        return images // 256 * 256 / spent

    def units() -> Iterator[Unit]:
        for at in range(0, clips, UNIT_CLIPS):
            unit = Unit(str(at))
            for number in range(at, min(clips, at + UNIT_CLIPS)):
                asked = [(float(i), pictures[(number * frames + i) % len(pictures)]) for i in range(frames)]
                row = {"clip_id": str(number), "source_id": ""}
                unit.clips.append(Clip(row, Source("", ""), pixels={embed.wants(): asked}))
            yield unit

    def stage() -> float:
        return clips * frames / timed(lambda: [None for _ in embed.stream(units())])

    bare(), stage()
    runs = interleaved(rounds, {"bare": bare, "stage": stage})
    embed.close()
    return {
        "architecture": architecture,
        "gpu": torch.cuda.get_device_name(),
        "dtype": model.dtype,
        "images_per_s": {name: round(median(values), 1) for name, values in runs.items()},
        "of_the_bare_loop": median([s / b for s, b in zip(runs["stage"], runs["bare"], strict=True)]),
        "goal": 0.9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--model", default="ViT-B-32", help="architecture of open_clip, random weights")
    parser.add_argument("--clip-seconds", type=float, default=2.0)
    parser.add_argument("--clips", type=int, default=120, help="take the files again until there are so many")
    parser.add_argument("--batch-clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gpu-only", action="store_true")
    parser.add_argument("--gpu-model", default="ViT-L-14")
    parser.add_argument("--images", type=int, default=8192)
    args = parser.parse_args()
    if not args.files and not args.gpu_only:
        parser.error("give video files, or --gpu-only")
    result = {}
    if not args.gpu_only:
        result["end_to_end"] = end_to_end(args.files, args)
    result["gpu"] = on_gpu(args.gpu_model, args.images, args.rounds)
    if "skipped" in result["gpu"]:
        print(f"images/s on a GPU: skipped, {result['gpu']['skipped']}", file=sys.stderr)
    show(result)


if __name__ == "__main__":
    main()
