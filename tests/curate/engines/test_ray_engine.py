"""Ray: pools on few CPUs, and workers, writers and nodes that are lost."""

import os
import signal
import threading
import time
from contextlib import suppress

import psutil
import pyarrow.parquet as pq
import pytest

from curate.engines.engine import CloseRule
from curate.engines.ray_worker import PoolWorker
from stages.base import SettingsError
from tests.curate.engines.made import Asking, Greedy, Later, Square, run, units

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def engine(on_ray):
    from curate.engines.ray_engine import RayEngine

    engine = RayEngine()
    yield engine
    engine.close()


def actors(name):
    """Processes of Ray's actors of a class, at work on whatever method."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if name in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill_one(name):
    """Kills an actor of a class, which has to be there."""
    victim = actors(name)[0]
    victim.send_signal(signal.SIGKILL)
    return victim.pid


def test_three_pools_on_two_cpus_end_and_pixels_travel_between_them_only(engine, tmp_path):
    outcome = run(engine, tmp_path / "catalog", (Greedy(), Later(), Asking()), units(40))
    assert {n: clips[0]["fps"] for n, clips in outcome.clips.items()} == {n: n for n in range(40)}
    assert len({clips[0]["height"] for clips in outcome.clips.values()}) == 1


def test_units_that_kill_their_worker_twice_are_found_and_the_others_are_done(engine, tmp_path):
    given = units(30, kills={17}, parts={20, 21}, kills_late={20}, kills_later={5})
    outcome = run(engine, tmp_path / "catalog", (Square(), Later()), given)
    assert {n: why for n, why in outcome.failures.items() if why is not None} == {
        5: "later: its worker died twice on it",
        17: "square: its worker died twice on it",
        20: "square: its worker died twice on it",
    }
    assert [clip["scene"] for clip in outcome.clips[21]] == [21**2 + part for part in range(6)]
    assert set(outcome.clips) == set(range(30)) - {5, 17, 20}


def test_a_worker_killed_from_outside_costs_no_unit(engine, tmp_path):
    killed = []

    def kill_once(event, outcome):
        if not killed:
            killed.append(kill_one("PoolWorker"))

    outcome = run(engine, tmp_path / "catalog", (Square(),), units(16, slow=0.2), seen=kill_once)
    assert killed and outcome.failures == dict.fromkeys(range(16))


def test_a_writer_killed_at_any_moment_costs_no_unit_and_doubles_none(engine, tmp_path):
    killed = []

    def kill_some(event, outcome):
        if len(killed) < 2 and outcome.total.done > 6 * (len(killed) + 1) and actors("WriterWorker"):
            killed.append(kill_one("WriterWorker"))

    outcome = run(engine, tmp_path / "catalog", (Square(),), units(30, slow=0.1), seen=kill_some)
    assert len(killed) == 2
    assert {n: len(clips) for n, clips in outcome.clips.items()} == dict.fromkeys(range(30), 1)


def test_a_writer_that_dies_between_its_files_and_their_report_doubles_no_unit(engine, tmp_path):
    outcome = run(engine, tmp_path / "catalog", (Square(),), units(12, slow=0.05), mark=tmp_path / "died")
    assert (tmp_path / "died").exists()
    assert {n: len(clips) for n, clips in outcome.clips.items()} == dict.fromkeys(range(12), 1)
    files = set((tmp_path / "catalog" / "sources").glob("*.parquet"))
    run(engine, tmp_path / "catalog", (Square(),), [])
    assert len(set((tmp_path / "catalog" / "sources").glob("*.parquet"))) < len(files)  # what nobody reported is gone


def test_pool_0_takes_no_more_than_the_writers_can_follow(engine, tmp_path):
    """Files of 100 rows cost more than 100 units of this stage: what is on its way must not grow."""
    taken, ahead = [], []

    def counted():
        for unit in units(6000):
            taken.append(unit.unit_id)
            yield unit

    outcome = run(
        engine, tmp_path / "catalog", (Square(),), counted(), closing=CloseRule(rows=100, seconds=3600),
        seen=lambda event, outcome: ahead.append(len(taken) - sum_of_rows(tmp_path / "catalog")),
    )  # fmt: skip
    assert len(outcome.clips) == 6000
    assert max(ahead) <= 2000  # 2 x 100 rows with the writer, and two jobs of up to 256 units in each of two workers


def sum_of_rows(folder):
    """Rows of `sources` that are in files."""
    return sum(pq.read_metadata(path).num_rows for path in (folder / "sources").glob("*.parquet"))


def test_workers_with_other_code_are_refused_with_the_way_on():
    worker = PoolWorker((), (), is_last=True)
    with pytest.raises(SettingsError, match=r"another clipmill.*install the same"):
        worker.setup("0" * 12)


def test_asked_to_stop_it_ends_though_a_unit_would_take_ten_minutes(engine, tmp_path):
    stop = threading.Event()
    began = []

    def stop_now(event, outcome):
        if not began:
            began.append(time.monotonic())
        stop.set()

    given = units(50)
    slow = (
        unit
        for unit in given
        if unit.source.columns.update(slow=600 if unit.source.columns["number"] else 0.01) or unit
    )
    outcome = run(engine, tmp_path / "catalog", (Square(),), slow, stop, seen=stop_now)
    assert set(outcome.clips) == {0}
    assert time.monotonic() - began[0] < 60  # 8 s for what is in hand; much more is a hang


def test_nothing_of_a_run_is_left_in_a_ray_that_lives_on(engine, on_ray, tmp_path):
    run(engine, tmp_path / "catalog", (Square(), Later()), units(5))
    gone = psutil.wait_procs([*actors("PoolWorker"), *actors("WriterWorker")], timeout=30)[1]
    assert not gone
    assert os.getcwd()
