"""What can be chosen about the diffusion transformer and the token transformer. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """What both have. Raises ValueError for what can't be built."""

    width: int  # channels of a token
    depth: int  # blocks
    heads: int
    mlp: float = 4.0  # hidden channels of the feed-forward part, times the width
    qk_norm: bool = True  # RMS norm of queries and keys (ViT-22B, Dehghani et al. 2023)
    text_dim: int = 0  # channels of a text token; 0: no text, and no cross-attention
    conditions: tuple[str, ...] = ()  # names of the numbers given beside the text, in their order
    rotary_base: float = 10_000.0

    def __post_init__(self) -> None:
        names = self.conditions
        if isinstance(names, str) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ValueError(f"conditions {names!r}: a list of names, each once")
        object.__setattr__(self, "conditions", tuple(names))  # a list, where it comes from JSON
        for name in ("width", "depth", "heads"):
            _whole(name, getattr(self, name))
        _whole("text_dim", self.text_dim, least=0)
        head, left = divmod(self.width, self.heads)
        if left or head % 2 or head < 6:
            raise ValueError(f"width {self.width} and {self.heads} heads: width / heads must be even and at least 6")
        if not int(self.width * self.mlp) >= 1:
            raise ValueError(f"mlp {self.mlp!r}: above 0")
        if not self.rotary_base > 1:
            raise ValueError(f"rotary_base {self.rotary_base!r}: above 1")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Raises ValueError for a setting that there is not, or one that is missing."""
        known = {each.name: each for each in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"unknown setting {', '.join(unknown)}: there are {', '.join(known)}")
        needed = [name for name, each in known.items() if each.default is dataclasses.MISSING]
        if missing := [name for name in needed if name not in values]:
            raise ValueError(f"setting {', '.join(missing)} is missing")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class DiTSettings(BlockSettings):
    """`attention`: "full", every token to every token, or "factorised", within a frame and then along time.

    `mixer_depth` blocks before the others see all tokens; of those, `mask_ratio` may be dropped in training after them
    (deferred masking, MicroDiT, Sehwag et al. 2024).
    """

    channels: int = 8  # of a latent
    patch: tuple[int, int, int] = (1, 2, 2)  # latents to a token, along time, height and width
    attention: Literal["full", "factorised"] = "full"
    mixer_depth: int = 0
    mask_ratio: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "patch", tuple(self.patch))
        _whole("channels", self.channels)
        if len(self.patch) != 3:
            raise ValueError(f"patch {list(self.patch)}: three numbers, along time, height and width")
        for size in self.patch:
            _whole("patch", size)
        if self.attention not in ("full", "factorised"):
            raise ValueError(f"unknown attention {self.attention!r}: there are full, factorised")
        _whole("mixer_depth", self.mixer_depth, least=0)
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio!r}: from 0 to below 1")
        if self.mask_ratio and self.attention != "full":
            raise ValueError("mask_ratio needs attention full: tokens left over are in no rows and columns")


@dataclass(frozen=True, kw_only=True)
class TokenSettings(BlockSettings):
    """Of the causal transformer over the tokens of a quantiser."""

    codes: int  # different tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        _whole("codes", self.codes)


SIZES = {
    # Trains on a CPU in minutes.
    "debug": {"width": 128, "depth": 4, "heads": 4},
    # DiT, Peebles and Xie 2023, table 1; SiT, Ma et al. 2024.
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
}


def sized(name: str, **changes: Any) -> DiTSettings:
    """A DiT of that size with other settings as given. Raises ValueError for a size or setting that there is not."""
    return DiTSettings.from_dict({**_size(name), **changes})


def sized_tokens(name: str, codes: int, **changes: Any) -> TokenSettings:
    """A token transformer of that size, as `sized`."""
    return TokenSettings.from_dict({**_size(name), "codes": codes, **changes})


def _size(name: str) -> dict[str, int]:
    if name not in SIZES:
        raise ValueError(f"unknown size {name!r}: {', '.join(SIZES)}")
    return SIZES[name]


def _whole(name: str, value: Any, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} {value!r}: a whole number from {least} on is needed")
