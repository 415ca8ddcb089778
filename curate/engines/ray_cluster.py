"""A Ray to work on: the cluster that RAY_ADDRESS names, or one of our own for the time of a command."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from curate.errors import EngineError

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # notes on actors that died are not for users: the run reports them itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def ray_cluster(cpus: int | None = None) -> Iterator[bool]:
    """Connects to a Ray, or starts one unless this process is connected already; gives whether it is our own.

    EngineError where RAY_ADDRESS names a cluster that does not answer.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    warnings.filterwarnings("ignore", module=r"ray\.")
    if ray.is_initialized():
        yield False
        return
    _must_answer(os.environ.get("RAY_ADDRESS", ""))
    # Ray puts the driver's working directory first on its workers' import path, where a user's own models/ or
    # train.py would shadow ours: start it from the folder that holds these packages.
    # "local": without it Ray looks for a cluster of this machine first, and waits for one that was killed.
    address = os.environ.get("RAY_ADDRESS") or "local"
    with contextlib.chdir(Path(__file__).parents[2]), _quiet_stderr(), _own_signals():
        ray.init(address, num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield not os.environ.get("RAY_ADDRESS")
    finally:
        with _quiet_stderr():
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
