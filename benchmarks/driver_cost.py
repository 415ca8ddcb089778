"""CPU of the driver process alone, per clip, with a stage that makes up what a real ingest would find.

    python benchmarks/driver_cost.py [--rounds 3] [--engines inline ray] [--cases 10000x1 10000x3 2000x20]

Every source gets 1, 3 or 20 clips with all columns and signals of a real ingest, and a thumbnail of 6 kB each (no two
alike, incompressible), without decoding. They go the whole way: listing, pending, engine, writers, commits, compaction.
CPU is user + system of this process with all its threads: Ray's other processes are not in it. Each measurement is a
process of its own.

Floor: 10 billion clips in 10 days are 11,600 clips a second, which leaves one driver 86 us a clip.

`start_s` is CPU until the first event (imports, catalog, lease, start of the engine); `us_per_clip` from then to the
end of compaction; `commit_us` what of it commits and compaction took; `stage_us` what the made-up stage and the writer
took, which run in the driver for the inline engine only; `peak_mb` the driver's largest resident size.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import ClassVar

from measuring import median, show

from stages.base import SourceStage
from stages.unit import Clip, Row, Unit, clip_id

VERSIONS = "cut=2 motion=3 shake=3 sharpness=3 exposure=3 letterbox=2 static=3 phash=4 bits_per_pixel=1"
THUMBNAIL_BYTES = 6000


class MadeUp(SourceStage):
    """Says of each source what a decode pass would say, out of thin air."""

    name: ClassVar[str] = "decode"

    def __init__(self, real: SourceStage, clips: int):
        self.count = clips
        self._columns, self._gates, self._versions = real.columns(), real.gates(), real.versions()

    def setup(self) -> None:
        self.noise = random.Random(7).randbytes(1 << 20)
        self.random = random.Random(11)

    def columns(self) -> dict[str, dict[str, str]]:
        return self._columns

    def gates(self) -> dict[str, str]:
        return self._gates

    def versions(self) -> dict[str, str]:
        return self._versions

    def __call__(self, unit: Unit) -> Iterator[Unit]:
        assert unit.source is not None
        began = time.thread_time()
        unit.clips = [self._clip(unit, number) for number in range(self.count)]
        unit.scanned = {
            "bytes": 2_678_405, "media": "video", "container": "mov,mp4,m4a,3gp,3g2,mj2", "codec": "h264",
            "pixel_format": "yuv420p", "width": 854, "height": 480, "rotation": 0, "sample_aspect_ratio": "1:1",
            "fps": 24.0, "duration_s": 4.0 * self.count, "frames": 96 * self.count, "decode_errors": 0,
            "content_hash": unit.source.source_id[::-1], "cpu_seconds": 0.3418,
        }  # fmt: skip
        unit.spent(self.name, time.thread_time() - began)
        yield unit

    def _clip(self, unit: Unit, number: int) -> Clip:
        source, rnd = unit.source, self.random.random
        assert source is not None
        start, end = 4.0 * number, 4.0 * number + 3.9583333
        ids: Row = {
            "clip_id": clip_id(source.source_id, number * 49152, number * 49152 + 48640), "source_id": source.source_id,
        }  # fmt: skip
        phash = f"{int(rnd() * 2**64):016x}"
        row = ids | {
            "uri": source.uri, "media": "video", "scene": number, "start_s": start, "end_s": end,
            "start_pts": number * 49152, "end_pts": number * 49152 + 48640, "time_base_num": 1, "time_base_den": 12288,
            "width": 854, "height": 480, "fps": 24.00000000000004, "frames": 95, "source_s": 4.0 * self.count,
            "motion": rnd() * 20, "shake": rnd(), "sharpness": rnd() * 500, "luma_mean": 20 + rnd() * 200,
            "contrast": rnd() * 80, "saturation": rnd() * 100, "letterbox": rnd() * 0.3, "crop_x": 0, "crop_y": 58,
            "crop_w": 854, "crop_h": 364, "static": rnd(), "phash": phash * 3, "phash_frames": phash,
            "bits_per_pixel": rnd() * 0.2, "versions": VERSIONS,
        }  # fmt: skip
        at = int(rnd() * (len(self.noise) - THUMBNAIL_BYTES))
        jpeg = self.noise[at : at + THUMBNAIL_BYTES]
        return Clip(row, source, new=True, thumbnail=ids | {"width": 320, "height": 180, "jpeg": jpeg})


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(name: str, units: int, clips: int) -> dict[str, float]:
    """One measurement, in this process."""
    import pyarrow as pa

    from curate.catalog.catalog import Catalog
    from curate.catalog.ledger import Ledger
    from curate.catalog.schema import BASE
    from curate.catalog.unit_writer import FileSet, WriterSettings
    from curate.engines.choose import Engines
    from curate.engines.engine import Work
    from curate.recipe.load import load_recipes
    from curate.recipe.plan import Plan, make_plan
    from curate.run.committer import Committer
    from curate.run.pending import pending_sources

    folder = tempfile.mkdtemp(prefix="driver-cost-")
    try:
        (recipe,) = load_recipes("pipelines.yaml", ["ingest"], ())
        real = make_plan(recipe).decode
        assert real is not None
        plan = Plan(recipe, MadeUp(real, clips))
        entries = ({"uri": f"/nowhere/{n // 1000:06d}/{n:09d}.mp4"} for n in range(units))
        catalog = Catalog.open_or_create(folder + "/catalog")
        with Ledger(catalog, "sources", "source_id", "b" * 32) as ledger, Engines(name, quiet=True) as engines:
            pending = pending_sources(ledger, entries, plan.state_tables["sources"].settings)
            own = [pa.field(column, kind) for column, kind in plan.arrow_columns["clips"].items()]
            schemas = {table: BASE[table] for table in ("sources", "thumbnails")}
            schemas["clips"] = pa.schema([*BASE["clips"], *own])
            stamp = {"settings": plan.state_tables["sources"].settings, "recipe": "ingest", "run_id": "b" * 32}
            writer = WriterSettings({"sources": ledger.begin(schemas)}, {"sources": stamp})
            committer = Committer({"sources": ledger}, {})
            assert plan.decode is not None
            stages = (plan.decode, *plan.stages_on_clips(plan.columns["clips"]))
            engine, todo = engines.choose(iter(pending))
            assert engine is not None
            first, commits, commit_cpu = None, 0, 0.0
            for event in engine.run(Work(stages, todo, writer, lambda: {n: ledger.schema(n) for n in ledger.tables})):
                if first is None:
                    first, began = cpu(), time.monotonic()
                if isinstance(event, FileSet):
                    before = cpu()
                    committer.commit(event)
                    commit_cpu += cpu() - before
                    commits += 1
                else:
                    committer.total.add(event)
            before = cpu()
            ledger.maintain(engines.rewrite)
            after = cpu()
            seconds = time.monotonic() - began
            assert committer.total.done == units, committer.total
            rows = {n: sum(pa.table(t.get_add_actions())["num_records"].to_pylist()) for n, t in ledger.tables.items()}
            assert rows == {"sources": units, "clips": units * clips, "thumbnails": units * clips}, rows
            total, spent = units * clips, sum(committer.total.stage_seconds.values())
        assert first is not None
        return {
            "start_s": first,
            "us_per_clip": 1e6 * (after - first) / total,
            "commit_us": 1e6 * (commit_cpu + after - before) / total,
            "stage_us": 1e6 * spent / total if name == "inline" else 0.0,
            "wall_us": 1e6 * seconds / total,
            "commits": commits,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["inline", "ray"])
    parser.add_argument("--cases", nargs="+", default=["10000x1", "10000x3", "2000x20"], help="UNITSxCLIPS")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args.one[0], int(args.one[1]), int(args.one[2]))))
        return
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(args.rounds):  # in turn, so that a machine whose speed drifts treats all alike
        for case in args.cases:
            for engine in args.engines:
                command = [sys.executable, __file__, "--one", engine, *case.split("x")]
                out = subprocess.run(command, capture_output=True, text=True)
                if out.returncode:
                    sys.exit(out.stderr)
                found.setdefault((engine, case), []).append(json.loads(out.stdout.splitlines()[-1]))
                print(engine, case, found[engine, case][-1], file=sys.stderr, flush=True)
    rows = [
        {"engine": engine, "units": case, "rounds": len(many)} | {n: median([one[n] for one in many]) for n in many[0]}
        for (engine, case), many in found.items()
    ]
    show({"rows": rows})


if __name__ == "__main__":
    main()
