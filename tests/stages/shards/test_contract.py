"""The contract: the same for the same maker, another for any other, and no contract that can't be."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shards.contract import Contract, ContractError, sizes

GOOD = {
    "vae": "clipmill causal VAE",
    "fingerprint": "ab" * 32,
    "preprocessing": 1,
    "fps": 16.0,
    "channels": 2,
    "time_stride": 4,
    "first_frame": True,
    "space_stride": 8,
    "mean": [0.1, -0.2],
    "std": [1.0, 2.0],
    "dtype": "float16",
    "codebook": None,
    "text": {"encoder": "t5", "dim": 8, "fields": {"text": "caption"}},
}
OTHER = {
    "vae": "AutoencoderKLWan",
    "fingerprint": "cd" * 32,
    "preprocessing": 2,
    "fps": 16.000001,
    "time_stride": 2,
    "first_frame": False,
    "space_stride": 16,
    "mean": [0.1, -0.20000001],
    "std": [1.0, 2.0000001],
    "dtype": "bfloat16",
    "text": None,
}


@st.composite
def contracts(draw):
    channels = draw(st.integers(1, 4))
    number = st.floats(allow_nan=False, allow_infinity=False)
    spread = st.floats(min_value=1e-6, max_value=1e6)
    return Contract(
        vae=draw(st.text()),
        fingerprint=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        preprocessing=draw(st.integers(0, 99)),
        fps=draw(st.floats(0.001, 1000)),
        channels=channels,
        time_stride=draw(st.integers(1, 8)),
        first_frame=draw(st.booleans()),
        space_stride=draw(st.integers(1, 32)),
        mean=tuple(draw(st.lists(number, min_size=channels, max_size=channels))),
        std=tuple(draw(st.lists(spread, min_size=channels, max_size=channels))),
        dtype=draw(st.sampled_from(["float16", "bfloat16"])),
        text=draw(st.none() | st.dictionaries(st.text(), st.text() | st.integers())),
    )


@given(contracts())
def test_a_contract_survives_json_with_its_digest(contract):
    again = Contract.from_json(contract.to_json())
    assert again == contract and again.digest == contract.digest and len(contract.digest) == 32
    assert again.differences(contract) == []


@given(st.sets(st.sampled_from(sorted(OTHER)), min_size=1))
def test_whatever_differs_is_named_with_both_values_and_changes_the_digest(names):
    one, other = Contract.from_dict(GOOD), Contract.from_dict(GOOD | {name: OTHER[name] for name in names})
    lines = one.differences(other)
    assert {line.split(":")[0] for line in lines} == names
    assert all(" here, " in line and line.endswith(" there") for line in lines)
    assert one.digest != other.digest


def test_long_hashes_are_shown_by_their_beginning():
    other = Contract.from_dict(GOOD | {"fingerprint": "cd" * 32})
    assert Contract.from_dict(GOOD).differences(other) == ["fingerprint: abababababab… here, cdcdcdcdcdcd… there"]


def test_whole_numbers_and_floats_are_one_contract():
    assert Contract.from_dict(GOOD | {"fps": 16, "std": (1, 2)}).digest == Contract.from_dict(GOOD).digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "float32"}, "float32"),
        ({"dtype": "int32"}, "int32"),
        ({"codebook": 16}, "float16"),
        ({"mean": [0.0]}, "expected 2"),
        ({"std": [1.0, 0.0]}, "positive"),
        ({"std": [1.0, float("nan")]}, "finite"),
        ({"mean": ["a", "b"]}, "no contract"),
        ({"fps": 0}, "fps"),
        ({"fps": float("inf")}, "fps"),
        ({"channels": 0}, "channels"),
        ({"space_stride": "8"}, "no contract"),
        ({"colour": "red"}, "colour unknown"),
    ],
)
def test_a_contract_that_cannot_be_is_refused_in_one_line(change, said):
    with pytest.raises(ContractError, match=said) as caught:
        Contract.from_dict(GOOD | change)
    assert "\n" not in str(caught.value)


def test_a_missing_entry_is_named():
    with pytest.raises(ContractError, match="fingerprint missing"):
        Contract.from_dict({name: value for name, value in GOOD.items() if name != "fingerprint"})
    with pytest.raises(ContractError):
        Contract.from_json("[1]")
    with pytest.raises(ContractError):
        Contract.from_json("{")


@given(st.integers(0, 9), st.integers(1, 6), st.booleans(), st.integers(1, 5), st.integers(1, 5))
def test_the_shape_of_latents_follows_the_frame_rule(latents, stride, first, h, w):
    contract = Contract.from_dict(GOOD | {"time_stride": stride, "first_frame": first})
    count = latents + first
    frames = first + latents * stride
    if not frames:
        return
    assert contract.latent_shape(f"{frames}x{8 * h}x{8 * w}") == (2, count, h, w)
    tokens = {"codebook": 16, "dtype": "int32", "mean": [], "std": []}
    assert Contract.from_dict(contract.to_dict() | tokens).latent_shape(f"{frames}x{8 * h}x{8 * w}") == (count, h, w)
    if stride > 1:
        with pytest.raises(ContractError, match="frames"):
            contract.latent_shape(f"{frames + 1}x{8 * h}x{8 * w}")
    with pytest.raises(ContractError, match="multiples of 8"):
        contract.latent_shape(f"{frames}x{8 * h + 1}x{8 * w}")


@pytest.mark.parametrize("name", ["17x256", "17x256x", "0x8x8", "-1x8x8", "17x256x256x3", "²x8x8", ""])
def test_what_is_no_bucket_is_refused(name):
    with pytest.raises(ContractError, match="FRAMESxHEIGHTxWIDTH"):
        sizes(name)


def test_contracts_need_nothing_beyond_the_standard_library():
    heavy = "{'numpy', 'pyarrow', 'pydantic', 'xxhash', 'torch'}"
    text = f"import sys, stages.shards.contract; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", text], capture_output=True, text=True).stdout.strip() == "set()"
