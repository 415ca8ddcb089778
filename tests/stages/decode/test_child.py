"""The killable child: what it passes on, how it dies, and that it goes when its parent goes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.frames import SourceError

HERE = "tests.stages.decode.test_child"


@pytest.fixture(scope="module")
def child():
    with Child() as one:
        yield one


# What runs in the child.


def numbers(count, *, progress):
    for i in range(count):
        yield {"i": i, "pixels": np.full((50, 60, 3), i, np.uint8)}


def echo(value, *, progress):
    yield value


def prints(*, progress):
    print("to standard output", flush=True)
    os.write(1, b"straight to the descriptor")
    os.write(2, b"and to the other")
    yield "clean"


def refuses(*, progress):
    yield 1
    raise SourceError("a reason\nin two lines")


def breaks(*, progress):
    yield 1
    raise ValueError("bad\nvalue")


def crashes(*, progress):
    yield 1
    ctypes.string_at(0)


def hangs_holding_the_gil(*, progress):
    yield 1
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the GIL, as decord's deadlock does


def works_on(seconds, *, progress):
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(0.02)
        progress(1)
    yield "done"


def starts_a_helper(*, progress):
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield helper.pid
    time.sleep(600)


def takes_memory(size, *, progress):
    yield len(bytearray(size))


def where(*, progress):
    import models

    yield sys.path, models.__file__, signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_messages_and_their_arrays_arrive_whole_and_in_order(child):
    got = list(child.call(f"{HERE}:numbers", 20))
    assert [m["i"] for m in got] == list(range(20))
    assert all((m["pixels"] == m["i"]).all() and m["pixels"].shape == (50, 60, 3) for m in got)
    got[0]["pixels"][:] = 0  # arrays are the receiver's own


def test_one_child_serves_many_calls_and_large_ones(child):
    next(iter(child.call(f"{HERE}:echo", 1)), None)
    list(child.call(f"{HERE}:echo", 1))
    pid = child.pid
    big = np.random.default_rng(0).integers(0, 255, (3000, 3000), dtype=np.uint8)
    for value in (big, "", None, big[::2, ::3], b"x" * 5_000_000):
        (back,) = child.call(f"{HERE}:echo", value, stall_s=30)
        assert np.array_equal(back, value) if isinstance(value, np.ndarray) else back == value
    assert child.pid == pid


def test_prints_neither_reach_the_terminal_nor_harm_the_answers(child, capfd):
    assert list(child.call(f"{HERE}:prints")) == ["clean"]
    assert capfd.readouterr() == ("", "")


def test_a_source_error_stays_one_and_the_child_lives_on(child):
    with pytest.raises(SourceError, match="a reason"):
        list(child.call(f"{HERE}:refuses"))
    pid = child.pid
    assert list(child.call(f"{HERE}:echo", 5)) == [5] and child.pid == pid


def test_any_other_error_arrives_as_one_line_with_its_place(child):
    with pytest.raises(ChildError, match=r"^ValueError: bad value \(test_child\.py:\d+\)$"):
        list(child.call(f"{HERE}:breaks"))
    with pytest.raises(ChildError, match="AttributeError"):
        list(child.call(f"{HERE}:no_such_function"))


def test_a_crash_is_told_by_its_signal_and_the_next_call_works(child):
    got = []
    with pytest.raises(ChildDied, match=r"decoder died \(signal 11: SIGSEGV\)"):
        got.extend(child.call(f"{HERE}:crashes"))
    assert list(child.call(f"{HERE}:echo", 7)) == [7]


def test_a_hang_that_holds_the_gil_is_killed_by_the_stall_clock(child):
    calls, began = child.call(f"{HERE}:hangs_holding_the_gil", stall_s=1.0), time.monotonic()
    assert next(calls) == 1
    pid = child.pid
    with pytest.raises(ChildTimeout, match="no progress for 1 s"):
        next(calls)
    assert time.monotonic() - began < 10 and not alive(pid)
    assert list(child.call(f"{HERE}:echo", 7)) == [7]


def test_progress_keeps_a_slow_call_alive_but_not_beyond_its_limit(child):
    list(child.call(f"{HERE}:echo", 1))  # started and warm
    assert list(child.call(f"{HERE}:works_on", 2.0, stall_s=1.0)) == ["done"]
    with pytest.raises(ChildTimeout, match=r"took longer than 0\.7 s"):
        list(child.call(f"{HERE}:works_on", 20, stall_s=5, limit_s=0.7))


def test_a_slow_receiver_is_not_held_against_the_child(child):
    list(child.call(f"{HERE}:echo", 1))
    for message in child.call(f"{HERE}:numbers", 3, stall_s=0.5, limit_s=0.5):
        assert message["i"] < 3
        time.sleep(0.4)


def test_killing_takes_the_helpers_of_the_child_too(child):
    calls = child.call(f"{HERE}:starts_a_helper", stall_s=5)
    helper, pid = next(calls), child.pid
    assert alive(helper)
    calls.close()
    assert not alive(pid) and eventually(lambda: not alive(helper))


def test_a_child_killed_while_idle_is_replaced_unnoticed(child):
    list(child.call(f"{HERE}:echo", 1))
    os.kill(child.pid, signal.SIGKILL)
    assert list(child.call(f"{HERE}:echo", 2)) == [2]


def test_two_calls_at_once_are_refused(child):
    first = child.call(f"{HERE}:numbers", 3)
    next(first)
    with pytest.raises(RuntimeError, match="another call"):
        next(child.call(f"{HERE}:echo", 1))
    first.close()


def test_memory_over_the_limit_is_an_error_and_not_the_machine_s_trouble():
    with Child(memory_gb=2) as small:
        assert list(small.call(f"{HERE}:takes_memory", 1000)) == [1000]
        with pytest.raises(ChildError, match="MemoryError"):
            list(small.call(f"{HERE}:takes_memory", 4 * 2**30))


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death kills at once on Linux only")
def test_the_child_dies_with_its_parent_even_while_it_holds_the_gil(tmp_path):
    program = textwrap.dedent(f"""
        import threading
        from stages.decode.child import Child
        child = Child()
        calls = child.call("{HERE}:hangs_holding_the_gil")
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
        ((path, models, ignores_interrupt),) = one.call(f"{HERE}:where")
    assert str(tmp_path) not in path and "" not in path
    assert not models.startswith(str(tmp_path)) and ignores_interrupt
