"""The settings of `encode:`; light, so that a recipe is checked without heavy imports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from stages.decode.rendering import DeinterlaceSetting, HdrMode
from stages.decode.settings import FetchSettings
from stages.settings import ModelSettings
from stages.text_encoders.settings import TextEncoderSettings
from stages.windows.buckets import Bucket


def _bucket(value: Any) -> Bucket:
    return value if isinstance(value, Bucket) else Bucket.parse(str(value))


BucketSetting = Annotated[Any, BeforeValidator(_bucket), PlainSerializer(str)]


class CaptionEmbeddingSettings(TextEncoderSettings):
    """`text:` whose embeddings of a clip's captions go into the shards beside its latents."""

    missing: Literal["fail", "empty"] = "fail"  # a clip without a caption: unfit, or with the empty prompt


class DecoderSettings(FetchSettings):
    """How the children that decode are guarded, the limits being those of one clip, and how far ahead they run."""

    children: int | None = Field(None, ge=1, le=64)  # None: one on a CPU, up to eight beside a GPU
    ahead_mb: int = Field(256, ge=1, le=1_000_000)


class EncodeSettings(ModelSettings):
    """`encode:` the VAE, the shapes that clips are brought to, and what goes into the shards beside the latents."""

    vae: str  # a folder, or a name on the hub
    subfolder: str | None = None
    revision: str | None = None
    buckets: tuple[BucketSetting, ...] = Field(min_length=1)  # frames x height x width, e.g. 17x256x256
    fps: float = Field(16.0, ge=0.01, le=1000)  # frames a second that clips are resampled to
    window: Literal["start", "middle"] = "middle"  # which frames of a clip that is longer than its bucket
    max_upscale: float = Field(1.0, gt=0)  # how far small clips may be enlarged to fill a bucket
    letterbox: bool = True  # crop to the box that `measure: [letterbox]` found
    hdr: HdrMode = "tone_map"  # how `probe` has rendered clips in PQ or HLG; others fail, they are not mixed
    deinterlace: DeinterlaceSetting = "auto"  # the same of interlaced clips
    text: CaptionEmbeddingSettings | None = None
    conditions: tuple[str, ...] | None = None  # of clips, kept beside the latents; None: DEFAULT_CONDITIONS
    dtype: Literal["float16", "bfloat16"] = "float16"  # of what is stored
    shard_mb: float = Field(512.0, gt=0, le=100_000, exclude=True)  # size that a shard is to have, about
    shard_clips: int = Field(100_000, ge=1, exclude=True)  # clips in one, at most
    sample: int = Field(1, ge=0, exclude=True)  # clips of a shard that are decoded again, for the PSNR in its header
    vae_dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the VAE while it runs; auto: bfloat16 on a GPU
    compile: bool = Field(False, exclude=True)
    batch_clips: int = Field(4, ge=1, le=100_000, exclude=True)  # at most, as far as memory goes
    chunk: int | None = Field(None, exclude=True)  # frames of a clip at a time; None: chosen by size
    decoder: DecoderSettings = Field(DecoderSettings(), exclude=True)
