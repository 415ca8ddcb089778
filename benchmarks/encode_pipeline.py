"""Frames per second of `encode`, decoding and network and shards, against the slower of decoding and network alone.

    python benchmarks/encode_pipeline.py FILE... [--bucket 17x96x96] [--width 8] [--clips 128] [--rounds 5]

Floor: windows must be decoded and must go through the VAE's encoder; where both run at once, the slower of them
alone sets the time. Goal: at least 0.85 of its rate on two cores. Decode alone is the stage's `WindowPrefetcher` with
nothing behind it; network alone is the stage's network on the same pixels, ready in memory, in the same batches and
with the threads that the stage takes. Each round measures all three, one after the other. `waiting` is the share of
the stage's time that its network waited for pixels. CPU seconds stand beside: what both together spend over the
two alone is the cost of shards and of moving pixels, on a busy machine too.

The VAE is clipmill's own, of the size `debug` at --width, with random weights: they change no speed. Width, bucket
and files decide which side is slower; where both are about alike it is hardest. On a CPU with two threads in the
network and a decoder beside it, two cores are asked for three's work: OMP_NUM_THREADS=1 says what is shared out.
"""

from __future__ import annotations

import argparse
import bisect
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from measuring import interleaved, median, show

from stages.base import Context
from stages.encode.settings import EncodeSettings
from stages.encode.stage import Encode
from stages.unit import Clip, Row, Source, Unit
from stages.windows.buckets import Bucket, choose, window_of
from stages.windows.window import Window

SHARD_CLIPS = 32


def random_vae(width: int, folder: Path) -> str:
    import torch

    from models.saved.vae_files import save
    from models.settings.vae import sized
    from models.vae.causal_vae import CausalVAE

    torch.manual_seed(0)
    save(CausalVAE(sized("debug", width=width)), folder)
    return str(folder)


def rows_of(files: list[Path], bucket: Bucket, fps: float, count: int) -> list[tuple[Row, Source]]:
    """The files cut into clips as long as the bucket, as a catalog would give them, again up to `count`."""
    import av

    rows: list[Row] = []
    for number, file in enumerate(files):
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            base = Fraction(stream.time_base)
            shown = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        length = -int(-bucket.frames / fps // base)
        edges = [shown[0]]  # clips begin with a frame
        while (at := bisect.bisect_left(shown, edges[-1] + length)) < len(shown):
            edges.append(shown[at])
        rows += [
            {
                "clip_id": f"{number}-{i}", "source_id": file.name, "media": "video",
                "start_pts": start, "end_pts": end, "width": stream.width,
                "height": stream.height, "time_base_num": base.numerator, "time_base_den": base.denominator,
            }
            for i, (start, end) in enumerate(pairwise(edges))
        ]  # fmt: skip
    rows = [row for row in rows if not isinstance(choose(row, [bucket], fps, 100.0), str)]
    if not rows:
        raise SystemExit(f"no file holds a clip of {bucket.frames} frames at {fps:g} fps")
    turns = -(-count // len(rows))
    again = [row | {"clip_id": f"{row['clip_id']}-{turn}"} for turn in range(turns) for row in rows]
    sources = {file.name: Source(file.name, str(file), bytes=file.stat().st_size) for file in files}
    return [(row, sources[row["source_id"]]) for row in again[:count]]


def cpu_of_tree() -> float:
    """CPU seconds so far of this process and its decoders."""
    me = psutil.Process()
    return sum(t.user + t.system for t in (process.cpu_times() for process in [me, *me.children(recursive=True)]))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    bucket = args.bucket
    rows = rows_of(args.files, bucket, args.fps, args.clips)
    encode = Encode(
        EncodeSettings(
            vae=random_vae(args.width, folder / "vae"), buckets=(bucket,), fps=args.fps, max_upscale=100.0,
            batch_clips=args.batch_clips, sample=0, device=args.device,
            decoder={"children": args.children, "ahead_mb": args.ahead_mb},
        )
    )  # fmt: skip
    encode.prepare(Context(str(folder / "catalog")))
    encode.setup()

    def windows() -> list[Window]:
        return [window_of(row, source, bucket, args.fps) for row, source in rows]

    def units() -> Iterator[Unit]:
        for at in range(0, len(rows), SHARD_CLIPS):
            yield Unit(str(at), [Clip(row, source) for row, source in rows[at : at + SHARD_CLIPS]])

    ready = []  # in memory of its own
    for window, pixels in encode.prefetcher.fetch(windows()):
        if isinstance(pixels, str):
            raise SystemExit(f"{window.clip_id}: {pixels}")
        ready.append(pixels.video.copy())
    encode.network.encode(ready[: args.batch_clips])
    cpu: dict[str, list[float]] = {}
    waiting: list[float] = []

    def decode() -> None:
        for _ in encode.prefetcher.fetch(windows()):
            pass

    def network() -> None:
        for at in range(0, len(ready), args.batch_clips):
            encode.network.encode(ready[at : at + args.batch_clips])

    def both() -> None:
        shutil.rmtree(folder / "catalog", ignore_errors=True)
        began, waited = time.perf_counter(), encode.prefetcher.waited_s
        done = [clip.results["latents"]["status"] for unit in encode.stream(units()) for clip in unit.clips]
        waiting.append((encode.prefetcher.waited_s - waited) / (time.perf_counter() - began))
        if done != ["done"] * len(rows):
            raise SystemExit(f"{done.count('done')} of {len(rows)} clips were encoded")

    def measured(name: str, work: Callable[[], None]) -> float:
        before, began = cpu_of_tree(), time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        cpu.setdefault(name, []).append((cpu_of_tree() - before) / len(rows))
        return seconds

    work = {"decode": decode, "network": network, "both": both}
    runs = interleaved(args.rounds, {name: lambda n=name, w=task: measured(n, w) for name, task in work.items()})
    shares = [max(d, n) / b for d, n, b in zip(runs["decode"], runs["network"], runs["both"], strict=True)]
    frames = len(rows) * bucket.frames
    result = {
        "bucket": str(bucket),
        "fps": args.fps,
        "vae": f"debug, width {args.width}",
        "device": str(encode.network.coder.device),
        "network_threads": torch.get_num_threads(),
        "decoders": encode.children,
        "batch_clips": args.batch_clips,
        "clips": len(rows),
        "rounds": args.rounds,
        "frames_per_s": {name: round(frames / median(values), 1) for name, values in runs.items()},
        "cpu_s_per_clip": {name: median(values) for name, values in cpu.items()},
        "waiting": median(waiting),
        "of_the_slower_alone": median(shares),
        "of_the_slower_alone_by_round": [round(share, 3) for share in shares],
        "goal": 0.85,
    }
    encode.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--bucket", type=Bucket.parse, default=Bucket(17, 96, 96))
    parser.add_argument("--fps", type=float, default=16.0)
    parser.add_argument("--width", type=int, default=8, help="of the VAE: channels of its outermost level")
    parser.add_argument("--clips", type=int, default=128, help="take the files again until there are so many")
    parser.add_argument("--batch-clips", type=int, default=4)
    parser.add_argument("--children", type=int, help="decoders; the stage's own number where none is given")
    parser.add_argument("--ahead-mb", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show({"encode_pipeline": measure(args, Path(folder))})


if __name__ == "__main__":
    main()
