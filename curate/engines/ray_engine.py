"""The Ray engine: pools of plain actors, chained by object references, driven by one loop over `ray.wait`.

    pending units -> pool 0 (decode) -> further pools (CPU or GPU models) -> writers -> driver: file sets to commit

The driver sees no row and no pixel: a call to an actor of the next pool takes the reference that the call before
returned. Each pool has workers of the same stages; a worker is given work while it holds fewer than two jobs.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any

from curate.catalog.data_files import DataFile, Rewrite
from curate.catalog.unit_writer import FileSet
from curate.engines.engine import Work
from curate.engines.pools import make_pools
from curate.engines.ray_cluster import ray_cluster
from curate.engines.ray_pool import JOBS, Job, Pool
from curate.engines.ray_worker import Finished, Receipt, code_fingerprint, run_rewrite
from curate.engines.ray_writers import Writers, original
from curate.engines.tally import Tally
from curate.errors import EngineError, UserError
from stages.base import SettingsError
from stages.unit import Unit

STOP_SECONDS = 8.0  # a run that is asked to stop lets work in hand finish for so long
RESIZE_SECONDS = 3.0  # between two looks at what the cluster has
JOB_SECONDS = 0.4  # CPU seconds that a job for pool 0 should carry
JOB_UNITS = 256
STORE_SHARE = 0.25  # of Ray's object store that payloads on their way may take
NODE_GRACE_S = 5.0  # Ray learns of a lost node a little later than of the actors on it
MOST_IDLE = 200  # looks in a row, 10 s in all, that find nothing under way though units are not done
STUCK_SECONDS = 60.0  # without a single worker of a pool, before the run says so
STRIKES = 2  # workers that die on a unit alone, before it is failed


class RayEngine:
    name = "ray"

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._is_own = self._opened.enter_context(ray_cluster())

    def run(self, work: Work) -> Generator[Tally | FileSet, None, None]:
        run = _Run(work, may_add_nodes=not self._is_own)
        try:
            yield from run.events()
        finally:
            run.kill()

    def rewrite(self, job: Rewrite) -> list[DataFile]:
        import ray

        return ray.get(ray.remote(num_cpus=0)(run_rewrite).remote(job))

    def close(self) -> None:
        self._opened.close()


class _Run:
    """One run: its pools, writers, and the units on their way."""

    def __init__(self, work: Work, may_add_nodes: bool):
        import ray

        self.work, self.ray, self.may_add_nodes = work, ray, may_add_nodes
        self.nodes = _Nodes(ray)
        self.pools = [
            Pool(plan, index, work.writer.clip_tables, fingerprint=code_fingerprint(), is_last=False)
            for index, plan in enumerate(make_pools(work.stages, self.nodes.cpus, self.nodes.gpus))
        ]
        self.pools[-1].is_last = True
        self.writers = Writers(work, count=1 + int(self.nodes.cpus) // 16)
        self.budget = STORE_SHARE * self.nodes.store_bytes
        self.units: dict[str, _OnTheWay] = {}
        self.retries: deque[_OnTheWay] = deque()
        self.doubtful: list[tuple[float, _OnTheWay]] = []  # to be failed, if no node turns out to be lost
        self.ahead: deque[Unit] = deque()  # pending units that are listed already
        self.listed = False  # there are no more
        self.is_full = False  # so much is on its way that pool 0 waits
        self.unit_seconds: float | None = None  # CPU of a unit, running mean
        self.stopping: float | None = None  # when the work in hand is given up
        self.began, self.said_stuck, self.idle = time.monotonic(), False, 0

    def events(self) -> Iterator[Tally | FileSet]:
        """Yields tallies and file sets; raises what ended the run early, after the last file set."""
        error: Exception | None = None
        try:
            while not self._over():
                self._give_work()
                yield from self._take_results()
                self._judge_doubtful()
                if self.nodes.look_again(RESIZE_SECONDS):
                    plans = make_pools(self.work.stages, self.nodes.cpus, self.nodes.gpus)
                    for pool, plan in zip(self.pools, plans, strict=True):
                        pool.plan = plan
        except (SettingsError, UserError, EngineError) as caught:
            error = caught
        except self.ray.exceptions.RayError as caught:
            error = EngineError(f"Ray stopped: {' '.join(str(caught).split())[:300]}")
        except Exception as caught:  # of the listing too: what is finished is kept all the same
            error = caught
        for pool in self.pools:
            pool.kill()
        for closed in self.writers.finish():
            if closed.files is not None:
                yield closed.files
        if error is not None:
            raise error

    def kill(self) -> None:
        for pool in self.pools:
            pool.kill()
        self.writers.kill()

    def _over(self) -> bool:
        if self.work.stop.is_set():
            self.stopping = self.stopping or time.monotonic() + STOP_SECONDS
            return time.monotonic() >= self.stopping or not any(pool.busy for pool in self.pools)
        return self.listed and not self.ahead and not self.units

    # Work to the pools

    def _give_work(self) -> None:
        """Every pool, the last one first, takes what waits for it; pool 0 takes new units while there is room."""
        size = self.writers.open_bytes + sum(pool.waiting_bytes for pool in self.pools)
        self.is_full = size > self.budget or self.writers.open_rows > self.writers.most_rows
        for pool in reversed(self.pools):
            while (worker := pool.worker_with_room()) and (job := self._next_job(pool)):
                pool.give(worker, job)
            if pool.index or not self.is_full or not any(later.busy for later in self.pools[1:]):
                pool.ask_for_rest()
        self._list_ahead(JOBS * self.pools[0].plan.size)
        for pool in self.pools:
            pool.grow(len(pool.waiting) if pool.index else len(self.ahead) + len(self.retries), self.may_add_nodes)
            self._say_if_stuck(pool)

    def _say_if_stuck(self, pool: Pool) -> None:
        """Work waits, and Ray has placed no worker for it: other jobs may hold the cluster."""
        needs, late = pool.plan.needs, time.monotonic() - self.began > STUCK_SECONDS
        if late and not self.said_stuck and pool.workers and not any(worker.node for worker in pool.workers):
            self.said_stuck = True
            what = f"{needs.cpus:g} CPU" + (f" and {needs.gpus:g} GPU" if needs.gpus else "")
            print(f"waiting for Ray to place a worker for {pool.plan.name} ({what})", file=sys.stderr, flush=True)

    def _next_job(self, pool: Pool) -> Job | None:
        if pool.waiting:
            return pool.next_waiting()
        if pool.index or self.work.stop.is_set():
            return None
        if self.retries:
            again = self.retries.popleft()
            return Job([[again.unit]], {(again.unit.unit_id, -1)}, alone=again.alone)
        if self.is_full:
            return None
        seconds = self.unit_seconds
        count = 1 if seconds is None else int(min(JOB_UNITS, max(1, JOB_SECONDS / max(seconds, 1e-4))))
        self._list_ahead(count)
        units = [self.ahead.popleft() for _ in range(min(count, len(self.ahead)))]
        while units and units[-1].together and len(units) < JOB_UNITS:
            self._list_ahead(1)
            if not self.ahead or self.ahead[0].together != units[-1].together:
                break
            units.append(self.ahead.popleft())
        self.units.update((unit.unit_id, _OnTheWay(unit)) for unit in units)
        return Job([units], {(unit.unit_id, -1) for unit in units}) if units else None

    def _list_ahead(self, count: int) -> None:
        while not self.listed and len(self.ahead) < count:
            if (unit := next(self.work.units, None)) is None:
                self.listed = True
            else:
                self.ahead.append(unit)

    # Results of the pools and writers

    def _take_results(self) -> Iterator[Tally | FileSet]:
        calls = {ref: (pool, worker) for pool in self.pools for worker in pool.workers for ref in worker.refs}
        closing = self.writers.closing_refs()
        for ref in self._ready([*calls, *closing]):
            if ref in calls:
                yield from self._arrived(*calls[ref], ref)
        for closed in self.writers.take_closed():
            for unit_id in closed.written:
                self.units.pop(unit_id, None)
            for unit_id in closed.lost:
                self.units[unit_id].given_up = False
                self._again(self.units[unit_id])
            if closed.files is not None:
                yield closed.files
        no_more = self.is_full or (self.listed and not self.ahead)
        self.writers.close_if_due(now=no_more and not any(pool.busy for pool in self.pools))

    def _ready(self, refs: list[Any]) -> list[Any]:
        """Calls that are over, after waiting for one of them."""
        self.idle = 0 if refs or self.doubtful else self.idle + 1
        if self.idle > MOST_IDLE:  # better than to hang, should a unit ever be lost sight of
            raise EngineError(f"{len(self.units)} units are nowhere, such as {next(iter(self.units), '')}")
        if not refs:
            time.sleep(0.05)
            return []
        if not self.ray.wait(refs, num_returns=1, timeout=0.5)[0]:
            return []
        return self.ray.wait(refs, num_returns=len(refs), timeout=0)[0]

    def _arrived(self, pool: Pool, worker: Any, ref: Any) -> Iterator[Tally]:
        if worker not in pool.workers:  # it died a moment ago, by another of its calls
            return
        try:
            receipt, payload = pool.result(worker, ref)
        except self.ray.exceptions.RayActorError as error:
            self._died(pool, worker, error)
        except self.ray.exceptions.ObjectLostError:
            for unit_id in pool.take_back(worker, ref):
                self._again(self.units.get(unit_id))
        except SettingsError as error:
            raise original(error) from error
        except self.ray.exceptions.RayTaskError as error:
            raise EngineError(f"{pool.plan.name}: {_cause(error)}") from error
        else:
            yield from self._finished(pool, receipt, payload) if receipt is not None else (Tally(),)

    def _finished(self, pool: Pool, receipt: Receipt, payload: Any) -> Iterator[Tally]:
        """A payload to the next pool or the writers; parts of a long unit wait until all are there."""
        current = [each for each in receipt.finished if self._is_current(each)]
        stale = frozenset(each.unit_id for each in receipt.finished) - {each.unit_id for each in current}
        if not current:
            return
        if pool is not self.pools[-1]:
            alone = any(self.units[each.unit_id].alone for each in current)
            self.pools[pool.index + 1].waiting.append(Job.of(payload, receipt, alone))
            return
        first = current[0]
        if len(receipt.finished) > 1 or (first.part == 0 and first.last):
            self._learn_pace(receipt)
            self.writers.add([each.unit_id for each in current], [payload], receipt.rows, receipt.size, skipped=stale)
            if not stale:
                yield receipt.tally
            return
        yield from self._part(self.units[first.unit_id], first, receipt, payload)

    def _part(self, unit: _OnTheWay, part: Finished, receipt: Receipt, payload: Any) -> Iterator[Tally]:
        unit.parts[part.part] = (payload, receipt)
        if part.last:
            unit.count = part.part + 1
        if unit.unit.source is None:  # clips of the catalog: a part only reports progress
            yield receipt.tally
        if len(unit.parts) != unit.count:
            return
        parts = [unit.parts[number] for number in sorted(unit.parts)]
        failure = next((f.failure for _, r in parts for f in r.finished if f.failure is not None), None)
        found = Tally()
        for _, each in parts:
            found.add(each.tally)
        if failure is not None:
            found = Tally(stage_seconds=found.stage_seconds)
            found.fail(part.unit_id, failure)
        failures = {part.unit_id: failure} if failure is not None else {}
        rows, size = sum(r.rows for _, r in parts), sum(r.size for _, r in parts)
        self.writers.add([part.unit_id], [payload for payload, _ in parts], rows, size, failures)
        if unit.unit.source is not None:
            yield found

    def _is_current(self, each: Finished) -> bool:
        """Not of an attempt that was given up because a worker or node was lost."""
        unit = self.units.get(each.unit_id)
        return unit is not None and unit.unit.attempt == each.attempt

    def _learn_pace(self, receipt: Receipt) -> None:
        seconds = sum(receipt.tally.stage_seconds.values()) / len(receipt.finished)
        old = self.unit_seconds
        self.unit_seconds = seconds if old is None else 0.9 * old + 0.1 * seconds

    # Lost workers: a unit is failed only by the word of a process that outlived it

    def _died(self, pool: Pool, worker: Any, error: Exception) -> None:
        """Units that were in a worker are done again: one by one, unless their node was lost with the worker."""
        pool.remove(worker, error)
        ids = {unit_id for job in worker.jobs for unit_id, _ in job}
        units = [self.units[unit_id] for unit_id in ids if unit_id in self.units]
        lived = self.nodes.alive(worker.node)
        for unit in units:
            if lived and len(units) == 1 and unit.alone:
                unit.strikes.append(worker.node)
            unit.alone = unit.alone or lived
            if len(unit.strikes) >= STRIKES:
                unit.dead_in = pool.plan.name
                self.doubtful.append((time.monotonic() + NODE_GRACE_S, unit))
            else:
                self._again(unit)

    def _judge_doubtful(self) -> None:
        """Fails units on which workers died twice, once it is sure that their nodes live."""
        due = [unit for at, unit in self.doubtful if time.monotonic() >= at]
        self.doubtful = [(at, unit) for at, unit in self.doubtful if time.monotonic() < at]
        for unit in dict.fromkeys(due):
            if unit.given_up or unit.unit.unit_id not in self.units:
                continue
            unit.strikes = [node for node in unit.strikes if self.nodes.alive(node)]
            if len(unit.strikes) < STRIKES:
                self._again(unit)
                continue
            unit.given_up = True
            failed = unit.unit.failed(f"{unit.dead_in}: its worker died twice on it")
            self.writers.add([failed.unit_id], [self.ray.put([failed])], 1, 600)

    def _again(self, unit: _OnTheWay | None) -> None:
        if unit is not None and not unit.given_up and unit not in self.retries:
            unit.unit.attempt += 1
            unit.parts, unit.count = {}, -1
            self.retries.append(unit)


class _OnTheWay:
    """A unit that was given to pool 0 and is in no closed file yet."""

    def __init__(self, unit: Unit):
        self.unit = unit
        self.parts: dict[int, tuple[Any, Receipt]] = {}  # parts that left the last pool
        self.count = -1  # of parts, once the last one is there
        self.alone = False  # after a worker died on it among others: no other unit beside it
        self.strikes: list[str] = []  # nodes of workers that died on it alone
        self.dead_in = ""
        self.given_up = False  # its failure is with the writers


class _Nodes:
    """What the cluster has, as Ray's public state says."""

    def __init__(self, ray: Any):
        self.ray = ray
        self._look()

    def _look(self) -> None:
        resources = self.ray.cluster_resources()
        self.cpus, self.gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
        self.store_bytes = resources.get("object_store_memory", 1 << 30)
        self.looked = time.monotonic()

    def look_again(self, seconds: float) -> bool:
        """Whether the cluster changed, at most every so many seconds."""
        if time.monotonic() - self.looked < seconds:
            return False
        before = self.cpus, self.gpus
        self._look()
        return (self.cpus, self.gpus) != before

    def alive(self, node_id: str) -> bool:
        return any(node["NodeID"] == node_id and node["Alive"] for node in self.ray.nodes())


def _cause(error: Exception) -> str:
    """The first line of what a task raised."""
    cause = original(error)
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
