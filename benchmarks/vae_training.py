"""How much a small VAE learns on a CPU, and how long it takes: PSNR on held-out clips of drawn films.

    python benchmarks/vae_training.py [--steps 60] [--only films]

Films are the demo's (textured shapes and grounds, each film once) and its second set (plain shapes), ingested as
`clipmill run` does it; runs are those of `clipmill train`. Each is compared with the mean colour of each clip, the same
network before its first step, and the best linear code of as many numbers (principal components of patches of
4 x 8 x 8 pixels of the training clips), which is what the shortcut alone can reach.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import show

from curate.demo.films import draw_films
from curate.demo.shapes import TAKE_SECONDS, draw_shape_films
from curate.run.command import RunOptions, run_recipes
from curate.training.vae import run_train_vae
from curate.training.vae_clips import VAEClips
from models.vae.causal_vae import CausalVAE
from train.config.vae import VAETrainConfig
from train.evaluation.reconstruction import psnr
from train.vae.losses.losses import frames
from train.vae.measures import measure
from train.vae.windows import pixels

RECIPE = """\
recipes:
  ingest:
    stages:
      - probe: {{min_seconds: 1}}
      - cut: {cut}
      - measure: [exposure]
      - gate: {{bright: "luma_mean BETWEEN 10 AND 245"}}
"""
CUTS = {
    "films": "{detector: adaptive, min_seconds: 1.2}",
    "shapes": f"{{detector: fixed, seconds: {TAKE_SECONDS}, min_seconds: 1}}",
}
MODELS = {
    "debug": {"size": "debug"},
    "debug, 16 channels": {"size": "debug", "channels": 16},
    "debug without shortcut": {"size": "debug", "shortcut": False},
}


def config(model: dict[str, Any], steps: int) -> dict[str, Any]:
    return {
        "kind": "vae",
        "model": model,
        "steps": steps,
        "batch_size": 4,
        "clips": {"buckets": ["9x64x64"], "fps": 8, "image_share": 0.1},
        "loss": {"pixels": "mse", "perceptual": "none", "adversarial": 0},
        "optimizer": {"lr": 1e-3, "warmup": 10, "schedule": "cosine", "betas": [0.9, 0.95]},
        "validation": {"share": 0.4},
    }


def ingested(folder: Path, name: str) -> str:
    """Makes the catalog of one of the two sets of films."""
    films = folder / name
    if name == "films":
        for film in draw_films(folder / "drawn"):
            if not film.duplicate_of and film.media != "broken":
                films.mkdir(exist_ok=True)
                shutil.copy(folder / "drawn" / film.name, films)
    else:
        draw_shape_films(films, takes=4)
    file = folder / f"{name}.yaml"
    file.write_text(RECIPE.format(cut=CUTS[name]))
    options = RunOptions(engine="inline", quiet=True)
    run_recipes(["ingest"], str(folder / f"{name}_catalog"), [str(films)], file, (), options)
    return str(folder / f"{name}_catalog")


def linear_code(clips: VAEClips, count: int) -> float:
    """PSNR of the held-out clips, without their first frames, from so many principal components of patches."""
    learnt = torch.cat([_patches(windows.video) for windows in clips.training_sample() if windows.video.shape[1] > 1])
    mean = learnt.mean(0)
    _, _, waves = torch.pca_lowrank(learnt - mean, q=count, center=False, niter=6)
    found = []
    for windows in clips.held_out():
        if windows.video.shape[1] > 1:
            patches = _patches(windows.video)
            back = (patches - mean) @ waves @ waves.T + mean
            video, again = (_frames(each, windows.video.shape) for each in (patches, back))
            found.append(psnr(video, again).mean().item())
    return sum(found) / len(found)


def _patches(video: torch.Tensor) -> torch.Tensor:
    """(B, 1 + 4n, H, W, 3) uint8 to (patches, 768)."""
    x = pixels(video, "cpu")[:, :, 1:]
    x = x.unflatten(2, (-1, 4)).unflatten(4, (-1, 8)).unflatten(6, (-1, 8))  # B, 3, n, 4, h, 8, w, 8
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(0, 3)


def _frames(patches: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    b, t, h, w, _ = shape
    x = patches.view(b, t // 4, h // 8, w // 8, 3, 4, 8, 8).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return frames(x.reshape(b, 3, t - 1, h, w))


def one(catalog: str, folder: Path, model: dict[str, Any], steps: int) -> dict[str, Any]:
    values = config(model, steps)
    settings = VAETrainConfig.from_dict(values)
    with VAEClips(settings, catalog) as clips:
        torch.manual_seed(0)
        untrained = measure(CausalVAE(settings.settings()), clips.held_out(), torch.device("cpu")).numbers()["psnr"]
        linear = linear_code(clips, settings.settings().channels)
    before = time.process_time()
    run_train_vae(values, catalog, str(folder), resume=False, quiet=True)
    seconds = time.process_time() - before
    found = json.loads((folder / "metrics.json").read_text())
    names = ("clips", "mean_colour_psnr", "psnr", "ssim")
    row = {name: round(found[name], 3) for name in names} | {"sources": found["sources"]}
    return row | {"untrained": round(untrained, 2), "linear": round(linear, 2), "cpu_s": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=sorted(CUTS), help="one set of films")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for films in [args.only] if args.only else sorted(CUTS):
            catalog = ingested(Path(folder), films)
            for number, (name, model) in enumerate(MODELS.items()):
                row = one(catalog, Path(folder) / f"{films}_{number}", model, args.steps)
                rows.append({"films": films, "model": name, "steps": args.steps, **row})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    show({"runs": rows})


if __name__ == "__main__":
    main()
