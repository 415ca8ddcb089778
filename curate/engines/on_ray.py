"""The Ray engine: Ray Data moves parcels of units through one actor pool for each group of stages.

Ray Data schedules; what is added here is flow control (listing never runs ahead of the work), parcels that
grow until they carry a third of a second of work, and giving up on a unit that kills its worker twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.engines.chain import run_stages
from curate.engines.feeder import Feeder
from curate.engines.pools import Pool, make_pools
from curate.errors import EngineError
from curate.units import Unit
from stages.base import Stage

PARCEL_SECONDS = 0.35  # work that one parcel should carry
PARCEL_UNITS = 64
SCHEMA = pa.schema([("index", pa.int64()), ("units", pa.large_binary())])
ROW_BYTES = 1 << 20  # finished units leave a worker in rows of about this size


def run_on_ray(stages: tuple[Stage, ...], units: Iterator[Unit]) -> Iterator[Unit]:
    import ray

    with ray_session():
        resources = ray.cluster_resources()
        pools = make_pools(stages, resources.get("CPU", 1), resources.get("GPU", 0))
        feeder = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Feeder).remote()
        driver = _Driver(feeder, units, window=max(8, 4 * sum(pool.size for pool in pools)))
        driver.start()
        try:
            for batch in _dataset(feeder, pools).iter_batches(batch_size=None, batch_format="pyarrow"):
                for index, blob in zip(*batch.to_pydict().values(), strict=True):
                    for unit in pickle.loads(blob):
                        driver.came_back(index, unit)
                        yield unit
        except ray.exceptions.RayError as error:
            raise EngineError(f"Ray stopped: {' '.join(str(error).split())[:300]}") from error
        finally:
            driver.stop()
    if driver.error is not None:
        raise driver.error


@contextlib.contextmanager
def ray_session(cpus: int | None = None) -> Iterator[None]:
    """A Ray of our own unless one is there already (RAY_ADDRESS names a cluster)."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its notes on actor restarts are not for users
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_LOGGING_CONFIG", str(Path(__file__).with_name("ray_logging.yaml")))
    import ray

    mine = not ray.is_initialized()
    if mine:
        _must_answer(os.environ.get("RAY_ADDRESS", ""))
        # Ray puts the driver's working directory first on its workers' import path, where a user's own
        # models/ or train.py would shadow ours: start it from the folder that holds these packages.
        with contextlib.chdir(Path(__file__).parents[2]), _quiet_stderr(), _own_signals():
            ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\.")  # fewer parcels than workers is no trouble
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # one row, one block: Ray Data must not gather parcels into big blocks
    context.print_on_execution_start = False
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def _must_answer(address: str) -> None:
    """Ray waits for minutes for a cluster that is not there: look first."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise EngineError(f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error})") from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; a run that is told to stop must commit what is finished first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Ray's C++ side writes notes of no use to users straight to file descriptor 2; errors are raised anyway."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _dataset(feeder: Any, pools: list[Pool]) -> Any:
    import ray

    data = ray.data.read_datasource(_source(feeder), override_num_blocks=1, num_cpus=0)
    for pool in pools:
        data = data.map_batches(
            PoolWorker,
            fn_constructor_args=(pool.stages, pool.name, feeder),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=pool.size),
            num_cpus=pool.needs.cpus,
            num_gpus=pool.needs.gpus or None,
        )
    return data


def _source(feeder: Any) -> Any:
    import ray
    from ray.data.block import BlockMetadata

    def parcels() -> Iterator[pa.Table]:
        index = 0
        while (blob := ray.get(feeder.take.remote(index))) is not None:
            yield pa.table([[index], [blob]], schema=SCHEMA)
            index += 1

    class Parcels(ray.data.Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            return [ray.data.ReadTask(parcels, BlockMetadata(None, None, None, None))]

    return Parcels()


class PoolWorker:
    """One worker of a pool: its stages set up once, then parcels in, finished units out."""

    def __init__(self, stages: tuple[Stage, ...], name: str, feeder: Any):
        self.stages, self.name, self.feeder = stages, name, feeder
        for stage in stages:
            stage.setup()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for index, blob in zip(*batch.to_pydict().values(), strict=True):
            if not blob:
                continue
            units = pickle.loads(blob)
            out: list[Unit] = []
            size = 0
            for unit in self._run(f"{self.name}/{index}/{units[0].unit_id}/{units[0].part}", units):
                out.append(unit)
                size += sum(p.nbytes for frames in unit.pixels.values() for asked in frames.values() for _, p in asked)
                size += 600 * sum(len(rows) for rows in unit.rows.values())
                if size >= ROW_BYTES or not unit.last:
                    yield self._row(index, out)
                    out, size = [], 0
            if out:
                yield self._row(index, out)

    def _run(self, key: str, units: list[Unit]) -> Iterator[Unit]:
        """A parcel whose worker died before is taken apart: each unit is noted before it is begun."""
        import ray

        if ray.get(self.feeder.begin.remote(key)) == 1:
            yield from run_stages(self.stages, units)
            return
        for unit in units:
            if ray.get(self.feeder.begin.remote(f"{key}/{unit.unit_id}")) > 1:
                yield unit.failed(f"{self.name}: its worker died twice on it")
                continue
            yield from run_stages(self.stages, [unit])
            ray.get(self.feeder.finish.remote(f"{key}/{unit.unit_id}"))

    @staticmethod
    def _row(index: int, units: list[Unit]) -> pa.Table:
        return pa.table([[index], [pickle.dumps(units, protocol=5)]], schema=SCHEMA)


class _Driver:
    """Feeds parcels from the listing, a window ahead of the work, and knows which units are out."""

    def __init__(self, feeder: Any, units: Iterator[Unit], window: int):
        self.feeder, self.units, self.window = feeder, units, window
        self.out: dict[int, bytes] = {}
        self.waiting: dict[int, set[str]] = {}
        self.finished: list[int] = []
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self.stopped = False
        self.unit_seconds: float | None = None  # work of a unit, running mean
        self.thread = threading.Thread(target=self._feed, name="clipmill-feed", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        self.thread.join(timeout=10)

    def came_back(self, index: int, unit: Unit) -> None:
        with self.changed:
            if unit.last and index in self.waiting:
                self.waiting[index].discard(unit.unit_id)
                if not self.waiting[index]:
                    del self.waiting[index], self.out[index]
                    self.finished.append(index)
                    self.changed.notify_all()
            if unit.last:
                spent = sum(unit.seconds.values())
                old = self.unit_seconds
                self.unit_seconds = spent if old is None else 0.9 * old + 0.1 * spent

    def _feed(self) -> None:
        import ray

        born, index, ended = ray.get(self.feeder.born.remote()), 0, False
        checked = time.monotonic()
        while not self.stopped:
            parcel: list[Unit] = []
            if not ended:
                try:
                    parcel = self._next_parcel()
                except BaseException as error:
                    self.error = error
                ended = not parcel
            with self.changed:
                new = {}
                if parcel:
                    new[index] = self.out[index] = pickle.dumps(parcel, protocol=5)
                    self.waiting[index] = {unit.unit_id for unit in parcel}
                    index += 1
                finished, self.finished = self.finished, []
            try:
                ray.get(self.feeder.put.remote(new, finished, index if ended else None))
                if time.monotonic() - checked > 2:
                    checked = time.monotonic()
                    if (now := ray.get(self.feeder.born.remote())) != born:
                        born = now
                        with self.changed:
                            back = [i for i in range(index) if i not in self.out]
                            ray.get(self.feeder.put.remote(dict(self.out), back, index if ended else None))
            except ray.exceptions.RayError as error:
                self.error = EngineError(f"Ray lost the feeder: {' '.join(str(error).split())[:200]}")
                return
            with self.changed:
                while not self.stopped and (len(self.out) >= self.window or (ended and not self.finished)):
                    if not self.changed.wait(timeout=2):
                        break  # look whether the feeder still lives
                if ended and not self.out:
                    return

    def _next_parcel(self) -> list[Unit]:
        spent = self.unit_seconds
        count = 1 if spent is None else int(min(PARCEL_UNITS, max(1, PARCEL_SECONDS / max(spent, 1e-4))))
        parcel = []
        for unit in self.units:
            parcel.append(unit)
            if len(parcel) >= count:
                break
        return parcel
