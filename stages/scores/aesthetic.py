"""The stage `aesthetic:` scores clips by LAION's heads on OpenCLIP embeddings: about 1 to 10, higher is better.

Linear: LAION-AI/aesthetic-predictor, one affine map. MLP: christophschuhmann/improved-aesthetic-predictor,
five affine maps with dropout (off here) between; one of its two published files has a ReLU after each but the
last. Both were fitted to OpenAI's ViT-L/14, so that is the default model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.saved.weight_hash import hash_parts, tensor_label
from stages.base import ClipError, Column, SettingsError, one_line
from stages.pretrained.hub import cached_or_reachable, hub_file
from stages.pretrained.lookup import HUB, named_path
from stages.pretrained.weight_hash import REVISION_DIGITS, files_hash, tensor_places
from stages.scores.frame_embeddings import FrameEmbeddingStage
from stages.scores.settings import AestheticSettings
from stages.unit import Clip, Row

AESTHETIC_VERSION = 1  # increase it when the same embeddings and head would give another score

# Places of the affine maps in the published nn.Sequential -> whether a ReLU follows each but the last.
LAYOUTS: dict[tuple[int, ...], bool] = {(0, 2, 4, 6, 7): False, (0, 3, 6, 9, 11): True}
ADVICE = "download it where there is a network and give `head` its path"


class Aesthetic(FrameEmbeddingStage[AestheticSettings]):
    """The LAION aesthetic score of a clip: mean and least of its frames."""

    name: ClassVar[str] = "aesthetic"
    default_table: ClassVar[str] = "aesthetics"
    own_signals: ClassVar[Mapping[str, Column]] = {
        "aesthetic": Column(
            "double",
            "mean score of the frames",
            "about 1 to 10",
            also=("aesthetics", "aesthetic_score", "beauty", "quality"),
        ),
        "aesthetic_min": Column("double", "least score of a frame", "about 1 to 10"),
        "model": Column("string", "names of the OpenCLIP model and of the head"),
        "revision": Column("string", "hash of both loaded weights"),
    }
    head: Head  # from `setup` on

    def __init__(self, settings: AestheticSettings):
        super().__init__(settings)
        self.head_path = settings.head
        if not settings.head.startswith(HUB):
            self.head_path = os.path.abspath(named_path(settings.head))

    def check(self) -> None:
        """SettingsError: no head there, or one of another width than the embeddings; then as for `embed`."""
        if self.head_path.startswith(HUB):
            cached_or_reachable(*_on_hub(self.head_path), ADVICE)
        else:
            self._fits(head_width(self._file()))
        super().check()

    def setup(self) -> None:
        super().setup()
        self.head = load_head(self._file())
        self._fits(self.head.width)

    def versions(self) -> dict[str, str]:
        head = "" if self.head_path.startswith(HUB) else files_hash("", [Path(self._file())])[:REVISION_DIGITS]
        return {"aesthetic": " ".join(f"{AESTHETIC_VERSION} {self.spec.content()} {head}".split())}

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        answers: list[Row | ClipError] = []
        for found in self.vectors_of(clips):
            scores = self.head(found.vectors)
            answers.append(
                {
                    "aesthetic": float(scores.mean()),
                    "aesthetic_min": float(scores.min()),
                    "model": f"{Path(self.head_path).name} on {self.spec.name}",
                    "revision": f"{self.head.revision} on {found.revision}",
                }
            )
        return answers

    def _file(self) -> str:
        if self.head_path.startswith(HUB):
            repository, (file,) = _on_hub(self.head_path)
            return hub_file(repository, file, ADVICE)
        if not os.path.isfile(self.head_path):
            raise SettingsError(f"head: no file at {self.settings.head}")
        return self.head_path

    def _fits(self, width: int) -> None:
        if width != self.spec.width:
            raise SettingsError(
                f"head {Path(self.head_path).name} takes embeddings of {width} numbers, "
                f"model {self.spec.name} makes {self.spec.width}: they do not belong together"
            )


@dataclass
class Head:
    """Affine maps applied in turn: weights (out, in) and biases (out,), float32; the last gives one number."""

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    relu: bool  # after each but the last
    revision: str  # 16 hex digits: hash of the weights

    @property
    def width(self) -> int:
        return self.weights[0].shape[1]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Scores (k,) of L2-normalised embeddings (k, width), in float64 so that order changes nothing."""
        found = vectors.astype(np.float64)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            found = found @ weight.T.astype(np.float64) + bias
            if self.relu and number < len(self.weights):
                found = np.maximum(found, 0)
        return found[:, 0]


def load_head(path: str) -> Head:
    """The head in a file. SettingsError: unreadable, or of no published layout."""
    tensors = _tensors(path)
    keys, relu = _layout(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    weights = [np.asarray(tensors[f"{key}weight"], np.float32) for key in keys]
    biases = [np.asarray(tensors[f"{key}bias"], np.float32) for key in keys]
    revision = hash_parts(
        "relu" if relu else "",
        ((tensor_label(str(number), "torch.float32", values.shape), [values.tobytes()])
         for number, values in enumerate((*weights, *biases))),
    )  # fmt: skip
    return Head(weights, biases, relu, revision[:REVISION_DIGITS])


def head_width(path: str) -> int:
    """Numbers in the embeddings that a head takes; of a .safetensors file only the header is read."""
    if path.endswith(".safetensors"):
        try:
            shapes = {name: place.shape for name, place in tensor_places([Path(path)]).items()}
        except SettingsError as error:
            raise SettingsError(f"head: {error}") from error
    else:
        shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(path).items()}
    keys, _ = _layout(path, shapes)
    return shapes[f"{keys[0]}weight"][1]


def _tensors(path: str) -> dict[str, np.ndarray]:
    try:
        if path.endswith(".safetensors"):
            from safetensors.numpy import load_file

            return load_file(path)
        import torch

        found = torch.load(path, map_location="cpu", weights_only=True)  # a pickle must not run code
        return {name: tensor.float().numpy() for name, tensor in found.items()}
    except Exception as error:  # torch and safetensors raise what they like on a damaged file
        raise SettingsError(f"head: {path} holds no weights that can be read: {one_line(error)[:200]}") from error


def _layout(path: str, shapes: dict[str, tuple[int, ...]]) -> tuple[list[str], bool]:
    """(prefixes of the affine maps in their order, whether ReLUs are between), from the names alone."""
    relu: bool | None = False
    if set(shapes) == {"weight", "bias"}:
        keys = [""]
    else:
        found = {match[1] for name in shapes if (match := re.fullmatch(r"(?:layers\.)?(\d+)\.(?:weight|bias)", name))}
        places = tuple(sorted(map(int, found)))
        before = "layers." if any(name.startswith("layers.") for name in shapes) else ""
        keys = [f"{before}{place}." for place in places]
        relu = LAYOUTS.get(places)
    named = {f"{key}{part}" for key in keys for part in ("weight", "bias")}
    widths = [shapes.get(f"{key}weight", ()) for key in keys]
    chained = all(len(shape) == 2 for shape in widths) and [shape[0] for shape in widths] == [
        *(shape[1] for shape in widths[1:] if len(shape) == 2),
        1,
    ]
    if relu is None or named != set(shapes) or not chained:
        raise SettingsError(f"head: {path} is neither LAION's linear head nor the improved predictor's MLP")
    return keys, relu


def _on_hub(head: str) -> tuple[str, list[str]]:
    """('ORG/REPO', [file]) of hf-hub:ORG/REPO/FILE."""
    parts = head.removeprefix(HUB).split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise SettingsError(f"head: {head!r} must name a file, as in {HUB}ORG/REPO/FILE")
    return f"{parts[0]}/{parts[1]}", [parts[2]]
