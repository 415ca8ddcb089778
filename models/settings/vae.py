"""What can be chosen about the causal VAE. No torch here: settings are read long before a network is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FLAT, CAUSAL = 1, 3  # sizes in time of a convolution: of its own frame, or of two before it as well


@dataclass(frozen=True)
class VAESettings:
    """A network 4x in time and 2x in space for each of the `multipliers` but the last: 8x for four.

    `variant` says which convolutions see more than their frame (OD-VAE, Chen et al. 2024, 3.2): all (1), every
    second (2; the first of each residual block, the paper does not say which), those of the inner half of the
    levels (3), or those and the whole decoder (4, the published model). Halving in time is causal in all of them.
    Raises ValueError for what can't be built.
    """

    variant: Literal[1, 2, 3, 4] = 4
    channels: int = 4  # of a latent, z
    width: int = 128  # channels at full size; a level has its multiple of them
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    encoder_blocks: int = 2  # residual blocks per level
    decoder_blocks: int = 3
    norm: Literal["group", "rms"] = "group"
    groups: int = 32
    shortcut: bool = False  # add a linear map around encoder and decoder (models/vae/layers/shortcut.py)
    quantizer: Literal["kl", "vq", "lfq", "fsq"] = "kl"
    quantizer_options: dict[str, Any] = field(default_factory=dict)  # arguments of the quantizer's class

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))  # a list, where it comes from JSON
        options = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.quantizer_options.items()
        }
        object.__setattr__(self, "quantizer_options", options)
        if self.variant not in (1, 2, 3, 4):
            raise ValueError(f"variant {self.variant!r}: there are 1, 2, 3 and 4")
        if len(self.multipliers) < 3:
            raise ValueError(f"multipliers {list(self.multipliers)}: time is halved twice, which takes three levels")
        counts = {name: getattr(self, name) for name in ("channels", "width", "encoder_blocks", "decoder_blocks")}
        for name, count in {**counts, "groups": self.groups, "multipliers": min(self.multipliers)}.items():
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} {count!r}: a whole number from 1 on is needed")
        if self.shortcut and self.channels > (most := 12 * self.space**2):
            raise ValueError(f"channels {self.channels}: a shortcut has at most {most}, the numbers in a patch")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VAESettings:
        """Raises ValueError for a setting that there is not."""
        known = [each.name for each in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"unknown VAE setting {', '.join(unknown)}: there are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**dataclasses.asdict(self), "multipliers": list(self.multipliers)}

    @property
    def space(self) -> int:
        """Pixels to a latent, along height and width."""
        return 2 ** (len(self.multipliers) - 1)

    def taps(self, part: Literal["encoder", "decoder"], level: int, second: bool = False) -> int:
        """Size in time of a convolution at a level (0 is the outermost), `second` of its pair or not."""
        if self.variant == 1:
            return CAUSAL
        if self.variant == 2:
            return FLAT if second else CAUSAL
        outer = level < len(self.multipliers) // 2
        return FLAT if outer and (part == "encoder" or self.variant == 3) else CAUSAL


SIZES = {
    # 239.19 M parameters: 94.40 M encode, 144.79 M decode.
    "published": VAESettings(),
    # Trains on a CPU in minutes.
    "debug": VAESettings(
        variant=3, channels=8, width=8, encoder_blocks=1, decoder_blocks=1, norm="rms", groups=8, shortcut=True
    ),
}


def sized(name: str, **changes: Any) -> VAESettings:
    """The settings of that size with some of them changed. Raises ValueError for a size that there is not."""
    if name not in SIZES:
        raise ValueError(f"unknown VAE size {name!r}: {', '.join(SIZES)}")
    return VAESettings.from_dict({**SIZES[name].to_dict(), **changes})
