"""VAEs behind one small interface: our own, and the published ones through diffusers. torch comes with loading."""

from stages.latent_coders.coder import LatentCoder, Moments, load_coder
from stages.latent_coders.describe import describe_coder
from stages.latent_coders.info import CoderInfo

__all__ = ["CoderInfo", "LatentCoder", "Moments", "describe_coder", "load_coder"]
