"""Runs the VAE in a worker of `encode`: pixels to the arrays that a shard stores, in batches that fit the memory."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from stages.base import ClipError, SettingsError
from stages.encode.settings import EncodeSettings
from stages.latent_coders.coder import Moments
from stages.latent_coders.info import CoderInfo
from stages.latent_coders.load import load_coder
from stages.shards.format import not_finite, widened

MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


class Network:
    """The VAE of one worker. `batch` is how many clips go through it at a time: halved where memory ends."""

    def __init__(self, settings: EncodeSettings, info: CoderInfo):
        self.stored, self.batch = settings.dtype, settings.batch_clips
        here = os.path.isdir(info.path)  # on another machine a hub's cache is elsewhere
        model, subfolder, revision = settings.vae, settings.subfolder, settings.revision
        if here:
            model, subfolder, revision = info.path, None, None
        self.coder = load_coder(
            model, subfolder, revision, settings.device, dtype=settings.vae_dtype, compile=settings.compile
        )
        if self.coder.info.fingerprint != info.fingerprint:
            raise SettingsError(f"the VAE {settings.vae} has changed since the run began: start it again")

    def encode(self, videos: Sequence[np.ndarray]) -> list[dict[str, np.ndarray] | ClipError]:
        """For each video (T, H, W, 3) uint8 of one shape the arrays that are stored of it (stages/shards/format.py).

        A clip that the memory does not hold even alone is a ClipError, as is one whose latents are not finite.
        """
        answers: list[dict[str, np.ndarray] | ClipError] = []
        while len(answers) < len(videos):
            part = videos[len(answers) : len(answers) + self.batch]
            try:
                answers += self._encode(part)
            except (MemoryError, RuntimeError) as error:
                if not _is_memory(error):
                    raise
                self._free()
                if len(part) > 1:
                    self.batch = len(part) // 2
                    shape = "x".join(map(str, part[0].shape[:3]))
                    said = f"encode: no memory for {len(part)} clips of {shape} at a time: going on with {self.batch}"
                    print(said, file=sys.stderr, flush=True)
                else:
                    answers.append(ClipError("the VAE needs more memory for this clip alone than there is"))
        return answers

    def decode_psnr(self, fields: Mapping[str, np.ndarray], video: np.ndarray) -> float:
        """dB of what the stored latents decode to, against the pixels (T, H, W, 3) uint8 that they were made of."""
        import torch

        if "tokens" in fields:
            decoded = self.coder.decode_tokens(torch.from_numpy(fields["tokens"].astype(np.int64))[None])
        else:
            decoded = self.coder.decode(torch.from_numpy(from_stored(fields["mean"], self.stored))[None])
        return psnr(decoded[0].cpu().permute(1, 2, 3, 0).numpy(), video)

    def _encode(self, videos: Sequence[np.ndarray]) -> list[dict[str, np.ndarray] | ClipError]:
        import torch

        pixels = torch.from_numpy(np.stack(videos)).to(self.coder.device)  # (B, T, H, W, 3)
        video = pixels.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)  # (B, 3, T, H, W)
        found = self.coder.encode(video)
        return [self._stored(found, index) for index in range(len(videos))]

    def _stored(self, found: Moments, index: int) -> dict[str, np.ndarray] | ClipError:
        if found.tokens is not None:
            return {"tokens": found.tokens[index].to("cpu").numpy().astype("<i4")}
        fields = {}
        for name in ("mean", "logvar"):
            if (tensor := getattr(found, name)) is not None:
                latent = tensor[index].float().cpu()
                fields[name] = to_stored(latent.numpy(), self.stored)
                if not_finite(fields[name], self.stored == "bfloat16"):
                    return ClipError(f"its latents are not finite in {self.coder.dtype} stored as {self.stored}")
        return fields

    def _free(self) -> None:
        if str(self.coder.device).startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in MEMORY)


def to_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 as a shard holds it: float16, or the bits of bfloat16 as uint16 (numpy has no such type)."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    import torch

    return torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()


def from_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """The way back, to float32."""
    if dtype == "float16":
        return values.astype(np.float32)
    return widened(values)


def psnr(decoded: np.ndarray, video: np.ndarray) -> float:
    """dB over all pixels, channels and frames: decoded (T, H, W, 3) in [-1, 1], rounded to 8 bits, against uint8."""
    found = np.clip(np.rint((decoded + 1) * 127.5), 0, 255)
    error = float(np.mean((found - video.astype(np.float32)) ** 2, dtype=np.float64))
    return 10 * math.log10(255**2 / max(error, 1e-3))
