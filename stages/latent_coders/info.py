"""Describes a VAE before it is loaded: strides, channels, scaling of latents, fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

from stages.base import SettingsError


@dataclass(frozen=True)
class CoderInfo:
    """`kind` is 'clipmill causal VAE' or a class of diffusers. 1 + `time_stride` n frames give 1 + n latents where
    `first_frame` is True, time_stride * n frames n where it is not. What a network should see is (z - `mean`) /
    `std`, one number a channel each.
    """

    kind: str
    channels: int
    time_stride: int
    first_frame: bool
    space_stride: int
    codebook: int | None  # how many different tokens; None: continuous latents
    fingerprint: str  # sha256 of weights and config
    mean: tuple[float, ...]
    std: tuple[float, ...]
    path: str  # the folder on this machine
    frame_step: int = 0  # clips are 1 + frame_step * n frames long: a multiple of time_stride, that itself by default
    streams: bool = False  # can go through a clip in pieces of any number of frames
    note: str = ""  # a warning for whoever encodes with it, one line

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_step", self.frame_step or self.time_stride)

    def check_frames(self, frames: int) -> None:
        """Raises ValueError, with what would do, for a number of frames that the coder does not take."""
        step, first = self.frame_step, int(self.first_frame)
        if frames >= max(1, first) and not (frames - first) % step:
            return
        below = max(first or step, frames - (frames - first) % step)
        near = f"{below}" if frames < below else f"{below} or {below + step}"
        rule = f"1 + {step}n" if first else f"multiples of {step}"
        raise ValueError(f"a clip of {frames} frames: {self.kind} takes {rule}, {near} would do")

    def check_chunk(self, chunk: int | None) -> None:
        """Raises SettingsError for pieces of so many frames where the coder takes none, or not these."""
        if chunk is None:
            return
        if not self.streams:
            raise SettingsError(f"chunk {chunk}: {self.kind} goes through a clip in its own way; leave out chunk")
        if chunk < self.time_stride:
            raise SettingsError(f"chunk {chunk}: at least {self.time_stride} frames, which make a latent")

    def check_size(self, height: int, width: int) -> None:
        """Raises ValueError for a picture whose sides, in pixels, are no multiples of the stride."""
        if any(side < self.space_stride or side % self.space_stride for side in (height, width)):
            raise ValueError(f"{width} x {height} pixels: {self.kind} takes multiples of {self.space_stride}")

    def check_latents(self, latents: int) -> None:
        """Raises ValueError for a number of latents that no clip gives."""
        first = int(self.first_frame)
        self.check_frames(first + (latents - first) * self.time_stride)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(Z, T, h, w) of such a clip. Raises ValueError for one that the coder does not take."""
        self.check_frames(frames)
        self.check_size(height, width)
        first = int(self.first_frame)
        latents = first + (frames - first) // self.time_stride
        return self.channels, latents, height // self.space_stride, width // self.space_stride
