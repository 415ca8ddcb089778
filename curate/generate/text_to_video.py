"""Text to video: a trained run together with the VAE and the text encoder of its latents."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from curate.errors import UserError
from models.out_of_memory import is_out_of_memory
from stages.base import SettingsError
from stages.shards.contract import Contract, ContractError, sizes

if TYPE_CHECKING:
    from torch import Tensor

    from stages.latent_coders.coder import LatentCoder
    from stages.latent_coders.info import CoderInfo
    from stages.text_encoders.encoder import TextEncoder
    from train.sampling.trained_run import Prompt, SamplingSettings, TrainedRun

BATCH = 16  # samples that go through the network together


class TextToVideo:
    """Makes videos for `clipmill sample`. Models are loaded when they are first needed.

    The files of the run hold the paths of its VAE and text encoder; `vae` and `text_model` replace them if these have
    moved. `dtype` is that of the matrix products; auto is bfloat16 on a GPU and float32 on a CPU. `chunk` is how many
    frames the VAE encodes or decodes at a time at most; None: chosen by size. UserError, in one line, for a missing
    model, for another VAE or encoder than the run's, and for a chunk that the VAE does not take.
    """

    def __init__(
        self,
        folder: str | Path,
        vae: str | None = None,
        text_model: str | None = None,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        chunk: int | None = None,
    ):
        import torch

        from train.sampling.trained_run import load_run

        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda, but there is no GPU that torch can use")
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self.run: TrainedRun = load_run(folder, self.device, dtype)
            self.contract = Contract.from_dict(self.run.contract)
        except (ValueError, ContractError) as error:
            raise UserError(str(error)) from error
        self.folder, self._vae, self._text_model = Path(folder), vae, text_model
        self.dtype, self.chunk = dtype, chunk
        self._encoder: TextEncoder | None = None

    @property
    def fps(self) -> float:
        return self.contract.fps

    @cached_property
    def coder_info(self) -> CoderInfo:
        """What is known of the VAE of the latents without loading it. UserError where it can't be used."""
        from stages.latent_coders.describe import describe_coder

        path = self._vae or self.run.extra.get("vae")
        if not path:
            raise UserError(f"{self.folder} does not say where its VAE lies: give its folder with --vae")
        try:
            info = describe_coder(path)
        except SettingsError as error:
            raise self._without_vae(error) from error
        if info.fingerprint != self.contract.fingerprint:
            raise UserError(
                f"{path} is another VAE than that of the latents in {self.folder}: its hash is "
                f"{info.fingerprint[:12]}…, theirs {self.contract.fingerprint[:12]}…; name theirs with --vae"
            )
        try:
            info.check_chunk(self.chunk)
        except SettingsError as error:
            raise UserError(f"--{error}") from error
        return info

    @cached_property
    def coder(self) -> LatentCoder:
        """The VAE of the latents."""
        from stages.latent_coders.load import load_coder

        path = self.coder_info.path
        print(f"loading VAE {path}", file=sys.stderr, flush=True)
        try:
            return load_coder(path, device=self.device, dtype=self.dtype, chunk=self.chunk)
        except SettingsError as error:
            raise self._without_vae(error) from error

    def _without_vae(self, error: SettingsError) -> UserError:
        return UserError(f"the VAE of {self.folder}: {error}; name another place with --vae")

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder of the captions."""
        if self._encoder is None:
            from stages.text_encoders.describe import describe_text
            from stages.text_encoders.load import load_text_encoder
            from stages.text_encoders.settings import TextEncoderSettings

            said = self.contract.text
            if not said or not self.run.network.settings.text_dim:
                raise UserError(f'{self.folder} was trained without text: give it the empty prompt, --prompt ""')
            path = self._text_model or self.run.extra.get("text_model") or said["encoder"]
            try:
                model, tag = with_tag(path)
                settings = TextEncoderSettings(model=model, pretrained=tag, max_tokens=said["max_tokens"])
                found = describe_text(settings)
                if found["fingerprint"] != said["fingerprint"]:
                    raise UserError(
                        f"{path} is another text encoder than that of the captions in {self.folder}: its hash is "
                        f"{found['fingerprint'][:12]}…, theirs {said['fingerprint'][:12]}…; name theirs with "
                        "--text-model"
                    )
                print(f"loading text encoder {path}", file=sys.stderr, flush=True)
                self._encoder = load_text_encoder(settings, device=self.device)
            except SettingsError as error:
                raise UserError(
                    f"the text encoder of {self.folder}: {error}; name another place with --text-model"
                ) from error
        return self._encoder

    def prompts(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        negative: str | None = None,
        conditions: Mapping[str, float] | None = None,
    ) -> list[Prompt]:
        """The encoded prompt of each text; an empty text is the empty prompt. UserError for a text longer than the
        encoder takes, whose end would be ignored.
        """
        import torch

        from train.sampling.trained_run import Prompt

        filled = [text for text in [*texts, negative] if text]
        for text in filled:
            if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UserError(f"prompt {text[:60]!r} is not valid UTF-8")
            if self.encoder.truncated(text):
                raise UserError(
                    f"prompt {text[:60]!r}… has more than the {self.encoder.max_tokens} tokens that the text encoder "
                    "takes: say it in fewer words"
                )
        encoded = dict(zip(filled, self.encoder.encode(filled), strict=True)) if filled else {}
        states = {text: torch.from_numpy(found).float() for text, found in encoded.items()}
        return [
            Prompt(states.get(text), states.get(negative or ""), dict(conditions or {}), seed)
            for text, seed in zip(texts, seeds, strict=True)
        ]

    def bucket(self, name: str | None = None, frames: int | None = None) -> str:
        """FRAMESxHEIGHTxWIDTH in pixels: `name`, else the bucket of the run with the most samples; `frames` replaces
        its length. UserError for one that the VAE or the network does not take.
        """
        from models.transformers.dit import DiT

        known = self.run.extra.get("buckets") or {}
        if not name:
            if not known:
                raise UserError(f"{self.folder} names no bucket of its clips: give one with --bucket")
            name = max(known, key=lambda each: (_samples(known[each]), each))
        try:
            if frames:
                name = "x".join(map(str, (frames, *sizes(name)[1:])))
            shape = self.contract.latent_shape(name)
            if isinstance(self.run.network, DiT):
                self.run.network.grid((1, *shape))  # ValueError for a shape that its patches do not divide
        except (ContractError, ValueError) as error:
            raise UserError(
                f"{error} (the run learned from {', '.join(known) or 'no bucket that it names'})"
            ) from error
        if known and name not in known:
            print(
                f"note: the run did not learn from {name} but from {', '.join(known)}: samples may be poor",
                file=sys.stderr,
            )
        return name

    def videos(
        self,
        prompts: Sequence[Prompt],
        bucket: str,
        settings: SamplingSettings,
        *,
        picture: np.ndarray | None = None,
        clips: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[np.ndarray]:
        """One video (T, H, W, 3) uint8 RGB for each prompt. They begin with `picture`, uint8 RGB of the bucket's size:
        a frame (H, W, 3) or a clip (k, H, W, 3). A video is `clips` successive clips; each overlaps the one before by
        the frames of one latent and, where the VAE encodes a first frame by itself, one frame more.

        `progress` is called with (steps done, all steps). UserError for arguments that do not fit the run.
        """
        shape = self.contract.latent_shape(bucket)
        batches = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
        steps, done = settings.steps * clips * len(batches), 0

        def count(step: int, _: int) -> None:
            nonlocal done
            done = min(done + 1, steps)
            if progress:
                progress(done, steps)

        found: list[np.ndarray] = []
        try:
            first = None if picture is None else self._given(picture, bucket)
            for batch in batches:
                if clips == 1:
                    latents = self.run.sample(batch, shape, settings, first, progress=count)
                    found += [self._pixels(each[None]) for each in latents]
                else:
                    overlap = self.contract.time_stride + int(self.contract.first_frame)
                    parts = self.run.sample_longer(
                        batch, shape, clips, overlap, self._decoded, self._encoded, settings, first, count
                    )
                    pieces = [as_pixels(part) for part in parts]
                    found += [np.concatenate(pieces_of_one) for pieces_of_one in zip(*pieces, strict=True)]
        except ValueError as error:
            raise UserError(str(error)) from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"there is no memory for {len(prompts)} videos of {bucket}: make them smaller or fewer at a time, or "
                "decode them in smaller pieces (--chunk)"
            ) from error
        return found

    def _given(self, picture: np.ndarray, bucket: str) -> Tensor:
        """The latents (1, C, k, h, w), or tokens (1, k, h, w), of the frames that the videos begin with."""
        frames = sizes(bucket)[0]
        clip = picture[None] if picture.ndim == 3 else picture
        step, first = self.contract.time_stride, int(self.contract.first_frame)
        if picture.ndim == 3 and not first:
            clip = clip.repeat(step, axis=0)  # the frames of one latent
        clip = clip[(len(clip) - first) % step :]  # the last frames, as many as make whole latents
        if len(clip) >= frames:
            raise UserError(f"{len(clip)} frames are given of videos of {frames}: none is left to generate")
        if clip.shape[1:3] != sizes(bucket)[1:]:
            raise UserError(f"a picture of {clip.shape[2]} x {clip.shape[1]} for videos of {bucket}: resize it first")
        return self._encoded(_tensor(clip))

    def _encoded(self, video: Tensor) -> Tensor:
        moments = self.coder.encode(video)
        latents = moments.tokens if self.run.tokens else moments.mean
        if latents is None:
            raise UserError(f"the VAE of {self.folder} makes no tokens, which the run learned from")
        return latents

    def _pixels(self, latents: Tensor) -> np.ndarray:
        """(T, H, W, 3) uint8 of the latents or tokens of one sample; on the device is one piece of it at a time."""
        given = self.coder.latents_of(latents) if self.run.tokens else latents
        return np.concatenate([as_pixels(piece)[0] for piece in self.coder.decode_pieces(given)])

    def _decoded(self, latents: Tensor) -> Tensor:
        return self.coder.decode_tokens(latents) if self.run.tokens else self.coder.decode(latents)


def read_picture(path: str, bucket: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of the bucket's size from a JPEG, PNG or WebP, cropped and resized as clips are for encoding.
    UserError for a file that is no picture or is damaged.
    """
    from stages.decode.images import ImageReader, is_image
    from stages.decode.sources import open_source
    from stages.frames import SourceError
    from stages.windows.window import covering

    _, height, width = sizes(bucket)
    try:
        with open_source(path) as file:
            if not is_image(file):
                raise UserError(f"--image {path}: no JPEG, PNG or WebP picture of one frame")
            reader = ImageReader(file)
            if reader.truncated:
                raise UserError(f"--image {path}: {reader.truncated}")
            size = (reader.info.width, reader.info.height)
            return next(iter(reader)).cropped(covering(size, None, height, width), (width, height))
    except SourceError as error:
        raise UserError(f"--image {path}: {error}") from error


def with_tag(path: str) -> tuple[str, str | None]:
    """(model, tag): the tag is that of a model of OpenCLIP, which contracts name ARCHITECTURE/TAG, else None."""
    name, _, tag = path.partition("/")
    if tag and "/" not in tag and not Path(path).exists():
        from stages.pretrained.open_clip_names import architectures

        if importlib.util.find_spec("open_clip") is not None and name in architectures():
            return name, tag
    return path, None


def _tensor(video: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 to (1, 3, T, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(video).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def as_pixels(video: Tensor) -> np.ndarray:
    """(B, 3, T, H, W) in [-1, 1] to (B, T, H, W, 3) uint8."""
    found = ((video.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return found.permute(0, 2, 3, 4, 1).cpu().numpy()


def _samples(bucket: Any) -> int:
    return int(bucket.get("samples", 0)) if isinstance(bucket, Mapping) else 0
