"""What a changed caption costs: one of 10,000 rows of a manifest, from the manifest to the shards.

    python benchmarks/changed_caption.py [--rows 10000] [--rounds 3] [--folder DIR]

A catalog of --rows films (links to eight drawn ones, 16 frames of 32 pixels, one clip each) is ingested, captioned from
the manifest and encoded with the captions' embeddings (the small OpenCLIP model that ships, a VAE of the size `debug`).
Then every film is deleted, one caption is changed, and `clipmill run ingest captions latents --input MANIFEST` runs as
a process of its own. It is counted how many texts its text encoder and how many videos its VAE were given, and which
rows of the catalog became others. Goal: one text, no video, less than 10 seconds. Beside it stands what the import of
torch and open_clip alone takes, the largest part. --folder keeps what was built, and takes it again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from measuring import median, show

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect

DISTINCT, FRAMES, SIDE = 8, 16, 32
RECIPES = """\
recipes:
  ingest:
    stages: [cut: {{detector: fixed, seconds: 60, min_seconds: 0}}, measure: [motion]]
  captions:
    select: SELECT * FROM clips
    stages: [caption: {{source: manifest}}]
  latents:
    select: SELECT * FROM clips
    stages:
      - encode:
          vae: {vae}
          buckets: [1x32x32]
          fps: 8
          text: {{model: "clipmill:tiny_clip", captions: [caption]}}
"""
COUNTING = """\
import json, sys, time
from curate.cli.main import main
from stages.encode.network import Network
from stages.text_encoders.encoder import TextEncoder
seen = {"texts": 0, "videos": 0}
texts, videos = TextEncoder.encode, Network.encode
def count_texts(self, some):
    seen["texts"] += sum(map(bool, some))
    return texts(self, some)
def count_videos(self, some):
    seen["videos"] += len(some)
    return videos(self, some)
TextEncoder.encode, Network.encode = count_texts, count_videos
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(seen, file)
sys.exit(code)
"""


def draw(path: Path, seed: int) -> None:
    """A film of moving noise, so small that decoding 10,000 of them takes minutes."""
    import av
    import numpy as np

    ground = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for index in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(ground, 2 * index, axis=1))))
        container.mux(stream.encode())


def random_vae(folder: Path) -> str:
    import torch

    from models.saved.vae_files import save
    from models.settings.vae import sized
    from models.vae.causal_vae import CausalVAE

    torch.manual_seed(0)
    save(CausalVAE(sized("debug", width=8)), folder)
    return str(folder)


def build(folder: Path, rows: int) -> None:
    """Films, manifest, recipes and a catalog in which all of it is encoded."""
    films = folder / "films"
    films.mkdir()
    for number in range(DISTINCT):
        draw(folder / f"drawn{number}.mp4", number)
    for number in range(rows):
        os.link(folder / f"drawn{number % DISTINCT}.mp4", films / f"{number:06d}.mp4")
    said = [[f"films/{number:06d}.mp4", f"film {number} of many"] for number in range(rows)]
    write_manifest(folder, [["path", "caption"], *said])
    (folder / "pipelines.yaml").write_text(RECIPES.format(vae=random_vae(folder / "vae")))
    run(folder, "ingest", "captions", "latents")
    shutil.rmtree(films)


def write_manifest(folder: Path, rows: list[list[str]]) -> None:
    with open(folder / "films.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def change_caption(folder: Path, number: int, caption: str) -> None:
    with open(folder / "films.csv", newline="") as file:
        rows = list(csv.reader(file))
    rows[1 + number][1] = caption
    write_manifest(folder, rows)


def run(folder: Path, *recipes: str) -> tuple[float, float, dict[str, int]]:
    """(seconds, CPU seconds of the process and its children, what was counted) of `clipmill run`."""
    counts = folder / "counts.json"
    options = ["--input", "films.csv", "--catalog", "catalog", "--pipelines", "pipelines.yaml", "--engine", "inline"]
    before, began = psutil.Process().cpu_times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, str(counts), "run", *recipes, *options], cwd=folder, capture_output=True,
        text=True,
    )  # fmt: skip
    seconds, after = time.monotonic() - began, psutil.Process().cpu_times()
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent, json.loads(counts.read_text())


def import_seconds() -> float:
    """Seconds of a process that imports what the text encoder needs, and does nothing."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import open_clip"], check=True)
    return time.monotonic() - began


def rows_of(folder: Path) -> dict[str, set[Any]]:
    """What tells the rows of each table from others: what was made again is another row."""
    with connect(Catalog.open(str(folder / "catalog"))) as sql:
        return {
            table: set(sql.execute(f"SELECT clip_id, committed_at FROM {table}").fetchall())
            for table in ("captions", "latents")
        } | {"clips": set(sql.execute("SELECT clip_id, pass FROM raw.clips").fetchall())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the catalog is built, or was; default: a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary, "made")).absolute()
        if not folder.exists():
            folder.mkdir(parents=True)
            build(folder, args.rows)
        found: list[tuple[float, float]] = []
        imports: list[float] = []
        for turn in range(args.rounds):
            before = rows_of(folder)
            change_caption(folder, turn, f"another caption, of round {turn} at {time.time():.0f}")
            seconds, cpu, seen = run(folder, "ingest", "captions", "latents")
            made = {table: len(rows - before[table]) for table, rows in rows_of(folder).items()}
            found.append((seconds, cpu))
            imports.append(import_seconds())
            if turn == 0:
                first = {"re_embedded_texts": seen["texts"], "encoded_videos": seen["videos"], "rows_made_again": made}
        show(
            {
                "rows": args.rows, "rounds": args.rounds, "load": round(os.getloadavg()[0], 1),
                "seconds": median([s for s, _ in found]), "cpu_seconds": median([c for _, c in found]),
                "import_seconds": median(imports), **first,
            }
        )  # fmt: skip


if __name__ == "__main__":
    main()
