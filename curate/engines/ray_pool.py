"""A pool of Ray actors with the same stages: jobs to its workers, their results, and how it grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.engines.pools import PoolPlan
from curate.engines.ray_worker import Key, PoolWorker, Receipt, key_of
from curate.errors import EngineError

JOBS = 2  # that a worker holds: one in work, one waiting
JOB_BYTES = 64 << 20  # payloads of the pool before go to a worker together up to this size
FAILED_STARTS = 3  # workers of a pool that die before they are set up, in a row, before the run gives up


@dataclass
class Job:
    """Units for a worker: lists of them from the driver, or references of other workers' payloads."""

    payloads: list[Any]
    keys: set[Key]
    size: int = 0  # bytes
    alone: bool = False  # no other unit may be in the worker

    @classmethod
    def of(cls, payload: Any, receipt: Receipt, alone: bool) -> Job:
        return cls([payload], {key_of(each) for each in receipt.finished}, receipt.size, alone)


@dataclass(eq=False)
class Worker:
    """One actor. `refs` are calls under way, each receipt with its payload; `jobs` what it has not finished."""

    actor: Any
    node: str = ""  # known once it is set up
    refs: dict[Any, Any] = field(default_factory=dict)
    jobs: list[set[Key]] = field(default_factory=list)
    given: dict[Any, Job] = field(default_factory=dict)  # the job that a call brought
    alone: bool = False


class Pool:
    """`waiting` are jobs that the pool before has finished."""

    def __init__(self, plan: PoolPlan, index: int, tables: Sequence[str], fingerprint: str, is_last: bool):
        self.plan, self.index, self.tables, self.fingerprint, self.is_last = plan, index, tables, fingerprint, is_last
        self.waiting: deque[Job] = deque()
        self.workers: list[Worker] = []
        self.failed_starts = 0

    @property
    def waiting_bytes(self) -> int:
        held = sum(job.size for worker in self.workers for job in worker.given.values())
        return held + sum(job.size for job in self.waiting)

    @property
    def busy(self) -> bool:
        return bool(self.waiting) or any(worker.jobs for worker in self.workers)

    def next_waiting(self) -> Job | None:
        """The job that has waited longest; small ones together, so that a network sees several units a call."""
        if not self.waiting:
            return None
        job = self.waiting.popleft()
        while self.waiting and not job.alone and not self.waiting[0].alone and job.size < JOB_BYTES:
            other = self.waiting.popleft()
            job = Job(job.payloads + other.payloads, job.keys | other.keys, job.size + other.size)
        return job

    def worker_with_room(self) -> Worker | None:
        """The ready worker with the fewest jobs, if that one has room for another."""
        alone = bool(self.waiting and self.waiting[0].alone)
        ready = [w for w in self.workers if w.node and not w.alone and len(w.jobs) < (1 if alone else JOBS)]
        return min(ready, key=lambda worker: len(worker.jobs), default=None)

    def give(self, worker: Worker, job: Job) -> None:
        if job.alone and worker.jobs:  # it waits for a worker that holds nothing
            idle = next((w for w in self.workers if w.node and not w.jobs), None)
            if idle is None:
                self.waiting.appendleft(job)
                worker.alone = True  # takes nothing more until it is empty
                return
            worker = idle
        worker.alone = job.alone
        worker.jobs.append(job.keys)
        worker.given[self._call(worker, job.payloads)] = job

    def ask_for_rest(self) -> None:
        """Calls workers again that hold unfinished units and have no call under way."""
        for worker in self.workers:
            if worker.jobs and not worker.refs:
                self._call(worker, [])

    def _call(self, worker: Worker, payloads: list[Any]) -> Any:
        payload, receipt = worker.actor.step.options(num_returns=2).remote(*payloads)
        worker.refs[receipt] = payload
        return receipt

    def result(self, worker: Worker, ref: Any) -> tuple[Receipt | None, Any]:
        """(receipt, payload reference) of a call that is over; (None, None) of a worker's set-up.

        Raises what the call raised: RayActorError, ObjectLostError, SettingsError, RayTaskError.
        """
        import ray

        found = ray.get(ref)
        payload = worker.refs.pop(ref)
        if payload is None:
            worker.node, self.failed_starts = found, 0
            return None, None
        worker.given.pop(ref, None)
        done = {key_of(each) for each in found.finished}
        worker.jobs = [left for job in worker.jobs if (left := job - done)]
        if not worker.jobs:
            worker.alone = False
        return found, payload

    def take_back(self, worker: Worker, ref: Any) -> set[str]:
        """The unit ids of a call whose payload was lost on its way: the worker never saw them."""
        worker.refs.pop(ref)
        job = worker.given.pop(ref)
        worker.jobs = [each for each in worker.jobs if each is not job.keys]
        return {unit_id for unit_id, _ in job.keys}

    def remove(self, worker: Worker, error: Exception) -> None:
        """A worker that died. EngineError once several in a row never came up."""
        import ray

        ray.kill(worker.actor)  # one that can't be reached may live yet
        self.workers.remove(worker)
        if worker.node:
            return
        said = " ".join(str(error).split())
        if "No module named 'curate" in said or "No module named 'stages" in said:
            raise EngineError(
                "Ray's workers have no clipmill: install the same version on every node, or ship it with the "
                "runtime environment of the job"
            )
        self.failed_starts += 1
        if self.failed_starts >= FAILED_STARTS:
            raise EngineError(f"workers for {self.plan.name} can't start: {said[:300]}")

    def grow(self, waiting: int, may_add_nodes: bool) -> None:
        """Adds workers while work waits for them and the cluster has room.

        Where nodes may join, one worker more is asked for: an actor that waits for its place is what makes an
        autoscaler add a node.
        """
        coming = sum(not worker.node for worker in self.workers)
        most = self.plan.size
        if may_add_nodes and (self.plan.needs.workers is None or most < self.plan.needs.workers):
            most += 1
        while len(self.workers) < most and waiting > coming * JOBS and self.worker_with_room() is None:
            self._start()
            coming += 1

    def _start(self) -> None:
        import ray

        needs = self.plan.needs
        actor: Any = (
            ray.remote(PoolWorker)
            .options(num_cpus=needs.cpus, num_gpus=needs.gpus or None, max_restarts=0, max_task_retries=0)
            .remote(self.plan.stages, self.tables, self.is_last)
        )
        worker = Worker(actor)
        worker.refs[actor.setup.remote(self.fingerprint)] = None
        self.workers.append(worker)

    def kill(self) -> None:
        import ray

        for worker in self.workers:
            ray.kill(worker.actor)
        self.workers = []
