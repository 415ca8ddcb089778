"""The killable child: what it passes on, how it dies, and that it goes when its parent goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.frames import SourceError
from tests.stages.decode.child_tasks import HERE, alive, ask, eventually


@pytest.fixture(scope="module")
def child():
    with Child() as one:
        yield one


def test_messages_and_their_arrays_arrive_whole_and_in_order(child):
    got = list(child.call(f"{HERE}:numbers", 20, lambda message: message))
    assert [m.fields for m in got] == list(range(20))
    assert all((m.arrays[0] == m.fields).all() and m.arrays[0].shape == (50, 60, 3) for m in got)
    got[0].arrays[0][:] = 0  # arrays are the receiver's own


def test_one_child_serves_many_calls_and_large_ones(child):
    next(iter(ask(child, "echo", 1)), None)
    list(ask(child, "echo", 1))
    pid = child.pid
    for value in ("", None, {"a": [0.1, float("inf"), -5]}, "\u00e9\U0001f600" * 40_000):
        assert list(ask(child, "echo", value, stall_s=30)) == [value]
    ((grid, empty),) = child.call(f"{HERE}:noise", None, lambda message: message.arrays, stall_s=30)
    whole = np.random.default_rng(0).integers(0, 255, (3000, 3000), dtype=np.uint8)
    assert np.array_equal(grid, whole[::2, ::3]) and empty.shape == (0, 3)
    assert child.pid == pid


def test_prints_neither_reach_the_terminal_nor_harm_the_answers(child, capfd):
    assert list(ask(child, "prints")) == ["clean"]
    assert capfd.readouterr() == ("", "")


def test_a_source_error_stays_one_and_the_child_lives_on(child):
    with pytest.raises(SourceError, match="a reason"):
        list(ask(child, "refuses"))
    pid = child.pid
    assert list(ask(child, "echo", 5)) == [5] and child.pid == pid


def test_any_other_error_arrives_as_one_line_with_its_place(child):
    with pytest.raises(ChildError, match=r"^ValueError: bad value \(child_tasks\.py:\d+\)$"):
        list(ask(child, "breaks"))
    with pytest.raises(ChildError, match="AttributeError"):
        list(ask(child, "no_such_function"))


def test_a_crash_is_told_by_its_signal_and_the_next_call_works(child):
    got = []
    with pytest.raises(ChildDied, match=r"decoder died \(signal 11: SIGSEGV\)"):
        got.extend(ask(child, "crashes"))
    assert list(ask(child, "echo", 7)) == [7]


def test_a_hang_that_holds_the_gil_is_killed_by_the_stall_clock(child):
    calls, began = ask(child, "hangs_holding_the_gil", stall_s=1.0), time.monotonic()
    assert next(calls) == 1
    pid = child.pid
    with pytest.raises(ChildTimeout, match="no progress for 1 s"):
        next(calls)
    assert time.monotonic() - began < 10 and not alive(pid)
    assert list(ask(child, "echo", 7)) == [7]


def test_progress_keeps_a_slow_call_alive_but_not_beyond_its_limit(child):
    list(ask(child, "echo", 1))  # started and warm
    assert list(ask(child, "works_on", 2.0, stall_s=1.0)) == ["done"]
    with pytest.raises(ChildTimeout, match=r"took longer than 0\.7 s"):
        list(ask(child, "works_on", 20, stall_s=5, limit_s=0.7))


def test_a_slow_receiver_is_not_held_against_the_child(child):
    list(ask(child, "echo", 1))
    for number in ask(child, "numbers", 3, stall_s=0.5, limit_s=0.5):
        assert number < 3
        time.sleep(0.4)


def test_killing_takes_the_helpers_of_the_child_too(child):
    calls = ask(child, "starts_a_helper", stall_s=5)
    helper, pid = next(calls), child.pid
    assert alive(helper)
    calls.close()
    assert not alive(pid) and eventually(lambda: not alive(helper))


def test_a_child_killed_while_idle_is_replaced_unnoticed(child):
    list(ask(child, "echo", 1))
    os.kill(child.pid, signal.SIGKILL)
    assert list(ask(child, "echo", 2)) == [2]


def test_two_calls_at_once_are_refused(child):
    first = ask(child, "numbers", 3)
    next(first)
    with pytest.raises(RuntimeError, match="another call"):
        next(ask(child, "echo", 1))
    first.close()


def test_memory_over_the_limit_is_an_error_and_not_the_machine_s_trouble():
    with Child(memory_gb=2) as small:
        assert list(ask(small, "takes_memory", 1000)) == [1000]
        with pytest.raises(ChildError, match="MemoryError"):
            list(ask(small, "takes_memory", 4 * 2**30))


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death kills at once on Linux only")
def test_the_child_dies_with_its_parent_even_while_it_holds_the_gil(tmp_path):
    program = textwrap.dedent(f"""
        import threading
        from stages.decode.child import Child
        child = Child()
        calls = child.call("{HERE}:hangs_holding_the_gil", None, lambda message: message)
        thread = threading.Thread(target=lambda: next(calls))  # the thread ends; the child must not
        thread.start(); thread.join()
        print(child.pid, flush=True)
        next(calls)
    """)
    root = str(Path(__file__).parents[3])
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
    )
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually(lambda: not alive(pid))


def test_the_current_directory_shadows_nothing(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('the wrong models')")
    for name in ("train.py", "numpy.py", "stages.py", "struct.py"):
        (tmp_path / name).write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with Child() as one:
        ((path, models, ignores_interrupt),) = ask(one, "where")
    assert str(tmp_path) not in path and "" not in path
    assert not models.startswith(str(tmp_path)) and ignores_interrupt
