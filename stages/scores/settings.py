"""The settings of `embed:`, `aesthetic:`, `text:` and `classify:`; light, so that a recipe is checked at once."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stages.pretrained.open_clip_names import DEFAULT_MODEL, DEFAULT_TAG
from stages.settings import Dtype, ModelSettings, Positions


class OpenClipSettings(ModelSettings):
    """What is shared by the stages that look at frames through an OpenCLIP model."""

    model: str = DEFAULT_MODEL  # a name of open_clip, a folder, or hf-hub:ORG/REPO
    pretrained: str | None = DEFAULT_TAG  # a tag of open_clip or a local checkpoint; a folder holds its own
    dtype: Dtype = "auto"  # float32 on CPUs, float16 on GPUs
    positions: Positions = (0.1, 0.5, 0.9)  # of a clip's length


class EmbedSettings(OpenClipSettings):
    """`embed:` the model, and at which shares of a clip's length it looks."""


class AestheticSettings(OpenClipSettings):
    """`aesthetic:` the head's weights, and the model whose embeddings it was fitted to."""

    head: str  # a .pth or .safetensors file, or hf-hub:ORG/REPO/FILE
    model: str = "ViT-L-14-quickgelu"
    pretrained: str = "openai"


class TextAreaSettings(ModelSettings):
    """`text:` at which frames the text detector looks, and which detector it is."""

    positions: Positions = (0.1, 0.5, 0.9)  # of the frames looked at, shares of the clip
    long_side: int = Field(640, ge=64, le=4096)  # of the frames looked at, pixels: decides how small text is found
    # local ONNX file of another PP-OCR text detector; its content is part of the stage's version
    weights: str | None = Field(None, exclude=True)
    confirm: bool = True  # boxes in which nothing can be read do not count


class ClassifySettings(ModelSettings):
    """`classify:` an image classifier, and the labels whose probability is the score."""

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
