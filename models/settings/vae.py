"""Settings of the causal VAE, and its sizes. No torch here: settings are read long before a network is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from models.settings.validation import CheckedSettings, ConfigError, at_least

STRIDE = 4  # frames per latent, after the first
CODES, LEVELS = 8192, (8, 8, 8, 5, 5, 5)  # of the vq and fsq quantizers, unless `quantizer_options` says otherwise
FLAT, CAUSAL = 1, 3  # kernel sizes in time: a frame alone, or with the two frames before it


@dataclass(frozen=True)
class VAESettings(CheckedSettings):
    """The network reduces time 4x, and height and width 2x for each of the `multipliers` but the last: 8x for four.

    `variant` says which convolutions see more than their own frame (OD-VAE, Chen et al. 2024, 3.2): all (1); every
    second one (2: the first of each residual block, the paper does not say which); those of the inner half of the
    levels (3); or those and the whole decoder (4, the published model). Halving in time is causal in all of them.
    Raises ConfigError for what can't be built.
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
        super().__post_init__()
        options = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.quantizer_options.items()
        }
        object.__setattr__(self, "quantizer_options", options)  # as JSON has it, so that settings compare equal
        if len(self.multipliers) < 3:
            raise ConfigError(f"multipliers {list(self.multipliers)}: time is halved twice, which takes three levels")
        at_least(self, channels=1, width=1, encoder_blocks=1, decoder_blocks=1, groups=1, multipliers=1)
        if self.shortcut and self.channels > (most := 12 * self.space**2):
            raise ConfigError(f"channels {self.channels}: a shortcut has at most {most}, the numbers in a patch")

    @property
    def space(self) -> int:
        """Pixels per latent along height, and along width."""
        return 2 ** (len(self.multipliers) - 1)

    def taps(self, part: Literal["encoder", "decoder"], level: int, second: bool = False) -> int:
        """Kernel size in time of a convolution of a level (0 is the outermost): the first of a residual block, or the
        `second`.
        """
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
    """Settings of a VAE of that size, with `changes`. Raises ConfigError for an unknown size or setting."""
    if name not in SIZES:
        raise ConfigError(f"unknown VAE size {name!r}: {', '.join(SIZES)}")
    return VAESettings.from_dict({**SIZES[name].to_dict(), **changes})
