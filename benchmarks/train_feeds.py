"""Two ways to feed a step of `train_step.py`: latents and text read from a shard, or clips encoded in each step."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.settings.vae import sized
from models.vae.causal_vae import CausalVAE
from stages.shards.contract import Contract
from stages.shards.format import read_index, read_sample
from stages.shards.writer import ShardWriter


def prepared(args: argparse.Namespace, folder: Path) -> str:
    """Writes random clips to a file and their latents to a shard, as the recipe does except for the text, which is
    random. Returns the shard's path.
    """
    frames, height, width = args.clip
    generator = np.random.default_rng(0)
    clips = generator.integers(0, 256, (args.clips, frames, height, width, 3), dtype=np.uint8)
    np.save(folder / "clips.npy", clips)
    vae = vae_of(args)
    contract = Contract(
        vae="clipmill causal VAE", fingerprint="0" * 64, preprocessing=1, fps=8.0, channels=args.channels,
        time_stride=4, first_frame=True, space_stride=8, mean=(0.0,) * args.channels, std=(1.0,) * args.channels,
        dtype="float16",
    )  # fmt: skip
    bucket = f"{frames}x{height}x{width}"
    with ShardWriter(str(folder / "shards"), contract, bucket) as writer:
        for number, clip in enumerate(clips):
            moments = encoded(args, vae, clip[None])
            fields = {name: value[0].to(torch.float16).cpu().numpy() for name, value in moments.items()}
            text = generator.normal(size=(args.text_tokens, args.text_dim)).astype(np.float16)
            fields |= {"text": text, "text_mask": np.ones(args.text_tokens, np.uint8)}
            writer.add(f"{number:032x}", fields, {})
        published = writer.publish()
    return str(folder / "shards" / published.shard)


def vae_of(args: argparse.Namespace) -> CausalVAE:
    torch.manual_seed(0)
    vae = CausalVAE(sized(args.vae_size, channels=args.channels)).to(args.device, getattr(torch, args.dtype)).eval()
    if args.compile:
        vae.encoder.compile()
    return vae


@torch.inference_mode()
def encoded(args: argparse.Namespace, vae: CausalVAE, clips: np.ndarray) -> dict[str, Tensor]:
    """Clips (B, T, H, W, 3) uint8 to mean and logvar (B, Z, T, h, w)."""
    video = torch.from_numpy(clips).to(args.device).permute(0, 4, 1, 2, 3)
    found = vae.encode((video.float() / 127.5 - 1).to(getattr(torch, args.dtype)))
    return {"mean": found.mean, "logvar": found.logvar}


def drawn(moments: dict[str, Tensor]) -> Tensor:
    """Sampled latents as a network sees them, (B, Z, T, h, w) float32."""
    mean, logvar = moments["mean"].float(), moments["logvar"].float()
    return mean + (logvar / 2).exp() * torch.randn_like(mean)


def feeds(args: argparse.Namespace, folder: Path, shard: str) -> dict[str, Callable[[], Callable[[], Any]]]:
    """For each way, a function that opens it; what that returns gives a batch for `Step` with each call."""

    def chosen(turn: list[int]) -> list[int]:
        turn[0] += 1
        return [(turn[0] * args.batch + each) % args.clips for each in range(args.batch)]

    def from_shards() -> Callable[[], Any]:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in read_index(shard).to_pylist():
            if row["field"] != "json":
                rows.setdefault(row["clip_id"], []).append(row)
        turn = [0]

        def batch() -> tuple[Tensor, Tensor, Tensor]:
            samples = [read_sample(shard, rows[f"{each:032x}"]) for each in chosen(turn)]
            fields = {
                name: torch.from_numpy(np.stack([sample[name] for sample in samples])).to(args.device)
                for name in ("mean", "logvar", "text", "text_mask")
            }
            return drawn(fields), fields["text"].float(), fields["text_mask"].bool()

        return batch

    def on_the_fly() -> Callable[[], Any]:
        clips, vae, turn = np.load(folder / "clips.npy", mmap_mode="r"), vae_of(args), [0]
        text = torch.randn(args.batch, args.text_tokens, args.text_dim, device=args.device)
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=args.device)
        return lambda: (drawn(encoded(args, vae, clips[chosen(turn)])), text, mask)

    return {"shards": from_shards, "on_the_fly": on_the_fly}
