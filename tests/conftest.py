"""What holds for all tests: environment, examples of hypothesis, and which tests go to one worker of pytest-xdist.

`-m "not slow"` leaves out the tests that take seconds each (`make test-fast`). Hypothesis draws the number of examples
that a test asks for, else 50; `--hypothesis-profile thorough` draws 1,000 where a test does not ask.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; read when torch is loaded
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: a thread each, in processes they start too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# No example fails because the machine is busy.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups for `--dist loadgroup`: tests of one file share its fixtures; those that start Ray share the cores.

    Tests that start Ray (with the marker `ray`, or the fixture `on_ray`) form one group, so that no two sessions run
    at a time; all of them are slow. Ray's group starts first, then those with slow tests, so that no worker is left
    with a long one at the end.
    """
    for item in items:
        on_ray = item.get_closest_marker("ray") is not None or "on_ray" in getattr(item, "fixturenames", ())
        if on_ray:
            item.add_marker("slow")
        item.add_marker(pytest.mark.xdist_group("ray" if on_ray else item.nodeid.partition("::")[0]))
    slow = {_group(item) for item in items if item.get_closest_marker("slow")}
    if config.getoption("dist", "no") != "no":
        items.sort(key=lambda item: (_group(item) != "ray", _group(item) not in slow))


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return marker.args[0] if marker else ""
