"""The training half of the demo: a VAE on the clips, latents in shards, a dataset, a transformer, and its samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.datasets.create import run_dataset_create
from curate.demo.shape_judge import judge
from curate.demo.shapes import Subject, random_take, subjects, take_frames
from curate.generate import pictures
from curate.interrupts import raise_if_stopped
from curate.run.command import RunOptions, run_recipes
from curate.training.command import run_train
from models.files import write_whole

if TYPE_CHECKING:
    from curate.generate.text_to_video import TextToVideo

CONFIGS = {name: Path(__file__).with_name(f"{name}.json") for name in ("vae", "dit")}
SELECT = "SELECT clip_id FROM latents WHERE status = 'done'"
GUIDANCE = 3.0
PROMPTS = ("a red circle moving left", "a blue square moving up", "a yellow triangle moving right")
Show = Callable[..., None]  # prints the words of a command


@dataclass(frozen=True)
class SampleCounts:
    """How many samples are judged, how many begin with a given first frame, and with how many steps they are made."""

    prompts: int = 40
    first_frames: int = 8
    steps: int = 20


@dataclass(frozen=True)
class JudgedSample:
    """One sample: its prompt, its file, and what its pixels show."""

    prompt: str
    file: str
    colour: str
    shape: str
    direction: str
    right: bool


@dataclass(frozen=True)
class TrainingResult:
    """How good the samples are."""

    samples: list[JudgedSample]
    share_right: float  # of samples that show what their prompt says, 0 to 1
    chance: float  # the same share for samples of the empty prompt
    still_psnr: list[float]  # dB of the first frame against the given one

    @property
    def good(self) -> bool:
        return self.share_right >= 0.8 and min(self.still_psnr) >= 20

    def described(self) -> list[str]:
        """Lines to print at the end of the demo."""
        right = sum(each.right for each in self.samples)
        return [
            f"samples: {right} of {len(self.samples)} show the colour, shape and direction asked for, as their pixels "
            f"measure; {self.chance:.0%} of those of the empty prompt",
            f"from a first frame: {len(self.still_psnr)} videos keep it to {min(self.still_psnr):.1f} dB at least",
        ]


def learn(
    folder: Path,
    pipelines: Path,
    engine: str,
    show: Show,
    counts: SampleCounts = SampleCounts(),
    train: Callable[..., int] = run_train,
) -> TrainingResult:
    """Trains and samples; each step continues where it was stopped. `show` prints a command before it is run."""
    catalog, dataset, run = folder / "catalog", folder / "datasets" / "demo", folder / "run"
    vae = write_config("vae", folder)
    show("train", str(vae), "--catalog", str(catalog), "-o", str(folder / "vae"))
    if not (folder / "vae" / "metrics.json").exists():
        raise_if_stopped(train(vae, catalog=str(catalog), output=str(folder / "vae"), resume=_begun(folder / "vae")))

    show("run", "latents", "--pipelines", str(pipelines), "--catalog", str(catalog))
    raise_if_stopped(run_recipes(["latents"], str(catalog), pipelines=pipelines, options=RunOptions(engine=engine)))

    show("dataset", "create", "demo", "--catalog", str(catalog), "--select", SELECT, "-o", str(dataset.parent))
    if not dataset.exists():
        run_dataset_create("demo", str(catalog), SELECT, output=str(dataset.parent))

    config = write_config("dit", folder)
    show("train", str(config), "--dataset", str(dataset), "-o", str(run))
    raise_if_stopped(train(config, dataset=str(dataset), output=str(run), resume=_begun(run)))
    return sample(folder, show, counts)


def sample(folder: Path, show: Show, counts: SampleCounts) -> TrainingResult:
    """Makes samples of prompts, of the empty prompt, and from first frames, and judges them by their pixels."""
    from curate.generate.sample import run_sample
    from curate.generate.text_to_video import TextToVideo
    from train.sampling.guidance import Guidance
    from train.sampling.trained_run import SamplingSettings

    run, output = folder / "run", folder / "samples"
    output.mkdir(exist_ok=True)
    prompts = [word for text in PROMPTS for word in ("--prompt", text)]
    options = ("--steps", str(counts.steps), "--guidance", f"{GUIDANCE:g}")
    show("sample", str(run), *prompts, "-o", str(output / "asked.gif"), *options)
    run_sample(run, PROMPTS, output / "asked.gif", steps=counts.steps, guidance=GUIDANCE)

    model = TextToVideo(run)
    bucket, settings = model.bucket(), SamplingSettings(steps=counts.steps, guidance=Guidance(GUIDANCE))
    rng, seeds = np.random.default_rng(0), list(range(counts.prompts))
    wanted = [subjects()[number] for number in rng.permutation(len(subjects()))[: counts.prompts]]
    videos = model.videos(model.prompts([subject.caption for subject in wanted], seeds), bucket, settings)
    samples = [
        _judged(subject, video, output / f"{number:02}.gif", model.fps)
        for number, (subject, video) in enumerate(zip(wanted, videos, strict=True), 1)
    ]
    unguided = SamplingSettings(steps=counts.steps, guidance=Guidance(1))
    unprompted = model.videos(model.prompts([""] * counts.prompts, seeds), bucket, unguided)
    chance = float(np.mean([_shows(video, subject) for subject, video in zip(wanted, unprompted, strict=True)]))
    still_psnr = _from_first_frames(model, bucket, output, rng, counts)
    share_right = float(np.mean([each.right for each in samples]))
    result = TrainingResult(samples, share_right, chance, still_psnr)
    write_whole(output / "samples.json", json.dumps(asdict(result), indent=1) + "\n")
    return result


def _from_first_frames(
    model: TextToVideo, bucket: str, output: Path, rng: np.random.Generator, counts: SampleCounts
) -> list[float]:
    """PSNR in dB of the first frames of samples against the given ones, which are from takes not trained on."""
    from stages.encode.network import psnr
    from train.sampling.guidance import Guidance
    from train.sampling.trained_run import SamplingSettings

    settings, found, videos = SamplingSettings(steps=counts.steps, guidance=Guidance(GUIDANCE)), [], []
    chosen = [subjects()[number] for number in rng.permutation(len(subjects()))[: counts.first_frames]]
    for number, subject in enumerate(chosen):
        first = take_frames(random_take(subject, rng))[0]
        (video,) = model.videos(model.prompts([subject.caption], [number]), bucket, settings, picture=first)
        found.append(round(psnr(video[:1] / 127.5 - 1, first[None]), 2))
        videos.append(video)
    pictures.write_sheet(output / "from_first_frames.gif", videos, [each.caption for each in chosen], model.fps)
    return found


def _judged(subject: Subject, video: np.ndarray, path: Path, fps: float) -> JudgedSample:
    pictures.write_picture(path, video, fps)
    seen = judge(video)
    right = all(seen.right(subject).values())
    return JudgedSample(subject.caption, path.name, seen.colour, seen.shape, seen.direction, right)


def _shows(video: np.ndarray, subject: Subject) -> bool:
    return all(judge(video).right(subject).values())


def write_config(name: str, folder: Path) -> Path:
    """The config of a network in the demo's folder, where the user can read and change it; written if it is missing."""
    path = folder / f"{name}.json"
    if not path.exists():
        write_whole(path, CONFIGS[name].read_text(encoding="utf-8").replace("DEMO", str(folder.absolute())))
    return path


def _begun(run: Path) -> bool:
    return (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir())
