"""`classify:` named image classifiers (watermark, NSFW, …) through transformers, from a folder or the hub.

The score is the probability itself: where to draw the line is a gate's business, `watermark < 0.5`.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from stages.base import ClipError, ClipStage, Needs, SettingsError
from stages.frames import FrameRequest
from stages.pretrained.lookup import local_folder, located, read_config
from stages.pretrained.weights import revision_of
from stages.settings import ModelSettings, Positions
from stages.unit import Clip, Row

VERSION = "1"  # changes whenever the same frames would get other scores
MOST_NAMED = 12  # labels that an error lists; of more, the nearest
WEIGHTS = ("*.json", "*.safetensors", "*.bin")  # the files of a model's folder that decide its scores


class ClassifySettings(ModelSettings):
    model: str = Field(min_length=1)  # a local folder, or a name on the hub such as owner/model
    label: str | tuple[str, ...]  # whose probability is the score; of several, their sum
    revision: str | None = None  # commit or tag on the hub
    positions: Positions = (0.1, 0.5, 0.9)  # of the frames looked at, shares of the clip
    long_side: int = Field(512, ge=32, le=4096)  # of those frames, pixels, before the model's own resizing

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.table is None:
            raise ValueError("needs `as: NAME`, which its score and its table are called by, such as `as: watermark`")
        if not self.labels:
            raise ValueError("`label` names no label")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label


class Classify(ClipStage):
    """Columns `<as>` (largest over the frames), `<as>_mean`, `<as>_model` and `<as>_revision`.

    The probability is what transformers' own pipeline gives: softmax over the labels; where the model says that
    labels do not exclude one another a sigmoid of each, and of several labels the largest.
    """

    name = "classify"
    default_table = "classify"

    def __init__(self, settings: ClassifySettings):
        super().__init__(settings.table)
        self.settings = settings
        self.batch_clips = settings.batch_clips
        self.needs = Needs(cpus=1, gpus=1 if settings.device == "cuda" else 0)
        self._source = located(settings.model)
        self._model: Any = None
        self._processor: Any = None
        self._columns: list[int] = []  # of the labels among the model's outputs
        self._revision = ""

    def column(self, signal: str) -> str:
        return self.table if signal == "score" else f"{self.table}_{signal}"

    def signals(self) -> dict[str, str]:
        return {"score": "double", "mean": "double", "model": "string", "revision": "string"}

    def wants(self) -> FrameRequest:
        return FrameRequest(self.settings.positions, self.settings.long_side)

    def versions(self) -> dict[str, str]:
        folder = local_folder(self._source)
        if folder is None:
            return {self.name: VERSION}  # a model of the hub is told apart by its settings
        files = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
        return {self.name: f"{VERSION}-{revision_of(files)}"}

    def check(self) -> None:
        """Raises SettingsError for a missing package, a model that is not there or no classifier, unknown labels."""
        for package in ("torch", "torchvision", "transformers"):
            if not _installed(package):
                raise SettingsError(f"needs the package {package}: pip install 'clipmill[classify]'")
        config = read_config(self._source, self.settings.revision)
        kinds = config.get("architectures") or []
        timm = "architecture" in config and "pretrained_cfg" in config
        if not timm and not any("ForImageClassification" in kind for kind in kinds):
            named = f"its config names {', '.join(kinds)}" if kinds else "its config names no architecture"
            raise SettingsError(f"model {self.settings.model!r} is no image classifier: {named}")
        labels = config.get("label_names") or list((config.get("id2label") or {}).values())
        if labels:  # where the config leaves them out, the model is asked at setup
            self._find([str(label) for label in labels])

    def setup(self) -> None:
        self.check()
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        settings, source = self.settings, self._source
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise SettingsError("device 'cuda' was asked for and torch sees no GPU: leave `device` out")
        try:
            model, found = AutoModelForImageClassification.from_pretrained(
                source, revision=settings.revision, dtype=torch.float32, output_loading_info=True
            )
            self._processor = AutoImageProcessor.from_pretrained(source, revision=settings.revision)
        except (OSError, ValueError) as error:  # how transformers says that files are missing or wrong
            said = " ".join(str(error).split())[:300]
            raise SettingsError(f"model {settings.model!r} can't be loaded: {said}") from error
        if found["missing_keys"]:
            # transformers would go on with random numbers in their place.
            missing = sorted(found["missing_keys"])
            raise SettingsError(
                f"model {settings.model!r} lacks {len(missing)} of its weights, {missing[0]} among them"
            )
        self._columns = self._find([model.config.id2label[index] for index in range(model.config.num_labels)])
        self._revision = _revision(model)
        use_gpu = settings.device != "cpu" and torch.cuda.is_available()
        self._model = model.eval().to("cuda" if use_gpu else "cpu")

    def close(self) -> None:
        self._model = self._processor = None

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        from PIL import Image

        pictures = [Image.fromarray(picture[..., ::-1]) for clip in clips for _, picture in clip.frames]
        probabilities = iter(self._probabilities(pictures))
        folder = local_folder(self._source)
        model = folder.name if folder else self._source
        answers: list[Row | ClipError] = []
        for clip in clips:
            scores = [next(probabilities) for _ in clip.frames]
            if not all(map(math.isfinite, scores)):
                answers.append(ClipError(f"{self.table}: the model gave a score that is no number"))
                continue
            answers.append(
                {
                    "score": max(scores),
                    "mean": sum(scores) / len(scores),
                    "model": model,
                    "revision": self._revision,
                }
            )
        return answers

    def _probabilities(self, pictures: list[Any]) -> list[float]:
        """For each RGB picture the probability of the labels, as the class says."""
        import torch

        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]  # (n, 3, h, w)
        with torch.inference_mode():
            logits = self._model(pixel_values=pixels.to(self._model.device)).logits.float()  # (n, labels)
        config = self._model.config
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return logits.sigmoid()[:, self._columns].amax(dim=1).tolist()
        return logits.softmax(dim=1)[:, self._columns].sum(dim=1).clamp(max=1).tolist()

    def _find(self, labels: list[str]) -> list[int]:
        """The places of the settings' labels among these. Raises SettingsError with those there are."""
        for label in self.settings.labels:
            if label not in labels:
                near = difflib.get_close_matches(label, labels, n=3, cutoff=0.4)
                shown = ", ".join(map(repr, labels[:MOST_NAMED]))
                known = f"it knows {shown}" if len(labels) <= MOST_NAMED else f"it knows {len(labels)}, {shown}, …"
                guess = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
                raise SettingsError(f"model {self.settings.model!r} has no label {label!r}{guess}: {known}")
        return [labels.index(label) for label in dict.fromkeys(self.settings.labels)]


def _revision(model: Any) -> str:
    """16 hex digits over the weights as loaded, by name: the same for a folder and for the hub."""
    import torch
    import xxhash

    digest = xxhash.xxh3_64()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}{tuple(value.shape)}\0".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was made unavailable on purpose
        return False
