"""Seconds and memory of `clipmill audit` over made-up catalogs of 10^5, 10^6 and 10^7 clips.

    python benchmarks/audit_scale.py [--clips 100000 1000000 10000000] [--keep FOLDER]

Clips have 20 signals, ten gates, captions of 60 words with their measures, duplicates, concepts and latents; their
sources lie on 10^4 domains. The tables are committed by the catalog's own writer, file by file; no video is made.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from measuring import run_tree, show

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from curate.catalog.schema import PASS

SIGNALS = [f"signal_{number:02d}" for number in range(20)]
GATES = [Gate(name=f"gate_{number}", where=f"{SIGNALS[number]} >= -1.6") for number in range(9)]
GATES.append(Gate(name="between", where=f"{SIGNALS[9]} BETWEEN -1.8 AND 1.8"))
DOMAINS, CONCEPTS, WORDS = 10_000, 1_000, 60
ROWS = 500_000  # of a file
PER_SOURCE = 10  # clips


def make(folder: Path, clips: int) -> str:
    """A catalog of so many clips; its URI."""
    rng = np.random.default_rng(0)
    catalog = Catalog.open_or_create(str(folder))
    catalog.put_gates("ingest", GATES, None)
    sources = max(1, clips // PER_SOURCE)
    with Ledger(catalog, "sources", "source_id", "made") as ledger:
        _commit(ledger, {"clips": (_clips, clips), "sources": (_sources, sources)}, rng)
    for name, maker in {
        "captions": _captions,
        "duplicates": _duplicates,
        "concepts": _concepts,
        "latents": _latents,
    }.items():
        with Ledger(catalog, name, "clip_id", "made") as ledger:
            _commit(ledger, {name: (maker, clips)}, rng)
    return str(folder)


def _commit(ledger: Ledger, tables: dict, rng: np.random.Generator) -> None:
    schemas = {name: maker(0, 1, rng).schema for name, (maker, _) in tables.items()}
    writer = ledger.begin(schemas)
    files = []
    for name, (maker, rows) in tables.items():
        for start in range(0, rows, ROWS):
            part = maker(start, min(ROWS, rows - start), rng)
            passes = pa.repeat(pa.scalar(writer.pass_number, pa.int64()), part.num_rows)
            files.append(writer.write(name, part.add_column(0, PASS, passes)))
    ledger.commit(files)


def _ids(prefix: int, start: int, count: int) -> np.ndarray:
    """Ids that look like hashes, the same for the same number."""
    numbers = (np.arange(start, start + count, dtype=np.uint64) + np.uint64(prefix << 40)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    return np.array([f"{number:016x}{number ^ 0x5DEECE66D:016x}" for number in numbers.tolist()])


def _same(value: object, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _clips(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    numbers = np.arange(start, start + count)
    begin = (numbers % PER_SOURCE) * 5.0
    columns = {
        "clip_id": _ids(1, start, count),
        "source_id": np.repeat(_ids(2, start // PER_SOURCE, math.ceil(count / PER_SOURCE)), PER_SOURCE)[:count],
        "media": _same("video", count),
        "start_s": begin,
        "end_s": begin + rng.integers(10, 50, count) / 10,
        "width": rng.choice(np.array([640, 1280, 1920], np.int32), count),
        "height": rng.choice(np.array([360, 720, 1080], np.int32), count),
        "fps": rng.choice(np.array([24.0, 25.0, 30.0]), count),
    }
    for name in SIGNALS:
        values = rng.standard_normal(count)
        columns[name] = pa.array(values, mask=rng.random(count) < 0.01)
    return pa.table(columns)


def _sources(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    domains = np.minimum(rng.zipf(1.3, count), DOMAINS) - 1
    ids = _ids(2, start, count)
    kinds = np.array(["CC BY 4.0", "CC0", "licensed", "all rights reserved"])
    return pa.table(
        {
            "source_id": ids,
            "uri": [f"https://host{domain}.example/{name}.mp4" for domain, name in zip(domains, ids, strict=True)],
            "status": _same("done", count),
            "media": _same("video", count),
            "duration_s": _same(60.0, count),
            "bytes": rng.integers(1 << 20, 1 << 28, count),
            "clips": _same(PER_SOURCE, count),
            "codec": rng.choice(np.array(["h264", "hevc", "vp9"]), count),
            "domain": [f"host{domain}.example" for domain in domains],
            "licence": rng.choice(kinds, count, p=[0.5, 0.2, 0.2, 0.1]),
            "language": rng.choice(np.array(["en", "de", "ja"]), count),
        }
    )


def _said(start: int, count: int, **columns: object) -> pa.Table:
    """Rows of a stage on clips."""
    state = {"clip_id": _ids(1, start, count), "status": _same("done", count), "reason": pa.nulls(count, pa.string())}
    return pa.table({**state, **columns})


def _captions(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    vocabulary = np.array([f"word{number}" for number in range(5_000)])
    base = [" ".join(rng.choice(vocabulary, WORDS - 2)) for _ in range(2_000)]
    chosen = rng.integers(0, len(base), count)
    tails = rng.integers(0, 10_000, count)
    texts = [f"{base[one]} number {tail}" for one, tail in zip(chosen.tolist(), tails.tolist(), strict=True)]
    return _said(
        start,
        count,
        caption=texts,
        caption_words=rng.integers(5, 120, count).astype(np.int32),
        caption_language=rng.choice(np.array(["en", "de", "ja"]), count),
        caption_repetition=rng.random(count) ** 4,
        caption_truncated=rng.random(count) < 0.01,
        caption_clip_match=rng.normal(0.3, 0.05, count),
        model=_same("captioner", count),
        revision=_same("1", count),
    )


def _duplicates(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    """A tenth of the clips are pairs of neighbours."""
    numbers = np.arange(count)
    paired = (numbers // 2) % 10 == 0
    ids = _ids(1, start, count)
    kind = pa.array(np.where(numbers % 4 < 2, "near", "exact"), mask=~paired)
    return _said(
        start,
        count,
        duplicate_cluster=np.where(paired, ids[numbers // 2 * 2], ids),
        duplicate_keep=~(paired & (numbers % 2 == 1)),
        duplicate_kind=kind,
    )


def _concepts(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    concept = np.minimum(rng.zipf(1.2, count), CONCEPTS).astype(np.int32) - 1
    return _said(start, count, concept=concept, concept_name=[f"concept {number}" for number in concept.tolist()])


def _latents(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    shards = [f"shards/latents/17x256x256/{number // 1000:032x}.tar" for number in range(start, start + count)]
    same = {"shard_hash": "0" * 32, "index_hash": "0" * 32, "bucket": "17x256x256", "contract": '{"vae": "made"}'}
    columns = {name: _same(value, count) for name, value in same.items()}
    return _said(start, count, shard=shards, shard_bytes=_same(1 << 29, count), **columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--keep", help="a folder in which the catalogs are made and left for the next time")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for clips in args.clips:
            folder = Path(args.keep or temporary, f"catalog-{clips}")
            if not folder.exists():
                make(folder, clips)
            output = Path(temporary, f"audit-{clips}")
            cost = run_tree([sys.executable, "-m", "curate.cli", "audit", "--catalog", str(folder), "-o", str(output)])
            if cost.code:
                raise SystemExit(f"the audit of {clips:,} clips ended with {cost.code}")
            text = (output / "audit.json").read_text()
            found[clips] = {
                "seconds": round(cost.wall_s, 1),
                "cpu_seconds": round(cost.cpu_s, 1),
                "peak_memory_gb": round(cost.peak_bytes / 2**30, 2),
                "audit_json_kb": len(text) >> 10,
                "kept": json.loads(text)["sections"][0]["figures"][0]["rows"][0][2],
            }
            print(f"{clips:,} clips: {found[clips]}", file=sys.stderr)
    sizes = sorted(found)
    growth = None
    if len(sizes) > 1:
        one, other = sizes[-2:]
        growth = round(math.log(found[other]["seconds"] / found[one]["seconds"]) / math.log(other / one), 2)
    show({"audits": found, "growth_as_a_power": growth})


if __name__ == "__main__":
    main()
