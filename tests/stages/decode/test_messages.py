"""What the child may answer: a forged, cut off or endless answer fails its call and does nothing else."""

from __future__ import annotations

import os
import pickle

import pytest

from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.messages import DONE, HEADER_BYTES, ITEM, PREFIX, Message, pack
from tests.stages.decode.child_tasks import HERE, ask, framed


@pytest.fixture(scope="module")
def child():
    with Child() as one:
        yield one


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
