"""One training step of the DiT: seconds, tokens/s and share of the matrix rate; latents from shards or made on the fly.

    python benchmarks/train_step.py [--device cpu] [--sizes debug S] [--kinds full factorised masked] [--rounds 5]

A step is what the training loop does on one device: noised latents and text through the network, backward, clipping,
AdamW and the average of the weights. FLOPs are those of three forward passes, counted (two for a multiply-add). The
rate of this machine's matrix products in the same dtype is measured in turn with the steps; MFU is the ratio of both.
`masked` is the deferred masking of MicroDiT: 75 % of the tokens are dropped after two blocks; tokens/s count all of
them.

On a CPU: float32, small sizes and few tokens. On a GPU: bf16 and blocks compiled one by one, the published sizes at
8,192 tokens a clip, XL and XL128 at 16,384 and 32,768 as well and with two kernels of attention. Goal: an MFU of 0.45
for one of these two.

Then the same step is fed two ways: latents and text read from a shard and verified, or decoded clips read from a file
and encoded by the VAE in each step (the decoding and text encoding that this way also needs are left out). Both are
timed in turn; peak memory, above that of the network and its optimizer, is measured in a process for each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved, show
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from vae_encode import Watch, matrices, seconds

from models.settings.transformers import sized
from models.transformers.dit import DiT
from train.objectives.objective import Objective
from train.optimization.ema import EMA

GOAL = 0.45
CHANNELS = 8  # of a latent
CONDITIONS = ("motion", "fps", "height")
KINDS = {
    "full": {},
    "factorised": {"attention": "factorised"},
    "masked": {"mixer_depth": 2, "mask_ratio": 0.75},
}
# The preferred kernel for attention without a mask; "any" leaves the choice to torch. Flash has no masked attention.
ATTENTIONS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


@dataclass(frozen=True)
class Case:
    """A network size with a batch of clips of latents (T, H, W)."""

    size: str
    kind: str
    batch: int
    latents: tuple[int, int, int]
    attention: str = "any"


class Step:
    """A network in training, and its training step on a batch."""

    def __init__(self, args: argparse.Namespace, size: str, kind: str):
        torch.manual_seed(0)
        self.args, self.device = args, args.device
        settings = sized(size, channels=CHANNELS, text_dim=args.text_dim, conditions=CONDITIONS, **KINDS[kind])
        self.network = DiT(settings).to(args.device)
        with torch.no_grad():  # gates of 0 cost the same, but might let a kernel skip work
            for parameter in self.network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)
        if args.compile:
            for block in (*self.network.mixer, *self.network.blocks):
                block.compile()
        self.objective, self.average = Objective(), EMA(self.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=args.device == "cuda")

    def __call__(self, clean: Tensor, text: Tensor, mask: Tensor) -> float:
        """One step on clean (B, C, T, H, W), text (B, L, D) and mask (B, L). Returns the loss, so the device is waited
        for.
        """
        noise, t = torch.randn_like(clean), self.objective.draw_times(len(clean)).to(self.device)
        kept, lost = self.network.draw_kept(clean.shape), None
        if kept is not None:
            kept = kept.to(self.device)
            lost = self.network.dropped_mask(kept, clean.shape)
        conditions = torch.randn(len(clean), len(CONDITIONS), device=self.device)
        half = self.args.dtype == "bfloat16"
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            noised = self.objective.noised(clean, noise, t)
            output = self.network(noised, t, text=text, text_mask=mask, conditions=conditions, kept=kept)
        loss = self.objective.loss(output, clean, noise, t, lost).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update()
        return loss.item()

    def flops(self, shape: tuple[int, ...]) -> int:
        kept = self.network.draw_kept(shape)
        return 3 * self.network.flops(shape, self.args.text_tokens, None if kept is None else kept.shape[1])


def batch_of(args: argparse.Namespace, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    clean = torch.randn(shape, device=args.device)
    text = torch.randn(shape[0], args.text_tokens, args.text_dim, device=args.device)
    return clean, text, torch.ones(text.shape[:2], dtype=torch.bool, device=args.device)


def cases(args: argparse.Namespace) -> list[Case]:
    if args.device == "cpu":
        clips = {"debug": 4}
        return [Case(size, kind, clips.get(size, 1), (4, 16, 16)) for size in args.sizes for kind in args.kinds]
    found = [Case(size, "full", 4, (8, 64, 64)) for size in args.sizes if not size.startswith("XL")]
    for size in (each for each in args.sizes if each.startswith("XL")):
        longer = ((4, (8, 64, 64)), (2, (16, 64, 64)), (1, (32, 64, 64)))
        found += [Case(size, "full", *each, attention) for each in longer for attention in ATTENTIONS]
        found += [Case(size, kind, *longer[0]) for kind in args.kinds]
    return found


def kernels(attention: str) -> contextlib.AbstractContextManager[Any]:
    if attention == "any":
        return contextlib.nullcontext()
    return sdpa_kernel([ATTENTIONS[attention], SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True)


def stepped(args: argparse.Namespace, case: Case) -> dict[str, Any]:
    """Times one case and the matrix products in turn; a failure (mostly out of memory) is reported by its last line."""
    shape = (case.batch, CHANNELS, *case.latents)
    row: dict[str, Any] = {"size": case.size, "kind": case.kind, "attention": case.attention, "clips": case.batch}
    try:
        with kernels(case.attention):
            step = Step(args, case.size, case.kind)
            batch, (left, right) = batch_of(args, shape), matrices(args)
            first = seconds(lambda: step(*batch), args.device)
            step(*batch)  # after this, kernels are chosen and memory is allocated
            if args.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times = interleaved(
                args.rounds,
                {
                    "step": lambda: seconds(lambda: step(*batch), args.device),
                    "rate": lambda: min(seconds(lambda: left @ right, args.device) for _ in range(10)),
                },
            )
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        return {**row, "failed": str(error).strip().splitlines()[0]}
    took, rate = statistics.median(times["step"]), 2 * len(left) ** 3 / statistics.median(times["rate"])
    grid = step.network.grid(shape)
    tokens, flops = math.prod(grid), step.flops(shape)
    row |= {
        "parameters_m": round(sum(each.numel() for each in step.network.parameters()) / 1e6, 2),
        "tokens_per_clip": tokens,
        "first_step_s": round(first, 3),
        "step_s": round(took, 4),
        "step_s_by_round": [round(each, 4) for each in times["step"]],
        "tokens_per_s": round(case.batch * tokens / took, 1),
        "tflop_per_step": round(flops / 1e12, 4),
        "tflop_per_s": round(flops / took / 1e12, 4),
        "matrix_rate_tflop_per_s": round(rate / 1e12, 4),
        "mfu": round(flops / took / rate, 3),
    }
    if args.device == "cuda":
        row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return row


def fed(args: argparse.Namespace) -> dict[str, Any]:
    from train_feeds import feeds, prepared  # these need pydantic

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shard = prepared(args, folder)
        step = Step(args, args.fed_size, "full")
        opened = {way: make() for way, make in feeds(args, folder, shard).items()}
        for batch in opened.values():
            for _ in range(2):
                step(*batch())
        shape = tuple(opened["shards"]()[0].shape)
        tasks = {way: lambda b=b: seconds(lambda: step(*b()), args.device) for way, b in opened.items()}
        tasks |= {f"{way}, batch alone": lambda b=b: seconds(b, args.device) for way, b in opened.items()}
        times = {name: statistics.median(each) for name, each in interleaved(args.rounds, tasks).items()}
        rows = {}
        for way in opened:
            command = [sys.executable, str(Path(__file__)), *sys.argv[1:], "--one", way, place, shard]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
            lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
            peak = {"failed": lines[-1] if lines else "?"} if done.returncode else json.loads(lines[-1])
            rows[way] = {
                "step_s": round(times[way], 4),
                "of_it_the_batch_s": round(times[f"{way}, batch alone"], 4),
                "clips_per_s": round(args.batch / times[way], 3),
                **peak,
            }
    return {
        "network": args.fed_size,
        "vae": args.vae_size,
        "clip": "x".join(map(str, args.clip)),
        "batch": args.batch,
        "latents": "x".join(map(str, shape[1:])),
        "tokens_per_clip": math.prod(step.network.grid(shape)),
        **rows,
        "step_of_shards_over_on_the_fly": round(times["shards"] / times["on_the_fly"], 3),
    }


def one_peak(args: argparse.Namespace) -> dict[str, float]:
    """Peak memory of steps fed one way, above that of the network and its optimizer."""
    way, folder, shard = args.one
    step = Step(args, args.fed_size, "full")
    step(*batch_of(args, (1, CHANNELS, 1, 2, 2)))  # allocates gradients and averages
    watch = Watch(args.device)
    from train_feeds import feeds

    batch = feeds(args, Path(folder), shard)[way]()
    for _ in range(3):
        step(*batch())
    peak = watch.peak()
    watch.stop()
    return {"peak_mb": round(peak / 2**20, 1)}


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if gpu else "cpu")
    parser.add_argument("--sizes", nargs="*", default=["S", "B", "L", "XL", "XL128"] if gpu else ["debug", "S"])
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16" if gpu else "float32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=gpu, help="each block")
    parser.add_argument("--text-tokens", type=int, default=256 if gpu else 32)
    parser.add_argument("--text-dim", type=int, default=4096 if gpu else 512)
    parser.add_argument("--fed-size", default="XL" if gpu else "S", help="the network that is fed")
    parser.add_argument("--vae-size", default="published" if gpu else "debug")
    parser.add_argument("--clip", type=int, nargs=3, default=[33, 256, 256] if gpu else [17, 64, 64])
    parser.add_argument("--batch", type=int, default=8 if gpu else 4, help="clips of a step that is fed")
    parser.add_argument("--clips", type=int, default=32 if gpu else 16, help="different ones")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    parser.add_argument("--no-feeds", action="store_true", help="the steps only")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.set_defaults(channels=CHANNELS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.one:
        print(json.dumps(one_peak(args)))
        return
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    rows = []
    for case in cases(args):
        rows.append(stepped(args, case))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        torch.compiler.reset()
        if gpu:
            torch.cuda.empty_cache()
    best = max((row["mfu"] for row in rows if row["size"].startswith("XL") and "mfu" in row), default=None)
    show(
        {
            "device": device,
            "dtype": args.dtype,
            "compile": args.compile,
            "torch": torch.__version__,
            "text": f"{args.text_tokens} tokens of {args.text_dim}",
            "rounds": args.rounds,
            "steps": rows,
            "fed": "left out" if args.no_feeds else fed(args),
            "gpu": {"goal_mfu_of_xl": GOAL, "best_mfu_of_xl": best} if gpu else {"skipped": "no GPU: skipped"},
        }
    )


if __name__ == "__main__":
    main()
