"""Pictures a second through the largest CLIP of the embed stage: bare, and with the stage's own work."""

from __future__ import annotations

from typing import Any

from gpu.report import Report

PICTURES = 4096


def run(report: Report, device: str) -> None:
    report.case("ViT-L-14", lambda: through(device), least=25 if device == "cuda" else 0)


def through(device: str) -> dict[str, Any]:
    from embed import on_gpu  # benchmarks/embed.py; imports what benchmarks/gpu/wheels.txt lists

    if device != "cuda":
        return {"shown": "needs a GPU"}
    found = on_gpu("ViT-L-14", PICTURES, rounds=3)
    rates = found["images_per_s"]
    shown = f"{rates['stage']:,.0f} pictures/s, {found['of_the_bare_loop']:.3f} of bare (>= .9)"
    return {**found, "shown": shown}
