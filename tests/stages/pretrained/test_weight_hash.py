"""One hash says which weights a model has: the same for a network in memory and for its files, however they are cut."""

from __future__ import annotations

import hashlib
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from models.saved.weight_hash import state_hash
from stages.base import SettingsError
from stages.pretrained.weight_hash import files_hash, read_floats, tensor_places

STATE = {
    "b.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "a.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "a.count": torch.tensor(7),
    "a.mask": torch.tensor([True, False]),
    "a.none": torch.zeros(0, 4, dtype=torch.float16),
}


def test_the_hash_is_the_one_that_contracts_have_held_from_the_beginning():
    by_hand = hashlib.sha256(b'{"width": 8}')
    for name in sorted(STATE):
        tensor = STATE[name]
        by_hand.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        by_hand.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    assert state_hash('{"width": 8}', STATE) == by_hand.hexdigest()


def test_files_have_the_hash_of_the_tensors_in_them_wherever_these_lie(tmp_path):
    save_file(STATE, tmp_path / "whole.safetensors")
    names = sorted(STATE)
    for number, part in enumerate((names[1::2], names[::2])):
        save_file({name: STATE[name] for name in part}, tmp_path / f"part{number}.safetensors")
    parts = sorted(tmp_path.glob("part*.safetensors"))
    wanted = state_hash("head", STATE)
    assert files_hash("head", [tmp_path / "whole.safetensors"]) == wanted
    assert files_hash("head", parts) == files_hash("head", reversed(parts)) == wanted
    assert files_hash("another", parts) != wanted


def test_other_files_count_with_their_name_and_content_and_not_with_their_folder(tmp_path):
    here, there = tmp_path / "a" / "model", tmp_path / "z" / "model"
    here.mkdir(parents=True)
    (here / "weights.bin").write_bytes(b"one")
    (here / "tokenizer.json").write_bytes(b"two")
    shutil.copytree(here, there)
    wanted = files_hash("", [here / "weights.bin"], [here / "tokenizer.json"])
    assert files_hash("", [there / "weights.bin"], [there / "tokenizer.json"]) == wanted
    assert files_hash("", [here / "weights.bin", there / "tokenizer.json"]) == files_hash(
        "", [there / "weights.bin", here / "tokenizer.json"]
    )
    (there / "tokenizer.json").rename(there / "vocab.json")
    assert files_hash("", [there / "weights.bin"], [there / "vocab.json"]) != wanted
    (there / "weights.bin").write_bytes(b"One")
    assert files_hash("", [there / "weights.bin"], [here / "tokenizer.json"]) != wanted


def test_a_hash_is_kept_while_the_files_keep_their_size_and_time_of_change(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    wanted, stat = files_hash("", [path]), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert files_hash("", [path]) == wanted
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert files_hash("", [path]) != wanted


def test_small_tensors_are_read_from_their_place(tmp_path):
    save_file(STATE, tmp_path / "whole.safetensors")
    places = tensor_places([tmp_path / "whole.safetensors"])
    assert read_floats(places["a.bias"]) == (1.5, -2.0) and read_floats(places["b.weight"]) == (0, 1, 2, 3, 4, 5)
    with pytest.raises(SettingsError, match="a tensor of I64 where floats are expected"):
        read_floats(places["a.count"])


def test_files_that_can_not_be_read_are_refused_in_one_line(tmp_path):
    save_file(STATE, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for number, damaged in enumerate((b"", b"\xff" * 20, whole[:-1], whole[:50])):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(damaged)
        with pytest.raises(SettingsError, match="is no whole safetensors file") as caught:
            files_hash("", [path])
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="weights can't be read"):
        files_hash("", [tmp_path / "none.bin"])
