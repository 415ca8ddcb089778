"""Settings of the diffusion transformer and of the token transformer, and their published sizes. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from models.settings.validation import CheckedSettings, ConfigError, at_least, from_0_to_below


@dataclass(frozen=True, kw_only=True)
class BlockSettings(CheckedSettings):
    """What both networks have. Raises ConfigError for what can't be built."""

    width: int  # channels of a token
    depth: int  # blocks
    heads: int
    mlp: float = 4.0  # hidden channels of the feed-forward part, times the width
    qk_norm: bool = True  # RMS norm of queries and keys (ViT-22B, Dehghani et al. 2023)
    text_dim: int = 0  # channels of a text token; 0: no text, and no cross-attention
    conditions: tuple[str, ...] = ()  # names of the numbers given beside the text, in their order
    rotary_base: float = 10_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.conditions)) < len(self.conditions):
            raise ConfigError(f"conditions {list(self.conditions)}: a list of names, each once")
        at_least(self, width=1, depth=1, heads=1, text_dim=0)
        head, rest = divmod(self.width, self.heads)
        if rest or head % 2 or head < 6:
            raise ConfigError(f"width {self.width} and {self.heads} heads: width / heads must be even and at least 6")
        if not int(self.width * self.mlp) >= 1:
            raise ConfigError(f"mlp {self.mlp!r}: above 0")
        if not self.rotary_base > 1:
            raise ConfigError(f"rotary_base {self.rotary_base!r}: above 1")


@dataclass(frozen=True, kw_only=True)
class DiTSettings(BlockSettings):
    """`attention`: "full", every token to every token, or "factorised", within a frame and then along time.

    The first `mixer_depth` blocks see all tokens; in training a share `mask_ratio` of the tokens is dropped after them
    (deferred masking, MicroDiT, Sehwag et al. 2024).
    """

    channels: int = 8  # of a latent
    patch: tuple[int, int, int] = (1, 2, 2)  # latents to a token, along time, height and width
    attention: Literal["full", "factorised"] = "full"
    mixer_depth: int = 0
    mask_ratio: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, channels=1, patch=1, mixer_depth=0)
        from_0_to_below(self, 1, "mask_ratio")
        if self.mask_ratio and self.attention != "full":
            raise ConfigError("mask_ratio needs attention full: the tokens that remain form no rows and columns")


@dataclass(frozen=True, kw_only=True)
class TokenSettings(BlockSettings):
    """Of the causal transformer over the tokens of a quantizer."""

    codes: int  # different tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, codes=1)


SIZES = {
    # Trains on a CPU in minutes.
    "debug": {"width": 128, "depth": 4, "heads": 4},
    # DiT, Peebles and Xie 2023, table 1; SiT, Ma et al. 2024.
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
    # XL with wider heads, which attention kernels compute at a higher rate than heads of 72.
    "XL128": {"width": 1152, "depth": 28, "heads": 9},
}


def sized(name: str, **changes: Any) -> DiTSettings:
    """Settings of a DiT of that size, with `changes`. Raises ConfigError for an unknown size or setting."""
    return DiTSettings.from_dict({**_size(name), **changes})


def sized_tokens(name: str, codes: int, **changes: Any) -> TokenSettings:
    """Settings of a token transformer of that size, with `changes`, as `sized`."""
    return TokenSettings.from_dict({**_size(name), "codes": codes, **changes})


def _size(name: str) -> dict[str, int]:
    if name not in SIZES:
        raise ConfigError(f"unknown size {name!r}: {', '.join(SIZES)}")
    return SIZES[name]
