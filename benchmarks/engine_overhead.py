"""Cost per unit of each engine with an empty stage, and driver memory against the number of listed sources.

    python benchmarks/engine_overhead.py [--units 1000 10000 100000] [--listed 10000 100000 1000000]

Units go the whole way: listing, pending, engine, committer, Delta commits. Floor: one row written per unit.
Memory is the driver's own (inline engine: every other process would hide it), each size in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from measuring import peak_memory, show

from stages.base import UnitStage
from stages.unit import Unit


class Empty(UnitStage):
    """Touches nothing: what remains is the engine."""

    name: ClassVar[str] = "empty"

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        yield unit


def run(units: int, engine: str) -> dict[str, float]:
    """Seconds per unit from the first report to the last commit, and the driver's memory."""
    from curate.catalog.catalog import Catalog
    from curate.catalog.ledger import Ledger
    from curate.catalog.schema import BASE
    from curate.catalog.unit_writer import SOURCES, FileSet, WriterSettings
    from curate.engines.choose import Engines
    from curate.engines.engine import Work
    from curate.run.committer import Committer
    from curate.run.pending import PendingSources

    folder = tempfile.mkdtemp()
    entries = ({"uri": f"/nowhere/{number // 1000:06d}/{number:09d}.mp4"} for number in range(units))
    found: dict[str, int] = {}
    stop = threading.Event()
    try:
        catalog = Catalog.open_or_create(folder + "/catalog")
        with Ledger(catalog, "sources", "source_id", uuid.uuid4().hex) as ledger, Engines(engine) as engines:
            writer = ledger.begin({name: BASE[name] for name in SOURCES})
            settings = WriterSettings({"sources": writer}, {"sources": {"recipe": "empty", "run_id": ledger.run_id}})
            committer = Committer({"sources": ledger}, {})
            schemas = {name: ledger.schema(name) for name in SOURCES}
            chosen, pending = engines.choose(iter(PendingSources(entries)))
            assert chosen is not None
            threading.Thread(target=peak_memory, args=(stop, found), daemon=True).start()
            first = None
            for event in chosen.run(Work((Empty(),), pending, settings, lambda: schemas)):
                first = first or time.monotonic()
                if isinstance(event, FileSet):
                    committer.commit(event)
                else:
                    committer.total.add(event)
            seconds = time.monotonic() - (first or 0)
        stop.set()
        assert committer.total.done == units
        return {
            "units": units,
            "ms_per_unit": 1e3 * seconds / units,
            "driver_mb": found.get("peak", 0) / 2**20,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--listed", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(int(args.one[0]), args.one[1])))
        return

    def apart(units: int, engine: str) -> dict[str, float]:
        command = [sys.executable, str(Path(__file__)), "--one", str(units), engine]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {k: round(v, 3) for k, v in json.loads(out.splitlines()[-1]).items()}

    result: dict[str, Any] = {engine: [apart(n, engine) for n in args.units] for engine in ("inline", "ray")}
    memory = [apart(n, "inline") for n in args.listed]
    result["memory"] = memory
    result["memory_growth_mb"] = round(memory[-1]["driver_mb"] - memory[0]["driver_mb"], 1)
    show(result)


if __name__ == "__main__":
    main()
