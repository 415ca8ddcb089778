"""What the child is given: no secret, one open source, and the bytes of a remote one through its parent."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading

import fsspec
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.decode import ranges
from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.reading import SafeFile
from stages.frames import SourceError
from tests.hostile import moving_square, write_video
from tests.stages.decode.child_tasks import ask, eventually


@pytest.fixture(scope="module")
def child():
    with Child() as one:
        yield one


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


def test_a_remote_source_is_read_through_the_parent_alone(child, bucket):
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
