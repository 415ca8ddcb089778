"""The stage `classify:` runs an image classifier (watermark, NSFW, ...) of transformers, from a folder or the hub.

The score is the probability itself; a gate decides where to draw the line, `watermark < 0.5` for example.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from models.saved.weight_hash import state_hash
from stages.base import ClipError, ClipStage, Column, Needs, SettingsError, one_line
from stages.frames import FrameRequest
from stages.pretrained.devices import torch_device
from stages.pretrained.lookup import local_folder, located
from stages.pretrained.model_files import WEIGHTS, read_config, refuse_missing_weights
from stages.pretrained.packages import require_packages
from stages.pretrained.weight_hash import REVISION_DIGITS, files_hash
from stages.scores.settings import ClassifySettings
from stages.unit import Clip, Row

VERSION = "1"  # increase it when the same frames would get other scores
MOST_NAMED = 12  # labels that an error lists; of more, the nearest


class Classify(ClipStage[ClassifySettings]):
    """The probability that an image classifier gives to a label, such as watermark or NSFW.

    Columns: `<as>` (largest over the frames), `<as>_mean`, `<as>_model` and `<as>_revision`. The probability is what
    transformers' own pipeline gives: softmax over the labels; where the model says that labels do not exclude one
    another a sigmoid of each, and of several labels the largest.
    """

    name = "classify"
    default_table = "classify"
    own_signals: ClassVar[Mapping[str, Column]] = {
        "score": Column("double", "probability of the label, largest over the frames", "0 to 1"),
        "mean": Column("double", "mean over the frames", "0 to 1"),
        "model": Column("string", "the hub's name, or the folder's"),
        "revision": Column("string", "hash of the weights as loaded: the same for a folder and for the hub"),
    }

    def __init__(self, settings: ClassifySettings):
        super().__init__(settings)
        self.needs = Needs(cpus=1, gpus=1 if settings.device == "cuda" else 0)
        self._location = located(settings.model)
        self._model: Any = None
        self._processor: Any = None
        self._columns: list[int] = []  # of the labels among the model's outputs
        self._revision = ""

    @classmethod
    def column_of(cls, table: str, signal: str) -> str:
        return table if signal == "score" else f"{table}_{signal}"

    def wants(self) -> FrameRequest:
        return FrameRequest(self.settings.positions, self.settings.long_side)

    def versions(self) -> dict[str, str]:
        folder = local_folder(self._location)
        if folder is None:
            return {self.name: VERSION}  # for a model of the hub, the settings name it
        weights = [path for kind in WEIGHTS for path in folder.glob(f"*{kind}")]
        return {self.name: f"{VERSION}-{files_hash('', weights, folder.glob('*.json'))[:REVISION_DIGITS]}"}

    def check(self) -> None:
        """Raises SettingsError for a missing package, a model that is not there or no classifier, unknown labels."""
        require_packages("torch", "torchvision", "transformers", extra="classify")
        config = read_config(self._location, self.settings.revision)
        kinds = config.get("architectures") or []
        timm = "architecture" in config and "pretrained_cfg" in config
        if not timm and not any("ForImageClassification" in kind for kind in kinds):
            named = f"its config names {', '.join(kinds)}" if kinds else "its config names no architecture"
            raise SettingsError(f"model {self.settings.model!r} is no image classifier: {named}")
        labels = config.get("label_names") or list((config.get("id2label") or {}).values())
        if labels:  # where the config leaves them out, `setup` checks them
            self._find([str(label) for label in labels])

    def loads(self) -> tuple[str, ...]:
        return (f"image classifier {self.settings.model}",)

    def setup(self) -> None:
        self.check()
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        settings, location = self.settings, self._location
        device = torch_device(settings.device)
        try:
            model, found = AutoModelForImageClassification.from_pretrained(
                location, revision=settings.revision, dtype=torch.float32, output_loading_info=True
            )
            self._processor = AutoImageProcessor.from_pretrained(location, revision=settings.revision)
        except (OSError, ValueError) as error:  # how transformers says that files are missing or wrong
            raise SettingsError(f"model {settings.model!r} can't be loaded: {one_line(error)[:300]}") from error
        refuse_missing_weights(f"model {settings.model!r}", found["missing_keys"])
        self._columns = self._find([model.config.id2label[index] for index in range(model.config.num_labels)])
        self._revision = state_hash("", model.state_dict())[:REVISION_DIGITS]
        self._model = model.eval().to(device)

    def close(self) -> None:
        self._model = self._processor = None

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        from PIL import Image

        pictures = [Image.fromarray(picture[..., ::-1]) for clip in clips for _, picture in clip.frames]
        probabilities = iter(self._probabilities(pictures))
        folder = local_folder(self._location)
        model = folder.name if folder else self._location
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
        """Indices of the settings' labels among these. Raises SettingsError that lists them for an unknown label."""
        for label in self.settings.labels:
            if label not in labels:
                near = difflib.get_close_matches(label, labels, n=3, cutoff=0.4)
                shown = ", ".join(map(repr, labels[:MOST_NAMED]))
                known = f"it knows {shown}" if len(labels) <= MOST_NAMED else f"it knows {len(labels)}, {shown}, …"
                guess = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
                raise SettingsError(f"model {self.settings.model!r} has no label {label!r}{guess}: {known}")
        return [labels.index(label) for label in dict.fromkeys(self.settings.labels)]
