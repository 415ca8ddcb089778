"""Made-up catalogs for audits: rows of every table, gates with their answers in Python, and a dataset's index."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from curate.audit.command import run_audit
from curate.audit.figure import Audit, read_audit
from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from curate.catalog.rights import RIGHTS
from tests.catalog_rows import commit_rows
from tests.curate.loader.latents import contract

Row = dict[str, Any]
HOSTILE = "<script>alert(1)</script>'; DROP TABLE clips; -- \" ünï"

# condition -> the same in Python: True, False, or None for unknown
GATES: dict[str, Callable[[Row], bool | None]] = {
    "motion >= 0.25": lambda row: None if row["motion"] is None else row["motion"] >= 0.25,
    "luma BETWEEN 10 AND 245": lambda row: None if row["luma"] is None else 10 <= row["luma"] <= 245,
    "end_s - start_s >= 1.5": lambda row: row["end_s"] - row["start_s"] >= 1.5,
}
MOVED = {
    "motion >= 0.225": lambda row: None if row["motion"] is None else row["motion"] >= 0.225,
    "motion >= 0.275": lambda row: None if row["motion"] is None else row["motion"] >= 0.275,
}
TYPES = {
    "clips": {"motion": "double", "luma": "double", "sharpness": "double"},
    "sources": {field.name: field.type for field in RIGHTS},
    "captions": {
        "caption": "string", "caption_words": "int32", "caption_repetition": "double", "caption_language": "string",
        "caption_truncated": "bool", "caption_refusal": "string", "caption_boilerplate": "string",
        "caption_clip_match": "double", "caption_source": "string", "model": "string",
        "revision": "string", "status": "string", "reason": "string",
    },
    "duplicates": {
        "duplicate_cluster": "string", "duplicate_kind": "string", "duplicate_keep": "bool", "duplicate_of": "string",
        "duplicate_component": "string",
    },
    "clusters": {"concept": "int32", "concept_name": "string"},
    "latents": {
        "shard": "string", "shard_hash": "string", "shard_bytes": "int64", "index_hash": "string", "bucket": "string",
        "contract": "string", "status": "string", "reason": "string",
    },
}  # fmt: skip


@dataclass
class Made:
    """The rows of a catalog, by table, and its gates."""

    sources: list[Row] = field(default_factory=list)
    clips: list[Row] = field(default_factory=list)
    stages: dict[str, list[Row]] = field(default_factory=dict)
    gates: Sequence[Gate] = ()

    def write(self, folder: Path) -> str:
        """Commits it all as runs do; the catalog's URI."""
        catalog = Catalog.open_or_create(str(folder))
        catalog.create()
        if self.gates:
            catalog.put_gates("ingest", self.gates, None)
        with Ledger(catalog, "sources", "source_id", "made") as ledger:
            commit_rows(
                ledger, {"clips": self.clips, "thumbnails": thumbnails(self.clips), "sources": self.sources}, TYPES
            )
        for name, rows in self.stages.items():
            with Ledger(catalog, name, "clip_id", "made") as ledger:
                commit_rows(ledger, {name: rows}, TYPES)
        return str(folder)


def thumbnails(clips: Sequence[Row]) -> list[Row]:
    return [
        {"clip_id": clip["clip_id"], "source_id": clip["source_id"], "jpeg": jpeg(int(clip["clip_id"], 16) % 7)}
        for clip in clips
    ]


@cache
def jpeg(number: int) -> bytes:
    """A small picture, one for each number."""
    return bytes(cv2.imencode(".jpg", np.full((36, 64, 3), 30 * number, np.uint8))[1])


def gates(unknown: str = "keep") -> list[Gate]:
    return [Gate(name=f"g{number}", where=where, unknown=unknown) for number, where in enumerate(GATES)]


def planted(seed: int = 0, sources: int = 40, of_each: int = 8) -> Made:
    """A catalog of all that an audit counts: NULLs, hostile names, failures, empty sources, duplicates, latents."""
    draw = np.random.default_rng(seed)
    made = Made(gates=gates())
    names = ("captions", "duplicates", "clusters", "latents")
    captions, duplicates, clusters, latents = (made.stages.setdefault(name, []) for name in names)
    licences, domains = ["CC0", "CC BY 4.0", HOSTILE, None], [f"host{n}.example" for n in range(25)] + [None]
    for number in range(sources):
        state = "failed" if number % 13 == 5 else "done"
        count = 0 if state == "failed" or number % 11 == 7 else of_each
        reason = f"damaged: at byte {number}" if state == "failed" else None if count else "all of it is a fade"
        key = f"{number:032x}"
        made.sources.append(
            {
                "source_id": key, "uri": f"s3://x/{number} {HOSTILE}.mp4", "status": state, "reason": reason,
                "media": "video" if state == "done" else None, "duration_s": 60.25 if state == "done" else None,
                "bytes": int(draw.integers(1000, 10**9)), "clips": count, "codec": ["h264", "vp9"][number % 2],
                "bit_depth": [8, 10, None][number % 3], "has_audio": [True, False, None][number % 3],
                "content_hash": f"{number // 2:032x}", "cpu_seconds": 2.5, "settings": "s1",
                "licence": licences[int(draw.integers(4))], "domain": domains[int(draw.zipf(1.5)) % len(domains)],
                "dataset_licence": None, "language": ["en", "de"][number % 2], "source_kind": "crawled", "dataset": "d",
            }
        )  # fmt: skip
        for index in range(count):
            clip = f"{number:016x}{index:016x}"
            start = index * 7.0
            length = float(draw.choice([1.0, 1.5, 2.0, 3.04, 5.123456]))
            motion, luma, sharpness = draw.exponential(0.6), draw.normal(120, 70), draw.normal(0, 10)
            made.clips.append(
                {
                    "clip_id": clip, "source_id": key, "media": "video", "start_s": start, "end_s": start + length,
                    "width": int(draw.choice([320, 640, 1920])), "height": int(draw.choice([240, 360, 1080])),
                    "fps": float(draw.choice([24.0, 25.0, 29.97])),
                    "motion": None if draw.random() < 0.1 else motion, "luma": None if draw.random() < 0.1 else luma,
                    "sharpness": None if draw.random() < 0.2 else sharpness,
                }
            )  # fmt: skip
            if draw.random() < 0.8:
                text = ["a cat", "a dog on a road", HOSTILE, "a cat a cat a cat a cat"][int(draw.integers(4))]
                failed = draw.random() < 0.05
                captions.append(
                    {"clip_id": clip, "source_id": key, "status": "failed", "reason": "timeout: 30 s"}
                    if failed
                    else {
                        "clip_id": clip, "source_id": key, "status": "done", "caption": text,
                        "caption_words": len(text.split()), "caption_repetition": float(draw.random()),
                        "caption_language": ["en", None][int(draw.integers(2))],
                        "caption_truncated": bool(draw.random() < 0.1),
                        "caption_refusal": "sorry" if draw.random() < 0.1 else None, "caption_boilerplate": None,
                        "caption_clip_match": float(draw.normal(0.3, 0.1)), "model": "captioner", "revision": "r1",
                    }
                )  # fmt: skip
            pair = index // 2 % 3 == 0
            cluster = f"{number // 2 * 2:016x}{index:016x}" if pair else clip
            duplicates.append(
                {"clip_id": clip, "source_id": key, "duplicate_cluster": cluster, "duplicate_keep": cluster == clip,
                 "duplicate_kind": (["exact", "near"][index % 2] if pair else None), "duplicate_component": cluster,
                 "duplicate_of": None if cluster == clip else cluster}
            )  # fmt: skip
            concept = min(int(draw.zipf(1.6)), 9) - 1
            clusters.append({"clip_id": clip, "source_id": key, "concept": concept, "concept_name": f"n{concept}"})
            if draw.random() < 0.6:
                bad = draw.random() < 0.1
                latents.append(
                    {"clip_id": clip, "source_id": key, "status": "failed", "reason": "no frame: at 3 s"}
                    if bad
                    else {
                        "clip_id": clip, "source_id": key, "status": "done", "shard": "shards/latents/b/1.tar",
                        "shard_hash": "h", "shard_bytes": 10, "index_hash": "i", "bucket": "b",
                        "contract": '{"vae": "v"}',
                    }
                )  # fmt: skip
    return made


def write_dataset(folder: Path, rows: Sequence[Mapping[str, Any]], root: str) -> str:
    """A dataset of clips (clip_id, source_id, weight) as far as an audit reads it: what describes it, and its index."""
    folder.mkdir(parents=True)
    about = {
        "kind": "clipmill dataset", "name": folder.name, "root": root, "contract": contract().to_dict(),
        "digest": contract().digest, "fields": {}, "text": {}, "conditions": [], "buckets": {}, "shards": [],
        "samples": len(rows), "seconds": 0.0, "weight": "w",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(about))
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), folder / "index.parquet")
    return str(folder)


def audit(catalog: str, output: Path, **options: Any) -> Audit:
    assert run_audit(catalog, str(output), **options) == 0
    return read_audit(output)
