"""The Ray engine: Ray Data moves parcels of units through one actor pool for each group of stages.

Ray Data schedules; what is added here is flow control (listing never runs ahead of the work), parcels that
grow until they carry a third of a second of work, and giving up on a unit that kills its worker twice.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from curate.engines.dispatch import Dispatch
from curate.engines.feeder import Feeder
from curate.engines.pool_worker import SCHEMA, PoolWorker
from curate.engines.pools import Pool, make_pools
from curate.engines.ray_session import ray_session
from curate.errors import EngineError
from stages.base import SettingsError, Stage
from stages.unit import Unit

STOP_SECONDS = 3.0  # for units in hand, once a run is asked to stop


def run_on_ray(
    stages: tuple[Stage, ...],
    units: Iterator[Unit],
    stop: threading.Event | None = None,
    keep: ExitStack | None = None,
) -> Iterator[Unit]:
    import ray

    stop = stop or threading.Event()
    with ExitStack() as mine:
        (mine if keep is None else keep).enter_context(ray_session())
        resources = ray.cluster_resources()
        pools = make_pools(stages, resources.get("CPU", 1), resources.get("GPU", 0))
        feeder = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Feeder).remote()
        dispatch = Dispatch(feeder, units, window=max(8, 4 * sum(pool.size for pool in pools)))
        dispatch.start()
        threading.Thread(target=_stop_when_asked, args=(dispatch, stop), name="clipmill-stop", daemon=True).start()
        # With batches fetched ahead, the last parcel that is finished would wait for the next one.
        how = {"prefetch_batches": 0, "batch_size": None, "batch_format": "pyarrow"}
        try:
            for batch in _dataset(feeder, pools).iter_batches(**how):
                for index, blob in zip(*batch.to_pydict().values(), strict=True):
                    units = pickle.loads(blob)
                    if isinstance(units, SettingsError):
                        raise units
                    for unit in units:
                        yield from dispatch.came_back(index, unit)
        except ray.exceptions.RayError as error:
            if not stop.is_set():
                raise EngineError(f"Ray stopped: {' '.join(str(error).split())[:300]}") from error
        finally:
            dispatch.join()
            ray.kill(feeder)
    if dispatch.error is not None and not stop.is_set():
        raise dispatch.error


def _stop_when_asked(dispatch: Dispatch, stop: threading.Event) -> None:
    """Units in hand get a few seconds to come out; then Ray Data's own thread is told to end, which ends the
    iteration over its results wherever that waits.
    """
    while not stop.wait(timeout=0.5):
        if dispatch.stopped:
            return
    dispatch.stop()
    until = time.monotonic() + STOP_SECONDS
    while time.monotonic() < until and not dispatch.idle:
        time.sleep(0.05)
    while not dispatch.over:
        for thread in threading.enumerate():
            if type(thread).__name__ == "StreamingExecutor":
                thread.shutdown(force=True)
        time.sleep(0.2)


def _dataset(feeder: Any, pools: list[Pool]) -> Any:
    import ray

    data = ray.data.read_datasource(_source(feeder), override_num_blocks=1, num_cpus=0)
    for pool in pools:
        data = data.map_batches(
            PoolWorker,
            fn_constructor_args=(pool.stages, pool.name, feeder, pool is pools[-1]),
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
