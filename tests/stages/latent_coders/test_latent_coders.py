"""Every VAE, ours or published, is the same small thing: frames in, moments out, and known by its weights."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.saved.vae_files import fingerprint, load, save
from models.settings.vae import VAESettings
from models.vae.causal_vae import CausalVAE
from stages.latent_coders.coder import LatentCoder
from stages.latent_coders.describe import describe_coder
from stages.latent_coders.info import CoderInfo
from stages.latent_coders.load import load_coder
from stages.latent_coders.published import PUBLISHED, scaling
from tests.stages.vaes import EVERY, MEAN, OWN, SMALL, STD, folder, made, video
from tests.torch_state import one_thread

__all__ = ["one_thread"]

CAUSAL = ["wan", "wan 2.2", "ltx", "ltx 0.9.1", *OWN]  # the others have norms over many frames
PER_FRAME = ["stable diffusion", "flux"]


@pytest.fixture(scope="module")
def coders() -> dict[str, LatentCoder]:
    return {name: load_coder(str(folder(name))) for name in EVERY}


@pytest.mark.parametrize("name", SMALL)
def test_a_published_vae_gives_what_diffusers_gives(name, coders):
    coder, by_hand = coders[name], made(name)
    clip = video(coder.info, steps=4, batch=2)  # 17 frames are more than one tile in time of HunyuanVideo's
    with torch.inference_mode():
        given = clip.transpose(1, 2).flatten(0, 1) if name in PER_FRAME else clip
        wanted = by_hand.encode(given).latent_dist
        mean, logvar = wanted.mean, wanted.logvar
        if name in PER_FRAME:
            mean, logvar = (x.unflatten(0, (2, -1)).transpose(1, 2) for x in (mean, logvar))
        found = coder.encode(clip)
        torch.testing.assert_close(found.mean, mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.logvar, logvar, atol=1e-5, rtol=0)
        assert found.tokens is None
        back = coder.decode(found.mean)
        if name in PER_FRAME:
            wanted = by_hand.decode(mean.transpose(1, 2).flatten(0, 1)).sample.unflatten(0, (2, -1)).transpose(1, 2)
        elif name == "ltx 0.9.1":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                wanted = by_hand.decode(mean, torch.zeros(2)).sample
        else:
            wanted = by_hand.decode(mean).sample
        torch.testing.assert_close(back, wanted.clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", OWN)
def test_our_own_vae_gives_what_it_gives(name, coders):
    coder, vae = coders[name], load(folder(name))
    clip = video(coder.info, batch=2)
    with torch.inference_mode():
        found, wanted = coder.encode(clip), vae.encode(clip)
        torch.testing.assert_close(found.mean, wanted.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(coder.decode(found.mean), vae.decode(wanted.mean).clamp(-1, 1), atol=1e-5, rtol=0)
        if name == "kl":
            torch.testing.assert_close(found.logvar, wanted.logvar, atol=1e-5, rtol=0)
            assert found.tokens is None and coder.info.codebook is None
            with pytest.raises(ValueError, match="has no tokens"):
                coder.decode_tokens(torch.zeros(1, 1, 2, 2, dtype=torch.long))
        else:
            assert torch.equal(found.tokens, wanted.tokens)
            assert found.logvar is None and found.tokens.dtype == torch.int64
            assert coder.info.codebook == vae.quantizer.codes
            torch.testing.assert_close(coder.decode_tokens(found.tokens), coder.decode(found.mean), atol=1e-5, rtol=0)
    assert coder.info.fingerprint == fingerprint(vae)
    assert (coder.info.mean, coder.info.std) == (MEAN, STD)


def test_a_bottleneck_without_options_has_the_tokens_that_its_class_has(tmp_path):
    for name in ("vq", "fsq"):
        with torch.random.fork_rng(devices=[]):
            vae = CausalVAE(VAESettings(width=2, multipliers=(1, 1, 1), groups=1, channels=6, quantizer=name))
        save(vae, tmp_path / name)
        info = describe_coder(str(tmp_path / name))
        assert info.codebook == vae.quantizer.codes
        assert not info.note  # statistics are of no use to tokens


@pytest.mark.parametrize("name", EVERY)
def test_lengths_and_sizes_are_as_described(name, coders):
    coder = coders[name]
    for steps in range(4):
        clip = video(coder.info, steps)
        found = coder.encode(clip)
        assert tuple(found.mean.shape) == (1, *coder.latent_shape(*clip.shape[2:]))
        assert found.mean.dtype == torch.float32
        assert found.logvar is None or found.logvar.shape == found.mean.shape
        back = coder.decode(found.mean * 9)
        assert back.shape == clip.shape
        assert back.dtype == torch.float32
        assert -1 <= back.min() <= back.max() <= 1


@pytest.mark.parametrize("name", EVERY)
def test_what_does_not_fit_is_refused_and_nothing_is_cut_off(name, coders):
    coder, step = coders[name], coders[name].info.frame_step
    side = coder.info.space_stride
    refused = [0] if name in PER_FRAME else [0, 2, step, step + 2, 2 * step]
    for frames in refused:
        with pytest.raises(ValueError, match=rf"a clip of {frames} frames: .* would do"):
            coder.check_frames(frames)
        with pytest.raises(ValueError, match="would do"):
            coder.encode(torch.zeros(1, 3, frames, side, side))
    for size in ((side, side + 1), (side // 2, side), (0, side)):
        with pytest.raises(ValueError, match=f"takes multiples of {side}"):
            coder.encode(torch.zeros(1, 3, 1 + step, *size))
    for bad in (
        torch.zeros(3, 1, side, side),
        torch.zeros(1, 1, 1, side, side),
        torch.zeros(1, 3, 1, side, side).int(),
    ):
        with pytest.raises(ValueError, match="floats"):
            coder.encode(bad)
    with pytest.raises(ValueError, match=f"{coder.info.channels}, t, h, w"):
        coder.decode(torch.zeros(1, coder.info.channels + 1, 1, 1, 1))
    if name == "cogvideox":  # diffusers would give 8 frames for these two latents
        with pytest.raises(ValueError, match="takes 1 \\+ 8n, 1 or 9 would do"):
            coder.decode(torch.zeros(1, 4, 2, 1, 1))


@given(st.integers(-3, 400), st.integers(1, 8), st.integers(1, 3), st.booleans())
def test_what_a_refusal_advises_is_taken(frames, stride, wider, first):
    info = CoderInfo("a VAE", 4, stride, first, 8, None, "", (), (), "", frame_step=stride * wider)
    try:
        _, latents, _, _ = info.latent_shape(frames, 8, 8)
    except ValueError as error:
        for word in str(error).split(",")[-1].replace("would do", "").split("or"):
            advised = int(word)
            assert abs(advised - frames) < stride * wider or frames < 1
            info.check_frames(advised)
    else:
        assert frames == first + (latents - first) * stride
        info.check_latents(latents)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_vae_sees_no_later_frame_and_takes_an_image_for_a_first_frame(name, coders):
    coder = coders[name]
    clip, stride = video(coder.info, steps=2), coder.info.time_stride
    found = coder.encode(clip).mean
    torch.testing.assert_close(coder.encode(clip[:, :, :1]).mean, found[:, :, :1], atol=1e-5, rtol=0)
    other = clip.clone()
    other[:, :, 1 + stride :] *= -1
    changed = coder.encode(other).mean
    torch.testing.assert_close(changed[:, :, :2], found[:, :, :2], atol=1e-6, rtol=0)
    if name not in OWN or name == "kl":  # tokens may well be the same
        assert (changed[:, :, 2] - found[:, :, 2]).abs().max() > 1e-4


@pytest.mark.parametrize("name", PER_FRAME)
def test_an_image_vae_takes_every_frame_by_itself(name, coders):
    coder = coders[name]
    clip = video(coder.info, steps=2, batch=2)
    whole = coder.encode(clip)
    for place in range(clip.shape[2]):
        alone = coder.encode(clip[:, :, place : place + 1])
        torch.testing.assert_close(alone.mean, whole.mean[:, :, place : place + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["wan", "hunyuan", "ltx 0.9.1", "cogvideox"])
def test_a_clip_is_the_same_in_a_batch_twice_and_after_another(name, coders):
    coder = coders[name]
    clips = video(coder.info, steps=1, batch=2)
    together = coder.encode(clips)
    coder.encode(video(coder.info, steps=2, seed=1))
    alone = coder.encode(clips[1:])
    torch.testing.assert_close(alone.mean, together.mean[1:], atol=1e-5, rtol=0)
    before = torch.get_rng_state()
    first = coder.decode(alone.mean)
    assert torch.equal(first, coder.decode(alone.mean))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_becomes_nan_in_bf16(name, coders):
    coder = load_coder(str(folder(name)), device="cpu", dtype="bfloat16")
    noise = video(coder.info)
    for clip in (torch.full_like(noise, -1), torch.full_like(noise, 1), noise.sign(), noise):
        found = coder.encode(clip)
        assert found.mean.dtype == torch.float32
        assert found.mean.isfinite().all() and (found.logvar is None or found.logvar.isfinite().all())
        assert coder.decode(found.mean).isfinite().all()
    if name not in OWN or name == "kl":
        exact = coders[name].encode(noise).mean
        assert (found.mean - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_scaling_is_that_of_the_pipelines_of_diffusers(coders):
    """Each pipeline's own code, or its formula where that is a line in the middle of one."""
    import diffusers

    scaled, unscaled = {}, {}
    for name in SMALL:
        info = coders[name].info
        z = torch.randn(1, info.channels, 2, 2, 2, generator=torch.Generator().manual_seed(0))
        mean, std = (torch.tensor(each).view(1, -1, 1, 1, 1) for each in (info.mean, info.std))
        unscaled[name], scaled[name] = z, (z - mean) / std
    torch.testing.assert_close(scaled["stable diffusion"], unscaled["stable diffusion"] * 0.18215)
    torch.testing.assert_close(scaled["flux"], (unscaled["flux"] - 0.1159) * 0.3611)
    torch.testing.assert_close(scaled["hunyuan"], unscaled["hunyuan"] * 0.476986)
    config = made("wan").config
    inverse = 1.0 / torch.tensor(config.latents_std).view(1, 4, 1, 1, 1)
    mean = torch.tensor(config.latents_mean).view(1, 4, 1, 1, 1)
    torch.testing.assert_close(scaled["wan"], (unscaled["wan"] - mean) * inverse)
    vae = made("ltx")
    mean, std = (each.view(1, -1, 1, 1, 1) for each in (vae.latents_mean, vae.latents_std))
    torch.testing.assert_close(scaled["ltx"], (unscaled["ltx"] - mean) * 0.5 / std)
    pipeline = SimpleNamespace(vae=made("cogvideox"), vae_scaling_factor_image=1.15258426)
    latents = torch.randn(1, 3, 4, 2, 2)  # (B, T, Z, h, w), what the network gave
    with torch.inference_mode():
        wanted = diffusers.CogVideoXPipeline.decode_latents(pipeline, latents)
    info = coders["cogvideox"].info
    back = latents.transpose(1, 2) * torch.tensor(info.std).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(coders["cogvideox"].decode(back), wanted.clamp(-1, 1), atol=1e-5, rtol=0)


def test_an_sdxl_vae_with_statistics_is_scaled_as_its_pipeline_does():
    config = dict(latents_mean=[1.0, 2.0], latents_std=[2.0, 4.0], scaling_factor=0.5)
    assert scaling(config, 2) == ((1.0, 2.0), (4.0, 8.0))  # z * latents_std / scaling_factor + latents_mean
    for wrong in (dict(latents_mean=[1.0]), dict(latents_std=[1.0, 0.0]), dict(scaling_factor=0)):
        with pytest.raises(ValueError):
            scaling(wrong, 2)


def test_what_an_older_config_leaves_out_is_what_diffusers_takes_for_it():
    import diffusers

    for kind, layout in PUBLISHED.items():
        known = inspect.signature(getattr(diffusers, kind).__init__).parameters
        for key, value in layout.defaults.items():
            default = known[key].default
            assert (tuple(default) if isinstance(default, list) else default) == value, (kind, key)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_compiled_is_the_encoder_and_none_that_goes_in_pieces(name, monkeypatch):
    """Compiling itself takes minutes on a CPU: what is asked of torch is what counts here."""
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **how: asked.append((module, how)))
    coder = load_coder(str(folder(name)), compile=True)
    pieces = coder.info.kind in ("AutoencoderKLWan", "AutoencoderKLCogVideoX")
    assert asked == ([] if pieces else [(coder.network.encoder, {"dynamic": False})])
