"""`clipmill train` with `kind: vae`: trains a VAE on the clips of a catalog and measures it on held-out clips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import EngineError, UserError
from curate.storage import is_local, local_path
from models.files import write_whole

if TYPE_CHECKING:
    from train.config.vae import VAETrainConfig
    from train.vae.measures import Measured

METRICS, PICTURE = "metrics.json", "reconstructions.png"
FRAMES_SHOWN = 3  # of each clip


def run_train_vae(config: dict[str, Any], catalog: str, output: str, resume: bool, quiet: bool = False) -> int:
    """Trains, measures, and writes `output`/model, metrics.json and reconstructions.png. Returns 0, or 130 if it was
    stopped, after a checkpoint. UserError for what can't work, EngineError if the training diverges.
    """
    from models.settings.validation import ConfigError
    from train.config.vae import VAETrainConfig

    try:
        settings = VAETrainConfig.from_dict(config)
    except ConfigError as error:
        raise UserError(str(error)) from error
    try:
        import torch

        from curate.training.console import training_console
        from curate.training.run_notes import note_descendant, note_run
        from curate.training.vae_clips import VAEClips
        from curate.training.vae_split import CLIPS, write_split
        from train.optimization.optimizer import DivergedError
        from train.run.lineage import RUN_ID, ancestors_of
        from train.vae.training import VAETraining
    except ImportError as error:
        raise UserError(f"training needs the package {error.name}: pip install 'clipmill[train]'") from error
    from curate.interrupts import STOPPED, Interrupts

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with (
        VAEClips(settings, catalog) as clips,
        Interrupts() as interrupts,
        training_console("vae", settings.steps, quiet=quiet) as console,
    ):
        if not quiet:
            print(clips.summary, file=sys.stderr)
        try:
            uri = local_path(catalog) if is_local(catalog) else catalog
            training = VAETraining(
                settings,
                clips,
                output,
                device=device,
                resume=resume,
                stop=lambda: interrupts.seen,
                console=console,
                about={"catalog": uri},
            )
            folder, run_id = Path(output), training.about[RUN_ID]
            if not training.step or not (folder / CLIPS).exists():  # else the checkpoint is of the same clips
                write_split(folder, clips.training, clips.validation)
            note_run(uri, folder, run_id)
            note_descendant(ancestors_of(training.about), folder, run_id)
            if not training.run():
                print(f"stopped at step {training.step:,}; --resume goes on from there", file=sys.stderr)
                return STOPPED
            training.finish()
            measured = training.measured()
        except ConfigError as error:
            raise UserError(str(error)) from error
        except DivergedError as error:
            raise EngineError(str(error)) from error
    _write(Path(output), settings, training.perceptual_name, clips.sources, measured)
    if not quiet:
        print(_summary(output, measured, clips.sources["held_out"]))
    return 0


def _write(
    folder: Path, settings: VAETrainConfig, perceptual: str, sources: dict[str, int], measured: Measured
) -> None:
    """metrics.json and reconstructions.png."""
    names = ("clip_ids", "psnr", "mean_colour_psnr", "ssim", "lpips")
    columns = {name: getattr(measured, name) for name in names if getattr(measured, name)}
    found = {
        **measured.numbers(),
        "lpips_note": None if measured.lpips else "not measured: loss.perceptual is not lpips",
        "perceptual_term": perceptual,
        "split": f"by a hash of source_id, share {settings.validation.share:g}",
        "sources": sources,
        "of_clips": columns,
        "failed": measured.failed,
    }
    write_whole(folder / METRICS, json.dumps(found, indent=2) + "\n")
    if measured.originals:
        _draw(folder / PICTURE, measured, settings.clips.fps)


def _draw(path: Path, measured: Measured, fps: float) -> None:
    """A picture of a few frames of each clip above their reconstructions, one clip beside another."""
    import numpy as np

    from curate.generate.pictures import strip, write_picture

    columns = []
    for original, back in zip(measured.originals, measured.reconstructions, strict=True):
        strips = [strip(video.numpy(), frames=FRAMES_SHOWN) for video in (original, back)]
        columns.append(np.concatenate(strips, axis=0))
    height = max(len(column) for column in columns)
    even = [np.pad(c, ((0, height - len(c)), (0, 0), (0, 0)), mode="edge") for c in columns]
    write_picture(path, np.concatenate(even, axis=1)[None], fps)


def _summary(output: str, measured: Measured, sources: int) -> str:
    if not measured.clip_ids:
        return f"{output}/model is the VAE; nothing was held out to measure it on"
    numbers = measured.numbers()
    ssim, lpips = (numbers[name] for name in ("ssim", "lpips"))
    words = [f"PSNR {numbers['psnr']:.2f} dB (mean colour of each clip {numbers['mean_colour_psnr']:.2f})"]
    words += [f"SSIM {ssim:.4f}"] if ssim is not None else []
    words += [f"LPIPS {lpips:.4f}" if lpips is not None else "LPIPS not measured, no weights given"]
    return (
        f"{output}/model is the VAE; on {numbers['clips']} held-out clips of {sources} sources: {', '.join(words)}; "
        f"{output}/{METRICS}, {output}/{PICTURE}"
    )
