"""Readers see a file whole or not at all, even when its writer is killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest
import torch

from models.files import remove_unfinished, whole_file, write_whole
from models.tensors import write_tensors


def names(folder):
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize(("data", "expected"), [("grün\n", "grün\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_a_file_holds_what_was_written_in_place_of_what_was_there(data, expected, tmp_path):
    for _ in range(2):
        write_whole(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == expected
    assert names(tmp_path) == ["file"]


def test_nothing_is_seen_under_the_name_before_the_block_ends(tmp_path):
    with whole_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "file").exists()
        assert temporary.parent == tmp_path
    assert (tmp_path / "file").read_text() == "half"


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_temporary_one(error, tmp_path):
    write_whole(tmp_path / "file", "old")
    with pytest.raises(type(error)), whole_file(tmp_path / "file") as temporary:
        temporary.write_text("half of the new")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "file"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    with whole_file(tmp_path / "file") as one, whole_file(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one"
    assert names(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from models.files import whole_file
with whole_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_can_be_removed_and_nothing_else(tmp_path):
    another = f".file.txt.{'0' * 16}.part"  # of file.txt
    for name in ("file", another, ".file.part", "file.part"):
        (tmp_path / name).write_text("kept")
    before = names(tmp_path)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == len(before) + 1
    remove_unfinished(tmp_path / "file")
    assert names(tmp_path) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_weights_can_be_read_by_whom_the_umask_lets(umask, tmp_path):
    """safetensors creates its files for their owner alone."""
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "weights.safetensors", {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o666 & ~umask
