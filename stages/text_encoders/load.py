"""Loads a text encoder for use: through transformers, or the text tower of an OpenCLIP model."""

from __future__ import annotations

from stages.pretrained.devices import dtype_on, torch_device
from stages.text_encoders.describe import is_open_clip
from stages.text_encoders.encoder import TextEncoder
from stages.text_encoders.settings import TextEncoderSettings


def load_text_encoder(settings: TextEncoderSettings, device: str = "auto") -> TextEncoder:
    """The model that `describe_text` describes, ready to run. Raises SettingsError, in one line: no such device,
    weights that do not fit, and whatever `describe_text` raises.
    """
    device = torch_device(device)
    dtype = dtype_on(device, settings.dtype)  # 'auto' is never float16, in which T5 overflows
    if is_open_clip(settings):
        from stages.text_encoders.open_clip_tower import OpenClipTower

        return OpenClipTower.load(settings, device, dtype)
    from stages.text_encoders.from_transformers import TransformersEncoder

    return TransformersEncoder.load(settings, device, dtype)
