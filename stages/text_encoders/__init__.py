"""Texts to what a diffusion model is conditioned on: hidden states of a language model. torch comes with loading."""

from stages.text_encoders.describe import describe_text
from stages.text_encoders.encoder import TextEncoder, load_text_encoder
from stages.text_encoders.settings import TextEncoderSettings

__all__ = ["TextEncoder", "TextEncoderSettings", "describe_text", "load_text_encoder"]
