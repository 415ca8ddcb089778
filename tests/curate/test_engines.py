"""Both engines, with stages of the test's own; a Ray is started once for the module."""

import os
import signal
import threading
import time
from typing import ClassVar

import pytest

from curate.engines import run_units
from curate.engines.pools import make_pools
from curate.errors import EngineError, UserError
from curate.units import Unit
from stages.base import Needs, Stage
from stages.ids import source_id


class Square(Stage):
    """Adds a row; what it does with some numbers is in the entry."""

    name: ClassVar[str] = "square"

    def __call__(self, unit):
        number = unit.entry["number"]
        if unit.entry.get("raises"):
            raise ValueError(f"number {number}\nis not liked")
        if unit.entry.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if unit.entry.get("parts"):
            for part in range(3):
                yield Unit(unit.unit_id, unit.entry, {"clips": [{"n": part}]}, part=part, last=part == 2)
            return
        if unit.entry.get("slow"):
            time.sleep(0.3)
        unit.rows = {"clips": [{"n": number * number}]}
        yield unit


class Greedy(Square):
    """Wants more than any machine of a test has."""

    needs: ClassVar[Needs] = Needs(cpus=64)


class Graphic(Square):
    needs: ClassVar[Needs] = Needs(gpus=1)


def units(count, **marked):
    for number in range(count):
        entry = {"number": number} | {word: True for word, numbers in marked.items() if number in numbers}
        yield Unit(source_id(str(number)), entry)


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory):
    """Started from a folder whose own packages must not shadow ours, as a user's project may have them."""
    here = os.getcwd()
    hostile = tmp_path_factory.mktemp("project")
    for name in ("models", "stages", "curate"):
        (hostile / name).mkdir()
        (hostile / name / "__init__.py").write_text("raise RuntimeError('a package of the user was imported')")
    (hostile / "train.py").write_text("raise RuntimeError('a module of the user was imported')")
    os.chdir(hostile)
    import ray

    from curate.engines.on_ray import ray_session

    with ray_session(cpus=2):
        yield ray
    os.chdir(here)


@pytest.fixture(params=["inline", "ray"])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("on_ray")
    return request.param


def run(engine, stages, given):
    found = {}
    for unit in run_units(stages, given, engine):
        found.setdefault(unit.entry["number"], []).append(unit)
    return found


def test_every_unit_comes_out_once_with_its_rows(engine):
    found = run(engine, (Square(),), units(300))
    assert {n: [u.rows["clips"][0]["n"] for u in us] for n, us in found.items()} == {n: [n * n] for n in range(300)}


def test_an_exception_fails_its_unit_alone_in_one_line(engine):
    found = run(engine, (Square(),), units(20, raises={7}))
    assert found[7][0].failure == "square: number 7 is not liked"
    assert all(us[0].failure is None for n, us in found.items() if n != 7)
    assert len(found) == 20


def test_the_parts_of_a_unit_come_in_order_and_pass_every_later_stage(engine):
    found = run(engine, (Square(), Later()), units(10, parts={3}))
    assert [unit.part for unit in found[3]] == [0, 1, 2]
    assert [unit.last for unit in found[3]] == [False, False, True]
    assert all(unit.entry["number"] == n and unit.rows["later"] for n, us in found.items() for unit in us)


class Later(Stage):
    name: ClassVar[str] = "later"
    needs: ClassVar[Needs] = Needs(cpus=0.5)  # other needs: a pool of its own

    def __call__(self, unit):
        unit.rows["later"] = [{"seen": True}]
        yield unit


@pytest.mark.timeout(120)
def test_a_plan_that_asks_for_more_than_there_is_is_scaled_down_and_ends(on_ray):
    assert len(run("ray", (Greedy(), Later(), Greedy()), units(30))) == 30


def test_pools_never_ask_for_more_than_there_is():
    for cpus in (1, 2, 3, 16, 64):
        for stages in ((Square(),), (Square(), Later()), (Greedy(), Later(), Square())):
            pools = make_pools(stages, cpus, 0)
            assert sum(pool.size * pool.needs.cpus for pool in pools) <= cpus + 0.01
            assert all(pool.size >= 1 for pool in pools)
    assert [len(pool.stages) for pool in make_pools((Square(), Square(), Later()), 2, 0)] == [2, 1]


def test_a_stage_that_needs_a_gpu_says_so_where_there_is_none():
    with pytest.raises(UserError, match="'square' needs 1 GPU"):
        make_pools((Graphic(),), 2, 0)


@pytest.mark.timeout(300)
def test_a_unit_that_kills_its_worker_twice_is_found_and_the_others_are_done(on_ray):
    found = run("ray", (Square(),), units(60, kills={17}))
    assert "its worker died twice" in found[17][0].failure
    assert {n: us[0].failure for n, us in found.items() if n != 17} == {n: None for n in range(60) if n != 17}


@pytest.mark.timeout(300)
def test_a_worker_killed_from_outside_costs_no_unit(on_ray):
    import psutil

    killed = []

    def kill_one_worker():
        time.sleep(2)
        for process in psutil.process_iter(["cmdline"]):
            if any("PoolWorker" in part for part in process.info["cmdline"] or []) and mine(process):
                process.kill()
                killed.append(process.pid)
                return

    def mine(process):
        return os.getpid() in [parent.pid for parent in process.parents()]

    thread = threading.Thread(target=kill_one_worker)
    thread.start()
    found = run("ray", (Square(),), units(40, slow=set(range(40))))
    thread.join()
    assert killed
    assert {n: (len(us), us[0].failure) for n, us in found.items()} == {n: (1, None) for n in range(40)}


def test_an_error_in_the_listing_ends_the_run_after_what_was_listed(engine):
    def broken():
        yield from units(5)
        raise UserError("row 6 is no path")

    found = []
    with pytest.raises((UserError, EngineError), match="row 6"):
        for unit in run_units((Square(),), broken(), engine):
            found.append(unit)
    assert len(found) == 5
