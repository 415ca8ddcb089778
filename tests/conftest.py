"""What holds for all tests: environment, examples of hypothesis, and their order on the workers of pytest-xdist.

`-m "not slow"` leaves out the tests that take seconds each (`make test-fast`). Hypothesis draws the number of examples
that a test asks for, else 50; `--hypothesis-profile thorough` draws 1,000 where a test does not ask.
"""

import fcntl
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

# Compiled modules are kept, whatever the shell says: else every worker rewrites the assertions of all tests (11 s of
# CPU), and each of the hundreds of processes that tests start compiles all of clipmill.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; read when torch is loaded
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: a thread each, in processes they start too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Fixtures of the whole session. A module that imported one would start another: a second browser, which can't be, or a
# second S3 server, whose clients are not those of the first.
from tests.browser import browser  # noqa: F401
from tests.s3 import bucket, s3_server  # noqa: F401

sys.dont_write_bytecode = False
RAY_LOCK = pytest.StashKey[TextIO]()

# No example fails because the machine is busy.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start Ray are slow. Under xdist, whose workers take files in this order, files with slow tests come
    first, so that no worker is left with a long one at the end; Ray's, of which one runs at a time, are spread evenly
    among them, so that workers seldom wait for one another.
    """
    for item in items:
        if starts_ray(item):
            item.add_marker("slow")
    if "PYTEST_XDIST_WORKER" in os.environ:
        ray = dict.fromkeys(item.path for item in items if starts_ray(item))
        slow = dict.fromkeys(i.path for i in items if i.get_closest_marker("slow") and i.path not in ray)
        place = {path: at / len(files) for files in (ray, slow) for at, path in enumerate(files)}
        items.sort(key=lambda item: place.get(item.path, 1.0))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of pytest-timeout: waiting for the others does not count
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """One file of tests on Ray at a time: a session takes every core, and two of them starve each other."""
    if "PYTEST_XDIST_WORKER" in os.environ and starts_ray(item) and RAY_LOCK not in item.config.stash:
        # (`--dist loadgroup` is for this, but xdist 3.8 does not group under pytest 9.2.)
        base = item.config.getoption("basetemp")
        item.config.stash[RAY_LOCK] = lock = open(Path(base).parent / "ray.lock", "w")  # noqa: SIM115 - held on
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        return (yield)
    finally:
        if RAY_LOCK in item.config.stash and (nextitem is None or nextitem.path != item.path):
            item.config.stash[RAY_LOCK].close()
            del item.config.stash[RAY_LOCK]


def starts_ray(item: pytest.Item) -> bool:
    return item.get_closest_marker("ray") is not None or "on_ray" in getattr(item, "fixturenames", ())
