"""Writes the demo's page: what curation found, the loss curves of the networks, and their samples."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from curate.demo.learning import JudgedSample, TrainingResult
from curate.run.report import FUNNEL
from models.files import write_whole

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 200, 56, 24  # of a curve, pixels
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; padding: .8rem; background: color-mix(in srgb, currentColor 7%, transparent); }
img { max-width: 100%; image-rendering: pixelated; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; }
.samples img { width: 100%; } figure { margin: 0; } figcaption { font-size: .85rem; }
.wrong { color: #c0392b; } .right { color: #1e8449; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; }
"""


def write_page(
    path: Path,
    findings: Sequence[str],
    funnel: Sequence[Sequence[str]],
    commands: Sequence[str],
    trained: TrainingResult | None,
    audit: str,
) -> None:
    """Writes one HTML file, which shows search.png, vae/, run/ and samples/ beside it if they are there.

    `findings` are lines on what was found of what was drawn, `funnel` the rows of `curate.run.report.funnel_rows`,
    `audit` where the page of the audit lies, from this page.
    """
    folder = path.parent
    parts = [
        "<h1>clipmill demo</h1>",
        "<h2>What came of the films</h2>",
        _table(FUNNEL, funnel),
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in findings if not line.startswith(" ")) + "</ul>",
    ]
    said = "The audit: what is in the catalog, what was lost and why, each number beside its SQL"
    parts.append(f'<p><a href="{escape(audit)}">{said}</a></p>')
    if (folder / "search.png").exists():
        parts += ["<h2>Where is a red circle?</h2>", _picture("search.png", "the ten nearest clips")]
    if trained is not None:
        parts += _training_parts(folder, trained)
    parts += ["<h2>The same on your own videos</h2>", f"<pre>{escape(chr(10).join(commands))}</pre>"]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>clipmill demo</title><style>{STYLE}</style>'
    write_whole(path, page + "\n".join(parts) + "</html>\n")


def _training_parts(folder: Path, trained: TrainingResult) -> list[str]:
    right = sum(each.right for each in trained.samples)
    return [
        "<h2>The VAE: clips it never saw, above what comes back</h2>",
        _picture("vae/reconstructions.png", "originals above reconstructions"),
        _curve(folder / "vae" / "log.jsonl", "loss of the VAE"),
        "<h2>The transformer</h2>",
        _curve(folder / "run" / "log.jsonl", "loss of the transformer"),
        "<h2>Samples beside their prompts</h2>",
        f"<p>{right} of {len(trained.samples)} show the colour, the shape and the direction that were asked for, "
        f"measured in their pixels; of samples of the empty prompt {trained.chance:.0%} do by chance.</p>",
        '<div class="samples">' + "".join(_sample(each) for each in trained.samples) + "</div>",
        "<h2>From a first frame</h2>",
        f"<p>First frames against those given: {min(trained.still_psnr):.1f} dB at least.</p>",
        _picture("samples/from_first_frames.gif", "videos that go on from a given first frame"),
    ]


def _sample(each: JudgedSample) -> str:
    kind = "right" if each.right else "wrong"
    seen = " ".join(word for word in (each.colour, each.shape, each.direction) if word) or "nothing"
    return (
        f'<figure><img src="samples/{each.file}" alt="{escape(each.prompt)}"><figcaption>{escape(each.prompt)}<br>'
        f'<span class="{kind}">seen: {escape(seen)}</span></figcaption></figure>'
    )


def _picture(source: str, alt: str) -> str:
    return f'<p><img src="{source}" alt="{escape(alt)}"></p>'


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{"number" if i else ""}">{escape(str(v))}</td>' for i, v in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _curve(log: Path, title: str) -> str:
    """The loss by step, on a logarithmic scale, as SVG."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    points = [
        (line["step"], line["loss"]) for line in lines if isinstance(line.get("loss"), float) and line["loss"] > 0
    ]
    if len(points) < 2:
        return ""
    steps, logs = [step for step, _ in points], [math.log10(loss) for _, loss in points]
    low, high = min(logs), max(max(logs), min(logs) + 1e-6)
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def place(step: float, log_loss: float) -> str:
        x = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - 8)
        y = 8 + (high - log_loss) / (high - low) * (HEIGHT - BOTTOM - 8)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(step, each) for step, each in zip(steps, logs, strict=True))
    labels = "".join(
        f'<text x="4" y="{float(place(first, each).split(",")[1]) + 4:.0f}">{10**each:.3g}</text>'
        for each in (low, high)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"><polyline points="{line}" '
        f'fill="none" stroke="currentColor" stroke-width="1.2"/>{labels}'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">step {first:,}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">step {steps[-1]:,}: {escape(title)}</text></svg>'
    )
