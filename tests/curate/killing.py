"""Real kills: processes of a run found in its tree and ended by -9 at random moments."""

from __future__ import annotations

import signal
import time

import psutil

from tests.waiting import HANGS_S, wait_until


def tree(process):
    try:
        return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_worker(process):
    """A decode child, or a Ray worker at work."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "PoolWorker" in line or "child_main" in line


def kill(targets):
    for target in targets:
        try:
            target.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def at_work(process):
    """Waits until something decodes: how long a start takes is another matter."""
    wait_until(lambda: process.poll() is not None or any(is_worker(one) for one in tree(process)[1:]))


def run_and_kill(start_one, whom, after, dice, working=False):
    """Starts a run, kills at a random moment (of its work, where asked), waits for its end; returns its exit code."""
    process = start_one()
    if working:
        at_work(process)
    time.sleep(dice.uniform(*after))
    everything = tree(process)
    workers = [one for one in everything[1:] if is_worker(one)]
    if process.poll() is None:
        kill({"driver": everything[:1], "worker": workers[:1], "all": everything}[whom])
    try:
        code = process.wait(timeout=HANGS_S)
    finally:
        process.stderr.close()
    _, alive = psutil.wait_procs(workers, timeout=HANGS_S)  # what does the work goes with the driver
    assert not alive
    return code
