"""Milliseconds of the pages of `clipmill browse` over a made-up catalog of a million clips, asked over HTTP.

    python benchmarks/browse.py [--clips 1000000] [--rounds 7] [--catalog FOLDER]

Clips have 20 signals, a caption of 60 words, a duplicates table and an aesthetic score, each table in files as runs
commit them, and three gates; every fourth has a thumbnail of a few kilobytes. `--catalog` keeps the catalog there and
takes the one that is there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow as pa
from measuring import machine, median

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from curate.catalog.schema import PASS

PART = 50_000  # clips of one file
OF_A_FILM = 20
SIGNALS = ["motion", "sharpness", "luma_mean", *(f"signal_{number:02}" for number in range(17))]
WORDS = np.array(["red", "circle", "moves", "left", "over", "blue", "ground", "camera", "slowly", "pans", "street",
                  "night", "people", "walking", "shop", "windows", "soft", "warm", "light", "rain",
                  "falls"])  # fmt: skip
GATES = {"moving": "motion >= -1", "sharp": "sharpness > -1", "pretty": "aesthetic > 4"}
KEPT = {"column": "verdict", "operator": "=", "value": "kept"}
# What is asked, as the page asks it: of a selection, its first page and the one behind it, and how many clips it has.
SELECTIONS: dict[str, dict[str, Any]] = {
    "as they lie": {},
    "kept, by a signal": {"filters": [KEPT], "order": "motion", "descending": True},
    "by a text": {"order": "uri"},
    "three filters": {
        "filters": [KEPT, {"column": "width", "operator": "=", "value": "1280"},
                    {"column": "signal_03", "operator": ">", "value": "1.5"}],
        "order": "signal_03",
    },
    "a word of the caption": {"filters": [{"column": "caption", "operator": "contains", "value": "Rain"}]},
    "brought back by a gate": {
        "gate": {"where": "motion >= -2", "instead": "ingest.moving"}, "change": "newly kept", "order": "motion",
    },
    "a query of the user's": {"query": "SELECT clip_id FROM clips WHERE signal_07 > 2 AND duplicate_count > 1"},
}  # fmt: skip


def make(folder: Path, clips: int) -> None:
    catalog = Catalog.open_or_create(str(folder))
    catalog.create()
    rng = np.random.default_rng(0)
    jpegs = []
    for blur in range(16):
        noise = cv2.GaussianBlur(rng.integers(0, 255, (180, 320, 3), dtype=np.uint8), (0, 0), 3 + blur % 4)
        jpegs.append(cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    commit(catalog, "sources", "source_id", (scanned(part, rng, jpegs) for part in parts(clips)))
    commit(catalog, "captions", "clip_id", (stage(part, "captions", captions(part, rng)) for part in parts(clips)))
    commit(catalog, "duplicates", "clip_id", (stage(part, "duplicates", duplicates(part)) for part in parts(clips)))
    pretty = ({"aesthetic": rng.normal(5, 1, len(part))} for part in parts(clips))
    commit(catalog, "aesthetics", "clip_id",
           (stage(part, "aesthetics", found) for part, found in zip(parts(clips), pretty, strict=True)))  # fmt: skip
    catalog.put_gates("ingest", [Gate(name=name, where=where) for name, where in GATES.items()], "made")


def parts(clips: int) -> Iterator[np.ndarray]:
    for begin in range(0, clips, PART):
        yield np.arange(begin, min(clips, begin + PART))


def ids(part: Iterable[int]) -> list[str]:
    return [hashlib.md5(str(number).encode()).hexdigest() for number in part]


def scanned(part: np.ndarray, rng: np.random.Generator, jpegs: list[bytes]) -> dict[str, pa.Table]:
    count, scene = len(part), part % OF_A_FILM
    films = [f"{number // OF_A_FILM:032x}" for number in part]
    uris = [f"s3://bucket/films/{number // OF_A_FILM:08}.mp4" for number in part]
    clips: dict[str, Any] = {
        "clip_id": ids(part), "source_id": films, "uri": uris, "media": ["video"] * count,
        "scene": scene.astype(np.int32),
        "start_s": scene * 5.0, "end_s": scene * 5.0 + rng.uniform(2, 5, count), "start_pts": scene * 125,
        "end_pts": scene * 125 + 100, "time_base_num": np.ones(count, np.int32),
        "time_base_den": np.full(count, 25, np.int32),
        "width": rng.choice(np.array([640, 1280, 1920], np.int32), count),
        "height": rng.choice(np.array([360, 720, 1080], np.int32), count), "fps": np.full(count, 25.0),
        "frames": np.full(count, 100),
    }  # fmt: skip
    clips |= {name: rng.normal(size=count) for name in SIGNALS}
    few = part[part % 4 == 0]
    # Each picture differs, as real ones do: equal ones would be stored once.
    pictures = [jpegs[number // 4 % len(jpegs)] + number.tobytes() for number in few]
    thumbnails = {
        "clip_id": ids(few), "source_id": [f"{number // OF_A_FILM:032x}" for number in few],
        "width": np.full(len(few), 320), "height": np.full(len(few), 180), "jpeg": pa.array(pictures, pa.binary()),
    }  # fmt: skip
    of = sorted(set(films))
    sources = {"source_id": of, "uri": sorted(set(uris)), "status": ["done"] * len(of), "settings": ["made"] * len(of)}
    return {"clips": pa.table(clips), "thumbnails": pa.table(thumbnails), "sources": pa.table(sources)}


def captions(part: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    said = [" ".join(words) for words in WORDS[rng.integers(0, len(WORDS), (len(part), 60))]]
    said = [
        f"Rain. {text}" if number % 50 == 0 else text.replace("rain", "snow")
        for number, text in zip(part, said, strict=True)
    ]
    return {"caption": said, "caption_words": np.full(len(part), 60, np.int32)}


def duplicates(part: np.ndarray) -> dict[str, Any]:
    return {"duplicate_cluster": ids(part // 3 * 3), "duplicate_count": np.full(len(part), 3)}


def stage(part: np.ndarray, table: str, columns: dict[str, Any]) -> dict[str, pa.Table]:
    films = [f"{number // OF_A_FILM:032x}" for number in part]
    done = {"status": ["done"] * len(part), "settings": ["made"] * len(part)}
    return {table: pa.table({"clip_id": ids(part), "source_id": films, **done, **columns})}


def commit(catalog: Catalog, state: str, key: str, made: Iterator[dict[str, pa.Table]]) -> None:
    """Commits a file of each table for each part, as a run does."""
    with Ledger(catalog, state, key, "made") as ledger:
        writer, files = None, []
        for tables in made:
            writer = writer or ledger.begin({name: rows.schema for name, rows in tables.items()})
            number = pa.scalar(writer.pass_number, pa.int64())
            for name, rows in tables.items():
                files.append(writer.write(name, rows.add_column(0, PASS, pa.repeat(number, rows.num_rows))))
        ledger.commit(files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--catalog", type=Path)
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = args.catalog or Path(stack.enter_context(tempfile.TemporaryDirectory()), "catalog")
        if not (folder / "catalog.json").exists():
            make(folder, args.clips)
        began = time.monotonic()
        server = subprocess.Popen(
            [sys.executable, "-m", "curate.cli", "browse", "--catalog", str(folder)], stdout=subprocess.PIPE, text=True
        )
        stack.callback(server.wait)
        stack.callback(server.terminate)
        address = server.stdout.readline().strip()  # type: ignore[union-attr]
        ready = time.monotonic() - began
        resident = [process.memory_info().rss for process in psutil.Process(server.pid).children(recursive=True)]
        figures: dict[str, Any] = {"ready_s": round(ready, 1), "child_gb": round(max(resident) / 1e9, 2)}
        figures["ms"] = asked(address, args.rounds)
        print(json.dumps({**machine(), "load": os.getloadavg()[0], "clips": args.clips, **figures}, indent=1))


def asked(address: str, rounds: int) -> dict[str, Any]:
    """Median milliseconds of each question."""
    found: dict[str, Any] = {}
    for name, selection in SELECTIONS.items():
        first = timed(address, "ask/page", {"selection": selection}, rounds)
        after = first[1]["answer"]["next"]
        found[name] = {
            "first page": first[0],
            "count": timed(address, "ask/count", {"selection": selection}, rounds)[0],
        }
        if after is not None:
            found[name]["next page"] = timed(address, "ask/page", {"selection": selection, "after": after}, rounds)[0]
        clips = first[1]["answer"]["clips"]
    found["one clip"] = timed(address, "ask/clip", {"clip_id": clips[0]["clip_id"]}, rounds)[0]
    found["a gate tried"] = timed(address, "ask/try", {"gate": {"where": "motion > 0"}}, rounds)[0]
    by_signal = {"selection": {"filters": [KEPT], "order": "motion"}}
    places = [clip["place"] for clip in timed(address, "ask/page", by_signal, 1)[1]["answer"]["clips"] if clip["place"]]
    each = []
    for place in places:
        began = time.monotonic()
        urllib.request.urlopen(f"{address}thumbnail/{place}").read()
        each.append(1000 * (time.monotonic() - began))
    found["a thumbnail, of clips from everywhere"] = round(median(each))
    return found


def timed(address: str, path: str, given: dict[str, Any], rounds: int) -> tuple[list[int], dict[str, Any]]:
    """([median milliseconds, CPU milliseconds of all processes in a round], the answer)."""
    each: list[float] = []
    said: dict[str, Any] = {}
    spent = cpu_seconds()
    for _ in range(rounds):
        began = time.monotonic()
        with urllib.request.urlopen(f"{address}{path}", json.dumps(given).encode()) as answer:
            said = json.load(answer)
        each.append(1000 * (time.monotonic() - began))
    return [round(median(each)), round(1000 * (cpu_seconds() - spent) / rounds)], said


def cpu_seconds() -> float:
    """Of all processes below this one so far."""
    below = psutil.Process().children(recursive=True)
    return sum(sum(process.cpu_times()[:2]) for process in below)


if __name__ == "__main__":
    main()
