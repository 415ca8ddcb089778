"""Samples per second of the loader, of raw reads, and of webdataset, litdata and mosaicml-streaming, in one run.

    python benchmarks/loader.py [--samples 2048] [--rounds 5] [--folder DIR] [--peers DIR]

All read the same samples (mean and logvar float16 (16, 5, 40, 40), a text of 60 x 384: 558 kB) from the page cache
and give batches of 16. Raw is `preadv` of the same bytes, on as many threads as the loader has, into two buffers
that are used again and again. Each peer is iterated plainly, in one process, and as it is used in training: through
torch DataLoader workers, one for each core. The loader has threads instead and is the same in both. webdataset
reads the very shards that the loader does; the others get the samples in their own formats, uncompressed.

Goals: at least 0.6 of raw, with every sample hashed or not; at least 4 times the best of the others as used in
training. A round takes each reader once, so that a machine whose speed drifts treats all alike; the first sixteen
batches are not timed.

The peers are no dependencies, and some want older packages than clipmill's: install them beside it,

    printf '%s; sys_platform == "never"\n' torch numpy xxhash transformers fsspec torchvision pillow > without
    uv pip install --target PEERS --overrides without litdata mosaicml-streaming

and give --peers PEERS. Those that are missing are left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import interleaved, median, show
from torch.utils.data import DataLoader

from curate.datasets.files import KIND, open_dataset, write_dataset
from curate.datasets.index import make_index
from curate.loader import LatentBatches, Loader
from stages.shards.contract import Contract
from stages.shards.writer import ShardWriter

BUCKET, SHAPE, TOKENS, DIM = "17x320x320", (16, 5, 40, 40), 60, 384
PER_SHARD, BATCH, WARM = 256, 16, 16  # clips of a shard, samples of a batch, batches before the clock starts
FIELDS = ("mean", "logvar", "text")
PEERS = {"webdataset": "webdataset", "litdata": "litdata", "mosaicml-streaming": "streaming"}
WORKERS = os.cpu_count() or 1


def sample(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    shapes = {"mean": SHAPE, "logvar": SHAPE, "text": (TOKENS, DIM)}
    return {field: rng.integers(0, 0x7000, shape, np.uint16).view(np.float16) for field, shape in shapes.items()}


def make_dataset(folder: Path, count: int) -> Path:
    """Shards and a dataset of `count` samples, as `clipmill dataset create` makes it, without a catalog."""
    import fsspec
    import pyarrow as pa

    text = {"encoder": "random", "fingerprint": "", "dim": DIM, "max_tokens": TOKENS, "fields": {"text": "caption"}}
    contract = Contract("random", "", 1, 8.0, 16, 4, True, 8, (0.0,) * 16, (1.0,) * 16, "float16", text=text)
    shards, rows = {}, []
    for begin in range(0, count, PER_SHARD):
        with ShardWriter(str(folder), contract, BUCKET) as writer:
            clips = [f"{number:032x}" for number in range(begin, min(begin + PER_SHARD, count))]
            for clip in clips:
                arrays = sample(int(clip, 16))
                writer.add(clip, arrays | {"text_mask": np.ones(TOKENS, np.uint8)}, {"conditions": {}})
            done = writer.publish()
        shards[done.shard] = {"bucket": BUCKET, "index_hash": done.index_hash, "hash": done.hash, "bytes": done.bytes}
        rows += [(clip, done.shard) for clip in clips]
    rows.sort(key=lambda row: (row[1], row[0]))
    columns = {"clip_id": [r[0] for r in rows], "shard": [r[1] for r in rows], "bucket": [BUCKET] * count}
    samples = pa.table(columns | {"window_fps": [8.0] * count, "weight": [1.0] * count})

    class Place:  # what make_index takes of a catalog
        uri = path = str(folder)
        fs = fsspec.filesystem("file")

    index, dtypes, paths = make_index(Place, samples, shards, contract)
    about = {
        "kind": KIND, "name": "loader", "created": "", "root": str(folder), "weight": None, "fields": dtypes,
        "contract": contract.to_dict(), "digest": contract.digest, "conditions": [],
        "text": {"text": {"column": "caption", "dim": DIM}},
        "buckets": {BUCKET: {"samples": count, "latent": list(SHAPE)}}, "samples": count, "seconds": 0.0,
        "shards": [{"path": p, "bytes": shards[p]["bytes"], "hash": shards[p]["hash"]} for p in paths],
    }  # fmt: skip
    write_dataset(folder / "dataset", about, index, {})
    return folder / "dataset"


def rate(batches: Iterable[Any], count: int) -> float:
    """Samples per second, from the time when the first batches are there; the last is looked at."""
    iterator = iter(batches)
    for _ in range(WARM):
        next(iterator)
    seen, batch, timed = 0, None, count // BATCH * BATCH - WARM * BATCH
    began = time.perf_counter()
    while seen < timed:
        batch = next(iterator)
        seen += BATCH
    spent = time.perf_counter() - began
    if not has_the_samples(batch):
        raise SystemExit(f"a reader gave something else: {type(batch)}")
    return seen / spent


def has_the_samples(batch: Any) -> bool:
    if isinstance(batch, list | tuple):  # of webdataset
        mean, _, text = batch[:3]
    elif isinstance(batch, dict):
        mean, text = batch["mean"], batch["text"]
    else:
        mean, text = batch.latents["mean"], batch.text
    return tuple(mean.shape) == (BATCH, *SHAPE) and tuple(text.shape)[:2] in ((BATCH, TOKENS), (BATCH, 64))


def raw(folder: Path, threads: int) -> float:
    """preadv of each sample's bytes, gaps and all, into two batch buffers a thread."""
    dataset = open_dataset(folder)
    names = ["shard", *(f"{field}_{what}" for field in FIELDS for what in ("offset", "length"))]
    columns = {name: values.to_numpy() for name, values in dataset.columns(names).items()}
    begins = np.min([columns[f"{field}_offset"] for field in FIELDS], axis=0)
    ends = np.max([columns[f"{field}_offset"] + columns[f"{field}_length"] for field in FIELDS], axis=0)
    files = [os.open(Path(dataset.root, shard.path), os.O_RDONLY) for shard in dataset.shards]
    longest = int((ends - begins).max())
    plan = list(zip(columns["shard"].tolist(), begins.tolist(), (ends - begins).tolist(), strict=True))
    buffers = [[memoryview(bytearray(BATCH * longest)) for _ in range(2)] for _ in range(threads)]

    def read(number: int) -> None:
        for turn, (shard, begin, length) in enumerate(plan[number::threads]):
            buffer = buffers[number][turn // BATCH % 2]
            at = turn % BATCH * longest
            if os.preadv(files[shard], [buffer[at : at + length]], begin) != length:
                raise SystemExit("a raw read was short")

    for number in range(threads):  # fresh pages are no part of it
        for buffer in buffers[number]:
            buffer[:] = bytes(len(buffer))
    workers = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    spent = time.perf_counter() - began
    for file in files:
        os.close(file)
    return len(plan) / spent


def ours(folder: Path, count: int, threads: int, verify: str) -> float:
    with Loader(folder, batch_size=BATCH, threads=threads, verify=verify) as loader:
        return rate(loader, count)


def through_workers(folder: Path, count: int) -> float:
    data = LatentBatches(folder, batch_size=BATCH, verify="off", threads=1)
    return rate(DataLoader(data, batch_size=None, num_workers=WORKERS), count)


def tensors(found: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(found[f"{field}.npy"]) for field in FIELDS)


def with_webdataset(folder: Path, count: int, workers: int) -> float:
    import webdataset

    shards = sorted(str(path) for path in folder.parent.glob(f"{BUCKET}/*.tar"))
    data = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).shuffle(256).decode().map(tensors)
    return rate(DataLoader(data.batched(BATCH, partial=False), batch_size=None, num_workers=workers), count)


def make_litdata(folder: Path, count: int) -> None:
    from litdata import optimize

    with redirect_stdout(sys.stderr):
        optimize(litdata_sample, list(range(count)), str(folder), chunk_bytes="128MB", num_workers=1)


def litdata_sample(number: int) -> dict[str, torch.Tensor]:
    return {field: torch.from_numpy(values) for field, values in sample(number).items()}


def with_litdata(folder: Path, count: int, workers: int) -> float:
    from litdata import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(str(folder), shuffle=True, drop_last=False)
    return rate(StreamingDataLoader(data, batch_size=BATCH, num_workers=workers), count)


def make_mosaicml(folder: Path, count: int) -> None:
    from streaming import MDSWriter

    shapes = {"mean": SHAPE, "logvar": SHAPE, "text": (TOKENS, DIM)}
    columns = {field: f"ndarray:float16:{','.join(map(str, shape))}" for field, shape in shapes.items()}
    with MDSWriter(out=str(folder), columns=columns, size_limit="128mb") as writer:
        for number in range(count):
            writer.write(sample(number))


def with_mosaicml(folder: Path, count: int, workers: int) -> float:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
    return rate(DataLoader(data, batch_size=BATCH, num_workers=workers), count)


def peers(folder: Path, dataset: Path, count: int) -> Iterator[tuple[str, Callable[[int], float]]]:
    """(name, what measures it with so many workers) of those that are installed; makes their data where it lacks."""
    makers = {"litdata": make_litdata, "mosaicml-streaming": make_mosaicml}
    readers = {"litdata": with_litdata, "mosaicml-streaming": with_mosaicml}
    for name, module in PEERS.items():
        if importlib.util.find_spec(module) is None:
            continue
        if name == "webdataset":
            yield name, lambda workers: with_webdataset(dataset, count, workers)
            continue
        place = folder / name
        if not place.exists():
            makers[name](place, count)
        yield name, lambda workers, read=readers[name], place=place: read(place, count, workers)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    dataset = folder / "dataset"
    if not dataset.exists():
        make_dataset(folder, args.samples)
    count, threads = args.samples, args.threads
    tasks: dict[str, Callable[[], float]] = {"raw": lambda: raw(dataset, threads)}
    for verify in ("off", "always"):
        tasks[f"clipmill, verify {verify}"] = lambda v=verify: ours(dataset, count, threads, v)
    tasks[f"clipmill, LatentBatches through {WORKERS} workers"] = lambda: through_workers(dataset, count)
    found = dict(peers(folder, dataset, count))
    for name, read in found.items():
        tasks[f"{name}, plain"] = lambda read=read: read(0)
        tasks[f"{name}, {WORKERS} workers"] = lambda read=read: read(WORKERS)
    for name, task in tasks.items():  # warms the page cache
        print(f"{name}: {task():,.0f} samples/s while warming up", file=sys.stderr, flush=True)
    runs = interleaved(args.rounds, tasks)
    size = sum(values.nbytes for values in sample(0).values())
    rates = {name: median(values) for name, values in runs.items()}
    best = max((f"{name}, {WORKERS} workers" for name in found), key=rates.get, default=None)
    own = "clipmill, verify off"
    result = {
        "samples": count,
        "bytes_per_sample": size,
        "batch": BATCH,
        "threads": threads,
        "workers": WORKERS,
        "rounds": args.rounds,
        "page_cache": "warm",
        "samples_per_s": {name: round(value, 1) for name, value in rates.items()},
        "gigabytes_per_s": {name: round(value * size / 1e9, 3) for name, value in rates.items()},
        "of_raw": {n: median([a / b for a, b in zip(v, runs["raw"], strict=True)]) for n, v in runs.items()},
        "goal_of_raw": 0.6,
        "missing_peers": sorted(set(PEERS) - set(found)),
    }
    if best is not None:
        result["best_other_in_training"] = best
        for name in (own, "clipmill, verify always"):
            ratios = [a / b for a, b in zip(runs[name], runs[best], strict=True)]
            result[f"times_the_best_other_in_training, {name.split(', ')[1]}"] = median(ratios)
        result["goal_times_the_best_other"] = 4
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048, help="558 kB each, in every format")
    parser.add_argument("--threads", type=int, default=2, help="of the loader and of raw reads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the data here, and use again what is there")
    parser.add_argument("--peers", help="a folder of packages: uv pip install --target")
    args = parser.parse_args()
    if args.samples < 2 * WARM * BATCH:
        parser.error(f"--samples: at least {2 * WARM * BATCH}")
    if args.peers:
        sys.path.append(args.peers)
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(
        1
    )  # copying a sample is no work for two, and threads that wait for each other slow peers down
    folder = args.folder or Path(tempfile.mkdtemp(prefix="clipmill-loader-"))
    try:
        result = measure(folder / f"{args.samples}", args)
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    for name in result["missing_peers"]:
        print(f"{name} is not installed and was left out: see the head of this script", file=sys.stderr)
    show(result)


if __name__ == "__main__":
    main()
