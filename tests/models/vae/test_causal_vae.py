"""The causal VAE as a whole, for every variant, norm and quantizer."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings.vae import SIZES, VAESettings, sized
from models.vae.causal_vae import CausalVAE
from models.vae.layers.causal_ops import CausalConv3d, frame_count
from tests.torch_state import one_thread, seeded

__all__ = ["one_thread", "seeded"]

VARIANTS, NORMS = (1, 2, 3, 4), ("group", "rms")
SMALL = dict(width=8, multipliers=(1, 2, 2, 2), encoder_blocks=1, decoder_blocks=1, groups=4)
BOTTLENECKS = {
    "kl": {},
    "vq": dict(quantizer="vq", quantizer_options={"codes": 16}),
    "lfq": dict(quantizer="lfq"),
    "fsq": dict(quantizer="fsq", quantizer_options={"levels": (8, 5, 5, 4)}),
}
fast = settings(max_examples=12, deadline=None, derandomize=True)


def made(**changes) -> CausalVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausalVAE(VAESettings(**{**SMALL, **changes})).eval()


@functools.cache
def network(variant: int = 4, norm: str = "group", bottleneck: str = "kl") -> CausalVAE:
    return made(variant=variant, norm=norm, **BOTTLENECKS[bottleneck]).requires_grad_(False)


def video(frames: int, batch: int = 1, height: int = 16, width: int = 8) -> torch.Tensor:
    return torch.rand(batch, 3, frames, height, width) * 2 - 1


variants, norms = st.sampled_from(VARIANTS), st.sampled_from(NORMS)


@fast
@given(variant=variants, norm=norms, latents=st.integers(2, 4), data=st.data())
def test_nothing_of_the_future_reaches_a_latent_or_a_decoded_frame(variant, norm, latents, data):
    vae, clip = network(variant, norm), video(frame_count(latents))
    clean = data.draw(st.integers(1, latents - 1))
    other = clip.clone()
    other[:, :, frame_count(clean) :] = torch.rand_like(other[:, :, frame_count(clean) :]) * 2 - 1
    one, two = vae.encode(clip), vae.encode(other)
    for before, after in ((one.mean, two.mean), (one.logvar, two.logvar)):
        assert torch.equal(before[:, :, :clean], after[:, :, :clean])
        assert not torch.equal(before, after)
    joined = torch.cat([one.mean[:, :, :clean], two.mean[:, :, clean:] + 1], dim=2)
    first, second = vae.decode(one.mean), vae.decode(joined)
    assert torch.equal(first[:, :, : frame_count(clean)], second[:, :, : frame_count(clean)])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_first_latent_is_that_of_the_first_frame_as_an_image(variant, norm):
    vae, clip = network(variant, norm), video(9)
    found, image = vae.encode(clip), vae.encode(clip[:, :, :1])
    assert torch.allclose(found.mean[:, :, :1], image.mean, atol=1e-5)
    assert torch.allclose(vae.decode(found.mean)[:, :, :1], vae.decode(image.mean), atol=1e-4)


@pytest.mark.parametrize("n", range(9))
def test_one_plus_4n_frames_give_one_plus_n_latents_and_come_back(n):
    vae, clip = network(), video(1 + 4 * n, height=8)
    found = vae.encode(clip)
    assert found.mean.shape == found.logvar.shape == (1, *vae.latent_shape(1 + 4 * n, 8, 8)) == (1, 4, 1 + n, 1, 1)
    assert vae.decode(found.mean).shape == clip.shape


@pytest.mark.parametrize("frames", [2, 3, 4, 6, 8, 80])
def test_any_other_number_of_frames_is_refused(frames):
    for way in ({}, {"chunk": 4}, {"group": 33}):
        with pytest.raises(ValueError, match=f"a clip of {frames} frames: the VAE takes 1 "):
            network().encode(video(frames, height=8), **way)
    with pytest.raises(ValueError, match=f"a clip of {frames} frames"):
        network()(video(frames, height=8))
    with pytest.raises(ValueError, match=f"a clip of {frames} frames"):
        list(network().encode_stream(video(frames, height=8).split(3, dim=2)))


chunks = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@fast
@given(variant=variants, norm=norms, sizes=chunks, batch=st.integers(1, 2))
def test_encoding_in_chunks_of_any_length_gives_what_the_whole_clip_gives(variant, norm, sizes, batch):
    vae, sizes = network(variant, norm), [*sizes, -(sum(sizes) - 1) % 4]
    clip = video(sum(sizes), batch)
    whole = vae.encode(clip)
    parts = list(vae.encode_stream(clip.split(sizes, dim=2)))
    assert torch.allclose(torch.cat([part.mean for part in parts], dim=2), whole.mean, atol=1e-5)
    assert torch.allclose(torch.cat([part.logvar for part in parts], dim=2), whole.logvar, atol=1e-5)
    assert torch.allclose(vae.encode(clip, chunk=sizes[0]).mean, whole.mean, atol=1e-5)


@fast
@given(variant=variants, norm=norms, sizes=chunks)
def test_decoding_in_chunks_of_any_length_gives_what_the_whole_clip_gives(variant, norm, sizes):
    vae, latents = network(variant, norm), torch.randn(1, 4, sum(sizes[:2]), 2, 1)
    whole = vae.decode(latents)
    assert whole.std() > 0.01
    parts = vae.decode_stream(latents.split(sizes[:2], dim=2))
    assert torch.allclose(torch.cat(list(parts), dim=2), whole, atol=1e-4)
    assert torch.allclose(vae.decode(latents, chunk=sizes[0]), whole, atol=1e-4)


def test_tiling_is_the_whole_in_the_first_group_and_in_all_where_nothing_moves():
    """Later groups see one frame of those before them, which is enough where nothing moves."""
    vae, clip = network(), video(41)
    whole, tiled = vae.encode(clip).mean, vae.encode(clip, group=17).mean
    assert whole.shape == tiled.shape
    assert torch.allclose(whole[:, :, :5], tiled[:, :, :5], atol=1e-5)
    assert not torch.allclose(whole, tiled, atol=1e-5)
    back = vae.decode(whole, group=17)
    assert back.shape == clip.shape
    assert torch.allclose(back[:, :, :17], vae.decode(whole)[:, :, :17], atol=1e-5)
    still = clip[:, :, :1].expand(-1, -1, 41, -1, -1)
    whole = vae.encode(still).mean
    assert torch.allclose(vae.encode(still, group=17).mean, whole, atol=1e-4)
    standing = whole[:, :, :1].expand(-1, -1, 11, -1, -1)
    assert torch.allclose(vae.decode(standing, group=17), vae.decode(standing), atol=1e-4)
    with pytest.raises(ValueError, match="not both"):
        vae.encode(clip, chunk=4, group=17)


def test_variant_4_has_the_published_number_of_parameters():
    with torch.device("meta"):
        vae = CausalVAE(SIZES["published"])

    def millions(*modules):
        return round(sum(each.numel() for module in modules for each in module.parameters()) / 1e6, 2)

    assert millions(vae.encoder, vae.quant_conv) == 94.40
    assert millions(vae.decoder, vae.post_quant_conv) == 144.79
    assert millions(vae) == 239.19


def kernels(vae: CausalVAE, part: str) -> dict[str, int]:
    """Kernel size in time of every 3 x 3 convolution."""
    layers = getattr(vae, part).named_modules()
    return {
        name: layer.kernel_size[0]
        for name, layer in layers
        if isinstance(layer, CausalConv3d) and layer.kernel_size[1] == 3
    }


def test_variants_differ_in_which_convolutions_see_more_than_their_frame():
    with torch.device("meta"):
        vaes = {variant: CausalVAE(sized("published", variant=variant)) for variant in VARIANTS}
    encoders = {variant: kernels(vae, "encoder") for variant, vae in vaes.items()}
    decoders = {variant: kernels(vae, "decoder") for variant, vae in vaes.items()}
    assert set(encoders[1].values()) == {3}
    spatial_only = {"levels.2.resize.conv"}  # the third level from inside: 1 x 3 x 3 in the published model
    assert {name for name, taps in decoders[1].items() if taps == 1} == spatial_only
    pairs = [name for name in encoders[2] if name.endswith((".conv1", ".conv2"))]
    assert all(encoders[2][name] == (3 if name.endswith("1") else 1) for name in pairs)
    outer = ("conv_in", "levels.0.", "levels.1.resnets")
    assert {name for name, taps in encoders[4].items() if taps == 1} == {
        name for name in encoders[4] if name.startswith(outer)
    }
    assert encoders[3] == encoders[4]
    assert decoders[4] == decoders[1]
    outer = ("conv_out", "levels.2.", "levels.3.")  # of the decoder, counted from inside
    assert {name for name, taps in decoders[3].items() if taps == 1} == {
        name for name in decoders[3] if name.startswith(outer)
    }


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_hostile_video_gives_no_nan_in_bf16(norm, bottleneck):
    vae = made(norm=norm, **BOTTLENECKS[bottleneck]).to(torch.bfloat16)
    black, noise = torch.full((1, 3, 5, 8, 8), -1.0), torch.randn(1, 3, 5, 8, 8) * 100
    clips = torch.cat([black, -black, torch.zeros_like(black), noise]).to(torch.bfloat16).requires_grad_()
    back, passed = vae.train()(clips)
    (back.float().square().mean() + passed.loss).backward()
    found = vae.eval().encode(clips)
    tensors = [back, passed.loss, clips.grad, found.mean, vae.decode(found.mean)]
    tensors += [weight.grad for weight in vae.parameters() if weight.grad is not None]
    assert all(torch.isfinite(each).all() for each in tensors)
    assert found.mean.dtype == torch.float32
    assert back.dtype == vae.decode(found.mean).dtype == torch.bfloat16


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_the_gradient_reaches_every_weight_through_each_bottleneck(bottleneck):
    vae, clip = made(**BOTTLENECKS[bottleneck]).train(), video(5, batch=2)
    back, _ = vae(clip)
    (back - clip).abs().mean().backward()
    assert [name for name, weight in vae.named_parameters() if weight.grad is None] == []
    without = [name for name, weight in vae.named_parameters() if not weight.grad.abs().sum() > 0]
    # A key's bias moves all scores of a pixel alike, which softmax does not see.
    assert [name for name in without if not name.endswith("to_k.bias")] == []


@pytest.mark.parametrize("bottleneck", ["vq", "lfq", "fsq"])
def test_tokens_are_the_whole_truth_about_a_clip(bottleneck):
    vae, clip = network(bottleneck=bottleneck), video(9)
    found = vae.encode(clip)
    assert found.logvar is None
    assert found.tokens.shape == (1, 3, 2, 1)
    assert found.tokens.dtype == torch.int64
    assert torch.equal(vae.decode_tokens(found.tokens), vae.decode(found.mean))
    assert torch.equal(vae(clip)[0], vae.decode(found.mean))
    streamed = torch.cat([part.tokens for part in vae.encode_stream(clip.split(2, dim=2))], dim=1)
    assert torch.equal(streamed, found.tokens)
    assert torch.equal(found.sample(), found.mean)


def test_encoding_in_the_midst_of_training_teaches_a_codebook_nothing():
    vae = made(**BOTTLENECKS["vq"]).train()
    before = {name: buffer.clone() for name, buffer in vae.named_buffers()}
    vae.encode(video(5))
    assert all(torch.equal(buffer, before[name]) for name, buffer in vae.named_buffers())
    assert vae.quantizer.training
    vae(video(5))
    assert not torch.equal(vae.quantizer.codebook, before["quantizer.codebook"])


def test_a_gaussian_is_sampled_by_its_moments_and_has_no_tokens():
    vae = network()
    found = vae.encode(video(5))
    found.logvar.fill_(-4.0)
    drawn = torch.stack([found.sample() for _ in range(2000)])
    assert torch.allclose(drawn.mean(0), found.mean, atol=0.03)
    assert abs(drawn.std(0).mean() - torch.tensor(-2.0).exp()) < 0.01
    one, two = (found.sample(torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)
    with pytest.raises(ValueError, match="GaussianKL has no tokens"):
        vae.decode_tokens(torch.zeros(1, 1, 2, 1, dtype=torch.int64))


def test_the_debug_size_learns_a_clip_on_a_cpu_in_seconds():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = CausalVAE(SIZES["debug"]).train()
    row = torch.linspace(-1, 1, 16)
    clip = torch.stack([row.roll(shift).expand(16, 16) * 0.8 for shift in range(5)]).expand(3, 5, 16, 16)[None]
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        back, passed = vae(clip)
        loss = (back - clip).abs().mean() + 1e-6 * passed.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.5 * losses[0]


@pytest.mark.parametrize(
    "clip, message",
    [
        (torch.zeros(1, 3, 5, 20, 16), "a video of 16 x 20: the VAE takes multiples of 8"),
        (torch.zeros(1, 3, 5, 0, 8), "a video of 8 x 0"),
        (torch.zeros(3, 5, 16, 16), "takes \\(B, 3, frames, height, width\\)"),
        (torch.zeros(1, 5, 3, 16, 16), "takes \\(B, 3, frames, height, width\\)"),
        (torch.zeros(1, 3, 5, 16, 16, dtype=torch.uint8), "floats in \\[-1, 1\\]"),
    ],
)
def test_video_of_another_shape_is_refused_by_name(clip, message):
    with pytest.raises(ValueError, match=message):
        network().encode(clip)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(variant=5), "variant 5: there are 1, 2, 3, 4"),
        (dict(multipliers=(1, 2)), "takes three levels"),
        (dict(width=0), "width 0: at least 1"),
        (dict(multipliers=(1, 2, 0)), "multipliers 0"),
        (dict(widht=8), "unknown setting widht: there are variant"),
    ],
)
def test_settings_that_build_nothing_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        sized("debug", **changes)


def test_latents_and_sizes_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match="the VAE takes \\(B, 4, 1 \\+ n, height, width\\)"):
        network().decode(torch.zeros(1, 8, 2, 2, 2))
    with pytest.raises(ValueError, match="unknown VAE size 'huge': published, debug"):
        sized("huge")
    with pytest.raises(ValueError, match="norm 'batch': there are group, rms"):
        CausalVAE(sized("debug", norm="batch"))
    with pytest.raises(ValueError, match="FSQ has 6 levels"):
        CausalVAE(sized("debug", quantizer="fsq"))
    with pytest.raises(ValueError, match="chunks of 0"):
        network().encode(video(5), chunk=0)
