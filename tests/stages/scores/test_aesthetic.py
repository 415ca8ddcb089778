"""The aesthetic heads: the published formulas on given weights, the network run once for all, heads that do not fit."""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import SettingsError
from stages.scores.aesthetic import Aesthetic, head_width, load_head
from stages.scores.embed import Embed
from stages.scores.settings import AestheticSettings, EmbedSettings
from stages.unit import Unit
from tests.clip_model import clip_folder
from tests.stages.scores.test_embed import hand_made, pictures, unit_of
from tests.stages.units import rows_of

WIDTHS = (1024, 128, 64, 16, 1)


def linear(width):
    """LAION's aesthetic-predictor: nn.Linear(width, 1)."""
    import torch

    return torch.nn.Linear(width, 1)


def published(width, relu):
    """The improved predictor's nn.Sequential: dropout after the first three maps, ReLU in one of its files."""
    from torch import nn

    layers, before = [], width
    for number, after in enumerate(WIDTHS):
        layers.append(nn.Linear(before, after))
        if relu and number < len(WIDTHS) - 1:
            layers.append(nn.ReLU())
        if number < 3:
            layers.append(nn.Dropout((0.2, 0.2, 0.1)[number]))
        before = after
    return nn.Sequential(*layers)


HEADS = {"linear": linear, "mlp": lambda width: published(width, False), "relu": lambda width: published(width, True)}


def saved(folder, kind, width=24, seed=0, suffix=".pth"):
    """(file of the head's weights under their published names, the head itself in torch)."""
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = HEADS[kind](width).eval()
    before = "" if kind == "linear" else "layers."
    weights = {before + name: value.detach() for name, value in head.state_dict().items()}
    path = folder / f"{kind}{width}_{seed}{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    return str(path), head


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(sorted(HEADS)),
    width=st.integers(1, 40),
    count=st.integers(1, 5),
    seed=st.integers(0, 1000),
    suffix=st.sampled_from([".pth", ".safetensors"]),
)
def test_a_head_is_the_published_formula(tmp_path_factory, kind, width, count, seed, suffix):
    import torch

    path, head = saved(tmp_path_factory.getbasetemp(), kind, width, seed, suffix)
    vectors = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    with torch.no_grad():
        expected = head.double()(torch.from_numpy(vectors).double())[:, 0].numpy()
    found = load_head(path)
    assert np.allclose(found(vectors), expected, rtol=1e-6, atol=1e-6)
    assert found.width == head_width(path) == width


def test_a_head_s_revision_is_that_of_its_weights_and_not_of_its_file(tmp_path):
    revisions = {
        load_head(saved(tmp_path, kind, seed=seed, suffix=suffix)[0]).revision
        for kind in ("mlp", "relu")
        for seed in (0, 1)
        for suffix in (".pth", ".safetensors")
    }
    assert len(revisions) == 4


@contextmanager
def running(*stages):
    for stage in stages:
        stage.setup()
    try:
        yield
    finally:
        for stage in stages:
            stage.close()


def aesthetic(path, **more):
    given = {"head": path, "model": str(clip_folder()), "device": "cpu"} | more
    return Aesthetic(AestheticSettings.model_validate(given))


def through(stages, unit):
    units = iter([unit])
    for stage in stages:
        units = stage.stream(units)
    return next(units)


def test_a_clip_has_the_mean_and_the_least_score_of_its_frames(tmp_path):
    import torch

    path, head = saved(tmp_path, "mlp")
    stage = aesthetic(path)
    stage.check()
    frames = pictures(1, 3)
    with running(stage):
        unit = through([stage], unit_of(stage, "u", {"c": frames}))
    row = rows_of([unit], "aesthetics")["c"]
    with torch.no_grad():
        scores = head.double()(torch.from_numpy(hand_made(frames)))[:, 0].numpy()
    assert row["aesthetic"] == pytest.approx(scores.mean(), abs=1e-4)
    assert row["aesthetic_min"] == pytest.approx(scores.min(), abs=1e-4)
    assert row["aesthetics_model"] == "mlp24_0.pth on tiny0"
    own, whole = row["aesthetics_revision"].split(" on ")
    assert own == load_head(path).revision and whole == stage_revision()


def stage_revision():
    from stages.pretrained.open_clip_lookup import find_model
    from stages.pretrained.open_clip_model import load_model

    return load_model(find_model(str(clip_folder())), "cpu").revision


@pytest.mark.parametrize(("folder", "runs"), [(0, 1), (1, 2)])
def test_the_network_runs_once_for_stages_of_the_same_model(tmp_path, monkeypatch, folder, runs):
    path, _ = saved(tmp_path, "linear")
    embed = Embed(EmbedSettings(model=str(clip_folder(folder)), device="cpu"))
    score = aesthetic(path)
    calls = []
    with running(embed, score):
        for stage in {id(stage.model): stage for stage in (embed, score)}.values():
            real = stage.model.encode_prepared
            monkeypatch.setattr(stage.model, "encode_prepared", lambda p, real=real: calls.append(len(p)) or real(p))
        unit = through([embed, score], unit_of(embed, "u", {"a": pictures(1, 3), "b": pictures(2, 2)}))
    assert [row["status"] for clip in unit.clips for row in clip.results.values()] == ["done"] * 4
    assert calls == [5] * runs


def test_scores_are_the_same_with_and_without_an_embedding_stage_before(tmp_path):
    path, _ = saved(tmp_path, "relu")
    embed, score = Embed(EmbedSettings(model=str(clip_folder()), device="cpu")), aesthetic(path)
    with running(embed, score):
        rows = [
            rows_of([through(stages, unit_of(score, "u", {"a": pictures(1, 3)}))], "aesthetics")
            for stages in ([embed, score], [score])
        ]
    assert rows[0] == rows[1] and set(rows[0]) == {"a"}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_head_of_another_width_is_refused_before_any_work(tmp_path, suffix):
    path, _ = saved(tmp_path, "mlp", width=768, suffix=suffix)
    with pytest.raises(SettingsError, match=r"takes embeddings of 768 numbers, model tiny0 makes 24"):
        aesthetic(path).check()


def test_what_is_no_head_is_refused(tmp_path):
    import torch

    torch.save({"layers.0.weight": torch.zeros(1, 24), "other": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save({"layers.0.weight": torch.zeros(5, 24), "layers.0.bias": torch.zeros(5)}, tmp_path / "short.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save(np.array([1]), tmp_path / "pickle.pth")  # would need code to be run
    for name in ("other.pth", "short.pth", "text.pth", "text.safetensors", "pickle.pth"):
        with pytest.raises(SettingsError, match=r"head: ") as caught:
            aesthetic(str(tmp_path / name)).check()
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"head: no file at /nowhere/head.pth"):
        aesthetic("/nowhere/head.pth").check()
    with pytest.raises(SettingsError, match=r"must name a file, as in hf-hub:ORG/REPO/FILE"):
        aesthetic("hf-hub:someone").check()


def test_a_head_on_a_hub_out_of_reach_says_how_to_give_a_path(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SettingsError, match=r"someone/heads is not in the hub's cache .*give `head` its path"):
        aesthetic("hf-hub:someone/heads/mlp.pth").check()


def test_a_unit_without_clips_passes(tmp_path):
    stage = aesthetic(saved(tmp_path, "linear")[0])
    with running(stage):
        found = through([stage], Unit("u"))
    assert found.clips == [] and found.failure is None
