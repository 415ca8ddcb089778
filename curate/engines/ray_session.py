"""A Ray to work on: the cluster that RAY_ADDRESS names, or one of our own for the time of a run."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from curate.engines.lean_ray import lean_data, lean_start, without_notices
from curate.errors import EngineError

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its notes on actor restarts are not for users
    "RAY_worker_niceness": "0",  # of 15, as is Ray's way, a busy machine would leave the workers next to nothing
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_LOGGING_CONFIG": str(Path(__file__).with_name("ray_logging.yaml")),
}


@contextlib.contextmanager
def ray_session(cpus: int | None = None) -> Iterator[None]:
    """A Ray of our own unless one is there already, which is left as it is."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            address = os.environ.get("RAY_ADDRESS", "")
            _must_answer(address)
            stack.enter_context(without_notices())
            stack.callback(ray.shutdown)
            _start(cpus, own=not address)
            if not address:
                stack.enter_context(lean_data())
        warnings.filterwarnings("ignore", module=r"ray\.")  # fewer parcels than workers is no trouble
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # one row, one block: Ray Data must not gather parcels into big blocks
        context.print_on_execution_start = False
        yield


def _start(cpus: int | None, own: bool) -> None:
    """Ray starts, mostly waiting for its processes, while another thread imports Ray Data.

    Not the other way round: its processes end with the thread that started them.
    """
    import ray

    loading = threading.Thread(target=importlib.import_module, args=("ray.data",), name="clipmill-import")
    # Ray puts the driver's working directory first on its workers' import path, where a user's own
    # models/ or train.py would shadow ours: start it from the folder that holds these packages.
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(Path(__file__).parents[2]))
        stack.enter_context(_quiet_stderr())
        stack.enter_context(_own_signals())
        if own:
            stack.enter_context(lean_start())
        loading.start()
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    loading.join()


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
