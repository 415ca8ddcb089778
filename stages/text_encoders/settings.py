"""The settings of a text encoder, which embeds captions for training and prompts for sampling."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from stages.settings import Dtype, Settings


def _different(columns: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(columns)) != len(columns):
        raise ValueError(f"captions: a column is named twice in {list(columns)}")
    return columns


Column = Annotated[str, StringConstraints(pattern="^[a-z_][a-z0-9_]*$")]


class TextEncoderSettings(Settings):
    """Which model embeds text. An OpenCLIP model is named as for `embed`, one of transformers by its folder or its
    name on the hub; of a whole pipeline it is the one in `subfolder`, 'text_encoder' by default.
    """

    model: str
    pretrained: str | None = None  # of an OpenCLIP model: a tag or a local checkpoint
    subfolder: str | None = None
    revision: str | None = None  # on the hub
    max_tokens: int = Field(256, ge=1, le=8192)  # longer captions are cut; a model with a lower limit keeps to that
    captions: Annotated[tuple[Column, ...], Field(min_length=1), AfterValidator(_different)] = ("caption",)
    dtype: Dtype = "auto"  # bfloat16 on GPUs, float32 on CPUs
