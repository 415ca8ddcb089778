"""The killable child: what it passes on, how it dies, and that it goes when its parent goes."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode import ranges
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.messages import DONE, HEADER_BYTES, ITEM, PREFIX, Message, pack
from stages.decode.pyav_reader import PyAVReader
from stages.decode.reading import SafeFile
from stages.frames import SourceError
from tests.hostile import moving_square, write_video
from tests.s3 import bucket, s3_server  # noqa: F401 - fixtures

HERE = "tests.stages.decode.test_child"


@pytest.fixture(scope="module")
def child():
    with Child() as one:
        yield one


# What runs in the child.


def numbers(call):
    for i in range(call.request):
        yield Message(i, [np.full((50, 60, 3), i, np.uint8)])


def echo(call):
    yield Message(call.request)


def noise(call):
    rng = np.random.default_rng(0)
    yield Message(None, [rng.integers(0, 255, (3000, 3000), dtype=np.uint8)[::2, ::3], np.empty((0, 3), np.uint8)])


def prints(call):
    print("to standard output", flush=True)
    os.write(1, b"straight to the descriptor")
    os.write(2, b"and to the other")
    yield Message("clean")


def refuses(call):
    yield Message(1)
    raise SourceError("a reason\nin two lines")


def breaks(call):
    yield Message(1)
    raise ValueError("bad\nvalue")


def crashes(call):
    yield Message(1)
    ctypes.string_at(0)


def hangs_holding_the_gil(call):
    yield Message(1)
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the GIL, as decord's deadlock does


def works_on(call):
    began = time.monotonic()
    while time.monotonic() - began < call.request:
        time.sleep(0.02)
        call.progress(1)
    yield Message("done")


def starts_a_helper(call):
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield Message(helper.pid)
    time.sleep(600)


def takes_memory(call):
    yield Message(len(bytearray(call.request)))


def where(call):
    import models

    yield Message([sys.path, models.__file__, signal.getsignal(signal.SIGINT) == signal.SIG_IGN])


def surroundings(call):
    """The environment, and what each open descriptor refers to."""
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
    yield Message([dict(os.environ), descriptors])


def reads(call):
    with call.file as file:
        yield Message([file.read().decode(), file.content_hash(), file.size])


def keeps(call):
    """Reads a part of a source, and leaves it open for the next call."""
    call.file.seek(0)
    yield Message([call.file.read(4).decode(), id(call.file)])


def says(call):
    """Puts forged bytes on the answer pipe, which a hostile file might make the decoder do."""
    pipes = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_pipe(fd)]
    os.write(pipes[0], bytes.fromhex(call.request))
    time.sleep(600)
    yield


def says_and_ends(call):
    pipes = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_pipe(fd)]
    os.write(pipes[0], bytes.fromhex(call.request))
    os._exit(3)
    yield


def drips(call):
    pipes = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_pipe(fd)]
    for byte in PREFIX.pack(ITEM, 100_000) + bytes(100_000):
        os.write(pipes[0], bytes([byte]))
        time.sleep(0.01)
    yield


def decodes_once_unlinked(call):
    yield Message("open")
    while os.fstat(call.file.local_descriptor).st_nlink:
        time.sleep(0.01)
    frames = sum(1 for _ in PyAVReader(call.file))
    yield Message([frames, call.file.content_hash()])


def reads_remote(call):
    with call.file as file:
        loaded = [name for name in ("s3fs", "botocore", "aiohttp") if name in sys.modules]
        yield Message([file.content_hash(), file.size, loaded])


def reads_then_marks(call):
    yield Message("begun")
    with call.file as file:
        size = len(file.read())
    Path(call.request).touch()
    yield Message(size)


def is_pipe(descriptor):
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def ask(child, name, request=None, **more):
    """The fields of each message that a function of this file yields in the child."""
    return child.call(f"{HERE}:{name}", request, lambda message: message.fields, **more)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


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
    with pytest.raises(ChildError, match=r"^ValueError: bad value \(test_child\.py:\d+\)$"):
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


# What the child is given


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_SESSION_TOKEN": "a-secret", "HF_TOKEN": "a-secret",
    "GOOGLE_APPLICATION_CREDENTIALS": "a-secret", "HTTPS_PROXY": "http://user:a-secret@proxy", "HOME": "/a-secret",
    "LC_CTYPE": "C.UTF-8",
}  # fmt: skip


def test_the_child_gets_no_secret_of_the_environment_and_no_other_descriptor(tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with open(tmp_path / "private", "w") as private, Child() as one:
        os.set_inheritable(private.fileno(), True)
        ((environment, descriptors),) = ask(one, "surroundings")
    assert "a-secret" not in " ".join(environment.values()) and not set(environment) & (set(SECRETS) - {"LC_CTYPE"})
    assert environment["LC_CTYPE"] == "C.UTF-8" and environment["PATH"] == os.environ["PATH"]
    opened = sorted(target.split(":")[0] for target in descriptors.values())
    assert opened == ["/dev/null", "/dev/null", "/dev/null", "/dev/null", "pipe", "socket"]


def test_a_source_that_is_gone_by_its_path_is_decoded_all_the_same(child, tmp_path):
    film = write_video(tmp_path / "a.mp4", moving_square(24))
    expected = xxhash.xxh3_128_hexdigest(film.read_bytes())
    answers = ask(child, "decodes_once_unlinked", source=str(film), stall_s=30)
    assert next(answers) == "open"
    film.unlink()
    assert list(answers) == [[24, expected]]


def test_a_source_that_can_not_be_opened_is_refused_and_the_child_lives_on(child, tmp_path):
    list(ask(child, "echo", 1))
    pid = child.pid
    with pytest.raises(SourceError, match="can't be opened: No such file"):
        list(ask(child, "reads", source=str(tmp_path / "none")))
    assert list(ask(child, "echo", 2)) == [2] and child.pid == pid


def test_a_source_that_a_task_leaves_open_is_not_opened_again(child, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old bytes")
    second.write_text("more")
    ((text, file),) = ask(child, "keeps", source=str(first))
    first.unlink()
    ((again, same),) = ask(child, "keeps", source=str(first))
    assert (text, again, file) == ("old ", "old ", same)
    ((more, _),) = ask(child, "keeps", source=str(second))
    assert more == "more"
    with pytest.raises(SourceError, match="No such file"):
        list(ask(child, "keeps", source=str(first)))
    first.write_text("new bytes")
    child.kill()  # whatever was open is gone with the process
    ((renewed, _),) = ask(child, "keeps", source=str(first))
    assert renewed == "new "


def test_a_call_without_a_source_has_no_file(child):
    with pytest.raises(ChildError, match="names no source"):
        list(ask(child, "reads"))


def test_a_remote_source_is_read_through_the_parent_alone(child, bucket):  # noqa: F811
    import s3fs

    data = np.random.default_rng(1).bytes(3 * ranges.BLOCK + 17)
    s3fs.S3FileSystem().pipe_file(f"{bucket}/film", data)
    ((content_hash, size, loaded),) = ask(child, "reads_remote", source=f"{bucket}/film", stall_s=60)
    assert (content_hash, size) == (xxhash.xxh3_128_hexdigest(data), len(data))
    assert not loaded, "the child has no client of a store"
    ((environment, _),) = ask(child, "surroundings")
    assert not [name for name in environment if name.startswith("AWS_")]
    with pytest.raises(SourceError, match="can't be opened"):
        list(ask(child, "reads_remote", source=f"{bucket}/none", stall_s=60))


def test_a_remote_source_is_read_on_while_the_parent_does_something_else(child, tmp_path):
    with fsspec.open("memory://films/long", "wb") as out:
        out.write(bytes(5 * ranges.BLOCK))
    answers = ask(child, "reads_then_marks", str(tmp_path / "mark"), source="memory://films/long", stall_s=30)
    assert next(answers) == "begun"
    assert eventually((tmp_path / "mark").exists, 60)
    assert list(answers) == [5 * ranges.BLOCK]


@pytest.fixture
def hanging():
    """An event that ends the waiting of every store hanging://."""
    go_on = threading.Event()

    class Hanging(fsspec.AbstractFileSystem):
        protocol = "hanging"

        def info(self, path, **_):
            go_on.wait()
            raise FileNotFoundError(path)

    fsspec.register_implementation("hanging", Hanging, clobber=True)
    yield go_on
    go_on.set()


def test_a_store_that_hangs_costs_the_source_and_not_the_worker(child, hanging):
    with pytest.raises(ChildTimeout, match=r"no progress for 0\.3 s"):
        list(ask(child, "reads", source="hanging://film", stall_s=0.3))
    assert list(ask(child, "echo", 1)) == [1]


def test_a_call_can_be_interrupted_while_its_source_is_opened(child, hanging):
    ended = threading.Event()

    def interrupt():
        while not ended.wait(0.02):
            child.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(ChildDied):
        list(ask(child, "reads", source="hanging://film"))
    ended.set()
    thread.join()


# What the child may answer


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def forged(tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    header = b"".join(pack(ITEM, Message(1)))
    return {
        "a pickle": (trap, "kind 128 of message is unknown"),
        "a pickle as header": (PREFIX.pack(ITEM, len(trap)) + trap, "malformed answer"),
        "a header of absurd length": (PREFIX.pack(ITEM, HEADER_BYTES + 1), "over the limit"),
        "arrays of absurd size": (framed(b"[1,[[1099511627776]]]"), "arrays of 1099511627776 bytes are over the limit"),
        "many large arrays": (framed(b"[1,[" + b"[268435456]," * 1000 + b"[1]]]"), "over the limit"),
        "a negative shape": (framed(b"[1,[[-1,-1]]]"), "malformed answer"),
        "a deep header": (framed(b"[" * 100_000), "malformed answer"),
        "no JSON": (framed(b"[1,[]"), "malformed answer"),
        "half a character": (framed(b'["\\ud800",[]]'), "malformed answer"),
        "an end that is none": (header.replace(bytes([ITEM]), bytes([DONE]), 1), "malformed answer"),
        "what the caller refuses": (framed(b'["refused",[]]'), "malformed answer of the decoder: no such answer"),
    }


def framed(header: bytes) -> bytes:
    return PREFIX.pack(ITEM, len(header)) + header


def test_a_forged_answer_fails_the_call_and_does_nothing_else(child, tmp_path):
    def parse(message):
        if message.fields == "refused":
            raise ValueError("no such answer")
        return message.fields

    for name, (data, reason) in forged(tmp_path).items():
        with pytest.raises(ChildError, match=reason):
            list(child.call(f"{HERE}:says", data.hex(), parse, stall_s=30))
        assert child.pid is None, name
        assert not (tmp_path / "sprung").exists(), name
    assert list(ask(child, "echo", 1)) == [1]
    pickle.loads(forged(tmp_path)["a pickle"][0])
    assert (tmp_path / "sprung").exists(), "the trap works"


@pytest.mark.parametrize("part", [b"", PREFIX.pack(ITEM, 10)[:3], PREFIX.pack(ITEM, 10), framed(b"[1,[[9]]]") + b"x"])
def test_an_answer_that_is_cut_off_fails_the_call(child, part):
    with pytest.raises(ChildTimeout, match=r"no progress for 0\.5 s"):
        list(ask(child, "says", part.hex(), stall_s=0.5))
    with pytest.raises(ChildDied, match="exit code 3"):
        list(ask(child, "says_and_ends", part.hex(), stall_s=30))


def test_a_message_that_never_ends_is_cut_off_by_the_limit(child):
    list(ask(child, "echo", 1))
    with pytest.raises(ChildTimeout, match=r"took longer than 1 s"):
        list(ask(child, "drips", stall_s=30, limit_s=1))


# Byte ranges


steps = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 700)), max_size=12)


@settings(deadline=None, max_examples=40)
@given(size=st.integers(0, 3000), steps=steps)
def test_byte_ranges_are_those_of_the_source_whatever_is_asked(size, steps):
    data = np.random.default_rng(size).bytes(size)
    stream = io.BytesIO(data)
    with served(stream, block=256) as reader:
        for position, length in steps:
            place = position
            while place < min(position + length, size):
                got = reader.read_at(place, position + length - place)
                assert got and got == data[place : place + len(got)]
                place += len(got)
            assert reader.read_at(max(size, position), length) == b"" or position < size
    assert eventually(lambda: stream.closed), "the parent closes the source when the child does"


def test_a_read_that_fails_at_the_parent_fails_in_the_child_with_the_reason():
    class Broken(io.BytesIO):
        def read(self, length=-1):
            raise OSError(104, "Connection reset by peer")

    with served(Broken(b"x" * 10)) as reader:
        file = SafeFile(reader.read_at, 10, lambda: None)
        with pytest.raises(SourceError, match="reading failed at byte 0: Connection reset by peer"):
            file.read(5)


def test_a_source_that_the_parent_gave_up_is_an_error_and_not_its_end():
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(OSError):
        ranges.RangeReader(theirs).read_at(0, 10)


@contextlib.contextmanager
def served(stream, block=ranges.BLOCK):
    ours, theirs = socket.socketpair()
    threading.Thread(target=ranges.serve, args=(stream, ours), daemon=True).start()
    reader = ranges.RangeReader(theirs, block)
    yield reader
    reader.close()
