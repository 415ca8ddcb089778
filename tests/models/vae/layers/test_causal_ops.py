"""Causal layers: nothing of the future, an image is a clip of one frame, chunks give what the whole gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.vae.layers.causal_ops import (
    CausalConv3d,
    Downsample,
    FrameAttention,
    FrameGroupNorm,
    Stream,
    Upsample,
    frame_count,
    latent_count,
    make_norm,
)
from models.vae.temporal_tiling import decode_tiled, encode_tiled, spans

SIZE = 8
fast = settings(max_examples=30, deadline=None, derandomize=True)


class Chain(nn.Module):
    """Layers one after another, the stream to those that take one."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x, stream=None):
        for layer in self.layers:
            x = layer(x, stream) if isinstance(layer, CausalConv3d | Downsample | Upsample) else layer(x)
        return x


def encoder(norm: str = "group") -> Chain:
    """4x in time and 8x in space, like the published model, in small."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [CausalConv3d(3, 8, (1, 3, 3)), Downsample(8, time=False, taps=1), make_norm(norm, 8, 4), nn.SiLU()]
        layers += [CausalConv3d(8, 8), Downsample(8, time=True), make_norm(norm, 8, 4), nn.SiLU()]
        layers += [CausalConv3d(8, 8), Downsample(8, time=True), FrameAttention(8, norm), CausalConv3d(8, 4)]
        return Chain(*layers).eval()


def decoder(norm: str = "group") -> Chain:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [CausalConv3d(4, 8), FrameAttention(8, norm), Upsample(8, time=True), make_norm(norm, 8, 4), nn.SiLU()]
        layers += [CausalConv3d(8, 8), Upsample(8, time=True), make_norm(norm, 8, 4), nn.SiLU()]
        layers += [Upsample(8, time=False, taps=1), CausalConv3d(8, 3)]
        return Chain(*layers).eval()


ENCODERS = {norm: encoder(norm) for norm in ("group", "rms")}
DECODERS = {norm: decoder(norm) for norm in ("group", "rms")}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(3)
        yield


def video(frames: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, frames, SIZE, SIZE)


@fast
@given(norm=st.sampled_from(("group", "rms")), latents=st.integers(1, 6), changed=st.integers(0, 20), data=st.data())
def test_nothing_of_the_future_reaches_a_latent(norm, latents, changed, data):
    frames = frame_count(latents)
    start = data.draw(st.integers(1, frames))
    clip = video(frames)
    other = clip.clone()
    other[:, :, start:] = 5 * torch.randn_like(other[:, :, start:]) + changed
    one, two = ENCODERS[norm](clip), ENCODERS[norm](other)
    clean = 1 + (start - 1) // 4  # latents whose frames all lie before the change
    assert torch.equal(one[:, :, :clean], two[:, :, :clean])
    if start < frames:
        assert not torch.equal(one, two)


@fast
@given(norm=st.sampled_from(("group", "rms")), latents=st.integers(1, 6), data=st.data())
def test_nothing_of_the_future_reaches_a_decoded_frame(norm, latents, data):
    code = torch.randn(1, 4, latents, 2, 2)
    start = data.draw(st.integers(1, latents))
    other = code.clone()
    other[:, :, start:] += 3.0
    one, two = DECODERS[norm](code), DECODERS[norm](other)
    assert torch.equal(one[:, :, : frame_count(start)], two[:, :, : frame_count(start)])


@pytest.mark.parametrize("norm", ENCODERS)
def test_the_first_latent_is_that_of_the_first_frame_as_an_image(norm):
    clip = video(13)
    image = ENCODERS[norm](clip[:, :, :1])
    assert image.shape[2] == 1
    assert torch.allclose(ENCODERS[norm](clip)[:, :, :1], image, atol=1e-5)


@pytest.mark.parametrize("how", ["tail", "average"])
def test_a_network_started_from_2d_kernels_sees_images_as_the_2d_network_does(how):
    """With the tail, latent i is also the 2D latent of frame 4i; the average knows only clips that stand still."""
    net, flat = Chain(Downsample(3, True), nn.SiLU(), Downsample(3, True), CausalConv3d(3, 4)), []
    for layer in (net.layers[0].conv, net.layers[2].conv, net.layers[3]):
        flat.append((torch.randn(layer.out_channels, 3, 3, 3), torch.randn(layer.out_channels)))
        layer.load_2d_kernel(*flat[-1], how)

    def in_2d(image):  # halving as the 2D Stable Diffusion VAE does it: zeros below and to the right
        x = F.silu(F.conv2d(F.pad(image, (0, 1, 0, 1)), *flat[0], stride=2))
        x = F.conv2d(F.pad(x, (0, 1, 0, 1)), *flat[1], stride=2)
        return F.conv2d(x, *flat[2], padding=1)

    clip = video(13)
    still = clip[:, :, :1].expand(-1, -1, 13, -1, -1)
    assert torch.allclose(net(still)[:, :, 3], in_2d(clip[:, :, 0]), atol=1e-4)
    if how == "tail":
        expected = torch.stack([in_2d(clip[:, :, 4 * latent]) for latent in range(4)], dim=2)
        assert torch.allclose(net(clip), expected, atol=1e-4)


@pytest.mark.parametrize("n", range(9))
def test_one_plus_4n_frames_give_one_plus_n_latents_and_come_back(n):
    code = ENCODERS["group"](video(1 + 4 * n))
    assert code.shape == (1, 4, 1 + n, 1, 1)
    assert latent_count(1 + 4 * n) == 1 + n
    assert frame_count(1 + n) == DECODERS["group"](code).shape[2] == 1 + 4 * n


def test_any_other_number_of_frames_is_refused():
    for frames in (2, 3, 4, 6, 8, 80):
        with pytest.raises(ValueError, match=f"a clip of {frames} frames: the VAE takes 1 "):
            latent_count(frames)
    with pytest.raises(ValueError, match="5 or 9 would do"):
        latent_count(8)
    for nothing in (0, -3):
        with pytest.raises(ValueError, match="1 would do"):
            latent_count(nothing)
        with pytest.raises(ValueError, match="has one at least"):
            frame_count(nothing)


chunks = st.lists(st.integers(1, 7), min_size=1, max_size=8)


@fast
@given(norm=st.sampled_from(("group", "rms")), sizes=chunks, batch=st.integers(1, 2))
def test_encoding_in_chunks_of_any_length_gives_what_the_whole_clip_gives(norm, sizes, batch):
    sizes = [*sizes, -(sum(sizes) - 1) % 4]  # 1 + 4n frames in all
    clip = video(sum(sizes), batch)
    stream = Stream()
    parts = [ENCODERS[norm](part, stream) for part in clip.split(sizes, dim=2)]
    whole = ENCODERS[norm](clip)
    assert torch.allclose(torch.cat(parts, dim=2), whole, atol=1e-5)
    assert all(part.shape[3:] == whole.shape[3:] for part in parts)


@fast
@given(norm=st.sampled_from(("group", "rms")), sizes=chunks)
def test_decoding_in_chunks_of_any_length_gives_what_the_whole_clip_gives(norm, sizes):
    code = torch.randn(2, 4, sum(sizes), 2, 2)
    stream = Stream()
    parts = [DECODERS[norm](part, stream) for part in code.split(sizes, dim=2)]
    assert torch.allclose(torch.cat(parts, dim=2), DECODERS[norm](code), atol=1e-5)


def test_a_stream_keeps_the_same_few_frames_however_long_the_clip():
    stream, kept = Stream(), []
    ENCODERS["group"](video(1), stream)
    for _ in range(10):
        ENCODERS["group"](video(4), stream)
        kept.append(stream.frames)
    assert len(set(kept)) == 1
    assert kept[0] <= 2 * 5  # two frames for each convolution that looks back


@pytest.mark.parametrize("kernel, stride, after", [(3, 1, False), ((3, 3, 3), (2, 2, 2), True), ((1, 3, 3), 1, False)])
def test_a_convolution_is_that_of_torch_with_the_first_frame_repeated(kernel, stride, after):
    layer = CausalConv3d(3, 5, kernel, stride, "after" if after else "around")
    clip = video(9, batch=2)
    back = layer.kernel_size[0] - 1
    padded = torch.cat([clip[:, :, :1].repeat(1, 1, back, 1, 1), clip], dim=2)
    padded = F.pad(padded, (0, 1, 0, 1, 0, 0) if after else (1, 1, 1, 1, 0, 0))
    assert torch.allclose(layer(clip), F.conv3d(padded, layer.weight, layer.bias, layer.stride), atol=1e-5)


def test_doubling_in_time_leaves_the_first_frame_single():
    layer = Upsample(2, time=True, taps=1)
    layer.conv.weight.zero_()
    layer.conv.weight[:, :, 0, 1, 1] = torch.eye(2)
    layer.conv.bias.zero_()
    frames = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 2, 4, 3, 3)
    doubled = layer(frames)
    assert doubled.shape == (1, 2, 7, 6, 6)
    assert doubled[0, 0, :, 2, 2].tolist() == [0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("kind", ["group", "rms"])
def test_norms_and_attention_treat_every_frame_as_if_it_were_alone(kind):
    clip = torch.randn(2, 8, 5, 4, 4) * torch.arange(1, 6).view(1, 1, 5, 1, 1)  # frames of unlike spread
    for layer in (make_norm(kind, 8, 4), FrameAttention(8, kind)):
        for parameter in layer.parameters():
            parameter.normal_()
        alone = torch.cat([layer(frame) for frame in clip.split(1, dim=2)], dim=2)
        assert torch.allclose(layer(clip), alone, atol=1e-4)


def test_the_group_norm_of_a_frame_is_that_of_torch():
    layer, image = FrameGroupNorm(4, 8), torch.randn(2, 8, 5, 5)
    expected = F.group_norm(image, 4, layer.weight, layer.bias)
    assert torch.allclose(layer(image[:, :, None])[:, :, 0], expected, atol=1e-6)
    assert make_norm("group", 12, 32).num_groups == 12
    assert make_norm("group", 48, 32).num_groups == 24


@pytest.mark.parametrize("shape", [(2, 8, 5, 6, 4), (1, 32, 1, 1, 1), (1, 64, 2, 16, 16)])
def test_the_group_norm_for_gpus_is_that_of_torch_with_the_same_gradients(shape):
    with torch.inference_mode(False), torch.enable_grad():
        layer = FrameGroupNorm(4, shape[1], eps=1e-6)
        clip = (torch.randn(shape) * 3 + 1).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        slope, found = torch.randn(shape), []
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
        for way in (layer.forward, layer.in_channels_last):
            out = way(clip)
            assert out.is_contiguous(memory_format=torch.channels_last_3d)
            found.append((out, *torch.autograd.grad((out * slope).sum(), (clip, *layer.parameters()))))
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-6 * max(1, one.abs().max())


def test_the_group_norm_for_gpus_keeps_bf16_and_measures_it_in_float32():
    layer = FrameGroupNorm(4, 16, eps=1e-6).to(torch.bfloat16)
    clip = (torch.randn(2, 16, 3, 32, 32) + 3).to(torch.bfloat16).contiguous(memory_format=torch.channels_last_3d)
    found, exact = layer.in_channels_last(clip), layer.float()(clip.float())
    assert found.dtype == torch.bfloat16 and found.is_contiguous(memory_format=torch.channels_last_3d)
    assert (found - exact).abs().max() <= 2**-8 * exact.abs().max()


def test_the_attention_of_a_frame_is_the_textbook_one():
    layer, x = FrameAttention(8), torch.randn(1, 8, 3, 4, 4)
    for frame in range(3):
        tokens = layer.norm(x)[0, :, frame].flatten(1).T  # (pixels, C)
        weights = (layer.to_q(tokens) @ layer.to_k(tokens).T / 8**0.5).softmax(dim=1)
        expected = x[0, :, frame] + layer.to_out(weights @ layer.to_v(tokens)).T.view(8, 4, 4)
        assert torch.allclose(layer(x)[0, :, frame], expected, atol=1e-5)


def test_activations_stay_in_channels_last():
    x = video(5, batch=2).contiguous(memory_format=torch.channels_last_3d)
    for layer in ENCODERS["group"].layers:
        x = layer(x)
        assert x.is_contiguous(memory_format=torch.channels_last_3d), type(layer)


@pytest.mark.parametrize("frames", [1, 5, 33, 37, 65, 97])
def test_tiles_of_a_network_without_memory_join_to_the_whole(frames):
    """Every fourth frame, and back by repetition: what tiling drops and joins is then seen without the loss."""

    def encode(clip):
        latent_count(clip.shape[2])
        return clip[:, :, ::4]

    def decode(code):
        return torch.cat([code[:, :, :1], code[:, :, 1:].repeat_interleave(4, dim=2)], dim=2)

    clip = video(frames)
    code = encode_tiled(encode, clip)
    assert torch.equal(code, encode(clip))
    assert torch.equal(decode_tiled(decode, code), decode(code))


def test_tiles_share_one_frame_and_each_but_the_last_is_full():
    assert spans(97, 33) == [(0, 33), (32, 65), (64, 97)]
    assert spans(37, 33) == [(0, 33), (32, 37)]
    assert spans(1, 33) == [(0, 1)]
    code = encode_tiled(ENCODERS["group"], video(41), group=17)
    assert code.shape[2] == 11
    assert decode_tiled(DECODERS["group"], code, group=17).shape[2] == 41
    with pytest.raises(ValueError, match="a clip of 40 frames"):
        encode_tiled(ENCODERS["group"], video(40))
    for wrong in (1, 8):
        with pytest.raises(ValueError):
            encode_tiled(ENCODERS["group"], video(41), group=wrong)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="leaves out frames"):
        CausalConv3d(3, 3, (1, 3, 3), (2, 1, 1))
    with pytest.raises(ValueError, match=r"a 2D kernel of \(3, 3, 1, 1\) does not fit"):
        CausalConv3d(3, 3).load_2d_kernel(torch.zeros(3, 3, 1, 1), None)
    with pytest.raises(ValueError, match="unknown initialisation 'centre'"):
        CausalConv3d(3, 3).load_2d_kernel(torch.zeros(3, 3, 3, 3), None, "centre")
    with pytest.raises(ValueError, match="unknown norm 'batch'"):
        make_norm("batch", 8)
