"""Speed, memory and loss of encoding by the causal VAE: its variants, and a clip whole, streamed or tiled.

    python benchmarks/vae_encode.py [--size published] [--clip 81x256x256] [--vae FOLDER]

On a GPU both parts have the published widths at 81 x 256 x 256 in bf16. On a CPU, in float32, the variants have the
published widths at 9 x 64 x 64 (--variants-clip), since one pass over the published clip takes 24 to 48 TFLOP; the
three ways through a clip have the debug size at 33 x 64 x 64 and at four times as many frames. FLOPs are counted (two
for a multiply-add) and compared with the rate of this machine's matrix products in the same dtype, measured in the same
run. Each way runs in a process of its own, for its peak memory: that of the device's allocator on a GPU, resident bytes
above those before the clip on a CPU; both without the weights.
Without --vae the weights are random: latents are then compared with the whole clip's, and the PSNR has no meaning.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved, peak_memory, show
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.saved.vae_files import load, save
from models.settings.vae import sized
from models.vae.causal_vae import CausalVAE
from models.vae.layers.causal_ops import frame_count, latent_count
from models.vae.temporal_tiling import GROUP

PUBLISHED = {1: 2.15, 2: 2.44, 3: 4.13, 4: 4.13}  # clips a second, one A100 (OD-VAE, table 3)
PUBLISHED_CLIP = (81, 256, 256)
WAYS = ("whole", "streamed", "tiled")


def made(args: argparse.Namespace, variant: int = 4) -> CausalVAE:
    torch.manual_seed(0)
    vae = load(args.vae) if args.vae else CausalVAE(sized(args.size, variant=variant))
    return vae.to(args.device, getattr(torch, args.dtype)).eval()


def clip(args: argparse.Namespace, start: int, end: int) -> Tensor:
    """Frames of an endless film of drifting waves, the same in whatever pieces they are made: (1, 3, T, H, W) in [-1,
    1].
    """
    t = torch.arange(start, end, device=args.device).view(-1, 1, 1) * 0.1
    y = torch.linspace(0, 6, args.height, device=args.device).view(1, -1, 1)
    x = torch.linspace(0, 6, args.width, device=args.device).view(1, 1, -1)
    waves = [torch.sin(x * (k + 1) + y * (3 - k) + t * (k + 1)) * torch.cos(y * 4 - t * k) for k in range(3)]
    return torch.stack(waves)[None].to(getattr(torch, args.dtype))


def seconds(work: Callable[[], Any], device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def matrices(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Two matrices to be multiplied, which takes 2 n^3 FLOPs."""
    n = 8192 if args.device == "cuda" else 1024
    return tuple(torch.randn(n, n, device=args.device, dtype=getattr(torch, args.dtype)) for _ in range(2))


def flops(size: str, variant: int, shape: tuple[int, int, int]) -> int:
    """FLOPs of encoding one clip of (frames, height, width), counted on meta tensors."""
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        CausalVAE(sized(size, variant=variant)).encode(torch.empty(1, 3, *shape))
    return counter.get_total_flops()


def variants(args: argparse.Namespace) -> dict[str, Any]:
    """Times each variant's encoder with random weights, at `variants_size` and `variants_clip`."""
    shape = args.variants_clip
    args = argparse.Namespace(**{**vars(args), "size": args.variants_size, "vae": None})
    args.frames, args.height, args.width = shape
    video, (left, right) = clip(args, 0, args.frames), matrices(args)
    vaes = {variant: made(args, variant) for variant in PUBLISHED}
    for vae in vaes.values():
        vae.decoder = None  # 0.6 GB each
        if args.compile:
            vae.encoder.compile()
        for _ in range(2 if args.device == "cuda" else 1):  # the first run chooses kernels and allocates memory
            vae.encode(video)
    tasks = {str(v): lambda vae=vae: seconds(lambda: vae.encode(video), args.device) for v, vae in vaes.items()}
    tasks["rate"] = lambda: min(seconds(lambda: left @ right, args.device) for _ in range(10))
    times = interleaved(args.rounds, tasks)  # the rate in turn, as it drifts on a busy machine
    rate = 2 * len(left) ** 3 / statistics.median(times.pop("rate"))
    took = {int(variant): statistics.median(each) for variant, each in times.items()}
    counted = {variant: flops(args.size, variant, shape) for variant in PUBLISHED}
    rows = {
        variant: {
            "clips_per_s": round(1 / s, 3),
            "frames_per_s": round(args.frames / s, 1),
            "gflop_per_clip": round(counted[variant] / 1e9, 2),
            "tflop_per_s": round(counted[variant] / s / 1e12, 3),
            "share_of_matrix_rate": round(counted[variant] / s / rate, 3),
            "speed_against_variant_1": round(took[1] / s, 2),
            "published_against_variant_1": round(PUBLISHED[variant] / PUBLISHED[1], 2),
            "flops_would_give": round(counted[1] / counted[variant], 2),
            "tflop_of_the_published_clip": round(flops("published", variant, PUBLISHED_CLIP) / 1e12, 1),
        }
        for variant, s in took.items()
    }
    return {
        "size": args.size,
        "clip": "x".join(map(str, shape)),
        "matrix_rate_tflop_per_s": round(rate / 1e12, 3),
        "variants": rows,
        "ratios": explained(rows),
    }


def explained(rows: dict[int, dict[str, Any]]) -> list[str]:
    """One line for each variant whose speed against variant 1 is not within a fifth of the published one."""
    lines = []
    for variant, row in list(rows.items())[1:]:
        found, wanted, counted = (
            row[name] for name in ("speed_against_variant_1", "published_against_variant_1", "flops_would_give")
        )
        if abs(found / wanted - 1) <= 0.2:
            continue
        line = f"variant {variant}: {found} times variant 1, published {wanted}; its FLOPs alone would give {counted}"
        if variant == 2:
            line += "; the paper does not say which half of its convolutions is 2D (here the second of each block)"
        share, first = row["share_of_matrix_rate"], rows[1]["share_of_matrix_rate"]
        lines.append(f"{line}; it reaches {share} of the matrix rate, variant 1 {first}")
    return lines or ["each within a fifth of the published ratio"]


def one_way(args: argparse.Namespace, way: str, frames: int, folder: Path) -> dict[str, Any]:
    """Encodes and decodes one clip. Latents go to a file of the folder, to be compared with those of the other ways."""
    vae = made(args)
    vae.decode(vae.encode(clip(args, 0, 5)).mean)
    watch = Watch(args.device)
    latents: list[Tensor] = []
    squared = 0.0

    def encode() -> None:
        if way == "streamed":
            latents.extend(found.mean.cpu() for found in vae.encode_stream(pieces(args, frames)))
        else:
            group = GROUP if way == "tiled" else None
            latents.append(vae.encode(clip(args, 0, frames), group=group).mean.cpu())

    def decode() -> None:
        nonlocal squared
        whole, at = torch.cat(latents, dim=2), 0
        if way == "streamed":
            parts = vae.decode_stream(part.to(args.device) for part in whole.split(args.chunk // 4, dim=2))
        else:
            parts = iter([vae.decode(whole.to(args.device), group=GROUP if way == "tiled" else None)])
        for part in parts:
            for frame in part.split(1, dim=2):
                error = frame.float().clamp(-1, 1) - clip(args, at, at + 1).float()
                squared, at = squared + error.square().mean().item(), at + 1

    encode_s, encode_bytes = seconds(encode, args.device), watch.peak()
    decode_s, decode_bytes = seconds(decode, args.device), watch.peak()
    watch.stop()
    found = torch.cat(latents, dim=2).float()
    result = {
        "way": way,
        "frames": frames,
        "encode_s": round(encode_s, 3),
        "decode_s": round(decode_s, 3),
        "encode_peak_mb": round(encode_bytes / 2**20, 1),
        "decode_peak_mb": round(decode_bytes / 2**20, 1),
        "psnr_db": round(10 * math.log10(4 / (squared / frames)), 3),
    }
    whole = folder / f"{frames}.pt"
    if way == "whole":
        torch.save(found, whole)
    elif whole.exists():
        wanted = torch.load(whole)
        noise = (found - wanted).square().mean().item()
        result["latents_greatest_difference"] = (found - wanted).abs().max().item()
        result["latents_against_whole_db"] = round(10 * math.log10(wanted.var().item() / noise), 1) if noise else None
    return result


class Watch:
    """Peak memory since the last call of `peak`, above what was allocated at the start."""

    def __init__(self, device: str):
        self.device, self.end, self.found = device, threading.Event(), {"peak": 0}
        if device == "cuda":
            self.base = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        else:
            threading.Thread(target=peak_memory, args=(self.end, self.found), daemon=True).start()
            ctypes.CDLL(None).malloc_trim(0)  # returns free memory to the system, so that it is not counted
            time.sleep(0.2)
            self.base, self.found["peak"] = self.found["peak"], 0

    def peak(self) -> int:
        if self.device == "cuda":
            peak = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        else:
            time.sleep(0.1)
            peak, self.found["peak"] = self.found["peak"], 0
        return max(0, peak - self.base)

    def stop(self) -> None:
        self.end.set()


def pieces(args: argparse.Namespace, frames: int) -> Iterator[Tensor]:
    for start in range(0, frames, args.chunk):
        yield clip(args, start, min(frames, start + args.chunk))


def ways(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every way at every length, each in a fresh process; a failure (out of memory, mostly) gives its last line."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        vae = args.vae or f"{folder}/vae"
        if not args.vae:
            save(made(argparse.Namespace(**{**vars(args), "device": "cpu"})), vae)
        for times in args.lengths:
            frames = frame_count((latent_count(args.frames) - 1) * times + 1)
            for way in WAYS:
                command = [sys.executable, str(Path(__file__)), *sys.argv[1:], "--vae", vae]
                done = subprocess.run(
                    [*command, "--one", way, str(frames), folder], capture_output=True, text=True, check=False
                )
                lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
                failed = {"way": way, "frames": frames, "failed": lines[-1] if lines else f"exit {done.returncode}"}
                rows.append(failed if done.returncode else json.loads(lines[-1]))
    return rows


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def size_of(text: str) -> tuple[int, int, int]:
    frames, height, width = map(int, text.split("x"))
    latent_count(frames)
    return frames, height, width


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if gpu else "cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16" if gpu else "float32")
    parser.add_argument("--variants-size", default="published")
    parser.add_argument("--variants-clip", type=size_of, default=PUBLISHED_CLIP if gpu else (9, 64, 64))
    parser.add_argument("--size", default="published" if gpu else "debug", help="of the VAE for the ways")
    parser.add_argument("--clip", type=size_of, default=PUBLISHED_CLIP if gpu else (33, 64, 64), help="for the ways")
    parser.add_argument("--chunk", type=int, default=16, help="frames of a piece when streaming, 4 or more")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 4], help="clips of so many times the frames")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    parser.add_argument("--compile", action="store_true", help="the encoders of the variants")
    parser.add_argument("--vae", help="a trained VAE's folder, for the ways")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.frames, args.height, args.width = args.clip
    if args.threads:
        torch.set_num_threads(args.threads)
    with torch.inference_mode():
        if args.one:
            way, frames, folder = args.one
            print(json.dumps(one_way(args, way, int(frames), Path(folder))))
            return
        device = torch.cuda.get_device_name() if args.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        result = {"device": device, "dtype": args.dtype, "torch": torch.__version__, "compile": args.compile}
        result["speed"] = variants(args)
        setting = {"clip": "x".join(map(str, args.clip)), "chunk": args.chunk, "weights": args.vae or "random"}
        result["ways"] = {"size": "" if args.vae else args.size, **setting, "runs": ways(args)}
        show(result)


if __name__ == "__main__":
    main()
