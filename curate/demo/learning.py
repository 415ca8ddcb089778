"""The demo's second half: a VAE from the clips, latents in shards, a dataset, a transformer, and samples of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.datasets.create import run_dataset_create
from curate.demo import tiny_text
from curate.demo.shape_judge import judge
from curate.demo.shapes import Subject, some_take, subjects, take_frames
from curate.generate import pictures
from curate.interrupts import raise_if_stopped
from curate.run.command import RunOptions, run_recipes
from curate.training.command import run_train

CONFIGS = {name: Path(__file__).with_name(f"{name}.json") for name in ("vae", "dit")}
SELECT = "SELECT clip_id FROM latents WHERE status = 'done'"
PROMPTS, STILLS = 40, 8  # samples that are judged; those that go on from a first frame
STEPS, GUIDANCE = 20, 3.0
ASKED = ("a red circle moving left", "a blue square moving up", "a yellow triangle moving right")
Show = Callable[..., None]


@dataclass(frozen=True)
class JudgedSample:
    """One sample: what was asked for, where it lies, and what its pixels show."""

    prompt: str
    file: str
    colour: str
    shape: str
    direction: str
    right: bool


@dataclass(frozen=True)
class Learnt:
    """How the samples turned out. Shares from 0 to 1; the chance is that of samples of the empty prompt."""

    samples: list[JudgedSample]
    share_right: float
    chance: float
    still_psnr: list[float]  # dB of the first frame against the one that was given

    @property
    def good(self) -> bool:
        return self.share_right >= 0.8 and min(self.still_psnr) >= 20

    def described(self) -> list[str]:
        """Lines for the end of the demo."""
        right = sum(each.right for each in self.samples)
        return [
            f"samples: {right} of {len(self.samples)} show the colour, shape and direction asked for, as their pixels "
            f"measure; {self.chance:.0%} of those of the empty prompt",
            f"from a first frame: {len(self.still_psnr)} videos keep it to {min(self.still_psnr):.1f} dB at least",
        ]


def learn(folder: Path, pipelines: Path, engine: str, show: Show) -> Learnt:
    """Each step goes on where it was stopped. `show` prints a command before it is run."""
    catalog, dataset, run = folder / "catalog", folder / "datasets" / "demo", folder / "run"
    vae = _config("vae", folder)
    show("train", str(vae), "--catalog", str(catalog), "-o", str(folder / "vae"))
    if not (folder / "vae" / "metrics.json").exists():
        raise_if_stopped(
            run_train(vae, catalog=str(catalog), output=str(folder / "vae"), resume=_begun(folder / "vae"))
        )

    show("run", "latents", "--pipelines", str(pipelines), "--catalog", str(catalog))
    raise_if_stopped(run_recipes(["latents"], str(catalog), pipelines=pipelines, options=RunOptions(engine=engine)))

    show("dataset", "create", "demo", "--catalog", str(catalog), "--select", SELECT, "-o", str(dataset.parent))
    if not dataset.exists():
        run_dataset_create("demo", str(catalog), SELECT, output=str(dataset.parent))

    config = _config("dit", folder)
    show("train", str(config), "--dataset", str(dataset), "-o", str(run))
    raise_if_stopped(run_train(config, dataset=str(dataset), output=str(run), resume=_begun(run)))
    return sample(folder, show)


def sample(folder: Path, show: Show) -> Learnt:
    """Samples of forty prompts, of none, and of first frames, judged by their pixels."""
    from curate.generate.sample import run_sample
    from curate.generate.text_to_video import TextToVideo
    from train.sampling.guidance import Guidance
    from train.sampling.trained_run import SamplingSettings

    run, output = folder / "run", folder / "samples"
    output.mkdir(exist_ok=True)
    prompts = [word for text in ASKED for word in ("--prompt", text)]
    options = ("--steps", str(STEPS), "--guidance", f"{GUIDANCE:g}")
    show("sample", str(run), *prompts, "-o", str(output / "asked.gif"), *options)
    run_sample(run, ASKED, output / "asked.gif", steps=STEPS, guidance=GUIDANCE)

    model = TextToVideo(run)
    bucket, settings = model.bucket(), SamplingSettings(steps=STEPS, guidance=Guidance(GUIDANCE))
    rng = np.random.default_rng(0)
    wanted = [subjects()[number] for number in rng.permutation(len(subjects()))[:PROMPTS]]
    asked = [subject.caption for subject in wanted]
    videos = model.videos(model.prompts(asked, list(range(PROMPTS))), bucket, settings)
    samples = [
        _judged(subject, video, output / f"{number:02}.gif", model.fps)
        for number, (subject, video) in enumerate(zip(wanted, videos, strict=True), 1)
    ]
    unguided = SamplingSettings(steps=STEPS, guidance=Guidance(1))
    free = model.videos(model.prompts([""] * PROMPTS, list(range(PROMPTS))), bucket, unguided)
    chance = float(np.mean([_right(subject, video) for subject, video in zip(wanted, free, strict=True)]))
    found = Learnt(
        samples, float(np.mean([each.right for each in samples])), chance, _stills(model, bucket, output, rng)
    )
    (output / "samples.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
    return found


def _stills(model: Any, bucket: str, output: Path, rng: np.random.Generator) -> list[float]:
    """PSNR of the first frames of samples that begin with the first frame of a take that nobody trained on."""
    from stages.encode.network import psnr
    from train.sampling.guidance import Guidance
    from train.sampling.trained_run import SamplingSettings

    settings, found, videos = SamplingSettings(steps=STEPS, guidance=Guidance(GUIDANCE)), [], []
    chosen = [subjects()[number] for number in rng.permutation(len(subjects()))[:STILLS]]
    for number, subject in enumerate(chosen):
        first = take_frames(some_take(subject, rng))[0]
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


def _right(subject: Subject, video: np.ndarray) -> bool:
    return all(judge(video).right(subject).values())


def _config(name: str, folder: Path) -> Path:
    """The config of a network, beside what it makes: to be read, and changed, by whoever runs the demo."""
    path = folder / f"{name}.json"
    if not path.exists():
        text = CONFIGS[name].read_text(encoding="utf-8")
        text = text.replace("TINY_TEXT", str(tiny_text.FOLDER)).replace("DEMO", str(folder.absolute()))
        path.write_text(text, encoding="utf-8")
    return path


def _begun(run: Path) -> bool:
    return (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir())
