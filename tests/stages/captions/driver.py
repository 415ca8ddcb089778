"""A run of its own process that captions through a server and can be killed: python -m ... URL FOLDER CLIPS.

It stands for what the command does: what is committed is not done again, rows are committed in batches, and
the stage is told of those that are done.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from curate.engines.inline import run_inline
from stages.captions import Caption
from tests.stages.captions.made import served, unit_of

BATCH = 16  # rows of a commit
PROMPTS = {"short": "{clip_id} in short", "long": "{clip_id} at length"}
CONCURRENCY = 8


def committed(folder: Path) -> list[dict]:
    """The rows that are safe: whole lines."""
    file = folder / "committed.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def main(url: str, folder: Path, clips: int) -> None:
    done = {row["clip_id"] for row in committed(folder)}
    stage = Caption(served(url, prompts=PROMPTS, server={"concurrency": CONCURRENCY, "timeout_seconds": 10}))
    stage.bind(str(folder))
    wanted = [number for number in range(clips) if f"{number:032x}" not in done]
    units = (unit_of([number], stage, f"u{number}") for number in wanted)
    batch: list[dict] = []
    with open(folder / "committed.jsonl", "a") as file:

        def commit() -> None:
            file.write("".join(json.dumps(row) + "\n" for row in batch))
            file.flush()
            os.fsync(file.fileno())
            stage.committed([row["clip_id"] for row in batch if row["status"] == "done"])
            batch.clear()

        for unit in run_inline((stage,), units):
            batch.extend(unit.rows["captions"])
            if len(batch) >= BATCH:
                commit()
        commit()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
