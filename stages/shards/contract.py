"""The contract of latents: what made them, so that nobody trains on a mixture or decodes with another VAE.

It is in the header of each shard, in each row of the table of latents and in each dataset. This file imports the
standard library alone, because trainers read contracts too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LATENT_DTYPES = ("float16", "bfloat16")  # of mean and logvar; numpy knows no bfloat16, its bits are kept as uint16
TOKEN_DTYPE = "int32"


class ContractError(ValueError):
    """An invalid contract: one line says what is wrong with it."""


@dataclass(frozen=True)
class Contract:
    """What made a latent. Latents whose contracts have one digest may be mixed in a batch."""

    vae: str  # the kind: "clipmill causal VAE", "AutoencoderKLWan", ...
    fingerprint: str  # sha256 of the VAE's weights and config
    preprocessing: int  # stages.windows.window.PREPROCESSING_VERSION
    fps: float  # frames a second that the clips were resampled to
    channels: int
    time_stride: int
    first_frame: bool  # True: 1 + k n frames give 1 + n latents; False: k n give n
    space_stride: int
    mean: tuple[float, ...]  # per channel, of latents as the VAE gives them: a trainer sees (z - mean) / std
    std: tuple[float, ...]
    dtype: str  # of stored mean and logvar ('float16', 'bfloat16'), or of tokens ('int32')
    hdr: str = "tone_map"  # what became of PQ and HLG: stages.decode.rendering.HdrMode
    deinterlace: str = "auto"  # what became of interlaced frames: stages.decode.rendering.DeinterlaceMode
    codebook: int | None = None  # how many tokens there are; None for continuous latents
    text: dict[str, Any] | None = None  # encoder, fingerprint, dim, max_tokens, fields: {"text": "caption", ...}

    def __post_init__(self) -> None:
        object.__setattr__(self, "fps", float(self.fps))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        allowed = LATENT_DTYPES if self.codebook is None else (TOKEN_DTYPE,)
        if self.dtype not in allowed:
            raise ContractError(f"dtype {self.dtype!r} of stored latents: expected {' or '.join(allowed)}")
        for name in ("channels", "time_stride", "space_stride"):
            if getattr(self, name) < 1:
                raise ContractError(f"{name} {getattr(self, name)!r}: expected 1 or more")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ContractError(f"fps {self.fps!r}: expected a positive number")
        if self.codebook is not None and not self.mean and not self.std:
            return  # tokens are not scaled
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.channels or not all(math.isfinite(value) for value in values):
                raise ContractError(f"{name} {values!r}: expected {self.channels} finite numbers, one a channel")
        if min(self.std) <= 0:
            raise ContractError(f"std {self.std!r}: expected positive numbers")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives the same contract back."""
        return dataclasses.asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Contract:
        """ContractError for keys that are missing or unknown, and for values of the wrong kind."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        missing = [n for n, f in fields.items() if n not in found and f.default is dataclasses.MISSING]
        unknown = sorted(set(found) - set(fields))
        if missing or unknown:
            raise ContractError(f"no contract of this version: {', '.join(missing or unknown)} "
                                f"{'missing' if missing else 'unknown'}")  # fmt: skip
        try:
            return cls(**{name: found[name] for name in fields if name in found})
        except ContractError:
            raise
        except (TypeError, ValueError) as error:
            raise ContractError(f"no contract: {error}") from error

    def to_json(self) -> str:
        """The contract as a table's row has it."""
        return canonical(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Contract:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ContractError(f"no contract: {error}") from error
        if not isinstance(found, dict):
            raise ContractError(f"no contract: {text[:60]!r}")
        return cls.from_dict(found)

    @property
    def digest(self) -> str:
        """32 hex digits over all of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]

    def differences(self, other: Contract) -> list[str]:
        """One line for each entry that differs, with both values: 'fingerprint: ab12… here, cd34… there'."""
        mine, others = self.to_dict(), other.to_dict()
        return [f"{name}: {_short(mine[name])} here, {_short(others[name])} there"
                for name in mine if mine[name] != others[name]]  # fmt: skip

    def latent_shape(self, bucket: str) -> tuple[int, ...]:
        """(Z, T, h, w) of a latent of a bucket 'FRAMESxHEIGHTxWIDTH' in pixels; (T, h, w) of tokens.

        ContractError where the frames or the size can't be had with this VAE.
        """
        frames, height, width = sizes(bucket)
        first = int(self.first_frame)
        if height % self.space_stride or width % self.space_stride:
            raise ContractError(f"bucket {bucket}: height and width must be multiples of {self.space_stride}")
        if frames < 1 or (frames - first) % self.time_stride:
            rule = "1 + " * first + f"{self.time_stride} n"
            raise ContractError(f"bucket {bucket}: this VAE takes {rule} frames, not {frames}")
        space = (height // self.space_stride, width // self.space_stride)
        latents = (first + (frames - first) // self.time_stride, *space)
        return latents if self.codebook is not None else (self.channels, *latents)


def sizes(bucket: str) -> tuple[int, int, int]:
    """(frames, height, width) in pixels of a bucket's name, such as '17x256x256'."""
    parts = bucket.split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ContractError(f"bucket {bucket!r}: expected FRAMESxHEIGHTxWIDTH, such as 17x256x256")
    return int(parts[0]), int(parts[1]), int(parts[2])


def canonical(found: Any) -> str:
    """JSON that is the same for the same content, whatever the order of its keys. No NaN."""
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _short(value: Any) -> str:
    """A value as a message shows it: long hashes cut, long lists and mappings to their beginning."""
    if isinstance(value, str):
        return value if len(value) <= 32 else f"{value[:12]}…"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}…"
