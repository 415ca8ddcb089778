"""Runs the VAE in a worker of `encode`: pixels to the arrays that a shard stores, in batches that fit the memory."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.out_of_memory import is_out_of_memory
from stages.base import ClipError, SettingsError
from stages.encode.settings import EncodeSettings
from stages.latent_coders.coder import LatentCoder, Moments
from stages.latent_coders.info import CoderInfo
from stages.latent_coders.load import load_coder
from stages.shards.format import not_finite, widened

if TYPE_CHECKING:
    from torch import Tensor


class Network:
    """The VAE of one worker. `batch` is how many clips go through it at a time at most: halved where memory ends."""

    def __init__(self, settings: EncodeSettings, info: CoderInfo):
        self.stored, self.batch = settings.dtype, settings.batch_clips
        here = os.path.isdir(info.path)  # on another machine a hub's cache is elsewhere
        model, subfolder, revision = settings.vae, settings.subfolder, settings.revision
        if here:
            model, subfolder, revision = info.path, None, None
        self.coder = load_coder(
            model, subfolder, revision, settings.device,
            dtype=settings.vae_dtype, compile=settings.compile, chunk=settings.chunk,
        )  # fmt: skip
        self.compiled = settings.compile
        if self.coder.info.fingerprint != info.fingerprint:
            raise SettingsError(f"the VAE {settings.vae} has changed since the run began: start it again")

    def encode(self, videos: Sequence[np.ndarray]) -> list[dict[str, np.ndarray] | ClipError]:
        """For each video (T, H, W, 3) uint8 of one shape the arrays that are stored of it (stages/shards/format.py).

        A clip that the memory does not hold even alone, in the smallest pieces, is a ClipError, as is one whose latents
        are not finite.
        """
        answers: list[dict[str, np.ndarray] | ClipError] = []
        while len(answers) < len(videos):
            shape = videos[len(answers)].shape[:3]
            together = min(self.batch, self.coder.clips_at_once(*shape) or self.batch)
            part = videos[len(answers) : len(answers) + together]
            try:
                answers += self._encode(self._filled(part, together))[: len(part)]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._free()
                named = "x".join(map(str, shape))
                if together > 1:
                    self.batch = together // 2
                    _say(f"no memory for {together} clips of {named} at a time: going on with {self.batch}")
                elif self.coder.take_smaller_pieces(*shape):
                    _say(f"no memory for a clip of {named} at a time: going on with smaller pieces of it")
                else:
                    answers.append(ClipError("the VAE needs more memory for this clip alone than there is"))
        return answers

    def _filled(self, videos: Sequence[np.ndarray], together: int) -> Sequence[np.ndarray]:
        """As many videos as the other batches have, where another number of them would be compiled anew."""
        return [*videos, *[videos[-1]] * (together - len(videos))] if self.compiled else videos

    def decode_psnr(self, fields: Mapping[str, np.ndarray], video: np.ndarray) -> float:
        """dB of what the stored latents decode to, against the pixels (T, H, W, 3) uint8 that they were made of."""
        import torch

        if "tokens" in fields:
            latents = self.coder.latents_of(torch.from_numpy(fields["tokens"].astype(np.int64))[None])
        else:
            latents = torch.from_numpy(from_stored(fields["mean"], self.stored))[None]
        return decoded_psnr(self.coder, latents, video)

    def _encode(self, videos: Sequence[np.ndarray]) -> list[dict[str, np.ndarray] | ClipError]:
        found = self.coder.encode_pixels(videos)
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


def _say(text: str) -> None:
    print(f"encode: {text}", file=sys.stderr, flush=True)


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


def decoded_psnr(coder: LatentCoder, latents: Tensor, video: np.ndarray) -> float:
    """dB of what latents (1, Z, t, h, w) decode to, piece by piece, against pixels (T, H, W, 3) uint8."""
    return _psnr((piece[0].cpu().permute(1, 2, 3, 0).numpy() for piece in coder.decode_pieces(latents)), video)


def psnr(decoded: np.ndarray, video: np.ndarray) -> float:
    """dB over all pixels, channels and frames: decoded (T, H, W, 3) in [-1, 1], rounded to 8 bits, against uint8."""
    return _psnr([decoded], video)


def _psnr(pieces: Iterable[np.ndarray], video: np.ndarray) -> float:
    error, start = 0.0, 0
    for piece in pieces:
        found = np.clip(np.rint((piece + 1) * 127.5), 0, 255)
        wanted = video[start : start + len(piece)].astype(np.float32)
        error += float(np.sum((found - wanted) ** 2, dtype=np.float64))
        start += len(piece)
    if start != len(video):
        raise ValueError(f"{start} decoded frames against {len(video)}")
    return 10 * math.log10(255**2 / max(error / video.size, 1e-3))
