"""A config holds every setting of a run; invalid settings are refused in one line with what is expected."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings.validation import ConfigError
from train.config.training import TrainConfig

fast = settings(max_examples=40, deadline=None, derandomize=True)


@fast
@given(
    lr=st.floats(1e-6, 1),
    warmup=st.integers(0, 100),
    share=st.floats(0, 0.9),
    compiled=st.sampled_from([None, True, False]),
    masks=st.dictionaries(st.sampled_from(["predict", "single"]), st.floats(0, 0.5)),
    parallel=st.sampled_from(["ddp", "fsdp"]),
)
def test_a_config_comes_back_from_json(lr, warmup, share, compiled, masks, parallel):
    values = {
        "optimizer": {"lr": lr, "warmup": warmup},
        "validation": {"share": share},
        "conditions": {"masks": masks},
        "compile": compiled,
        "parallel": parallel,
    }
    config = TrainConfig.from_dict(values)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert (config.optimizer.lr, config.validation.share, config.conditions.masks) == (lr, share, masks)


REFUSED = [
    ({"batch_size": 0}, "batch_size 0: at least 1"),
    ({"batch_size": "big"}, "batch_size 'big': int or settings by name or 'balanced' is expected"),
    ({"batch_size": {}}, "batch_size {}: a number for each bucket, such as {81x480x832: 1}"),
    ({"batch_size": {"1x8x8": 0}}, "batch_size.1x8x8 0: at least 1"),
    ({"batch_size": {"1x8x8": "4"}}, "batch_size.1x8x8 '4': int is expected"),
    ({"batch_size": {"1x8x8": 2.5}}, "batch_size.1x8x8 2.5: int is expected"),
    ({"batch_size": "balanced"}, "batch_size 'balanced' needs balance.tokens, the most of a step, or balance.seconds"),
    ({"balance": {"tokens": 5}}, "balance with batch_size 256: only batch_size balanced has a budget"),
    ({"batch_size": "balanced", "balance": {"tokens": 0}}, "balance.tokens 0: at least 1"),
    (
        {"batch_size": "balanced", "balance": {"tokens": 9, "seconds": 1}},
        "balance.seconds and balance.tokens: give one",
    ),
    ({"text_attention": "none"}, "text_attention 'none': there are masked, maskless"),
    ({"batchsize": 1}, "unknown setting batchsize: there are kind, model, objective, steps, batch_size"),
    ({"validation": {"part": 1}}, "unknown setting validation.part: there are share, least, by, every"),
    ({"steps": 1.5}, "steps 1.5: int is expected"),
    ({"steps": True}, "steps True: int is expected"),
    ({"steps": 0}, "steps 0: at least 1"),
    ({"optimizer": {"betas": 0.9}}, "optimizer.betas 0.9: a list is expected, such as [0.9, 0.99]"),
    ({"optimizer": {"betas": [0.9]}}, "optimizer.betas [0.9]: 2 values are expected, such as [0.9, 0.99]"),
    ({"optimizer": {"betas": [0.9, 1]}}, "optimizer.betas 1: from 0 to below 1"),
    ({"optimizer": {"betas": [-0.1, 0.9]}}, "optimizer.betas -0.1: from 0 to below 1"),
    ({"optimizer": {"betas": ["0.9", 0.9]}}, "optimizer.betas '0.9': float is expected"),
    ({"optimizer": {"clip": 0}}, "optimizer.clip 0: a finite number above 0 is expected"),
    ({"optimizer": {"clip": -1.0}}, "optimizer.clip -1.0: a finite number above 0"),
    ({"optimizer": {"eps": 0.0}}, "optimizer.eps 0.0: a finite number above 0"),
    ({"optimizer": {"lr": math.inf}}, "optimizer.lr inf: a finite number is expected"),
    ({"optimizer": {"lr": math.nan}}, "optimizer.lr nan: at least 0"),
    ({"steps": math.inf}, "steps inf: int is expected"),
    ({"steps": math.nan}, "steps nan: int is expected"),
    ({"seed": -1}, "seed -1: from 0 to below 2**63"),
    ({"seed": 2**63}, "seed 9223372036854775808: from 0 to below 2**63"),
    ({"conditions": {"masks": {"first": 0.5}}}, "conditions.masks 'first': there are none, predict, backward, interp"),
    ({"conditions": {"masks": {"predict": -0.5}}}, "conditions.masks.predict -0.5: a share from 0 to 1"),
    ({"conditions": {"masks": {"predict": "0.5"}}}, "conditions.masks.predict '0.5': a share from 0 to 1"),
    ({"conditions": {"masks": {"predict": True}}}, "conditions.masks.predict True: a share from 0 to 1"),
    (
        {"conditions": {"masks": {"predict": 0.6, "single": 0.6}}},
        "conditions.masks {'predict': 0.6, 'single': 0.6}: at",
    ),
    ({"conditions": {"masks": ["predict"]}}, "conditions.masks ['predict']: settings by name are expected"),
    ({"optimizer": {"schedule": "linear"}}, "optimizer.schedule 'linear': there are constant, cosine"),
    ({"optimizer": []}, "optimizer []: settings by name are expected"),
    ({"conditions": {"text_dropout": 1.1}}, "conditions.text_dropout 1.1: a share from 0 to 1"),
    ({"validation": {"share": 1}}, "validation.share 1: from 0 to below 1"),
    ({"ema": 1}, "ema 1: from 0 to below 1"),
    ({"parallel": "tensor"}, "parallel 'tensor': there are ddp, fsdp"),
    ({"peak_tflops": 0}, "peak_tflops 0: a finite number above 0"),
    ({"checkpoint": {"every": 0}}, "checkpoint.every 0: at least 1"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED)
def test_what_cannot_be_is_one_line(values, said):
    with pytest.raises(ConfigError) as raised:
        TrainConfig.from_dict(values)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_the_nearest_setting_is_named():
    with pytest.raises(ConfigError, match=r"did you mean optimizer\?$"):
        TrainConfig.from_dict({"optimiser": {"lr": 1}})
