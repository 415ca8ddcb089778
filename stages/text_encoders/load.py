"""Loads a text encoder for use: through transformers, or the text tower of an OpenCLIP model."""

from __future__ import annotations

from stages.base import SettingsError
from stages.text_encoders.describe import is_open_clip
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.settings import TextEncoderSettings


def load_text_encoder(settings: TextEncoderSettings, device: str = "auto") -> TextEncoder:
    """The model that `describe_text` describes, ready to run. Raises SettingsError, in one line: no such device,
    weights that do not fit, and whatever `describe_text` raises.
    """
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"device: {device}, but there is no GPU that torch can use")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    dtype = settings.dtype
    if dtype == "auto":  # T5 overflows in float16
        dtype = "bfloat16" if chosen.startswith("cuda") else "float32"
    if is_open_clip(settings):
        from stages.text_encoders.open_clip_tower import OpenClipTower as Kind
    else:
        from stages.text_encoders.from_transformers import TransformersEncoder as Kind
    return Kind.load(settings, chosen, dtype)
