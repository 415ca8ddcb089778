"""Lengths in ticks of a container's clock: what rounding takes from a length is forgiven where it is compared.

Matroska, WebM, FLV and ASF count milliseconds, so 48 frames at 24 a second may have 1.999 s. Where a frame has fewer
than four ticks the clock counts frames (AVI: one each), and nothing is forgiven.
"""

from __future__ import annotations

from fractions import Fraction

LEAST_TICKS = 4  # of a frame, for its times to count as rounded
UNKNOWN_FPS = 120  # taken where the rate is not known

_ROUNDED = f"{LEAST_TICKS} * coalesce(fps, {UNKNOWN_FPS}) * time_base_num <= time_base_den"
# SQL on a row of `clips`: its length, and that of its source as stated, with what is forgiven, in seconds.
CLIP_SECONDS = f"(end_pts - start_pts + if({_ROUNDED}, 2, 0)) * time_base_num / time_base_den"
SOURCE_SECONDS = f"source_s + if({_ROUNDED}, 2.0 * time_base_num / time_base_den, 0)"


def rounding(time_base: Fraction, fps: float | None) -> int:
    """Ticks, 1 or 0, by which the time of a frame may be off from its start."""
    return int(LEAST_TICKS * Fraction(fps or UNKNOWN_FPS) * time_base <= 1)


def forgiven(time_base: Fraction, fps: float | None) -> Fraction:
    """Seconds by which a length may be off: a tick at either end."""
    return 2 * rounding(time_base, fps) * time_base
