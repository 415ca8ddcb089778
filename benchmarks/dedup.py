"""Duplicates at scale on made-up hashes, and how many planted copies of real and drawn films are found.

    python benchmarks/dedup.py [--clips 100000 1000000 5000000] [--frames 4] [--new 0.001] [--films] [--videos]

Clips come from a DuckDB table as they do from a catalog, each with the hashes of `--frames` frames at random.
Planted are one in twenty: copies of another clip, of all its frames or of half of them, each frame some bits
off. Then `--new` of the clips come in a second run. Each size runs in a process of its own. `--films` and
`--videos` (those in $CLIPMILL_VIDEOS, else in ../shared/videos) encode copies of films, ingest them through
the product and count pairs of clips. Goals: 5,000,000 in under 600 s and 6 GB on two cores, near linear;
recall of near duplicates 0.95 at precision 0.98.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from measuring import peak_memory, show

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PLANTED = 0.05  # of the clips are copies
CROWDED = 0.01  # of the clips begin with the one frame of a title card, and are no copies for that
PLAIN = 0.01  # of the clips are black throughout
MEAN_BITS = 3.0  # by which a copy's frame differs, Poisson: what re-encoding does (see docs/duplicates.md)


def made_up(clips: int, frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (clips, frames) uint64, 0 where there is no frame, and the original of every clip (itself: none)."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (clips, frames), dtype=np.uint64)
    hashes[rng.random(clips) < CROWDED, 0] = np.uint64(0x5A3C96E10F87B4D2)
    plain = rng.random(clips) < PLAIN
    hashes[plain] = rng.integers(1, 4, (int(plain.sum()), frames), dtype=np.uint64)
    original = np.arange(clips)
    copies = rng.choice(clips, int(clips * PLANTED), replace=False)
    sources = rng.integers(0, clips, len(copies))
    fit = ~np.isin(sources, copies) & ~plain[sources]
    copies, sources = copies[fit], sources[fit]
    original[copies] = sources
    copied = hashes[sources]
    for _ in range(12):  # Poisson in rounds of one bit
        flips = rng.random(copied.shape) < MEAN_BITS / 12
        copied ^= np.where(flips, np.uint64(1) << rng.integers(0, 64, copied.shape, dtype=np.uint64), np.uint64(0))
    halves = rng.random(len(copies)) < 0.5
    copied[halves, frames // 2 :] = 0
    hashes[copies] = copied
    return hashes, original


def as_catalog(hashes: np.ndarray) -> duckdb.DuckDBPyConnection:
    """The views that the stage reads; clip n's id begins with n in hex."""
    sql = duckdb.connect()
    sql.register("given", pa.table({f"h{i}": column for i, column in enumerate(hashes.T)}))
    digits = " || ".join(f"CASE WHEN h{i} = 0 THEN '' ELSE printf('%016x', h{i}) END" for i in range(hashes.shape[1]))
    sql.sql(f"""
        CREATE TABLE clips AS SELECT printf('%08x%024x', n, 0) AS clip_id, printf('%032x', n) AS source_id,
            'video' AS media, 0::BIGINT AS start_pts, 100::BIGINT AS end_pts, 640 AS width, 360 AS height,
            phash_frames FROM (SELECT {digits} AS phash_frames, row_number() OVER () - 1 AS n FROM given)""")
    sql.sql("CREATE VIEW sources AS SELECT source_id, source_id AS content_hash FROM clips")
    sql.unregister("given")
    return sql


def scale(clips: int, frames: int, new: float) -> dict[str, Any]:
    from curate.global_stages.duplicates.settings import DuplicateSettings
    from curate.global_stages.duplicates.stage import Duplicates

    hashes, original = made_up(clips, frames)
    sql = as_catalog(hashes)
    count = int((hashes != 0).sum())
    del hashes
    stage = Duplicates(DuplicateSettings())
    stop, found = threading.Event(), {}
    watch = threading.Thread(target=peak_memory, args=(stop, found))
    watch.start()

    def timed(select: str, previous: pa.Table | None) -> tuple[pa.Table, float]:
        began = time.monotonic()
        return stage.compute(sql, select, previous), time.monotonic() - began

    whole, seconds = timed("SELECT clip_id FROM clips", None)
    stop.set()
    watch.join()
    late = f"hash(clip_id) % 1000000 < {round(new * 1e6)}"
    before, _ = timed(f"SELECT clip_id FROM clips WHERE NOT {late}", None)
    again, more = timed("SELECT clip_id FROM clips", before)
    cluster = np.array([int(text[:8], 16) for text in whole["duplicate_cluster"].to_pylist()])
    copies = np.flatnonzero(original != np.arange(clips))
    hit = cluster[copies] == cluster[original[copies]]
    # Pairs (head of a cluster, other member) that come from different originals are wrong.
    members = np.flatnonzero(cluster != np.arange(clips))
    wrong = int((original[members] != original[cluster[members]]).sum())
    return {
        "clips": clips,
        "hashes": count,
        "seconds": round(seconds, 1),
        "peak_gb": round(found["peak"] / 2**30, 2),
        "planted": len(copies),
        "recall": round(float(hit.mean()), 4),
        "precision": round(1 - wrong / max(1, len(members)), 4),
        "second_run_new_clips": before.num_rows and clips - before.num_rows,
        "second_run_seconds": round(more, 1),
        "second_run_same_table": again.equals(whole),
    }


def apart(clips: int, frames: int, new: float) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), "--one", str(clips), str(frames), str(new)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


PIPELINE = """\
recipes:
  ingest:
    stages:
      - cut: {min_seconds: 1, max_seconds: 20}
      - measure: [phash]
"""


def copies_found(films: list[Path]) -> dict[str, Any]:
    """Copies of every film in every way, ingested and judged; counts pairs of clips."""
    from curate.catalog.catalog import Catalog
    from curate.catalog.views import connect
    from curate.global_stages.duplicates.settings import DuplicateSettings
    from curate.global_stages.duplicates.stage import Duplicates
    from curate.run.command import RunOptions, run_recipes
    from tests.planted import COPIES, QUALITIES, compare, plant, shown_by

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "films").mkdir()
        for film in films:
            (folder / "films" / film.name).write_bytes(film.read_bytes())
        truth = plant(sorted((folder / "films").iterdir()), folder / "films", COPIES)
        (folder / "pipelines.yaml").write_text(PIPELINE)
        run_recipes(
            ["ingest"], str(folder / "catalog"), [str(folder / "films")], folder / "pipelines.yaml", (),
            RunOptions(engine="inline", quiet=True),
        )  # fmt: skip
        with connect(Catalog.open(str(folder / "catalog"))) as sql:
            shown = shown_by(sql, truth)
            table = Duplicates(DuplicateSettings(exact=False)).compute(sql, "SELECT clip_id FROM clips", None)
            names = dict(sql.execute("SELECT clip_id, parse_filename(uri) FROM clips").fetchall())
    cluster = dict(zip(table["clip_id"].to_pylist(), table["duplicate_cluster"].to_pylist(), strict=True))
    result: dict[str, Any] = {}
    for label, ways in (("three qualities", QUALITIES), ("all ways", COPIES)):
        there = {c: s for c, s in shown.items() if names[c] in truth and _made(names[c], ways)}
        found = compare(cluster, there)
        result[label] = {
            "clips": len(there),
            "planted_pairs": found.planted,
            "recall": round(found.recall, 4),
            "precision": round(found.precision, 4),
        }
    return result


def _made(name: str, ways: dict[str, Any]) -> bool:
    from tests.planted import COPIES

    way = next((way for way in COPIES if Path(name).stem.endswith(f" {way}")), None)
    return way is None or way in ways


def drawn() -> dict[str, Any]:
    from curate.demo.films import draw_films

    with tempfile.TemporaryDirectory() as name:
        films = [
            Path(name) / film.name
            for film in draw_films(Path(name))
            if film.media == "video" and not film.duplicate_of and "dark" not in film.flaws
            and film.name != "phone.mp4"  # a copy made by PyAV loses the rotation, and is another picture
        ]  # fmt: skip
        return copies_found(films)


def real() -> dict[str, Any]:
    from tests.films import videos
    from tests.planted import Change, write_copy

    folder = videos()
    if folder is None:
        sys.exit("no folder of videos: set CLIPMILL_VIDEOS")
    with tempfile.TemporaryDirectory() as name:
        films = []
        for film in sorted(folder.iterdir()):
            if film.suffix in (".mp4", ".mkv"):
                small = Path(name) / f"{film.stem}.mp4"  # 2160p would be encoded nine times
                write_copy(film, small, Change(crf=16, scale=0.25 if "2160" in film.name else 1.0))
                films.append(small)
        return copies_found(films)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="*", default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--new", type=float, default=0.001)
    parser.add_argument("--films", action="store_true")
    parser.add_argument("--videos", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(scale(int(args.one[0]), int(args.one[1]), float(args.one[2]))))
        return
    result: dict[str, Any] = {"scale": [apart(clips, args.frames, args.new) for clips in args.clips]}
    if len(result["scale"]) > 1:
        first, last = result["scale"][0], result["scale"][-1]
        growth = np.log(last["seconds"] / first["seconds"]) / np.log(last["clips"] / first["clips"])
        result["seconds_grow_with_clips_to_the_power"] = round(float(growth), 3)
    if args.films:
        result["drawn_films"] = drawn()
    if args.videos:
        result["real_videos"] = real()
    show(result)


if __name__ == "__main__":
    main()
