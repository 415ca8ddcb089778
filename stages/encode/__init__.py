"""`encode:` clips to latents of a VAE, and captions to embeddings of their text, in shards."""

from stages.encode.settings import EncodeSettings
from stages.encode.stage import Encode

__all__ = ["Encode", "EncodeSettings"]
