"""Seconds and memory of `clipmill dataset create` over a made-up catalog of a million clips.

    python benchmarks/dataset_create.py [--clips 1000000] [--per-shard 1000] [--rounds 3]

Sources, clips and latents are committed as runs commit them, and each shard's index is real; the tars, of which only
the empty prompt would be read, are not written. The dataset has weights by source, which asks SQL of every clip.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from measuring import median, peak_memory, show
from pyarrow import parquet

import curate.datasets.create
from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.schema import PASS
from stages.shards.contract import Contract
from stages.shards.format import INDEX, index_path

BUCKET, LATENT, DIM = "17x256x256", (8, 5, 32, 32), 512
SHARD_BYTES = 1 << 29
WEIGHT = "1 / sqrt(count(*) OVER (PARTITION BY source_id))"


def make(folder: Path, clips: int, per_shard: int) -> str:
    """A catalog with `clips` clips of five fields each; its URI."""
    text = {"encoder": "", "fingerprint": "", "dim": DIM, "max_tokens": 77, "fields": {"text": "caption"}}
    contract = Contract("", "", 1, 8.0, 8, 4, True, 8, (0.0,) * 8, (1.0,) * 8, "float16", text=text)
    catalog = Catalog.open_or_create(str(folder))
    catalog.create()
    rng = np.random.default_rng(0)
    ids = np.array([f"{number:032x}" for number in rng.permutation(clips)])
    rows: dict[str, list] = {name: [] for name in ("shard", "index_hash")}
    for begin in range(0, clips, per_shard):
        shard = f"shards/latents/{BUCKET}/{begin:032x}.tar"
        content = index_of(ids[begin : begin + per_shard], rng)
        path = folder / index_path(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with open(folder / shard, "wb") as tar:
            tar.truncate(SHARD_BYTES)  # of that size, and nothing in it
        count = min(per_shard, clips - begin)
        rows["shard"] += [shard] * count
        rows["index_hash"] += [xxhash.xxh3_128_hexdigest(content)] * count
    sources = [f"{number:032x}" for number in range(max(1, clips // 50))]
    of = pa.array(rng.integers(0, len(sources), clips)).cast(pa.int32())
    source = pa.DictionaryArray.from_arrays(of, pa.array(sources)).cast(pa.string())
    motion = pa.array(rng.random(clips))
    done = pa.repeat(pa.scalar("done"), clips)
    said = {"clip_id": pa.array(ids), "source_id": source}
    scanned = pa.table({"source_id": sources, "status": ["done"] * len(sources)})
    commit(catalog, "sources", "source_id", {"clips": pa.table(said | {"motion": motion}), "sources": scanned})
    same = {
        "bucket": BUCKET,
        "shard_hash": "",
        "contract": contract.to_json(),
        "window_fps": 8.0,
        "shard_bytes": SHARD_BYTES,
    }
    encoded = said | {"status": done} | {n: pa.array(v) for n, v in rows.items()}
    encoded |= {name: pa.repeat(pa.scalar(value), clips) for name, value in same.items()}
    commit(catalog, "latents", "clip_id", {"latents": pa.table(encoded)})
    return str(folder)


def commit(catalog: Catalog, state: str, key: str, tables: dict[str, pa.Table]) -> None:
    """Writes a file of each table and commits them together, as a run does."""
    with Ledger(catalog, state, key, "made") as ledger:
        writer = ledger.begin({name: rows.schema for name, rows in tables.items()})
        number = pa.scalar(writer.pass_number, pa.int64())
        passes = {name: pa.repeat(number, rows.num_rows) for name, rows in tables.items()}
        ledger.commit([writer.write(name, rows.add_column(0, PASS, passes[name])) for name, rows in tables.items()])


def index_of(ids: np.ndarray, rng: np.random.Generator) -> bytes:
    """A shard's index as its writer makes it: five rows a clip."""
    fields = ("logvar", "mean", "text", "text_mask", "json")
    size = int(np.prod(LATENT)) * 2
    shapes = {"logvar": list(LATENT), "mean": list(LATENT), "text": [40, DIM], "text_mask": [40], "json": []}
    bytes_ = {"logvar": size, "mean": size, "text": 80 * DIM, "text_mask": 40, "json": 600}
    count = len(ids)
    columns = {
        "clip_id": np.repeat(ids, len(fields)),
        "field": list(fields) * count,
        "offset": np.cumsum(np.tile([bytes_[field] + 1024 for field in fields], count)),
        "length": [bytes_[field] for field in fields] * count,
        "xxh3": rng.integers(0, 1 << 63, count * len(fields), np.uint64),
        "dtype": ["float16", "float16", "float16", "uint8", "json"] * count,
        "shape": [shapes[field] for field in fields] * count,
    }
    made = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns, INDEX), made, compression="zstd", write_page_checksum=True)
    return made.getvalue().to_pybytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--per-shard", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    curate.datasets.create.read_empty = lambda path: {"text": np.zeros((2, DIM), np.float16)}
    seconds, cpu = [], []
    stop, found = threading.Event(), {}
    with tempfile.TemporaryDirectory() as folder:
        uri = make(Path(folder, "catalog"), args.clips, args.per_shard)
        watch = threading.Thread(target=peak_memory, args=(stop, found))
        watch.start()
        for turn in range(args.rounds):
            began, spent = time.perf_counter(), time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                curate.datasets.create.run_dataset_create(
                    f"made{turn}", uri, "SELECT clip_id FROM clips", weight=WEIGHT, output=folder, conditions=["motion"]
                )
            seconds.append(time.perf_counter() - began)
            cpu.append(time.process_time() - spent)
        stop.set()
        watch.join()
        size = sum(path.stat().st_size for path in Path(folder, "made0").iterdir())
    show(
        {
            "clips": args.clips,
            "shards": -(-args.clips // args.per_shard),
            "rounds": args.rounds,
            "seconds": median(seconds),
            "cpu_seconds": median(cpu),
            "peak_memory_gb": round(found["peak"] / 2**30, 2),
            "dataset_mb": round(size / 2**20, 1),
        }
    )


if __name__ == "__main__":
    main()
