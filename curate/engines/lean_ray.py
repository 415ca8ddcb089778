"""What a Ray of our own does without: processes that serve dashboards, autoscaling and statistics.

Each is a Python process that imports Ray, and most of them Ray Data, before the first unit is taken: on two
cores that was more than half of the start. On a cluster of others none of this is touched. Ray has no settings
for it, so parts of Ray 2.50 to 2.60 are put aside by name; a part that another version lacks is left alone,
and that version merely starts slower.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def lean_start() -> Iterator[None]:
    """While Ray starts: no autoscaling monitor, no log monitor, no dashboard, agents without their extras."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without("ray._private.parameter", "RayParams", _without_monitors))
        stack.enter_context(_without("ray._private.services", "start_api_server", _no_api_server))
        stack.enter_context(_without("ray._private.utils", "get_dashboard_dependency_error", _no_dashboard))
        yield


@contextlib.contextmanager
def lean_data() -> Iterator[None]:
    """While Ray Data works on one machine: no actors for statistics, for scaling it, and for finding actors."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without("ray.data._internal.stats", "get_or_create_stats_actor", _no_actor))
        module = "ray.data._internal.execution.streaming_executor"
        stack.enter_context(_without(module, "create_cluster_autoscaler", _one_machine))
        for module in ("execution.operators.actor_pool_map_operator", "utils.cached_ray_internals"):
            name = "get_or_create_actor_location_tracker"
            stack.enter_context(_without(f"ray.data._internal.{module}", name, _no_actor))
        yield


def without_notices() -> contextlib.AbstractContextManager[None]:
    """While Ray works: no word on stdout of each worker that died; a unit that is given up says so itself."""
    return _without("ray._private.worker", "print_to_stdstream", _no_notice)


@contextlib.contextmanager
def _without(module: str, name: str, instead: Callable[[Any], Any]) -> Iterator[None]:
    """`instead` is given the part and says what takes its place; None leaves it."""
    try:
        there = importlib.import_module(module)
        old = getattr(there, name)
        new = instead(old)
    except (ImportError, AttributeError, TypeError, ValueError):
        new = None
    if new is None:
        yield
        return
    setattr(there, name, new)
    try:
        yield
    finally:
        setattr(there, name, old)


def _without_monitors(params: Any) -> Any:
    known = inspect.signature(params).parameters
    return functools.partial(params, **{k: v for k, v in MONITORS.items() if k in known})


MONITORS = {"no_monitor": True, "include_log_monitor": False}


def _no_api_server(start: Any) -> Any:
    """As if it had failed to start, which Ray allows: (its address, its process)."""
    return lambda *_, **__: (None, None)


def _no_notice(show: Any) -> Any:
    return lambda *_, **__: None


def _no_dashboard(error: Any) -> Any:
    """Ray's agents are told that the packages of its dashboard are missing, and import none of them."""
    return lambda: ImportError("no dashboard is wanted")


class NoActor:
    """Stands for a handle of an actor: whatever is asked of it is not done."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return NoMethod()


class NoMethod:
    def remote(self, *_: Any, **__: Any) -> Any:
        import ray

        return ray.put({})

    def options(self, **_: Any) -> NoMethod:
        return self


def _no_actor(get_or_create: Any) -> Any:
    return NoActor


def _one_machine(create: Any) -> Any:
    """Ray Data's view of the cluster: what there is now, and no wish for more."""
    import ray
    from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
    from ray.data._internal.execution.interfaces import ExecutionResources

    class OneMachine(ClusterAutoscaler):
        def __init__(self) -> None:
            self.total = ExecutionResources.from_resource_dict(ray.cluster_resources())

        def try_trigger_scaling(self) -> None:
            pass

        def on_executor_shutdown(self) -> None:
            pass

        def get_total_resources(self) -> ExecutionResources:
            return self.total

    missing = getattr(OneMachine, "__abstractmethods__", ())
    return None if missing else lambda *_, **__: OneMachine()
