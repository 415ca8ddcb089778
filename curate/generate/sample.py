"""`clipmill sample`: videos from a trained run and text prompts, written as files to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from curate.errors import UserError
from curate.generate import pictures
from curate.progress_bar import ProgressBar

if TYPE_CHECKING:
    from train.sampling.trained_run import SamplingSettings

MOST_FRAMES = 10_000  # of one video: more is a typing error
SAMPLERS = ("euler", "heun", "ddim", "ddpm", "euler_maruyama")


def run_sample(
    folder: str | Path,
    prompts: Sequence[str],
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 50,
    guidance: float = 4.0,
    image: str | None = None,
    negative: str | None = None,
    frames: int | None = None,
    bucket: str | None = None,
    clips: int = 1,
    sampler: str = "euler",
    vae: str | None = None,
    text_model: str | None = None,
    conditions: Mapping[str, float] | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    chunk: int | None = None,
) -> int:
    """Makes a video for each prompt and writes them to `output`. Returns the exit code 0.

    One prompt makes one file (.mp4, .gif, or a .png strip of frames). Several make as many .mp4 files, numbered
    (OUT-1.mp4, ...), or one .gif or .png with all of them, each above its prompt. All have the same seed: a prompt
    gives the same video alone and among others. `image` (JPEG, PNG, WebP) is their first frame; `clips` successive
    clips make a longer video; `dtype` and `chunk` as in `TextToVideo`. UserError, in one line, for options that can't
    work.
    """
    output = Path(output)
    pictures.check_name(output)
    if not prompts:
        raise UserError("no prompt: give at least one with --prompt")
    settings = _settings(steps, guidance, sampler)
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: a whole number from 0 on, below 2^63")
    if clips < 1:
        raise UserError(f"--chain {clips}: at least one clip")

    from curate.generate.text_to_video import TextToVideo, read_picture

    model = TextToVideo(folder, vae, text_model, device, dtype, chunk)
    chosen = model.bucket(bucket, frames)
    _ = model.coder_info  # UserError before anything is computed
    if (all_frames := clips * int(chosen.split("x")[0])) > MOST_FRAMES:
        raise UserError(f"videos of {all_frames:,} frames: {MOST_FRAMES:,} are the most; ask for fewer")
    first = None if image is None else read_picture(image, chosen)
    try:
        encoded = model.prompts(prompts, [seed] * len(prompts), negative, conditions)
    except ValueError as error:  # the encoder has given NaN or infinity
        raise UserError(str(error)) from error
    with ProgressBar(f"sample {len(encoded)} of {chosen}", None, "steps") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        videos = model.videos(encoded, chosen, settings, picture=first, clips=clips, progress=show)
    for path in write_all(output, videos, prompts, model.fps):
        print(path)
    return 0


def write_all(output: Path, videos: Sequence[np.ndarray], prompts: Sequence[str], fps: float) -> list[Path]:
    """Writes the files that `run_sample` describes; returns their paths in the order of the prompts."""
    if len(videos) == 1:
        pictures.write_picture(output, videos[0], fps)
        return [output]
    if output.suffix.lower() != ".mp4":
        pictures.write_sheet(output, videos, prompts, fps)
        return [output]
    paths = [output.with_name(f"{output.stem}-{number}{output.suffix}") for number in range(1, len(videos) + 1)]
    for path, video in zip(paths, videos, strict=True):
        pictures.write_picture(path, video, fps)
    return paths


def _settings(steps: int, guidance: float, sampler: str) -> SamplingSettings:
    from train.sampling.diffusion_samplers import Method, SamplerSettings
    from train.sampling.guidance import Guidance
    from train.sampling.trained_run import SamplingSettings

    if steps < 1:
        raise UserError(f"--steps {steps}: at least one")
    if sampler not in SAMPLERS:
        raise UserError(f"--sampler {sampler}: there are {', '.join(SAMPLERS)}")
    try:
        return SamplingSettings(
            steps=steps, sampler=SamplerSettings(cast(Method, sampler)), guidance=Guidance(guidance)
        )
    except ValueError as error:
        raise UserError(f"--guidance {guidance:g}: {error}") from error
