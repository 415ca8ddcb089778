"""How well caption and frames fit: the mean cosine, a text too long for the encoder in its sentences."""

import numpy as np
import pytest

from stages.base import SettingsError
from stages.captions.audit import sentences
from stages.captions.settings import CaptionSettings
from stages.captions.stage import Caption
from tests.clip_model import by_hand, clip_folder
from tests.stages.captions.made import rows_of, run, unit_of

SHORT = "A red dog turns left."
LONG = "A red dog turns left. The grass is wet, and a square moves over it slowly. Then a circle comes."
FRAMES = {"positions": [0.2, 0.8], "long_side": 32}


@pytest.fixture(scope="module")
def folder():
    return clip_folder()


def matched(folder, **settings):
    match = {"match": {"model": str(folder)}, "frames": FRAMES, "device": "cpu"}
    return Caption(CaptionSettings.model_validate(match | settings))


def test_the_score_is_the_mean_cosine_of_text_and_frames(folder):
    import torch
    from PIL import Image

    stage = matched(folder)
    unit = unit_of([1], stage, manifest={"caption": SHORT})
    row = rows_of(run(stage, [unit]))[1]
    network, preprocess, tokenizer = by_hand(folder)
    frames = [Image.fromarray(p[:, :, ::-1].copy()) for _, p in unit.clips[0].pixels[stage.wants()]]
    with torch.inference_mode():
        seen = network.encode_image(torch.stack([preprocess(one) for one in frames]), normalize=True)
        said = network.encode_text(tokenizer([SHORT]), normalize=True)
    assert row["caption_clip_match"] == pytest.approx(float((seen @ said.T).mean()), abs=1e-4)
    assert row["caption_match_model"] == folder.name
    assert len(row["caption_match_revision"]) == 16


def test_a_text_too_long_for_the_encoder_scores_the_mean_of_its_sentences(folder):
    stage = matched(folder)
    texts = (LONG, *sentences(LONG))
    units = [unit_of([1], stage, f"u{n}", manifest={"caption": text}) for n, text in enumerate(texts)]
    whole, *parts = [unit.clips[0].results["captions"]["caption_clip_match"] for unit in run(stage, units)]
    assert len(parts) == 3
    assert np.ptp(parts) > 1e-3
    assert whole == pytest.approx(np.mean(parts), abs=1e-5)


def test_a_score_does_not_depend_on_which_clips_come_together(folder):
    manifest = {"caption": LONG}
    together = rows_of(run(stage := matched(folder), [unit_of([1, 2, 3], stage, manifest=manifest)]))
    alone = rows_of(run(stage := matched(folder, batch_clips=1), [unit_of([2], stage, manifest=manifest)]))
    assert alone[2]["caption_clip_match"] == pytest.approx(together[2]["caption_clip_match"], abs=1e-5)
    assert together[1]["caption_clip_match"] != pytest.approx(together[2]["caption_clip_match"], abs=1e-5)


def test_behind_embed_the_network_sees_no_frame_again(folder, monkeypatch):
    from stages.pretrained.open_clip_model import OpenClipModel
    from stages.scores.embed import Embed
    from stages.scores.settings import EmbedSettings

    stage = matched(folder)
    embed = Embed(EmbedSettings(model=str(folder), positions=FRAMES["positions"], device="cpu"))
    assert stage.wants() == embed.wants()
    alone = rows_of(run(stage, [unit_of([1, 2], stage, manifest={"caption": LONG})]))
    embed.setup()
    embedded = list(embed.stream([unit_of([1, 2], stage, manifest={"caption": LONG})]))
    embed.close()
    monkeypatch.setattr(OpenClipModel, "encode_tensor", lambda *_: pytest.fail("the frames were encoded again"))
    behind = rows_of(run(stage, embedded))
    for number, row in behind.items():
        assert row["caption_clip_match"] == pytest.approx(alone[number]["caption_clip_match"], abs=1e-5)


def test_a_model_that_is_none_is_refused_before_any_clip(folder):
    with pytest.raises(SettingsError, match="no folder"):
        matched(folder / "nowhere")
    assert matched(folder).versions()["caption"] != Caption(CaptionSettings()).versions()["caption"]
