"""Both engines, with stages of the test's own; a Ray is started once for the module, a run shared where it can be."""

import os
import signal
import threading
import time
from contextlib import suppress
from itertools import pairwise
from typing import ClassVar

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.engines import run_units
from curate.engines.chain import PartsInOrder
from curate.engines.pools import make_pools
from curate.errors import EngineError, UserError
from stages.base import Needs, SettingsError, Stage
from stages.unit import Unit, source_id


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
            for part in range(6):
                if part == 3 and unit.entry.get("raises_late"):
                    raise ValueError("no fourth part")
                if part == 3 and unit.entry.get("kills_late"):
                    time.sleep(0.5)  # the parts before it have left
                    os.kill(os.getpid(), signal.SIGKILL)
                yield Unit(unit.unit_id, unit.entry, {"clips": [{"n": part}]}, part=part, last=part == 5)
            return
        time.sleep(unit.entry["slow"])
        unit.seconds = {"square": 1.0 if unit.entry["slow"] else 0.0}  # slow ones are parcels of their own
        unit.rows = {"clips": [{"n": number * number, "worker": os.getpid()}]}
        yield unit


class Later(Stage):
    """Even parts of a unit take longer: two workers of its pool overtake each other."""

    name: ClassVar[str] = "later"
    needs: ClassVar[Needs] = Needs(cpus=0.05, workers=2)  # other needs: a pool of its own

    def __call__(self, unit):
        if not unit.last and unit.part % 2 == 0:
            time.sleep(0.2)
        unit.rows["later"] = [{"seen": True}]
        yield unit


class Greedy(Square):
    """Wants more than any machine of a test has; leaves pixels for the next."""

    needs: ClassVar[Needs] = Needs(cpus=64)

    def __call__(self, unit):
        unit.pixels = {"clip": {None: [(0.0, np.full((512, 512, 3), unit.entry["number"], np.uint8))]}}
        yield unit


class Asking(Stage):
    """Waits for another's answer most of the time: one worker, next to no CPU."""

    name: ClassVar[str] = "asking"
    needs: ClassVar[Needs] = Needs(cpus=0.1, workers=1)

    def __call__(self, unit):
        ((_, frame),) = unit.pixels["clip"][None]
        unit.rows = {"captions": [{"mean": float(frame.mean()), "worker": os.getpid()}]}
        yield unit


class Refusing(Square):
    """Finds out in the worker that its settings can't work."""

    def __init__(self, where):
        self.where = where

    def setup(self):
        if self.where == "setup":
            raise SettingsError("no such model: name another")

    def __call__(self, unit):
        raise SettingsError("the server refuses the key: correct it")


class Graphic(Square):
    needs: ClassVar[Needs] = Needs(gpus=1)


def units(count, slow=0.0, **marked):
    for number in range(count):
        entry = {"number": number, "slow": slow}
        entry |= {word: True for word, numbers in marked.items() if number in numbers}
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

    from curate.engines.ray_session import ray_session

    with ray_session(cpus=2):
        yield ray
    os.chdir(here)


@pytest.fixture(scope="module", params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("on_ray")
    return request.param


def run(engine, stages, given):
    found = {}
    for unit in run_units(stages, given, engine):
        found.setdefault(unit.entry["number"], []).append(unit)
    return found


@pytest.fixture(scope="module")
def mixed(engine):
    """Two hundred units, one of them raises, some are long and leave in parts, one of these fails half-way."""
    return run(engine, (Square(), Later()), units(200, raises={7}, parts={3, 11, 12}, raises_late={11}))


def test_every_unit_comes_out_once_with_its_rows(mixed):
    plain = {n: us for n, us in mixed.items() if n not in (3, 7, 11, 12)}
    assert {n: [u.rows["clips"][0]["n"] for u in us] for n, us in plain.items()} == {n: [n * n] for n in plain}
    assert set(mixed) == set(range(200))


def test_an_exception_fails_its_unit_alone_in_one_line(mixed):
    assert [unit.failure for unit in mixed[7]] == ["square: number 7 is not liked"]
    assert {n for n, us in mixed.items() if any(unit.failure for unit in us)} == {7, 11}


@pytest.mark.parametrize(("where", "said"), [("setup", "no such model"), ("call", "the server refuses the key")])
def test_settings_that_a_worker_finds_can_t_work_end_the_run_in_their_own_words(engine, where, said):
    with pytest.raises(SettingsError, match=f"^{said}"):
        run(engine, (Square(), Refusing(where), Later()), units(3))


def test_the_parts_of_a_unit_come_in_order_and_pass_every_later_stage(mixed):
    for number in (3, 12):
        assert [unit.part for unit in mixed[number]] == [0, 1, 2, 3, 4, 5]
        assert [unit.last for unit in mixed[number]] == [False] * 5 + [True]
    assert all(u.entry["number"] == n and u.rows["later"] for n, us in mixed.items() for u in us if not u.failure)


def test_a_unit_that_fails_after_some_parts_ends_with_the_failure(mixed):
    assert [(unit.part, unit.failure) for unit in mixed[11]] == [
        (0, None),
        (1, None),
        (2, None),
        (3, "square: no fourth part"),
    ]
    assert [unit.last for unit in mixed[11]] == [False, False, False, True]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_parts_leave_in_order_however_they_come(lengths, dice):
    order = PartsInOrder()
    parts = [Unit(str(n), {}, part=part, last=part == k - 1) for n, k in enumerate(lengths) for part in range(k)]
    dice.shuffle(parts)
    left = [unit for part in parts for unit in order.add(part)]
    for number, length in enumerate(lengths):
        assert [unit.part for unit in left if unit.unit_id == str(number)] == list(range(length))


def test_three_pools_on_two_cpus_end_and_pixels_travel_between_them_only(on_ray):
    found = run("ray", (Greedy(), Later(), Asking()), units(40))
    assert {n: us[0].rows["captions"][0]["mean"] for n, us in found.items()} == {n: n for n in range(40)}
    assert len({us[0].rows["captions"][0]["worker"] for us in found.values()}) == 1
    assert not any(unit.pixels for us in found.values() for unit in us)


NEEDS = st.builds(
    Needs,
    cpus=st.sampled_from([0, 0.05, 0.5, 1, 3, 64]),
    gpus=st.sampled_from([0, 0, 0.25, 1, 2]),
    workers=st.sampled_from([None, None, 1, 3]),
)


@given(st.lists(NEEDS, min_size=1, max_size=5), st.sampled_from([1, 2, 3, 16, 64]), st.sampled_from([2, 3, 8]))
def test_pools_never_ask_for_more_than_there_is(needs, cpus, gpus):
    pools = make_pools(tuple(type("Any", (Square,), {"needs": need})() for need in needs), cpus, gpus)
    assert sum(pool.size * pool.needs.cpus for pool in pools) <= cpus + 1e-9
    assert sum(pool.size * pool.needs.gpus for pool in pools) <= gpus + 1e-9
    assert all(1 <= pool.size <= (pool.needs.workers or pool.size) for pool in pools)
    assert sum(len(pool.stages) for pool in pools) == len(needs)
    assert all(one.stages[0].needs != other.stages[0].needs for one, other in pairwise(pools))


def test_a_helper_that_hardly_computes_takes_no_decoder_away():
    assert [pool.size for pool in make_pools((Square(), Asking()), 2, 0)] == [2, 1]
    assert [pool.size for pool in make_pools((Square(), Asking()), 1, 0)] == [1, 1]


def test_a_stage_that_needs_a_gpu_says_so_where_there_is_none():
    with pytest.raises(UserError, match="'square' needs 1 GPU"):
        make_pools((Graphic(),), 2, 0)


def test_units_that_kill_their_worker_twice_are_found_and_the_others_are_done(on_ray):
    found = run("ray", (Square(),), units(30, kills={17}, parts={20, 21}, kills_late={20}))
    assert "its worker died twice" in found[17][-1].failure
    assert "its worker died twice" in found[20][-1].failure
    assert [unit.last for unit in found[20]] == [False] * (len(found[20]) - 1) + [True]
    assert [unit.part for unit in found[21]] == [0, 1, 2, 3, 4, 5]
    others = {n: [u.failure for u in us] for n, us in found.items() if n not in (17, 20, 21)}
    assert others == {n: [None] for n in range(30) if n not in (17, 20, 21)}


def test_a_worker_killed_from_outside_costs_no_unit(on_ray):
    found, killed = {}, None
    for unit in run_units((Square(),), units(16, slow=0.2), "ray"):
        found.setdefault(unit.entry["number"], []).append(unit.failure)
        if killed is None:  # there are fourteen to come, so it is at work
            killed = unit.rows["clips"][0]["worker"]
            os.kill(killed, signal.SIGKILL)
    assert found == {n: [None] for n in range(16)}


def test_asked_to_stop_ray_gives_what_is_finished_and_leaves_a_long_unit_behind(on_ray):
    stop = threading.Event()
    given = (Unit(source_id(str(n)), {"number": n, "slow": 600 if n else 0.01}) for n in range(50))
    found, began = [], None
    for unit in run_units((Square(),), given, "ray", stop):
        found.append(unit.entry["number"])
        stop.set()
        began = time.monotonic()
    assert found == [0]
    assert time.monotonic() - began < 15  # 3 s for what is in hand and a moment to end, on a busy machine


def test_asked_to_stop_inline_takes_no_further_unit_and_leaves_a_long_one():
    for parts, expected in ((set(), [0]), ({0}, [0])):
        stop = threading.Event()
        found = []
        for unit in run_units((Square(),), units(5, parts=parts), "inline", stop):
            found.append(unit.entry["number"])
            stop.set()
        assert found == expected


def test_an_error_in_the_listing_ends_the_run_after_what_was_listed(engine):
    def broken():
        yield from units(5)
        raise UserError("row 6 is no path")

    found = []
    with pytest.raises((UserError, EngineError), match="row 6"):
        for unit in run_units((Square(),), broken(), engine):
            found.append(unit)
    assert len(found) == 5


def test_a_ray_of_our_own_runs_nothing_that_a_run_does_not_need(on_ray):
    names = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            names.append(" ".join(process.cmdline()))
    assert any("raylet" in name for name in names)
    spare = ("monitor.py", "dashboard.py", "StatsActor", "AutoscalingCoordinator", "ActorLocationTracker")
    assert not [name for name in names if any(word in name for word in spare)]
