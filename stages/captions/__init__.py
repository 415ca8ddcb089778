"""Captions of clips, from the manifest, a model in this process or a server, and an audit of what they say."""

from stages.captions.settings import CaptionSettings
from stages.captions.stage import Caption

__all__ = ["Caption", "CaptionSettings"]
